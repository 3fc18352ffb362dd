package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

var epoch = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// at is the moment s seconds into a test, by this server's clock and, in ms, by the kubelet's.
func at(s float64) time.Time   { return epoch.Add(time.Duration(s * float64(time.Second))) }
func ms(s float64) sample.Time { return sample.TimeOf(at(s)) }

const (
	mib   = 1 << 20
	whole = sample.CPU | sample.Memory

	unlisted = "no kubelet lists it: it has just started or ended, its node has not answered yet, or --node-selector " +
		"leaves its node out"
)

// refusedAs returns the end of the 404 if the last sample was refused.
func refusedAs(why sample.Reason) string {
	return fmt.Sprintf("; the last sample was refused as %v: %s", why, why.Meaning())
}

// idle returns what follows unlisted if so many nodes list no running container.
func idle(nodes int, example string) string {
	return fmt.Sprintf("; or it runs on one of the nodes that list no running container (%d, such as %q), and the "+
		"container runtime there gives the kubelet no metrics", nodes, example)
}

// ctr is a sample of a container of pod "p" in namespace "ns" with CPU in seconds and 10 MiB.
func ctr(name string, t, cpu float64) sample.Container {
	return sample.Container{
		ID:     new(sample.NewContainerID("ns", "p", name)),
		Sample: sample.Sample{Time: ms(t), CPU: uint64(cpu * 1e9), Memory: 10 * mib, Given: whole},
	}
}

// started is c with the start time s.
func started(c sample.Container, s float64) sample.Container {
	c.Start, c.Given = ms(s), c.Given|sample.Start
	return c
}

// given is c with only these fields given.
func given(c sample.Container, f sample.Fields) sample.Container {
	c.Given = f
	if !f.Has(sample.CPU) {
		c.CPU = 0
	}
	if !f.Has(sample.Memory) {
		c.Memory = 0
	}
	return c
}

// ofPod is c in another pod.
func ofPod(pod string, c sample.Container) sample.Container {
	c.ID = new(sample.NewContainerID(c.ID.Namespace(), pod, c.ID.Container()))
	return c
}

// machine is a sample of a node.
func machine(t, cpu float64) sample.Sample {
	return sample.Sample{Time: ms(t), CPU: uint64(cpu * 1e9), Memory: 100 * mib, Given: whole}
}

func batchOf(cs ...sample.Container) *sample.Batch { return &sample.Batch{Containers: cs} }

// fixture records answers of nodes and looks at what is served.
type fixture struct {
	*testing.T
	*Store
}

// capacity is that of every node.
func capacity(cores, mibs uint64) func(string) sample.Capacity {
	return func(string) sample.Capacity { return sample.Capacity{CPU: cores * 1e9, Memory: mibs * mib} }
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	return fixture{t, New(Config{})}
}

// answer records an answer of node "n" received s seconds into the test.
func (f fixture) answer(s float64, cs ...sample.Container) Report {
	return f.answerFrom("n", s, cs...)
}

func (f fixture) answerFrom(node string, s float64, cs ...sample.Container) Report {
	return f.Record(node, batchOf(cs...), at(s))
}

// served is a usage in units that are easy to write down.
type served struct {
	T, Window float64 // seconds
	Milli     int64   // millicores of all containers
	MiB       uint64
	Names     string // of the containers, one letter each
}

func (f fixture) get(s float64) (u sample.PodUsage, ok bool) {
	ok = f.Pod("ns", "p", at(s), &u)
	return u, ok
}

// want fails unless pod "p" is served with w at s.
func (f fixture) want(s float64, w served) {
	f.Helper()
	u, ok := f.get(s)
	if why := f.WhyNoPod("ns", "p", at(s)); !ok || why != "" {
		f.Fatalf("at %vs: pod is not served: %q", s, why)
	}
	got := served{T: float64(u.Time-ms(0)) / 1e3, Window: u.Window.Seconds()}
	for _, c := range u.Containers {
		got.Milli += int64(c.CPU) / 1e6
		got.MiB += c.Memory / mib
		got.Names += c.Name
	}
	if d := cmp.Diff(w, got); d != "" {
		f.Fatalf("at %vs: served (-want +got):\n%s", s, d)
	}
}

// wantNone fails unless pod "p" is not served at s, and for the reason why.
func (f fixture) wantNone(s float64, why string) {
	f.Helper()
	if u, ok := f.get(s); ok || len(u.Containers) > 0 {
		f.Fatalf("at %vs: pod is served: %+v", s, u)
	}
	if got := f.WhyNoPod("ns", "p", at(s)); got != why {
		f.Fatalf("at %vs: why\n got %q\nwant %q", s, got, why)
	}
}

// wantNode fails unless pod "p" is served from a node at s.
func (f fixture) wantNode(s float64, node string) {
	f.Helper()
	if u, ok := f.get(s); !ok || u.Node != node {
		f.Fatalf("at %vs: served from %q (%v), want %q", s, u.Node, ok, node)
	}
}
