// Command fleet simulates a large Kubernetes cluster on loopback and measures a metrics server with it: any binary
// that takes the flags of metrics-server. README.md says how, and what is simulated.
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
	"strings"
	"syscall"
	"time"

	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/measure"
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

// start does what the arguments say: this program is also the processes that it starts.
func start() error {
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == kubelets.Argument:
		return kubelets.Main(os.Stdin, os.Stdout)
	case len(args) == 2 && args[0] == measure.YardstickArgument:
		return measure.YardstickMain(os.Stdin, os.Stdout, args[1])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx)
}

// size is nodes x pods.
type size struct{ nodes, pods int }

func parseSizes(text string) ([]size, error) {
	var all []size
	for s := range strings.SplitSeq(text, ",") {
		var one size
		if _, err := fmt.Sscanf(s, "%dx%d", &one.nodes, &one.pods); err != nil || fmt.Sprintf("%dx%d", one.nodes, one.pods) != s || one.nodes < 1 || one.pods < 1 {
			return nil, fmt.Errorf("%q is not a size: give nodes and pods of each, as in 1000x30", s)
		}
		all = append(all, one)
	}
	return all, nil
}

func run(ctx context.Context) error {
	var o measure.Options
	flag.StringVar(&o.Binary, "binary", "../../bin/metrics-server", "the metrics server to measure")
	flags := flag.String("flags", "", "more flags for it, separated by blanks")
	flag.IntVar(&o.Nodes, "nodes", 100, "number of nodes")
	flag.IntVar(&o.Pods, "pods", 70, "pods of each node")
	flag.IntVar(&o.Containers, "containers", 2, "containers of each pod")
	one := flag.String("size", "", "nodes and pods in short: 1000x30")
	several := flag.String("sizes", "", "several sizes, one after another: 100x70,1000x30")
	flag.DurationVar(&o.Resolution, "resolution", 15*time.Second, "the metric resolution")
	flag.DurationVar(&o.For, "for", 2*time.Minute, "how long to measure: half of it nothing is asked; start and requests come on top")
	flag.Float64Var(&o.Churn, "churn", 0, "restarts, deletions and starts of pods a second, as from the moment that all are served")
	flag.IntVar(&o.Faulty, "faulty", 0, "percent of the nodes whose kubelets hang, drip, answer 500 or half")
	flag.IntVar(&o.HTTP2, "http2", 0, "percent of the nodes whose kubelets speak HTTP/2")
	flag.BoolVar(&o.RequestTime, "request-time", false, "kubelets sample when they are asked, not on clocks of their own")
	flag.StringVar(&o.Profiles, "profile", "", "save profiles of the binary in this `directory`; it must serve /debug/pprof")
	soak := flag.Bool("soak", false, "no figures: nodes fail by turns, pods and nodes come and go for the time of -for, and the binary must stay right and not grow")
	out := flag.String("json", "", "write what was measured to this `file`, too")
	flag.Parse()
	o.Flags = strings.Fields(*flags)
	binary, err := find(o.Binary)
	if err != nil {
		return err
	}
	o.Binary = binary
	sizes, err := sizesOf(*one, *several, size{o.Nodes, o.Pods})
	if err != nil {
		return err
	}
	if err := check(&o); err != nil {
		return err
	}
	if *soak && (o.Churn == 0 || *out != "" || o.Profiles != "") {
		return errors.New("-soak needs -churn, and has neither -json nor -profile")
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
		return errors.New("the binary did not become ready, or not all was served, or not all that was served is true, or it grew: see above")
	}
	return nil
}

// soaked runs one soak, and writes what it found.
func soaked(ctx context.Context, o measure.Options) (ok bool, err error) {
	r, err := measure.Soak(ctx, o, os.Stderr)
	if err != nil {
		return false, err
	}
	return r.OK(), errors.Join(r.Write(os.Stdout), ctx.Err())
}

// save writes the reports to a file, if it has a name.
func save(file string, reports []*measure.Report) error {
	if file == "" {
		return nil
	}
	b, err := json.MarshalIndent(reports, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func sizesOf(one, several string, given size) ([]size, error) {
	switch {
	case one != "" && several != "":
		return nil, errors.New("give -size or -sizes, not both")
	case one != "":
		return parseSizes(one)
	case several != "":
		return parseSizes(several)
	}
	return []size{given}, nil
}

// find returns the absolute path of a program.
func find(binary string) (string, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return "", fmt.Errorf("%w: `make build` makes ours", err)
	}
	return filepath.Abs(path)
}

// check returns everything that is wrong with o.
func check(o *measure.Options) error {
	var errs []error
	must := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	const most = 1 << 20 // addresses from 127.16.0.0 on
	must(o.Nodes > 0 && o.Nodes < most, "-nodes must be between 1 and a million")
	must(o.Pods > 0, "-pods must be at least 1")
	must(o.Containers > 0, "-containers must be at least 1")
	must(o.Resolution >= time.Second, "-resolution must be at least 1s")
	must(o.For > 0, "-for must be positive")
	must(o.Churn >= 0, "-churn must not be negative")
	must(o.Faulty >= 0 && o.Faulty < 100, "-faulty must be from 0 to 99 percent")
	must(o.HTTP2 >= 0 && o.HTTP2 <= 100, "-http2 must be from 0 to 100 percent")
	return errors.Join(errs...)
}
