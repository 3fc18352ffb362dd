// Command cluster runs a Kubernetes cluster for development on one machine: a real control plane and,
// on a Linux machine as root, a real containerd and a real kubelet in namespaces of their own. Elsewhere the
// same control plane runs on loopback with simulated kubelets. Everything is built from the Go
// module proxy; nothing of the host's network, services or kubeconfig is touched. One run at a time
// changes a cluster: a file lock sees to that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

const help = `usage: go run . COMMAND [flags]

  assets   build etcd and the Kubernetes programs that are missing, print their directory
  up       start the cluster (does nothing if it runs)
  demo     up, then the metrics-server of this repository with workloads of known usage
  down     end the cluster and remove what belongs to it
  node     add, stop, start, freeze, thaw, kill or delete a node
  load     give image archives to the nodes: go run . load dist/metrics-server-image.tar
  kubectl  run kubectl against the cluster: go run . kubectl top nodes
  logs     show the end of a component's log: go run . logs kubelet
  status   say whether the cluster runs

"go run . COMMAND -h" lists the flags of COMMAND.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, help)
		os.Exit(2)
	}
	// SIGHUP too: a closed terminal must leave as little behind as a Ctrl-C.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A closed pipe, as of "| head", must not end this half-way either.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	err := run(ctx, os.Args[1], os.Args[2:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to release
	}
}

func run(ctx context.Context, command string, args []string) error {
	var c cluster
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.StringVar(&c.cache, "cache", defaultCache(), "directory of the built programs; also $METRICS_SERVER_DEV_DIR")
	flags.StringVar(&c.dir, "state", "", "directory of the running cluster (default CACHE/cluster)")

	switch command {
	case "assets":
		controlPlaneOnly := flags.Bool("control-plane-only", false,
			"only what simulated kubelets need: etcd, kube-apiserver, kube-controller-manager, kubectl")
		only := flags.String("only", "", "only these programs, separated by commas")
		c.options.addVersionTo(flags)
		if err := c.parse(flags, args); err != nil {
			return err
		}
		want := slices.Concat(controlPlane, nodePrograms)
		if *controlPlaneOnly {
			want = controlPlane
		}
		if *only != "" {
			var err error
			if want, err = assetsNamed(*only); err != nil {
				return err
			}
		}
		dir, err := c.buildAssets(ctx, want)
		if err == nil {
			fmt.Println(dir)
		}
		return err
	case "up", "demo":
		flags.BoolVar(&c.simulated, "simulated", false, "simulate the kubelets, even where a real one could run")
		flags.BoolVar(&c.real, "real", false, "fail where a real kubelet cannot run, instead of simulating")
		flags.BoolVar(&c.keep, "keep", false, "leave a cluster that failed to start as it is, to look at it")
		if command == "demo" {
			flags.BoolVar(&c.preferKind, "kind", false, "run the cluster on kind where that is quicker: a Docker engine "+
				"answers, a node image is there or can be pulled, and the programs of Kubernetes are not built yet")
		}
		c.options.addTo(flags)
		if err := c.parse(flags, args); err != nil {
			return err
		}
		if names := c.options.needReal(); names != "" {
			if c.simulated {
				return fmt.Errorf("-simulated excludes %s", names)
			}
			c.real = true
		}
		// kind's nodes have none of these properties.
		c.preferKind = c.preferKind && !c.simulated && !c.real && len(c.options.given) == 0
		if c.simulated && c.real {
			return errors.New("-simulated and -real exclude each other")
		}
		if command == "up" {
			return c.up(ctx)
		}
		return c.demo(ctx)
	case "down":
		if err := c.parse(flags, args); err != nil {
			return err
		}
		return c.down(ctx)
	case "node":
		flags.BoolVar(&c.keep, "keep", false, "leave a node that failed to start as it is, to look at it")
		return c.node(ctx, flags, args)
	case "load":
		if err := c.parse(flags, args); err != nil {
			return err
		}
		return c.loadImages(ctx, flags.Args())
	case "kubectl":
		return c.kubectl(flags, args)
	case "logs":
		return c.logs(ctx, flags, args)
	case "status":
		if err := c.parse(flags, args); err != nil {
			return err
		}
		return c.status()
	case "supervise": // started by up, not by people
		return supervise()
	case "help", "-h", "--help":
		fmt.Print(help)
		return nil
	default:
		fmt.Fprint(os.Stderr, help)
		return fmt.Errorf("unknown command %q", command)
	}
}
