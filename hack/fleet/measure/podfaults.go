package measure

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/pods"
	"metrics-server/hack/fleet/truth"
)

// PodFaultsReport is the result of PodFaults.
type PodFaultsReport struct {
	// Errors has the answer for each fault whose pods have no value, by the name of the fault; it is
	// empty if there is a value.
	Errors               map[string]string
	Verdict              truth.Verdict
	AgeBefore, AgeDuring time.Duration // p99 of the age of values of healthy pods, before and during the faults
	Before, After        Holding       // after: all pods that had a fault were replaced
}

// growths returns how much each quantity may grow.
func (r *PodFaultsReport) growths() []growth {
	return growths(&r.Before, &r.After, r.Before.Samples*11/10)
}

// Leaks returns what the server holds after the faults but did not hold before.
func (r *PodFaultsReport) Leaks() []string { return leaks(r.growths()) }

// faultyFor is how long the pods have their faults: longer than their last values are held, which is a minute.
const faultyFor = 80 * time.Second

// victim is a pod that gets a fault.
type victim struct {
	*cluster.Pod
	of    *workload
	fault string
}

// PodFaults starts the custom metrics server with an HPA for each of pods.Faults, which all its
// pods get, and as many HPAs with two faulty pods of fourteen. The faults begin when everything is
// served; later they end, and the faulty pods are replaced. All HPAs are requested all the time.
func PodFaults(ctx context.Context, program string, progress io.Writer) (*PodFaultsReport, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := newHPARun(HPAOptions{Binary: program, HPAs: 2*len(pods.Faults) + 1, Pods: 14}, progress)
	if err != nil {
		return nil, err
	}
	defer r.end()
	if err := r.take(ctx, r.setUp, r.untilServed); err != nil {
		return nil, err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { r.watch(ctx) })
	report := &PodFaultsReport{Errors: map[string]string{}}
	if err := r.podFaults(ctx, report); err != nil {
		return nil, fmt.Errorf("%w\n%s", r.server.Failure(err), r.server.Tail())
	}
	report.Verdict = r.truth.Verdict()
	return report, nil
}

// watch requests all HPAs every two seconds until ctx or the server ends.
func (r *hpaRun) watch(ctx context.Context) {
	c := binary.NewClient(r.server.URL)
	defer c.Close()
	for wait(ctx, 2*time.Second) == nil {
		for _, w := range r.workloads {
			if _, err := r.ask(ctx, c, w); err != nil {
				return
			}
		}
	}
}

func (r *hpaRun) podFaults(ctx context.Context, report *PodFaultsReport) error {
	c := binary.NewClient(r.server.URL)
	defer c.Close()
	if err := wait(ctx, 3*podInterval); err != nil { // until all pods have as many samples as are kept
		return err
	}
	age := func() time.Duration { return durations(r.truth.Ages()).quantile(0.99) }
	report.AgeBefore = age()
	var err error
	if report.Before, _, err = holds(ctx, r.server, c); err != nil {
		return err
	}

	r.say("faults for %v", faultyFor)
	victims := r.victims()
	if err := r.setFaults(victims, true); err != nil {
		return err
	}
	if err := wait(ctx, faultyFor); err != nil {
		return err
	}
	report.AgeDuring = age()
	for i, f := range pods.Faults {
		answer, err := c.Get(ctx, binary.Request{Path: r.workloads[i].path(), Accept: binary.JSON})
		if report.Errors[f.Name] = ""; err != nil {
			report.Errors[f.Name] = string(answer)
		}
	}

	r.say("the faults end")
	if err := r.setFaults(victims, false); err != nil {
		return err
	}
	if err := wait(ctx, 4*podInterval); err != nil {
		return err
	}
	r.say("%d pods that had a fault are replaced", len(victims))
	for _, v := range victims {
		if _, err := r.replace(v.of, v.Pod); err != nil {
			return err
		}
	}
	if err := wait(ctx, 3*podInterval); err != nil {
		return err
	}
	for begin := time.Now(); ; {
		if report.After, _, err = holds(ctx, r.server, c); err != nil {
			return err
		}
		if len(report.Leaks()) == 0 || time.Since(begin) > time.Minute {
			return nil
		}
		if err := wait(ctx, 5*time.Second); err != nil {
			return err
		}
	}
}

// victims returns all pods of the first workloads, and two pods of each of the others.
func (r *hpaRun) victims() []victim {
	var all []victim
	n := len(pods.Faults)
	for i, w := range r.workloads {
		for j, p := range r.present(w) {
			switch {
			case i < n:
				all = append(all, victim{p, w, pods.Faults[i].Name})
			case j < 2:
				all = append(all, victim{p, w, pods.Faults[(2*(i-n)+j)%n].Name})
			}
		}
	}
	return all
}

// setFaults gives all victims their faults, or takes them away.
func (r *hpaRun) setFaults(all []victim, faulty bool) error {
	for _, v := range all {
		fault := ""
		if faulty {
			fault = v.fault
		}
		now := time.Now()
		s, _ := r.truth.Spec(v.Namespace, v.Name)
		s = s.With(fault, now)
		r.truth.Set(v.Pod, v.of.kind, s, now)
		if err := r.pods.Add(s); err != nil {
			return err
		}
	}
	return nil
}
