package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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
		c.sayHow()
	}
	return err
}

// sayHow says how to go on with a running cluster.
func (c *cluster) sayHow() {
	sayf("\nThe cluster goes on. To use it:")
	sayf("  export KUBECONFIG=%s", c.kubeconfig())
	sayf("  %s top pods -A", filepath.Join(c.bin(), "kubectl"))
	sayf("To end it and remove all of it: make demo-down")
}

// start returns the running cluster, after starting it if need be; started says which. The caller has the lock.
// If it fails, or ctx ends, what it started is gone.
func (c *cluster) start(ctx context.Context) (r record, started bool, err error) {
	if r, ok := c.healthy(ctx); ok {
		if want := c.wanted(); want != "" && want != r.Mode {
			return r, false, fmt.Errorf("a cluster with %s runs; end it first: make demo-down", r.Mode)
		}
		sayf("The cluster runs already: Kubernetes %s with %s.", r.Version, r.Mode)
		return r, false, nil
	}
	if err := c.remove(); err != nil {
		return r, false, fmt.Errorf("remove what an earlier cluster left: %w", err)
	}

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
	if _, err := c.buildAssets(ctx, m == simulatedKubelet); err != nil {
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

// giveUp removes the cluster after err, unless it is to be kept for a look.
func (c *cluster) giveUp(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx) // of all that then fails, the reason
	}
	if c.keep {
		sayf("Left as it is because of -keep: logs in %s; end it with: make demo-down", c.path("log"))
		return err
	}
	sayf("Removing what was started.")
	return errors.Join(err, c.remove())
}

// wanted is the mode that the flags ask for, "" if either will do.
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
	if !running || !r.Ready || r.Version != c.version {
		return r, false
	}
	states, err := c.supervisor().status()
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

func (c *cluster) supervisor() supervisor { return supervisor{c.path(socketName)} }

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
	for _, dir := range []string{"log", "conf", "etcd", "tmp", "images"} {
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
		err = c.startReal(ctx, r)
	} else {
		err = c.startSimulated(ctx, r, certificates)
	}
	if err != nil {
		return r, err
	}
	r.Ready = true
	return r, c.save(r)
}

// setupError is that of the namespaces of a real node: a reason to go without one.
type setupError struct{ reason string }

func (e *setupError) Error() string { return e.reason }

// launch starts the supervisor, which runs nothing yet.
func (c *cluster) launch(ctx context.Context, m mode) (record, error) {
	r := record{Mode: m, Version: c.version}
	l := layout{
		Mode: m, Dir: insideDir, Bin: insideBin,
		APIServer: controlPlaneIP + ":6443", Etcd: "127.0.0.1:2379", Peer: "127.0.0.1:2380",
	}
	config := supervisorConfig{Dir: insideDir, Forward: l.APIServer, Namespaces: &namespaces{
		Hostname: nodeName, Address: nodeAddress, State: c.dir, Bin: c.bin(), Cgroup: c.id(),
	}}
	// The API server's door to the host: the supervisor takes this socket along into its own network.
	outside, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	defer outside.Close()
	r.Server = "https://" + outside.Addr().String()
	if m == simulatedKubelet {
		l.Dir, l.Bin = c.dir, c.bin()
		for _, address := range []*string{&l.APIServer, &l.Etcd, &l.Peer, &l.MetricsServer} {
			if *address, err = freeAddress(ctx); err != nil {
				return r, err
			}
		}
		config = supervisorConfig{Dir: c.dir}
		r.Server = l.url()
	}

	r.Layout = l
	result, err := c.launchSupervisor(ctx, config, outside.(*net.TCPListener), &r)
	r.Layout.Snapshotter = result.Snapshotter
	return r, err
}

var supervisorArgs = []string{"supervise"} // a test has others

// launchSupervisor starts the supervisor and waits until it has set itself up.
func (c *cluster) launchSupervisor(ctx context.Context, config supervisorConfig, outside *net.TCPListener, r *record) (setupResult, error) {
	var result setupResult
	self, err := os.Executable()
	if err != nil {
		return result, err
	}
	env, err := json.Marshal(config)
	if err != nil {
		return result, err
	}
	log, err := os.Create(c.path("log", "supervisor.log"))
	if err != nil {
		return result, err
	}
	defer log.Close()
	read, ready, err := os.Pipe()
	if err != nil {
		return result, err
	}
	defer read.Close()

	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, supervisorArgs...) // it outlives this command
	cmd.Env = append(os.Environ(), supervisorEnv+"="+string(env))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{ready} // readyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if config.Namespaces != nil {
		inNamespaces(cmd)
		door, err := outside.File()
		if err != nil {
			return result, err
		}
		defer door.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, door) // listenerFD
	}
	err = cmd.Start()
	ready.Close()
	if err != nil {
		if config.Namespaces != nil {
			err = &setupError{fmt.Sprintf("new namespaces: %v", err)}
		}
		return result, err
	}
	go func() { _ = cmd.Wait() }() // if it ends before this command does, it must not stay a zombie
	r.Supervisor, r.Started = cmd.Process.Pid, processStart(cmd.Process.Pid)
	if err := c.save(*r); err != nil {
		return result, errors.Join(err, cmd.Process.Kill())
	}
	stop := context.AfterFunc(ctx, func() { read.Close() })
	defer stop()
	if err := json.NewDecoder(read).Decode(&result); err != nil {
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
		return result, fmt.Errorf("the supervisor ended early: %w\n%s", err, tail(log.Name(), 20))
	}
	if result.Error != "" {
		return result, &setupError{result.Error}
	}
	return result, nil
}

// freeAddress returns a port of loopback that nobody listens on just now.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// startReal starts the control plane and a node, and waits until pods can run on it.
func (c *cluster) startReal(ctx context.Context, r record) error {
	l := r.Layout
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	files, err := l.nodeFiles()
	if err != nil {
		return err
	}
	if err := writeFiles(c.dir, files); err != nil {
		return err
	}
	// Beside all that starts, so that it costs no time.
	archive, built := c.path("images", "workload.tar"), make(chan error, 1)
	building, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { built <- c.buildWorkloadImage(building, archive) })
	defer done.Wait() // it writes to what is removed if this fails
	defer stop()

	if err := c.startProcesses(l.containerdProcess()); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx, l, a); err != nil {
		return err
	}
	if err := c.startProcesses(l.schedulerProcess(), l.proxyProcess()); err != nil {
		return err
	}
	err = c.wait(ctx, "containerd", "containerd", time.Minute, func(context.Context) error {
		return c.supervisor().reach("unix", containerdSock)
	})
	if err != nil {
		return err
	}
	err = step("pause image", func(*progress) error {
		if err := <-built; err != nil {
			return err
		}
		return c.importImage(ctx, r, archive)
	})
	if err != nil {
		return err
	}
	if err := c.startProcesses(l.kubeletProcess()); err != nil {
		return err
	}
	err = c.wait(ctx, "kubelet, "+nodeName+" Ready", "kubelet", 2*time.Minute, func(ctx context.Context) error {
		return a.condition(ctx, "/api/v1/nodes/"+nodeName, "Ready")
	})
	if err != nil {
		return err
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

func (c *cluster) startProcesses(processes ...Process) error {
	for _, p := range processes {
		if err := c.supervisor().start(p); err != nil {
			return err
		}
	}
	return nil
}

// wait shows title until ready returns nil. It fails, with the end of the log of the component to blame, when any
// component has ended or the time is over.
func (c *cluster) wait(ctx context.Context, title, component string, limit time.Duration, ready func(context.Context) error) error {
	return step(title, func(p *progress) error {
		for deadline := time.Now().Add(limit); ; {
			err := ready(ctx)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.updatef("%s", firstLine(err))
			states, statusErr := c.supervisor().status()
			if statusErr != nil {
				return statusErr
			}
			for _, s := range states {
				if s.Ended {
					return fmt.Errorf("%s %s; the end of its log:\n%s", s.Name, s, tail(c.path("log", s.Name+".log"), 20))
				}
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: not ready after %s: %w; the end of the log of %s:\n%s",
					title, limit, err, component, tail(c.path("log", component+".log"), 20))
			}
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
	})
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
