package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"metrics-server/pkg/sample"
)

// cgroup is a counter that a kubelet samples when it is created and then every 10 to 20 s.
type cgroup struct {
	created, cpu, mib float64 // seconds, seconds, MiB

	// The sample that the kubelet shows.
	sampled, sampledCPU, sampledMiB float64
	next                            float64 // when the next one is due
}

func create(now float64) *cgroup { return &cgroup{created: now, next: now} }

func (g *cgroup) sample(now float64) { g.sampled, g.sampledCPU, g.sampledMiB = now, g.cpu, g.mib }

// simContainer is a container of a simPod. Its cgroup is nil while it does not run.
type simContainer struct {
	name     string
	run      *cgroup
	stops    float64 // when it ends; 0: never
	restarts float64 // when it starts again; 0: never
	crashes  bool    // again and again
	rate     float64 // CPUs in use
	dead     *cgroup // an ended container that is still listed, with zeros
}

// simPod is a pod of the simulated node.
type simPod struct {
	name       string
	own        *cgroup
	runtime    bool // its containers are sampled by the runtime, when the kubelet is asked
	containers []*simContainer
}

// simNode simulates a healthy kubelet, to a tenth of a second.
type simNode struct {
	rand *rand.Rand
	own  cgroup
	pods []*simPod
}

const simCores = 4

// step lets a tenth of a second pass, up to now.
func (n *simNode) step(now float64) {
	const dt = 0.1
	left := float64(simCores)
	for _, p := range n.pods {
		p.own.mib = 0.4 // the pause container
		for _, c := range p.containers {
			switch {
			case c.run != nil && c.stops > 0 && now >= c.stops:
				if p.runtime {
					c.dead = c.run
				}
				c.run, c.stops = nil, 0
				if c.crashes {
					c.restarts = now + n.rand.Float64()*30
				}
			case c.run == nil && c.restarts > 0 && now >= c.restarts:
				c.run, c.restarts, c.dead = create(now), 0, nil
				if c.crashes {
					c.stops = now + n.rand.Float64()*25
				}
			}
			if c.run == nil {
				continue
			}
			if n.rand.IntN(100) == 0 {
				c.rate = []float64{0, 0.0005, 0.01, 1, simCores}[n.rand.IntN(5)]
			}
			used := min(c.rate, left)
			left -= used
			started := 0.0
			if now-c.run.created > 0.5 { // before that there is nothing yet
				started = 1
				c.run.cpu += used * dt
			}
			if c.run.cpu == 0 && started > 0 {
				c.run.cpu = 0.01 // it takes that much to start
			}
			c.run.mib = started * (1 + 20*c.rate)
			p.own.cpu += used * dt * started
			p.own.mib += c.run.mib
		}
		n.due(p.own, now)
		for _, c := range p.containers {
			if c.run != nil {
				n.due(c.run, now)
			}
		}
	}
	n.own.cpu += (simCores - left) * dt
	n.own.mib = 1000
	if now >= n.own.next {
		n.own.sample(now)
		n.own.next = now + 10
	}
}

func (n *simNode) due(g *cgroup, now float64) {
	if now >= g.next {
		g.sample(now)
		g.next = now + 10 + 10*n.rand.Float64()
	}
}

// answer is what the kubelet answers at now.
func (n *simNode) answer(now float64) string {
	var b strings.Builder
	var cpu, memory, start []string
	row := func(family, labels string, value, t float64) string {
		return fmt.Sprintf("%s%s %v %d\n", family, labels, value, at(t).UnixMilli())
	}
	for _, p := range n.pods {
		for _, c := range p.containers {
			labels := fmt.Sprintf(`{container=%q,namespace="default",pod=%q}`, c.name, p.name)
			g := cmp.Or(c.run, c.dead)
			if g == nil {
				continue
			}
			s := *g
			if p.runtime {
				s.sample(now)
				if c.run == nil {
					s.sampledCPU, s.sampledMiB = 0, 0
				}
			}
			cpu = append(cpu, row("container_cpu_usage_seconds_total", labels, s.sampledCPU, s.sampled))
			memory = append(memory, row("container_memory_working_set_bytes", labels, s.sampledMiB*(1<<20), s.sampled))
			created := float64(at(g.created).UnixMilli()) / 1000
			start = append(start, fmt.Sprintf("container_start_time_seconds%s %f\n", labels, created))
		}
	}
	b.WriteString(strings.Join(slices.Concat(cpu, memory, start), ""))
	b.WriteString(row("node_cpu_usage_seconds_total", "", n.own.sampledCPU, n.own.sampled))
	b.WriteString(row("node_memory_working_set_bytes", "", n.own.sampledMiB*(1<<20), n.own.sampled))
	for _, p := range n.pods {
		labels := fmt.Sprintf(`{namespace="default",pod=%q}`, p.name)
		b.WriteString(row("pod_cpu_usage_seconds_total", labels, p.own.sampledCPU, p.own.sampled))
		b.WriteString(row("pod_memory_working_set_bytes", labels, p.own.sampledMiB*(1<<20), p.own.sampled))
	}
	return b.String()
}

// On a healthy node no sample is ever refused, whatever its containers do, and a pod whose containers
// have run for a while is served.
func TestHealthyNodeHasNoRefusals(t *testing.T) {
	for seed := range uint64(60) {
		n := &simNode{rand: rand.New(rand.NewPCG(seed, 1)), own: cgroup{cpu: 1000}} //nolint:gosec // reproducible
		k := newKubelet(t, simCores)
		for i := range 6 {
			p := &simPod{name: fmt.Sprint("p", i), runtime: i%2 == 1}
			begins := 60 * n.rand.Float64()
			p.own = create(begins)
			if i < 4 { // an init container that works
				ends := begins + 1 + 20*n.rand.Float64()
				p.containers = append(p.containers, &simContainer{name: "init", restarts: begins, stops: ends, rate: 2})
				begins = ends
			}
			for j := range 1 + n.rand.IntN(3) {
				c := &simContainer{name: fmt.Sprint("c", j), restarts: begins, crashes: n.rand.IntN(3) == 0}
				p.containers = append(p.containers, c)
			}
			n.pods = append(n.pods, p)
		}
		for tick := 1; tick < 4000; tick++ {
			now := float64(tick) / 10
			n.step(now)
			if tick%120 != 0 {
				continue
			}
			k.answer(now, n.answer(now))
			if k.refused != (sample.Refusals{}) {
				t.Fatalf("seed %d, at %v s: refused %v", seed, now, &k.refused)
			}
			for _, p := range n.pods {
				settled := true
				for _, c := range p.containers {
					settled = settled && (c.run == nil && c.restarts == 0 && !c.crashes ||
						c.run != nil && now-c.run.created > 45)
				}
				if got := k.served(now, p.name); settled && !strings.HasPrefix(got, "c0 ") {
					t.Fatalf("seed %d, at %v s: pod %s: %s", seed, now, p.name, got)
				}
			}
		}
	}
}
