package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/proc"
)

// untilServed waits until all pods are served, and records when the binary became ready.
func (r *run) untilServed(ctx context.Context) error {
	start := time.Now()
	before, err := r.read()
	if err != nil {
		return err
	}
	limit := 2*time.Minute + 5*r.Resolution + time.Duration(r.Nodes)*10*time.Millisecond
	s := &r.report.Start
	want := r.expected()
	var looked time.Time
	for s.All == 0 || s.Ready == 0 {
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		if err := r.server.Failure(nil); err != nil {
			return err
		}
		if s.Ready == 0 {
			if _, err := r.client.Get(ctx, binary.Request{Path: "/readyz"}); err == nil {
				s.Ready = seconds(time.Since(start))
				r.say("/readyz is ok")
			}
		}
		// It is asked rarely enough not to be kept busy by that.
		if s.All == 0 && time.Since(looked) > time.Second {
			looked = time.Now()
			served := 0
			for _, ns := range r.samples {
				list, err := r.namespace(ctx, ns)
				if err != nil {
					break // not ready yet
				}
				served += len(list.Items)
			}
			now := seconds(time.Since(start))
			if s.Half == 0 && 2*served >= want {
				s.Half = now
			}
			if served >= want {
				s.All = now
				r.say("all pods of a sample of %d are served", want)
			}
		}
		if time.Since(start) > limit {
			r.say("not ready, or not all pods are served, after %v", limit)
			break
		}
	}
	after, err := r.read()
	if err != nil {
		return err
	}
	w := after.since(before)
	s.CPU, s.FleetCPU = seconds(w.server), seconds(w.fleet)
	m, err := proc.MemoryOf(r.server.PID())
	s.Peak = m.Peak
	if err == nil && r.Churn > 0 {
		r.liveOrFail(func(ctx context.Context) error { return r.cluster.Churn(ctx, r.Churn, r.setPods) })
	}
	return err
}

// expected returns how many pods of the sample are on working nodes.
func (r *run) expected() int {
	n := 0
	for _, ns := range r.samples {
		pods, _ := r.cluster.Pods(ns)
		for _, p := range pods {
			if !p.Machine.Faulty {
				n++
			}
		}
	}
	return n
}

// namespace lists the pods of a namespace.
func (r *run) namespace(ctx context.Context, name string) (*metricsv1beta1.PodMetricsList, error) {
	b, err := r.client.Get(ctx, binary.Request{Path: binary.Group + "/namespaces/" + name + "/pods", Accept: binary.JSON})
	if err != nil {
		return nil, err
	}
	list := &metricsv1beta1.PodMetricsList{}
	if err := json.Unmarshal(b, list); err != nil {
		return nil, fmt.Errorf("list of %s: %w", name, err)
	}
	return list, nil
}

func seconds(d time.Duration) float64 { return d.Seconds() }
