package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// change locks a running cluster with real nodes.
func (c *cluster) change(ctx context.Context) (r record, unlock func(), err error) {
	unlock, err = c.lock(ctx)
	if err != nil {
		return r, nil, err
	}
	r, running := c.load()
	switch {
	case !running || !r.Ready:
		err = errors.New("no cluster runs; start one with: make cluster")
	case r.Mode != realKubelet:
		err = fmt.Errorf("the cluster that runs has %s: start one with -real", r.Mode)
	}
	if err != nil {
		unlock()
		return r, nil, err
	}
	c.version = r.Version
	return r, unlock, nil
}

var nodeActions = []string{"add", "stop", "start", "freeze", "thaw", "kill", "delete", "exec"}

const nodeHelp = `usage: go run . node ACTION

  add          add a node, wait until it is ready, print its name
  stop NAME    end its kubelet; its pods run on
  start NAME   start its kubelet again, or the whole node after kill
  freeze NAME  halt its kubelet: connections are taken and not answered
  thaw NAME    let it go on
  kill NAME    end everything on the node at once, as a power cut does
  delete NAME  kill, and remove the node from the cluster
  exec NAME COMMAND...   run a command of this machine's in the node's namespaces
`

// node changes one node.
func (c *cluster) node(ctx context.Context, flags *flag.FlagSet, args []string) error {
	if len(args) == 0 || !slices.Contains(nodeActions, args[0]) {
		fmt.Fprint(os.Stderr, nodeHelp)
		if slices.Contains(args, "-h") {
			return flag.ErrHelp
		}
		return errors.New("node: the action comes first")
	}
	action := args[0]
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	name, rest := flags.Arg(0), flags.Args()[min(1, flags.NArg()):]
	var command []string
	if action == "exec" {
		command, rest = rest, nil
	}
	if err := c.parse(flags, rest); err != nil { // flags may also follow the name
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("node %s: one at a time, not also %s", action, flags.Arg(0))
	}
	if action == "exec" {
		return c.nodeExec(name, command)
	}

	r, unlock, err := c.change(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if action == "add" {
		if name != "" {
			return errors.New("node add: takes no name, but prints one")
		}
		return c.nodeAdd(ctx, r)
	}
	n, err := r.find(name)
	if err != nil {
		return err
	}
	if !n.runs() && action != "start" && action != "delete" {
		return fmt.Errorf("node %s: %s is down", action, name)
	}
	if n.Number == firstNode.Number && (action == "kill" || action == "delete") {
		return fmt.Errorf("node %s: %s has the control plane; to end the cluster: %s", action, name, c.toEnd("cluster-down"))
	}
	switch s := c.on(n).supervisor(); action {
	case "stop":
		return s.stop("kubelet")
	case "freeze", "thaw":
		return s.freeze("kubelet", action == "freeze")
	case "start":
		return c.nodeStart(ctx, r, n)
	case "kill":
		return c.nodeKill(&r, n)
	default:
		return c.nodeDelete(ctx, r, n)
	}
}

// nodeAdd adds a node. If it fails, nothing of the node is left.
func (c *cluster) nodeAdd(ctx context.Context, r record) error {
	n, err := r.free()
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := c.bring(ctx, &r, n); err != nil {
		if c.keep {
			return err
		}
		return errors.Join(err, c.nodeDelete(context.WithoutCancel(ctx), r, n))
	}
	sayf("%s added in %.1f s.", n.name(), time.Since(begun).Seconds())
	fmt.Println(n.name())
	return nil
}

// bring starts a node other than the first and waits until it is ready.
func (c *cluster) bring(ctx context.Context, r *record, n node) error {
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	ca, err := c.authority()
	if err != nil {
		return err
	}
	if err := c.boot(ctx, r, n, ca); err != nil {
		return err
	}
	if n, err = r.find(n.name()); err != nil {
		return err
	}
	if err := c.startKubelets(ctx, *r, n); err != nil {
		return err
	}
	return c.waitNode(ctx, a, n)
}

// nodeStart starts a kubelet that was stopped, or a node that was killed.
func (c *cluster) nodeStart(ctx context.Context, r record, n node) error {
	if !n.runs() {
		err := c.bring(ctx, &r, n)
		if err != nil && !c.keep {
			err = errors.Join(err, c.nodeKill(&r, n))
		}
		return err
	}
	states, err := c.on(n).supervisor().status()
	if err != nil {
		return err
	}
	for _, s := range states {
		if s.Name == "kubelet" && !s.Ended {
			sayf("The kubelet of %s: %s.", n.name(), s)
			return nil
		}
	}
	if err := c.on(n).startProcesses(r.Layout.kubeletProcess(n)); err != nil {
		return err
	}
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	return c.waitNode(ctx, a, n)
}

// nodeKill ends all of a node at once. Its files stay, as a disk does.
func (c *cluster) nodeKill(r *record, n node) error {
	if recorded, err := r.find(n.name()); err == nil {
		n = recorded
	}
	if err := n.end(syscall.SIGKILL); err != nil {
		return err
	}
	n.supervisorID = supervisorID{}
	r.put(n)
	return errors.Join(removeCgroups(c.cgroup(n)), c.save(*r))
}

// nodeDelete stops a node and removes everything that belongs to it.
func (c *cluster) nodeDelete(ctx context.Context, r record, n node) error {
	if err := c.nodeKill(&r, n); err != nil { // first, or its kubelet registers it again
		return err
	}
	if _, err := c.runKubectl(ctx, "delete", "node", n.name(), "--ignore-not-found"); err != nil {
		return err
	}
	r.drop(n)
	return errors.Join(leave(n, r.up("")), os.RemoveAll(c.on(n).dir), c.save(r))
}

// nodeExec replaces this process with a command in a node's namespaces.
func (c *cluster) nodeExec(name string, command []string) error {
	r, running := c.load()
	if !running || r.Mode != realKubelet {
		return errors.New("no cluster with real nodes runs; start one with: make cluster")
	}
	n, err := r.find(name)
	if err != nil {
		return err
	}
	if !n.runs() {
		return fmt.Errorf("%s is down", name)
	}
	if len(command) == 0 {
		return errors.New("node exec: which command?")
	}
	args := []string{"nsenter", "--target", strconv.Itoa(n.Supervisor), "--all", "--"}
	return syscall.Exec("/usr/bin/nsenter", append(args, command...), os.Environ())
}
