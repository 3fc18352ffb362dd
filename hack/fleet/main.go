// Command fleet simulates a large Kubernetes cluster on this machine and measures a metrics server with it: any binary
// that takes the flags of metrics-server, or the custom metrics server. README.md says how, and what is simulated.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/measure"
	"metrics-server/hack/fleet/network"
	"metrics-server/hack/fleet/pods"
)

func main() {
	if err := start(); errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "fleet: interrupted")
		os.Exit(1)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// start does what the arguments say: child processes run this same program.
func start() error {
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == kubelets.Argument:
		return kubelets.Main(os.Stdin, os.Stdout)
	case len(args) == 1 && args[0] == pods.Argument:
		return pods.Main(os.Stdin, os.Stdout)
	case len(args) == 2 && args[0] == measure.YardstickArgument:
		return measure.YardstickMain(os.Stdin, os.Stdout, args[1])
	}
	return run()
}

// size is the size of a cluster.
type size struct{ nodes, pods int }

// interruptible returns a context that ends with Ctrl-C.
func interruptible() (ctx context.Context, stop context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

func parseSizes(text string) ([]size, error) {
	const most = 1 << 20 // addresses of nodes from 127.16.0.0 on, or HPAs
	var all []size
	for s := range strings.SplitSeq(text, ",") {
		var one size
		_, err := fmt.Sscanf(s, "%dx%d", &one.nodes, &one.pods)
		if err != nil || fmt.Sprintf("%dx%d", one.nodes, one.pods) != s || one.nodes < 1 || one.nodes >= most ||
			one.pods < 1 {
			return nil, fmt.Errorf("%q is not a size: use nodes x pods per node, such as 1000x30", s)
		}
		all = append(all, one)
	}
	return all, nil
}

func run() error {
	var o measure.Options
	flag.StringVar(&o.Binary, "binary", "../../bin/metrics-server", "the metrics server to measure")
	flags := flag.String("flags", "", "additional flags for the metrics server, separated by blanks")
	clusters := flag.String("size", "100x70",
		"nodes x pods per node; several sizes are measured one after another: 100x70,1000x30")
	flag.IntVar(&o.Containers, "containers", 2, "containers per pod")
	flag.DurationVar(&o.Resolution, "resolution", 15*time.Second, "the metric resolution")
	flag.DurationVar(&o.For, "for", 2*time.Minute,
		"how long to measure; no requests are made in the first half; start and requests come on top")
	flag.Float64Var(&o.Churn, "churn", 0, "restarts, deletions and starts of pods per second, once all pods are served")
	flag.IntVar(&o.Faulty, "faulty", 0, "percent of nodes whose kubelets hang, answer slowly, with status 500, or "+
		"only half")
	flag.IntVar(&o.Watches, "watches", 0, "also measure with so many watches")
	flag.StringVar(&o.Profiles, "profile", "",
		"save profiles of the metrics server to this `directory`; it must serve /debug/pprof")
	soak := flag.Bool("soak", false,
		"do not measure, but inject faults and churn for the time of -for, and check that answers stay right and "+
			"memory does not grow")
	hpas := flag.String("hpas", "",
		"measure metrics-server custom-metrics instead, with so many HPAs and pods of each: 1000x50")
	fault := flag.String("fault", "", "what the faulty pods of -hpas do, such as hang; default: each kind by turns")
	prometheus := flag.String("prometheus", "", "with -hpas, also measure this Prometheus `program` on the same pods")
	out := flag.String("json", "", "also write the results to this `file`, as JSON")
	flag.Parse()
	o.Flags = strings.Fields(*flags)
	binary, err := find(o.Binary)
	if err != nil {
		return err
	}
	o.Binary = binary
	if o.Watches != 0 && (*soak || *hpas != "") {
		return errors.New("-watches cannot be combined with -soak or -hpas")
	}
	if *hpas != "" {
		return runHPAs(*hpas, *fault, *prometheus, *out, &o)
	}
	if *fault != "" || *prometheus != "" {
		return errors.New("-fault and -prometheus are for -hpas")
	}
	ctx, stop := interruptible()
	defer stop()
	sizes, err := parseSizes(*clusters)
	if err != nil {
		return fmt.Errorf("-size: %w", err)
	}
	if err := check(&o); err != nil {
		return err
	}
	if *soak && (o.Churn == 0 || *out != "" || o.Profiles != "") {
		return errors.New("-soak requires -churn and cannot be combined with -json or -profile")
	}
	var reports []*measure.Report
	ok := true
	for _, s := range sizes {
		o.Nodes, o.Pods = s.nodes, s.pods
		if *soak {
			right, err := soaked(ctx, o)
			if err != nil {
				return err
			}
			ok = ok && right
			continue
		}
		r, err := measure.Run(ctx, o, os.Stderr)
		if err != nil {
			return err
		}
		if err := r.WriteTable(os.Stdout); err != nil {
			return err
		}
		reports = append(reports, r)
		ok = ok && r.OK()
		if err := save(*out, reports); err != nil {
			return err
		}
	}
	if !ok {
		return errors.New("the metrics server was not ready in time, served missing or wrong numbers, or leaked: see above")
	}
	return nil
}

// soaked runs one soak and writes its report.
func soaked(ctx context.Context, o measure.Options) (ok bool, err error) {
	r, err := measure.Soak(ctx, o, os.Stderr)
	if err != nil {
		return false, err
	}
	return r.OK(), errors.Join(r.Write(os.Stdout), ctx.Err())
}

// runHPAs measures the custom metrics server, in a separate network.
func runHPAs(text, fault, prometheus, out string, o *measure.Options) error {
	sizes, err := parseSizes(text)
	if err != nil {
		return fmt.Errorf("-hpas: %w", err)
	}
	if !slices.ContainsFunc(pods.Faults, func(f pods.Fault) bool { return fault == "" || f.Name == fault }) {
		return fmt.Errorf("-fault: %q is not a fault of a pod", fault)
	}
	if err := check(o); err != nil {
		return err
	}
	if prometheus != "" {
		if o.Churn > 0 {
			return errors.New("-prometheus cannot be combined with -churn: Prometheus would scrape pods that are gone")
		}
		if prometheus, err = exec.LookPath(prometheus); err != nil {
			return fmt.Errorf("%w: build it as README.md says", err)
		}
		if prometheus, err = filepath.Abs(prometheus); err != nil {
			return err
		}
	}
	if !network.Inside() {
		code, err := network.Run(os.Args[1:]...)
		if err == nil && code != 0 {
			os.Exit(code) // the child has printed the error
		}
		return err
	}
	if err := network.SetUp(); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	var reports []*measure.HPAReport
	ok := true
	for _, s := range sizes {
		r, err := measure.RunHPAs(ctx, measure.HPAOptions{
			Binary: o.Binary, Flags: o.Flags, HPAs: s.nodes, Pods: s.pods, For: o.For, Churn: o.Churn, Faulty: o.Faulty,
			Fault: fault, Prometheus: prometheus, Profiles: o.Profiles,
		}, os.Stderr)
		if err != nil {
			return err
		}
		if err := r.WriteTable(os.Stdout); err != nil {
			return err
		}
		reports = append(reports, r)
		ok = ok && r.OK()
		if err := save(out, reports); err != nil {
			return err
		}
	}
	if !ok {
		return errors.New("the custom metrics server served missing or wrong values: see above")
	}
	return nil
}

// save writes the reports to a file, if it has a name.
func save[T any](file string, reports []T) error {
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(reports, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// find returns the absolute path of a program.
func find(binary string) (string, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return "", fmt.Errorf("%w: build it with `make build`", err)
	}
	return filepath.Abs(path)
}

// check returns all errors in o.
func check(o *measure.Options) error {
	var errs []error
	must := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	must(o.Containers > 0, "-containers must be at least 1")
	must(o.Resolution >= time.Second, "-resolution must be at least 1s")
	must(o.For > 0, "-for must be positive")
	must(o.Churn >= 0, "-churn must not be negative")
	must(o.Watches >= 0, "-watches must not be negative")
	must(o.Faulty >= 0 && o.Faulty < 100, "-faulty must be from 0 to 99 percent")
	return errors.Join(errs...)
}
