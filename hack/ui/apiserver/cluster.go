package apiserver

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// key orders and identifies the objects of a collection.
type key struct{ namespace, name string }

func (k key) compare(o key) int {
	if c := strings.Compare(k.namespace, o.namespace); c != 0 {
		return c
	}
	return strings.Compare(k.name, o.name)
}

// node is a Node and its kubelet.
type node struct {
	index   int
	name    string
	version uint64
	stopped bool // its kubelet does not answer

	// The last scrape, and the version of what was served of it.
	sampled       time.Time
	sampleVersion uint64
	pods          []*pod
}

// workload is the controller of pods.
type workload struct {
	key
	kind      string // Deployment, StatefulSet, DaemonSet, or Pod: static pods
	hash      string // pod-template-hash
	pods      []*pod // the oldest first
	created   int    // how many pods it has had
	cpuMilli  int64  // request of each pod
	memoryMiB int64  // the same
	load      float64
	scaler    *scaler
}

// pod is a pod. Its fields do not change, except those that mu guards.
type pod struct {
	key
	seed     uint64
	node     *node
	workload *workload
	created  time.Time

	version uint64
	crashed bool
	fixed   *usage // instead of one that changes with time
}

// usage is in cores and bytes.
type usage struct{ cpu, memory float64 }

// scaler is a HorizontalPodAutoscaler and its controller.
type scaler struct {
	key
	workload *workload
	min, max int32
	percent  int32 // of the CPU request
	packets  int64 // target of the metric packets-per-second for each pod; 0: it has no such metric
	version  uint64
	scaled   time.Time
	status   autoscalingv2.HorizontalPodAutoscalerStatus
}

const (
	serverNamespace = "kube-system"
	serverName      = "metrics-server"
	staticName      = "kube-apiserver"
	shop            = "shop" // the namespace of the workloads with a HorizontalPodAutoscaler
	scaledReplicas  = 3      // that each of them begins with
	// perWorkload is how many pods every other workload has.
	perWorkload = 10
	// packetsPerCore relates the metric packets-per-second to CPU.
	packetsPerCore = 5000
)

// populate makes the nodes, pods and autoscalers.
func (s *Server) populate() {
	old := s.start.Add(-50 * time.Hour)
	for i := range s.config.Nodes {
		s.version++
		s.nodes = append(s.nodes, &node{
			index: i, name: fmt.Sprintf("node-%04d", i), version: s.version,
			sampled: s.start, sampleVersion: s.version,
		})
	}
	add := func(w *workload, replicas int) {
		s.workloads[w.kind+" "+w.namespace+"/"+w.name] = w
		for range replicas {
			s.pods = append(s.pods, s.newPod(w, old))
		}
	}
	add(&workload{key: key{serverNamespace, serverName}, kind: "Deployment", cpuMilli: 100, memoryMiB: 200}, 1)
	add(&workload{key: key{serverNamespace, staticName}, kind: "Pod", cpuMilli: 250, memoryMiB: 512}, 1)
	for i := range s.config.HPAs {
		w := &workload{
			key: key{shop, fmt.Sprintf("web-%d", i)}, kind: "Deployment", cpuMilli: 200, memoryMiB: 256,
			load: scaledReplicas * 0.12,
		}
		h := &scaler{key: w.key, workload: w, min: 2, max: 10, percent: 60, scaled: old}
		if i%4 == 1 {
			h.packets = 600
		}
		w.scaler = h
		s.scalers = append(s.scalers, h)
		add(w, scaledReplicas)
	}
	for i, left := 0, s.config.Nodes*s.config.PodsPerNode-len(s.pods); left > 0; i++ {
		w := &workload{
			key:      key{fmt.Sprintf("team-%02d", i%23), fmt.Sprintf("app-%04d", i)},
			kind:     []string{"Deployment", "Deployment", "StatefulSet", "DaemonSet"}[i%4],
			cpuMilli: 50 << (i % 5), memoryMiB: 64 << (i % 4),
		}
		n := min(left, perWorkload)
		add(w, n)
		left -= n
	}
	slices.SortFunc(s.pods, func(a, b *pod) int { return a.compare(b.key) })
	slices.SortFunc(s.scalers, func(a, b *scaler) int { return a.compare(b.key) })
	for _, h := range s.scalers {
		s.reconcile(h)
	}
}

// newPod makes a pod of w, on the next node.
func (s *Server) newPod(w *workload, created time.Time) *pod {
	s.version++
	seed := mix(hashOf(w.kind), hashOf(w.namespace), hashOf(w.name), uint64(w.created))
	w.hash = fmt.Sprintf("%08x", uint32(mix(hashOf(w.name))))
	p := &pod{
		key: key{w.namespace, fmt.Sprintf("%s-%s-%05x", w.name, w.hash, seed>>44)}, seed: seed, workload: w,
		node: s.nodes[s.placed%len(s.nodes)], created: created, version: s.version,
	}
	switch w.kind {
	case "StatefulSet":
		p.name = fmt.Sprintf("%s-%d", w.name, w.created)
	case "DaemonSet":
		p.name = fmt.Sprintf("%s-%05x", w.name, seed>>44)
	case "Pod":
		p.name = w.name + "-" + p.node.name
	}
	s.placed++
	w.created++
	w.pods = append(w.pods, p)
	p.node.pods = append(p.node.pods, p)
	return p
}

// usage returns what p uses at a time, a function of the two unless it was set.
func (s *Server) usage(p *pod, at time.Time) usage {
	if p.fixed != nil {
		return *p.fixed
	}
	size := unit(p.seed)
	base := 0.002 * math.Exp2(9*size*size)
	if w := p.workload; w.load > 0 {
		base = w.load / float64(len(w.pods))
	}
	wave := math.Sin(2 * math.Pi * (float64(at.Unix()%600)/600 + unit(mix(p.seed, 1))))
	noise := unit(mix(p.seed, uint64(at.UnixMilli()/s.config.Period.Milliseconds()))) - 0.5
	if p.workload.scaler != nil {
		wave = 0 // so that replicas change with the load only
	}
	return usage{
		cpu:    base * (1 + 0.4*wave + 0.1*noise),
		memory: math.Round(16 * math.Exp2(7*size*size) * (1 + 0.05*wave + 0.02*noise) * (1 << 20)),
	}
}

// used reports whether metrics.k8s.io has a usage of p.
func (p *pod) used() bool { return !p.crashed && !p.node.stopped && p.created.Before(p.node.sampled) }

// nodeUsage is what the pods of n use, and the system.
func (s *Server) nodeUsage(n *node) usage {
	u := usage{cpu: 0.1, memory: 1 << 30}
	for _, p := range n.pods {
		if p.used() {
			of := s.usage(p, n.sampled)
			u.cpu += of.cpu
			u.memory += of.memory
		}
	}
	return u
}

// run scrapes each node once in a period, all of them spread over it, and has the controller decide, until ctx ends.
func (s *Server) run(ctx context.Context) {
	const slots = 15
	ticker := time.NewTicker(s.config.Period / slots)
	defer ticker.Stop()
	for slot := 0; ; slot = (slot + 1) % slots {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		now := time.Now()
		for i := slot; i < len(s.nodes); i += slots {
			if n := s.nodes[i]; !n.stopped {
				s.version++
				n.sampled, n.sampleVersion = now, s.version
			}
		}
		if slot == slots-1 {
			for _, h := range s.scalers {
				s.reconcile(h)
				if s.config.Autoscale {
					s.drift(h, now)
					s.scale(h.workload, int(h.status.DesiredReplicas), now)
				}
			}
		}
		s.notifyLocked()
		s.mu.Unlock()
	}
}

// drift changes the load of an autoscaled workload, in a wave of ten minutes.
func (s *Server) drift(h *scaler, now time.Time) {
	wave := math.Sin(2 * math.Pi * (float64(now.Unix()%600)/600 + unit(hashOf(h.name))))
	h.workload.load = 0.12 * (5 + 3*wave)
}

// scale makes or deletes pods of w, the youngest first, until there are as many as replicas.
func (s *Server) scale(w *workload, replicas int, now time.Time) {
	if replicas != len(w.pods) && w.scaler != nil {
		w.scaler.scaled = now
	}
	for len(w.pods) < replicas {
		p := s.newPod(w, now)
		i, _ := slices.BinarySearchFunc(s.pods, p.key, func(o *pod, k key) int { return o.compare(k) })
		s.pods = slices.Insert(s.pods, i, p)
		p.version = s.record(added, podItem(p))
	}
	for len(w.pods) > replicas {
		s.remove(w.pods[len(w.pods)-1])
	}
	if w.scaler != nil {
		s.reconcile(w.scaler)
	}
}

// remove deletes p and its usage.
func (s *Server) remove(p *pod) {
	isP := func(o *pod) bool { return o == p }
	s.withdraw(p)
	s.pods = slices.DeleteFunc(s.pods, isP)
	p.node.pods = slices.DeleteFunc(p.node.pods, isP)
	p.workload.pods = slices.DeleteFunc(p.workload.pods, isP)
	p.version = s.record(deleted, podItem(p))
}

// withdraw deletes the usage of p, if it has one.
func (s *Server) withdraw(p *pod) {
	if p.used() {
		s.record(deleted, s.podUsageItem(p))
	}
}

// mix hashes numbers: SplitMix64 over each.
func mix(numbers ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, n := range numbers {
		h += n + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// unit maps a hash to [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

func hashOf(text string) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(text) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}
