// Command fakecluster serves a fake cluster in which usage changes and autoscalers scale, to look at the page of
// `metrics-server ui` without a real cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"metrics-server/hack/ui/apiserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fakecluster:", err)
		os.Exit(1) //nolint:gocritic // the signals need no undoing
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	c := apiserver.Config{Autoscale: true}
	flags := flag.NewFlagSet("fakecluster", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.IntVar(&c.Nodes, "nodes", 20, "number of nodes")
	flags.IntVar(&c.PodsPerNode, "pods-per-node", 30, "pods on each node")
	flags.IntVar(&c.HPAs, "hpas", 8, "number of HorizontalPodAutoscalers")
	flags.BoolVar(&c.Incumbent, "incumbent", false, "serve metrics.k8s.io as kubernetes-sigs/metrics-server does: "+
		"v1beta1 only, without watches")
	flags.DurationVar(&c.History, "history", 0, "how far back the history of metrics.k8s.io reaches; 0: no history")
	flags.DurationVar(&c.Period, "period", 0, "time between scrapes of a node; 0: 15 s")
	flags.StringVar(&c.Address, "address", "127.0.0.1:0", "address to serve on")
	file := flags.String("kubeconfig", "", "file to write the kubeconfig to; default: a temporary file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, err := apiserver.Start(c)
	if err != nil {
		return err
	}
	defer s.Close()
	if *file == "" {
		f, err := os.CreateTemp("", "fakecluster-*.kubeconfig")
		if err != nil {
			return err
		}
		*file = f.Name()
		defer os.Remove(f.Name())
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(*file, s.Kubeconfig(), 0o600); err != nil {
		return err
	}
	fmt.Fprintf(out, `The fake cluster serves at %[1]s until you press Ctrl-C. In another terminal:
  bin/metrics-server ui --kubeconfig %[2]s
  kubectl --kubeconfig %[2]s top nodes
`, s.URL(), *file)
	<-ctx.Done()
	return nil
}
