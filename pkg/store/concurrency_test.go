package store

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"metrics-server/pkg/sample"
)

// Scrapes, leaving nodes, conflicts and readers at once: no race, no partial pod, nothing left over.
func TestConcurrentUse(t *testing.T) {
	const nodes, pods, rounds = 8, 10, 200
	s := New(Config{})
	var work, readers sync.WaitGroup
	stop := make(chan struct{})
	var all []sample.Object // that two nodes have
	for i := range 2 * pods {
		all = append(all, sample.Object{Namespace: "load", Name: fmt.Sprintf("node-%d-%d", i%2, i/2)})
	}
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		work.Go(func() {
			b := listing(name, pods)
			common := listing("common", 2).Containers // every node claims these
			for r := range rounds {
				c := &sample.Batch{Node: b.Node, Containers: append(slices.Clip(b.Containers), common[:r%5]...)}
				for _, p := range s.Record(name, c, at(float64(15*r))).Conflicts {
					s.SetOwner(p.Namespace, p.Pod, name)
				}
				advance(b, 15)
			}
		})
		work.Go(func() {
			for r := range rounds {
				s.RemoveNode(name)
				s.RemovePod("load", fmt.Sprintf("%s-%d", name, r%pods))
				s.RemovePod("load", fmt.Sprintf("common-%d", r%2))
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			var u sample.PodUsage
			usages := make([]sample.PodUsage, 2*pods)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name, now := fmt.Sprintf("node-%d", i%nodes), at(float64(i%3000))
				s.Node(name, now)
				s.WhyNoNode(name, now)
				if s.Pod("load", fmt.Sprintf("%s-%d", name, i%pods), now, &u) && len(u.Containers) != 2 {
					t.Errorf("partial pod: %+v", u)
				}
				s.Pod("load", "common-0", now, &u)
				s.Pods(all, now, usages)
				for i, u := range usages {
					if len(u.Containers)%2 != 0 {
						t.Errorf("%s is partial: %+v", all[i].Name, u)
					}
				}
				s.WhyNoPod("load", "common-1", now)
				s.Points()
			}
		})
	}
	work.Wait()
	close(stop)
	readers.Wait()
	for i := range nodes {
		s.RemoveNode(fmt.Sprintf("node-%d", i))
	}
	if n, c := s.Points(); n != 0 || c != 0 {
		t.Errorf("points left: %d, %d", n, c)
	}
	if claims := len(s.index.pods); claims+len(s.index.contests) > 0 {
		t.Errorf("left: %d claims, %d contests", claims, len(s.index.contests))
	}
}

// While the lock of one node is held, as by a scrape, readers and scrapes of other nodes do not
// wait.
func TestAReaderWaitsForNoOtherNode(t *testing.T) {
	s := New(Config{})
	for _, name := range []string{"x", "y"} {
		b := listing(name, 3)
		s.Record(name, b, at(0))
		advance(b, 15)
		s.Record(name, b, at(15))
	}
	x := s.node("x")
	x.mu.Lock()
	defer x.mu.Unlock()
	var u sample.PodUsage
	if _, ok := s.Node("y", at(15)); !ok || !s.Pod("load", "y-0", at(15), &u) {
		t.Error("not served")
	}
	s.Record("y", listing("y", 5), at(16))
	s.RemoveNode("y")
	s.Points()
}

// A scrape that found its node just before it was removed must not record there.
func TestARemovedNodeCannotBeLocked(t *testing.T) {
	s := New(Config{})
	s.Record("n", listing("n", 3), at(0))
	n := s.node("n")
	if !n.lock() {
		t.Fatal("cannot lock a node")
	}
	n.mu.Unlock()
	s.RemoveNode("n")
	if n.lock() {
		t.Error("locked a removed node")
	}
}
