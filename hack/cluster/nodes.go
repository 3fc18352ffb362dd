package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// node is a real node: namespaces with a supervisor, containerd, kubelet and kube-proxy. The first, firstNode,
// also has the control plane.
type node struct {
	Number       int `json:"number"`
	supervisorID     // zero for a node that was killed
}

var firstNode = node{Number: 1}

func (n node) name() string    { return fmt.Sprintf("node-%d", n.Number) }
func (n node) ip() string      { return fmt.Sprintf("10.99.0.%d", n.Number) }
func (n node) address() string { return n.ip() + "/24" }
func (n node) podCIDR() string { return fmt.Sprintf("10.88.%d.0/24", n.Number-1) }

// parseNode returns the node with a name.
func parseNode(name string) (node, error) {
	digits, ok := strings.CutPrefix(name, "node-")
	number, err := strconv.Atoi(digits)
	n := node{Number: number}
	if !ok || err != nil || n.name() != name || number < 1 || number > maxNodes {
		return n, fmt.Errorf("%q is not the name of a node, such as node-2", name)
	}
	return n, nil
}

// nodes returns all nodes, including those that were killed.
func (r record) nodes() []node {
	first := firstNode
	first.supervisorID = r.supervisorID
	return append([]node{first}, r.Others...)
}

// up returns the running nodes, except the one called name.
func (r record) up(without string) (nodes []node) {
	for _, n := range r.nodes() {
		if n.name() != without && n.runs() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// put adds or changes a node other than the first.
func (r *record) put(n node) {
	r.drop(n)
	r.Others = append(r.Others, n)
	slices.SortFunc(r.Others, func(a, b node) int { return cmp.Compare(a.Number, b.Number) })
}

func (r *record) drop(n node) {
	r.Others = slices.DeleteFunc(slices.Clone(r.Others), func(other node) bool { return other.Number == n.Number })
}

// find returns the node called name.
func (r record) find(name string) (node, error) {
	var names []string
	for _, n := range r.nodes() {
		if n.name() == name {
			return n, nil
		}
		names = append(names, n.name())
	}
	return node{}, fmt.Errorf("no node %q; there is: %s", name, strings.Join(names, " "))
}

// free returns a node that does not exist yet.
func (r record) free() (node, error) {
	for number := 2; number <= maxNodes; number++ {
		if n := (node{Number: number}); !slices.ContainsFunc(r.Others, func(o node) bool { return o.Number == number }) {
			return n, nil
		}
	}
	return node{}, fmt.Errorf("there are %d nodes already", maxNodes)
}

// on returns the machine of a node.
func (c *cluster) on(n node) machine {
	if n.Number == firstNode.Number {
		return c.machine
	}
	return machine{c.path("nodes", n.name())}
}

// cgroup is the name of a node's part of every cgroup hierarchy. The cgroups of nodes are siblings,
// because the usage of one node must not count for another.
func (c *cluster) cgroup(n node) string {
	if n.Number == firstNode.Number {
		return c.id()
	}
	return c.id() + "-" + n.name()
}

// states returns the state of all components, and of the nodes that ended without having been
// killed.
func (c *cluster) states(r record) (all []ProcessState, err error) {
	for _, n := range r.nodes() {
		prefix := ""
		if n.Number != firstNode.Number {
			prefix = n.name() + "/"
		}
		if n.Supervisor == 0 {
			continue
		}
		states, err := c.on(n).supervisor().status()
		if err != nil && n.Number != firstNode.Number && !n.runs() {
			all = append(all, ProcessState{Name: n.name(), Ended: true, Result: "its supervisor is gone"})
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range states {
			s.Name = prefix + s.Name
			all = append(all, s)
		}
	}
	return all, nil
}

// writeNodeFiles writes a node's configuration and credentials, unless it has them from an earlier
// run.
func (c *cluster) writeNodeFiles(r record, n node, ca *authority) error {
	m := c.on(n)
	if _, err := os.Stat(m.path("conf", "kubelet.kubeconfig")); err == nil {
		return nil
	}
	files, err := r.Layout.nodeFiles(n)
	if err != nil {
		return err
	}
	credentials, err := r.Layout.nodeCredentials(ca, n)
	return errors.Join(err, m.makeDirs(), writeFiles(m.dir, files), writeFiles(m.dir, credentials))
}

// boot starts a node other than the first, up to its containerd.
func (c *cluster) boot(ctx context.Context, r *record, n node, ca *authority) error {
	if err := c.writeNodeFiles(*r, n, ca); err != nil {
		return err
	}
	// The node ends with the control plane's supervisor, the one process on which everything depends.
	follow, err := openPidfd(r.Supervisor)
	if err != nil {
		return err
	}
	defer follow.Close()
	m := c.on(n)
	config := supervisorConfig{Dir: insideDir, Follow: true, Namespaces: &namespaces{
		Hostname: n.name(), State: m.dir, Bin: c.bin(), Cgroup: c.cgroup(n),
	}}
	others := r.up(n.name())
	_, err = m.launchSupervisor(ctx, config, follow, func(id supervisorID) error {
		n.supervisorID = id
		r.put(n)
		return c.save(*r)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.name(), err)
	}
	if err := join(n, others); err != nil {
		return fmt.Errorf("link %s to the others: %w", n.name(), err)
	}
	return m.startProcesses(r.Layout.containerdProcess())
}

// startKubelets waits for the nodes' containerd, gives them the images, and starts kubelet and kube-proxy.
func (c *cluster) startKubelets(ctx context.Context, r record, nodes ...node) error {
	archives, err := c.images()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		err := c.on(n).wait(ctx, "containerd of "+n.name(), "containerd", time.Minute, func(context.Context) error {
			return c.on(n).supervisor().reach("unix", containerdSock)
		})
		if err != nil {
			return err
		}
	}
	err = step("images", func(*progress) error {
		return importImages(ctx, r, nodes, archives)
	})
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := c.on(n).startProcesses(r.Layout.kubeletProcess(n), r.Layout.proxyProcess()); err != nil {
			return err
		}
	}
	return nil
}

// waitNode waits until a node's kubelet answers and says that it is ready.
func (c *cluster) waitNode(ctx context.Context, a *api, n node) error {
	m := c.on(n)
	return m.wait(ctx, "kubelet, "+n.name()+" Ready", "kubelet", 2*time.Minute, func(ctx context.Context) error {
		// The API server may know the node from before.
		return errors.Join(m.supervisor().reach("tcp", "127.0.0.1:10250"),
			a.condition(ctx, "/api/v1/nodes/"+n.name(), "Ready"))
	})
}

// each runs f for all nodes at once.
func each(nodes []node, f func(node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = f(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}
