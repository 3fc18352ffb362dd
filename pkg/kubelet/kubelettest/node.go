// Package kubelettest fakes kubelets for tests and load tools: Node generates the answers of a
// node, Kubelet is the handler that authenticates callers and serves the answers, Server serves it
// on a TLS port, and CA signs the certificates of both ends.
//
// The answers of a Node are a function of its seed and the requested time. It has no state, so it
// is safe for concurrent use, the same time gives the same bytes, and time may be that of synctest.
// It knows the true usage behind its answers. The package shares no code with the packages that it
// helps to test.
package kubelettest

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NodeConfig describes a Node.
type NodeConfig struct {
	Seed       uint64
	Pods       int
	Containers int       // in each pod; default 1
	Boot       time.Time // the containers start in the ten seconds after it
	// List has the node's pods, instead of Pods generated ones. The usage of each is a function of
	// its own seed and starts, and the usage of the node itself depends on Seed and Boot alone: if
	// a pod comes or goes, a new Node with another List continues where the old one was.
	List []Pod
	// RequestTime makes the time of the request the timestamp of all samples, as with kubelets that
	// ask the container runtime. Otherwise the node is sampled every 10 seconds, and each container
	// and pod every 10 to 20 seconds, on a timer of its own.
	RequestTime bool
}

// Pod is a pod of a NodeConfig's List.
type Pod struct {
	Namespace, Name string
	Seed            uint64
	Started         []time.Time // of each container; they are named c0, c1 and so on
}

// Node generates the answers of one kubelet at /metrics/resource.
type Node struct {
	requestTime bool
	boot        int64 // Unix milliseconds
	clock       uint64
	containers  []Container
	pods        []pod
	cpu         uint64 // nanoseconds per millisecond, of all containers and the system
	memory      uint64
}

// Container describes one container of a Node.
type Container struct {
	Namespace, Pod, Name string

	Start     time.Time
	NanoCores uint64 // its CPU usage, always

	labels string // as in an answer
	start  int64  // Unix milliseconds
	clock  uint64
	memory uint64
}

type pod struct {
	labels     string
	clock      uint64
	containers []int // indices of Node.containers
}

// Sample has the values of a container or a node in an answer.
type Sample struct {
	Time   time.Time
	CPU    uint64 // nanoseconds since the start
	Memory uint64 // bytes
}

const (
	podOverhead  = 10      // nanoseconds of CPU per millisecond that a pod uses beside its containers
	nodeOverhead = 100_000 // the same for a node: 100 millicores
)

// NewNode returns the node that c describes.
func NewNode(c NodeConfig) *Node {
	if c.Containers == 0 {
		c.Containers = 1
	}
	boot := c.Boot.UnixMilli()
	n := &Node{requestTime: c.RequestTime, boot: boot, clock: mix(c.Seed), cpu: nodeOverhead, memory: 512 << 20}
	for p := range c.Pods {
		h := mix(c.Seed, uint64(p))
		n.add(fmt.Sprintf("team-%d", h%7), fmt.Sprintf("app-%d-%08x-%05x", h%11, uint32(h>>16), h>>44), h, c.Containers,
			func(i int) (h uint64, start int64) {
				h = mix(c.Seed, uint64(p), uint64(i))
				return h, boot + int64(h>>40%10_000)
			})
	}
	for _, p := range c.List {
		n.add(p.Namespace, p.Name, mix(p.Seed), len(p.Started), func(i int) (h uint64, start int64) {
			return mix(p.Seed, uint64(i)), p.Started[i].UnixMilli()
		})
	}
	if c.List != nil {
		n.cpu, n.memory = nodeOverhead+n.clock%8_000_000, (512+n.clock>>32%8192)<<20
	} else {
		for i := range n.containers {
			n.cpu += n.containers[i].NanoCores / 1000
			n.memory += n.containers[i].memory
		}
	}
	slices.SortFunc(n.containers, func(a, b Container) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	slices.SortFunc(n.pods, func(a, b pod) int { return cmp.Compare(a.labels, b.labels) })
	for i := range n.pods {
		suffix := n.pods[i].labels[1:]
		for j := range n.containers {
			if strings.HasSuffix(n.containers[j].labels, suffix) {
				n.pods[i].containers = append(n.pods[i].containers, j)
			}
		}
	}
	return n
}

// add adds a pod with the containers that of describes.
func (n *Node) add(namespace, name string, clock uint64, containers int, of func(i int) (h uint64, start int64)) {
	labels := "namespace=\"" + namespace + "\",pod=\"" + name + "\"}"
	n.pods = append(n.pods, pod{labels: "{" + labels, clock: clock})
	for i := range containers {
		h, start := of(i)
		cname := containerName(i)
		n.containers = append(n.containers, Container{
			Namespace: namespace, Pod: name, Name: cname,
			// A whole number of nanoseconds per millisecond makes every rate exact.
			NanoCores: (100 + h%500_000) * 1000,
			Start:     time.UnixMilli(start).UTC(),
			labels:    "{container=\"" + cname + "\"," + labels,
			start:     start,
			clock:     h,
			memory:    4096 * (1000 + h>>32%100_000),
		})
	}
}

func containerName(i int) string {
	if i < 10 {
		return "c0c1c2c3c4c5c6c7c8c9"[2*i : 2*i+2] // no memory of its own
	}
	return "c" + strconv.Itoa(i)
}

// Containers returns the containers in the order in which the kubelet lists them. It is n's own.
func (n *Node) Containers() []Container { return n.containers }

// Container returns the sample of Containers()[i] in an answer at now, and whether the answer lists
// that container.
func (n *Node) Container(i int, now time.Time) (Sample, bool) {
	c := &n.containers[i]
	t := n.sampled(c.clock, now.UnixMilli())
	if t < c.start {
		return Sample{}, false
	}
	return Sample{time.UnixMilli(t).UTC(), c.cpuAt(t), c.memoryAt(t)}, true
}

// NanoCores returns the CPU usage of the whole node, which is constant.
func (n *Node) NanoCores() uint64 { return n.cpu * 1000 }

// Self returns the sample of the node in an answer at now.
func (n *Node) Self(now time.Time) Sample {
	t := n.selfSampled(now.UnixMilli())
	return Sample{time.UnixMilli(t).UTC(), n.cpuAt(t), n.memory}
}

func (n *Node) cpuAt(t int64) uint64 { return n.cpu * uint64(max(t-n.boot, 0)) }

func (c *Container) cpuAt(t int64) uint64 { return c.NanoCores / 1000 * uint64(t-c.start) }

// memoryAt varies by up to 1 MiB from sample to sample.
func (c *Container) memoryAt(t int64) uint64 { return c.memory + mix(c.clock, uint64(t))%256*4096 }

func (n *Node) selfSampled(now int64) int64 {
	if n.requestTime {
		return now
	}
	const period = 10_000
	phase := int64(n.clock % period)
	return now - (now-phase)%period
}

// sampled returns when something with that timer was last sampled. Time is divided into slots of 15
// s; the sample of each is up to 5 s late, so that two are 10 to 20 s apart.
func (n *Node) sampled(clock uint64, now int64) int64 {
	if n.requestTime {
		return now
	}
	const period, late = 15_000, 5_000
	phase := int64(clock % period)
	slot := (now - phase) / period
	at := func(slot int64) int64 { return phase + slot*period + int64(mix(clock, uint64(slot))%late) }
	if t := at(slot); t <= now {
		return t
	}
	return at(slot - 1)
}

// Append appends the answer at now to dst.
func (n *Node) Append(dst []byte, now time.Time) []byte {
	ms := now.UnixMilli()
	containers := func(name, kind, help string, value func(c *Container, t int64) float64, stamped bool) {
		dst = family(dst, name, kind, help)
		for i := range n.containers {
			c := &n.containers[i]
			t := n.sampled(c.clock, ms)
			if t < c.start {
				continue
			}
			dst = row(dst, name, c.labels, value(c, t), t, stamped)
		}
	}
	zero := func(*Container, int64) float64 { return 0 }
	containers("container_cpu_usage_seconds_total", "counter",
		"[STABLE] Cumulative cpu time consumed by the container in core-seconds",
		func(c *Container, t int64) float64 { return float64(c.cpuAt(t)) / 1e9 }, true)
	containers("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes",
		func(c *Container, t int64) float64 { return float64(c.memoryAt(t)) }, true)
	containers("container_start_time_seconds", "gauge", "[STABLE] Start time of the container since unix epoch in seconds",
		func(c *Container, _ int64) float64 { return float64(c.start) / 1e3 }, false)
	containers("container_swap_limit_bytes", "gauge",
		"[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems", zero, true)
	containers("container_swap_usage_bytes", "gauge",
		"[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems", zero, true)

	t := n.selfSampled(ms)
	self := func(name, kind, help string, value float64) {
		dst = row(family(dst, name, kind, help), name, "", value, t, true)
	}
	self("node_cpu_usage_seconds_total", "counter",
		"[STABLE] Cumulative cpu time consumed by the node in core-seconds", float64(n.cpuAt(t))/1e9)
	self("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes", float64(n.memory))
	self("node_swap_usage_bytes", "gauge",
		"[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems", 0)

	pods := func(name, kind, help string, start float64, value func(c *Container, t int64) float64) {
		dst = family(dst, name, kind, help)
		for i := range n.pods {
			p := &n.pods[i]
			t := n.sampled(p.clock, ms)
			sum, listed := start*float64(max(t-n.boot, 0)), false
			for _, j := range p.containers {
				if c := &n.containers[j]; t >= c.start {
					sum, listed = sum+value(c, t), true
				}
			}
			if listed {
				dst = row(dst, name, p.labels, sum, t, true)
			}
		}
	}
	pods("pod_cpu_usage_seconds_total", "counter",
		"[STABLE] Cumulative cpu time consumed by the pod in core-seconds", podOverhead/1e9,
		func(c *Container, t int64) float64 { return float64(c.cpuAt(t)) / 1e9 })
	pods("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes", 0,
		func(c *Container, t int64) float64 { return float64(c.memoryAt(t)) })
	pods("pod_swap_usage_bytes", "gauge",
		"[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems", 0, zero)

	dst = family(dst, "resource_scrape_error", "gauge",
		"[STABLE] 1 if there was an error while getting container metrics, 0 otherwise")
	return row(dst, "resource_scrape_error", "", 0, 0, false)
}

func family(dst []byte, name, kind, help string) []byte {
	dst = append(append(append(append(dst, "# HELP "...), name...), ' '), help...)
	return append(append(append(append(append(dst, "\n# TYPE "...), name...), ' '), kind...), '\n')
}

func row(dst []byte, name, labels string, value float64, ms int64, stamped bool) []byte {
	dst = append(append(append(dst, name...), labels...), ' ')
	if value == 0 {
		dst = append(dst, '0') // half of all rows, and several times as fast
	} else {
		dst = strconv.AppendFloat(dst, value, 'g', -1, 64)
	}
	if stamped {
		dst = strconv.AppendInt(append(dst, ' '), ms, 10)
	}
	return append(dst, '\n')
}

// mix hashes its arguments to reproducible numbers that look random.
func mix(parts ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, p := range parts {
		hi, lo := bits.Mul64(h^p^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
		h = hi ^ lo ^ bits.RotateLeft64(p, 31)
	}
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>32
}
