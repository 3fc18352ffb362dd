// Package apiserver is a fake Kubernetes API server for `metrics-server ui`, in plain HTTP. It serves what that command
// and the doctor read, and the metrics APIs, whose usage changes as in a real cluster. The cluster is a function of its
// Config and the time, until a test changes it.
//
// A Server is safe for concurrent use, and leaves no goroutine behind when it is closed. hack/fleet/apiserver is larger
// and faster, but its cluster has no usage, and cannot fail.
package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config describes a cluster.
type Config struct {
	Address                  string // where to serve; default: a free port of 127.0.0.1
	Nodes, PodsPerNode, HPAs int    // default: one node with only the pods of kube-system
	// Incumbent serves metrics.k8s.io as kubernetes-sigs/metrics-server does: v1beta1 only, without watches.
	Incumbent bool
	// History is how far back the history of metrics.k8s.io reaches; 0: there is none.
	History time.Duration
	// Period is the time between two scrapes, and between two rounds of the HPA controller. Default: 15 s.
	Period time.Duration
	// Autoscale lets loads change, and scales the workloads as the HPA controller decides.
	Autoscale bool
}

// Server is the API server. Make it with Start, and Close it.
type Server struct {
	config  Config
	start   time.Time
	address string
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	fixed   map[string]any // other objects, by path

	serving sync.Mutex // guards http
	http    *http.Server

	mu        sync.RWMutex // guards the fields that follow
	version   uint64       // of the last change
	oldest    uint64       // no watch can begin before this version
	log       []change     // the oldest first
	changed   chan struct{}
	placed    int // pods so far
	nodes     []*node
	pods      []*pod // sorted
	scalers   []*scaler
	workloads map[string]*workload // by "kind namespace/name"
	denied    map[string]bool      // resources
	confined  string               // the only namespace that may be read; "": all
}

// Start serves a cluster.
func Start(c Config) (*Server, error) {
	if c.Address == "" {
		c.Address = "127.0.0.1:0"
	}
	if c.Period == 0 {
		c.Period = 15 * time.Second
	}
	c.Nodes = max(c.Nodes, 1)
	s := &Server{
		config: c, start: time.Now(), address: c.Address, changed: make(chan struct{}), version: 1000, oldest: 1000,
		workloads: map[string]*workload{}, denied: map[string]bool{},
	}
	s.populate()
	s.fixed = s.fixedObjects()
	if err := s.Mend(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.ended.Go(func() { s.run(ctx) })
	return s, nil
}

// Close ends the server.
func (s *Server) Close() {
	s.cancel()
	s.Break()
	s.ended.Wait()
}

// Break cuts all connections; new ones are refused until Mend.
func (s *Server) Break() {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.http != nil {
		_ = s.http.Close() // the listener cannot fail to close
		s.http = nil
	}
}

// Mend serves again, at the same address.
func (s *Server) Mend() error {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.http != nil {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.address)
	if err != nil {
		return fmt.Errorf("serve the fake cluster: %w", err)
	}
	s.address = l.Addr().String()
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	s.http = server
	s.ended.Go(func() { _ = server.Serve(l) }) // it ends with Close
	return nil
}

// URL returns the URL of the server.
func (s *Server) URL() string { return "http://" + s.address }

// Kubeconfig returns a kubeconfig whose only context is the server.
func (s *Server) Kubeconfig() []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: fake
  cluster: {server: %q}
users:
- name: fake
  user: {token: fake}
contexts:
- name: fake
  context: {cluster: fake, user: fake}
current-context: fake
`, s.URL())
}

// SetUsage sets the usage of a pod from now on.
func (s *Server) SetUsage(namespace, name string, cpu, memory float64) error {
	return s.onPod(namespace, name, func(p *pod) {
		p.fixed = &usage{cpu, memory}
		s.version++
		p.node.sampled, p.node.sampleVersion = time.Now(), s.version
	})
}

// Crash makes a pod wait in CrashLoopBackOff, without usage.
func (s *Server) Crash(namespace, name string) error {
	return s.onPod(namespace, name, func(p *pod) {
		s.withdraw(p)
		p.crashed = true
		p.version = s.record(modified, podItem(p))
	})
}

// DeletePod deletes a pod, which nothing replaces.
func (s *Server) DeletePod(namespace, name string) error { return s.onPod(namespace, name, s.remove) }

func (s *Server) onPod(namespace, name string, do func(*pod)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := slices.BinarySearchFunc(s.pods, key{namespace, name}, func(o *pod, k key) int { return o.compare(k) })
	if !ok {
		return fmt.Errorf("the fake cluster has no pod %s/%s", namespace, name)
	}
	do(s.pods[i])
	s.notifyLocked()
	return nil
}

// Pods returns the names of the pods of a workload, the oldest first. kind is Deployment, StatefulSet or DaemonSet, or
// Pod for static pods.
func (s *Server) Pods(kind, namespace, name string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	if w := s.workloads[kind+" "+namespace+"/"+name]; w != nil {
		for _, p := range w.pods {
			names = append(names, p.name)
		}
	}
	return names
}

// StopNode stops the kubelet of a node: it does not answer, and no usage of the node and its pods is served.
func (s *Server) StopNode(name string) error {
	return s.onNode(name, func(n *node) {
		s.record(deleted, s.nodeUsageItem(n))
		for _, p := range n.pods {
			s.withdraw(p)
		}
		n.stopped = true
	})
}

// StartNode undoes StopNode.
func (s *Server) StartNode(name string) error {
	return s.onNode(name, func(n *node) {
		s.version++
		n.stopped, n.sampled, n.sampleVersion = false, time.Now(), s.version
	})
}

func (s *Server) onNode(name string, do func(*node)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		return fmt.Errorf("the fake cluster has no node %s", name)
	}
	do(s.nodes[i])
	s.notifyLocked()
	return nil
}

// ScaleHPA scales the target of an autoscaler, as its controller would.
func (s *Server) ScaleHPA(name string, replicas int) error {
	return s.onWorkload(name, func(w *workload) { s.scale(w, replicas, time.Now()) })
}

// SetLoad sets the CPU that the pods of an autoscaler's target use together. Its controller decides at once.
func (s *Server) SetLoad(name string, cores float64) error {
	return s.onWorkload(name, func(w *workload) {
		w.load = cores
		now := time.Now()
		for _, p := range w.pods {
			s.version++
			p.node.sampled, p.node.sampleVersion = now, s.version
		}
		s.reconcile(w.scaler)
	})
}

func (s *Server) onWorkload(name string, do func(*workload)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workloads["Deployment "+shop+"/"+name]
	if w == nil {
		return fmt.Errorf("the fake cluster has no autoscaler %s/%s", shop, name)
	}
	do(w)
	s.notifyLocked()
	return nil
}

// Deny forbids requests for a resource, with its group unless that is the core, such as "pods", "nodes/proxy" or
// "nodes.metrics.k8s.io". Open watches go on.
func (s *Server) Deny(resource string) { s.permit(resource, true) }

// Allow undoes Deny.
func (s *Server) Allow(resource string) { s.permit(resource, false) }

func (s *Server) permit(resource string, denied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[resource] = denied
}

// Confine forbids requests for objects outside of a namespace; "" allows all.
func (s *Server) Confine(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confined = namespace
}

// Expire ends all watches with 410, as if they had fallen behind: their clients have to list again.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.oldest, s.log = s.version, nil
	s.notifyLocked()
}
