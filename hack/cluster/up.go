package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// up starts the cluster.
func (c *cluster) up(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_, _, err = c.start(ctx)
	if err == nil {
		c.sayHow("cluster-down")
	}
	return err
}

// toEnd returns the command that ends the cluster: make target, unless the cluster is in another state directory.
func (c *cluster) toEnd(target string) string {
	if c.dir != c.defaultDir() {
		return "cd hack/cluster && go run . down -state " + c.dir
	}
	return "make " + target
}

// sayHow tells the user how to use the running cluster, and that the make target ends it.
func (c *cluster) sayHow(target string) {
	sayf("\nThe cluster keeps running. To use it:")
	sayf("  export KUBECONFIG=%s", c.kubeconfig())
	sayf("  %s top pods -A", c.kubectlPath())
	sayf("To end it and remove all of it: %s", c.toEnd(target))
}

// start returns the running cluster, and starts it if necessary; started says whether it did. The
// caller has the lock. If start fails, or ctx ends, it removes what it has started.
func (c *cluster) start(ctx context.Context) (r record, started bool, err error) {
	if r, running := c.load(); running && r.Ready {
		if r.Mode == kindNodes {
			return r, false, fmt.Errorf("a cluster with %s runs; end it first: %s", r.Mode, c.toEnd("demo-down"))
		}
		if err := c.options.unlike(r); err != nil {
			return r, false, fmt.Errorf("%w; end it first: %s", err, c.toEnd("cluster-down"))
		}
	}
	if r, ok := c.healthy(ctx); ok {
		if want := c.wanted(); want != "" && want != r.Mode {
			return r, false, fmt.Errorf("a cluster with %s runs; end it first: %s", r.Mode, c.toEnd("demo-down"))
		}
		sayf("The cluster runs already: Kubernetes %s with %s.", r.Version, r.Mode)
		return r, false, nil
	}
	if err := c.remove(); err != nil {
		return r, false, fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	c.onKind = false

	m := realKubelet
	if c.simulated {
		m = simulatedKubelet
	} else if err := c.prepareNode(ctx); err != nil {
		if c.real || ctx.Err() != nil {
			return r, false, err
		}
		sayf("A real kubelet cannot run here: %v.\nThe control plane will be real and the kubelets simulated.", err)
		m = simulatedKubelet
	}
	programs := controlPlane
	if m == realKubelet {
		programs = slices.Concat(controlPlane, nodePrograms)
	}
	if _, err := c.buildAssets(ctx, programs); err != nil {
		return r, false, err
	}

	begun := time.Now()
	r, err = c.run(ctx, m)
	if failed := (*setupError)(nil); errors.As(err, &failed) && !c.real && ctx.Err() == nil {
		sayf("A real kubelet cannot run here: %v.\nThe control plane will be real and the kubelets simulated.", failed)
		if err := c.remove(); err != nil {
			return r, false, err
		}
		r, err = c.run(ctx, simulatedKubelet)
	}
	if err != nil {
		return r, false, c.giveUp(ctx, err)
	}
	sayf("Cluster up in %.1f s: Kubernetes %s with %s.", time.Since(begun).Seconds(), r.Version, r.Mode)
	return r, true, nil
}

// giveUp removes the cluster after err, unless it should be kept for inspection.
func (c *cluster) giveUp(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx) // the cause of everything that fails afterwards
	}
	if c.keep {
		sayf("Left as it is because of -keep: logs in %s; end it with: %s", c.path("log"), c.toEnd("demo-down"))
		return err
	}
	sayf("Removing what was started.")
	return errors.Join(err, c.remove())
}

// wanted returns the mode that the flags require, "" if both will do.
func (c *cluster) wanted() mode {
	switch {
	case c.simulated:
		return simulatedKubelet
	case c.real:
		return realKubelet
	}
	return ""
}

// healthy returns the running cluster if it is complete and its API server answers.
func (c *cluster) healthy(ctx context.Context) (record, bool) {
	r, running := c.load()
	if !running || !r.Ready {
		return r, false
	}
	if r.Version != c.version {
		sayf("The running cluster has Kubernetes %s: it is replaced by one with %s.", r.Version, c.version)
		return r, false
	}
	states, err := c.states(r)
	if err != nil {
		return r, false
	}
	for _, s := range states {
		if s.Ended {
			sayf("%s has %s: starting the cluster anew.", s.Name, s)
			return r, false
		}
	}
	a, err := c.connect(r.Server)
	return r, err == nil && a.get(ctx, "/readyz", nil) == nil
}

// prepareNode says why no real kubelet can run here, after installing what can be installed.
func (c *cluster) prepareNode(ctx context.Context) error {
	if err := noKubelet(); err != nil {
		return err
	}
	return installPackages(ctx)
}

// run starts a cluster in an empty state directory and waits until it is ready.
func (c *cluster) run(ctx context.Context, m mode) (record, error) {
	sayf("Starting Kubernetes %s with %s; state and logs in %s.", c.version, m, c.dir)
	if err := c.create(record{Mode: m, Version: c.version}); err != nil {
		return record{}, err
	}
	for _, dir := range []string{"etcd", "images"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return record{}, err
		}
	}
	r, err := c.launch(ctx, m)
	if err != nil {
		return r, err
	}
	l := r.Layout
	certificates, err := newPKI()
	if err != nil {
		return r, err
	}
	files, err := l.credentials(certificates, r.Server)
	if err != nil {
		return r, err
	}
	if err := writeFiles(c.dir, files); err != nil {
		return r, err
	}
	if m == realKubelet {
		err = c.startReal(ctx, &r, certificates.ca)
	} else {
		err = c.startSimulated(ctx, r, certificates)
	}
	if err != nil {
		return r, err
	}
	r.Ready = true
	return r, c.save(r)
}

// launch starts the supervisor, which runs nothing yet.
func (c *cluster) launch(ctx context.Context, m mode) (record, error) {
	r := record{Mode: m, Version: c.version}
	l := layout{
		Mode: m, Dir: insideDir, Bin: insideBin, Version: c.version, Options: c.options,
		APIServer: controlPlaneIP + ":6443", Etcd: "127.0.0.1:2379", Peer: "127.0.0.1:2380",
	}
	config := supervisorConfig{Dir: insideDir, Forward: l.APIServer, Namespaces: &namespaces{
		Hostname: firstNode.name(), Address: firstNode.address(), State: c.dir, Bin: c.bin(), Cgroup: c.id(),
	}}
	// The supervisor takes this socket, through which the host reaches the API server, along into its
	// own network.
	outside, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	defer outside.Close()
	door, err := outside.(*net.TCPListener).File()
	if err != nil {
		return r, err
	}
	defer door.Close()
	r.Server = "https://" + outside.Addr().String()
	if m == simulatedKubelet {
		l.Dir, l.Bin = c.dir, c.bin()
		for _, address := range []*string{&l.APIServer, &l.Etcd, &l.Peer, &l.MetricsServer} {
			if *address, err = freeAddress(ctx); err != nil {
				return r, err
			}
		}
		config, door = supervisorConfig{Dir: c.dir}, nil
		r.Server = l.url()
	}

	r.Layout = l
	result, err := c.launchSupervisor(ctx, config, door, func(id supervisorID) error {
		r.supervisorID = id
		return c.save(r)
	})
	r.Layout.Snapshotter = result.Snapshotter
	return r, err
}

// freeAddress returns an address on loopback that nobody listens on at the moment.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// startReal starts the control plane and the nodes, and waits until pods can run on them.
func (c *cluster) startReal(ctx context.Context, r *record, ca *authority) error {
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	if err := c.writeNodeFiles(*r, firstNode, ca); err != nil {
		return err
	}
	// In parallel with the start of the components, so that it takes no extra time.
	archive, built := c.path("images", "workload.tar"), make(chan error, 1)
	building, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { built <- c.buildWorkloadImage(building, archive) })
	defer done.Wait() // it writes to what is removed if this fails
	defer stop()

	if err := c.startProcesses(r.Layout.containerdProcess()); err != nil {
		return err
	}
	for number := 2; number <= c.options.Nodes; number++ {
		if err := c.boot(ctx, r, node{Number: number}, ca); err != nil {
			return err
		}
	}
	if err := c.startControlPlane(ctx, r.Layout, a); err != nil {
		return err
	}
	if err := c.startProcesses(r.Layout.schedulerProcess()); err != nil {
		return err
	}
	err = step("image of the workload", func(*progress) error { return <-built })
	if err != nil {
		return err
	}
	if err := c.startKubelets(ctx, *r, r.nodes()...); err != nil {
		return err
	}
	for _, n := range r.nodes() {
		if err := c.waitNode(ctx, a, n); err != nil {
			return err
		}
	}
	return c.waitServiceAccount(ctx, a)
}

// startControlPlane starts etcd, the API server and the controllers.
func (c *cluster) startControlPlane(ctx context.Context, l layout, a *api) error {
	if err := c.startProcesses(l.etcdProcess()); err != nil {
		return err
	}
	err := c.wait(ctx, "etcd", "etcd", 30*time.Second, func(context.Context) error {
		return c.supervisor().reach("tcp", l.Etcd)
	})
	if err != nil {
		return err
	}
	if err := c.startProcesses(l.apiServerProcess()); err != nil {
		return err
	}
	err = c.wait(ctx, "kube-apiserver", "kube-apiserver", 2*time.Minute, func(ctx context.Context) error {
		return a.get(ctx, "/readyz", nil)
	})
	if err != nil {
		return err
	}
	return c.startProcesses(l.controllerManagerProcess())
}

// waitServiceAccount waits for what every pod needs: a sign that kube-controller-manager works.
func (c *cluster) waitServiceAccount(ctx context.Context, a *api) error {
	return c.wait(ctx, "kube-controller-manager", "kube-controller-manager", time.Minute, func(ctx context.Context) error {
		return a.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}
