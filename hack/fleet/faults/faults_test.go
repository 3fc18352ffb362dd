//go:build faults

package faults

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/kubelets"
	"metrics-server/pkg/kubelet/kubelettest"
)

const (
	nodes      = 100
	resolution = 5 * time.Second
	// late is how much later than promised something may be, because the machine may be busy. What waits for a node that
	// hangs is later by much more.
	late = resolution
	// flooded is how much memory all answers that are too large may take together.
	flooded = 256 << 20
)

// TestFaults applies every fault to a node of its own, all at once, ends them, and then makes 1, 30
// and 100 of 100 nodes fail, in one run of the binary.
func TestFaults(t *testing.T) {
	f := start(t, nodes, 5, resolution)
	t.Parallel()               // with the soak, which finds this port taken: both wait most of the time
	healthy := f.machines[60:] // until more fail
	begun := time.Now()
	f.peak(t)
	time.Sleep(3 * resolution)
	f.right(t)
	before, usual := f.ages(f.seen(begun, time.Now()), healthy), f.peak(t)
	t.Logf("before: %v, %d MiB", before, usual>>20)

	// fresh checks that what is served is about as old as before.
	fresh := func(t *testing.T, what string, got ages) {
		t.Helper()
		t.Logf("%s: %v", what, got)
		if len(got) == 0 || got.quantile(0.5) > before.quantile(0.5)+late ||
			got.quantile(0.99) > before.quantile(0.99)+2*late {
			t.Errorf("what is served of %s is too old: %v; before it was %v", what, got, before)
		}
	}
	// bounded checks the memory since the last time.
	bounded := func(t *testing.T) {
		t.Helper()
		peak := f.peak(t)
		t.Logf("memory: at most %d MiB", peak>>20)
		if peak > usual+flooded {
			t.Errorf("%d MiB of memory, and %d MiB before: answers that are too large took more than %d MiB", peak>>20,
				usual>>20, flooded>>20)
		}
	}

	began := time.Now()
	expiring := map[string]*cluster.Machine{} // still fails while the others recover
	t.Run("each fault", func(t *testing.T) {
		logged, refused := len(f.server.Log()), f.refusals(t)
		failing := map[*cluster.Machine]string{} // cause
		for i := range kubelets.Faults {
			fault, m := &kubelets.Faults[i], f.machines[i]
			f.fault(t, m, fault.Name)
			if fault.Cause != "" {
				failing[m] = fault.Cause
			}
			if slices.Contains([]string{"hang", "500", "1970"}, fault.Name) {
				expiring[fault.Name] = m
				f.excuse(m, began.Add(expiry-2*resolution))
			}
		}
		others := f.machines[len(kubelets.Faults):]
		liar, restarted, moved, readdressed := others[0], others[1], others[2], others[3]
		f.claim(t, liar, healthy[0])
		f.restart(t, restarted, restarted.Addr)
		elsewhere := map[*cluster.Machine]netip.AddrPort{
			moved:       netip.AddrPortFrom(moved.Addr.Addr(), moved.Addr.Port()+100), // beyond those of other fleets
			readdressed: netip.AddrPortFrom(netip.MustParseAddr("127.16.200.1"), readdressed.Addr.Port()),
		}
		for m, to := range elsewhere {
			f.restart(t, m, to)
			failing[m] = "connection refused"
		}

		time.Sleep(4 * resolution)
		held := f.seen(began.Add(late), time.Now())
		f.right(t)
		bounded(t)
		fresh(t, "healthy nodes", f.ages(held, healthy))
		fresh(t, "a kubelet that restarted with another certificate", f.ages(held, []*cluster.Machine{restarted}))
		f.named(t, logged, restarted)
		for m, cause := range failing {
			f.named(t, logged, m, "begins to fail", `cause="`+cause+`"`)
		}
		now := f.refusals(t)
		for i := range kubelets.Faults {
			fault, m := &kubelets.Faults[i], f.machines[i]
			switch {
			case fault.Cause != "":
				continue
			case fault.Refused == "":
				fresh(t, fault.Name, f.ages(held, []*cluster.Machine{m}))
				f.named(t, logged, m)
				continue
			case now[fault.Refused] <= refused[fault.Refused]:
				t.Errorf("%s: no sample was refused as %s", fault.Name, fault.Refused)
			}
			fresh(t, "what is true beside "+fault.Name, f.ages(held, []*cluster.Machine{m}, f.victim(m)))
			f.named(t, logged, m, "refused", fault.Refused)
		}
		if n := f.metric(t, "metrics_server_pod_conflicts_total"); n != 5 {
			t.Errorf("5 pods that two nodes claim are %v conflicts", n)
		}

		healed := time.Now()
		for i := range kubelets.Faults {
			if expiring[kubelets.Faults[i].Name] == nil {
				f.fault(t, f.machines[i], "")
			} else {
				delete(failing, f.machines[i])
			}
		}
		f.must(t, f.kubelets.Add(f.spec(liar)))
		at := map[*cluster.Machine]netip.AddrPort{}
		for m := range failing {
			at[m] = m.Addr
		}
		for m, to := range elsewhere {
			f.cluster.MoveNode(m, to, time.Now())
			at[m] = to
		}
		f.recovers(t, logged, healed, at)
		f.right(t)
	})

	for _, n := range []int{1, 30, nodes} {
		t.Run(fmt.Sprintf("%d of %d nodes", n, nodes), func(t *testing.T) {
			failing := healthy[:min(n, len(healthy))]
			if n == nodes {
				f.expires(t, began, expiring)
				failing = slices.DeleteFunc(slices.Clone(f.machines), func(m *cluster.Machine) bool { // these do already
					return slices.Contains(slices.Collect(maps.Values(expiring)), m)
				})
			}
			logged, broke := len(f.server.Log()), time.Now()
			// The cause of a flood is not certain: it waits for its turn behind the slow ones, and its time
			// may be over before that.
			const flood = "1 GiB"
			often := []string{"1 GiB, slowly", "hang", flood, "500", "endless header", "reset"}
			at := map[*cluster.Machine]netip.AddrPort{}
			for i, m := range failing {
				f.fault(t, m, often[i%len(often)])
				at[m] = f.cluster.Node(m.Name).Addr
			}
			time.Sleep(3 * resolution)
			f.right(t)
			bounded(t)
			for i, m := range failing {
				fault, err := kubelets.FaultNamed(often[i%len(often)])
				f.must(t, err)
				if fault.Name != flood {
					f.named(t, logged, m, "begins to fail", `cause="`+fault.Cause+`"`)
				} else if lines := f.log(logged, m); len(lines) == 0 || !strings.Contains(lines[0], "begins to fail") {
					t.Errorf("node %d (%s) is not said to begin to fail: %s", m.Index, m.Name, strings.Join(lines, "\n"))
				}
			}
			if n < nodes {
				fresh(t, "the others", f.ages(f.seen(broke.Add(late), time.Now()), healthy[n:]))
			}
			healed := time.Now()
			for _, m := range failing {
				f.fault(t, m, "")
			}
			f.recovers(t, logged, healed, at)
			f.right(t)
		})
	}
	t.Run("afterwards", func(t *testing.T) {
		for _, m := range expiring {
			f.fault(t, m, "")
		}
		f.eventually(t, "what had expired is served again", func() error {
			l, err := f.look(t.Context(), nil)
			if err == nil && len(l.pods) != 5*nodes {
				err = fmt.Errorf("%d of %d pods", len(l.pods), 5*nodes)
			}
			return err
		})
		f.excuseNone()
		since := time.Now()
		time.Sleep(2 * resolution)
		f.right(t)
		fresh(t, "all nodes", f.ages(f.seen(since, time.Now()), f.machines))
	})
}

// fault applies the fault of that name to the kubelet of m; "" ends its fault.
func (f *fleet) fault(t *testing.T, m *cluster.Machine, name string) {
	t.Helper()
	f.must(t, f.kubelets.SetFault(f.cluster.Node(m.Name).Addr.Addr(), name))
}

// claim makes a kubelet list the pods of another node, too, with later starts and other usages.
func (f *fleet) claim(t *testing.T, m, other *cluster.Machine) {
	t.Helper()
	s := f.spec(m)
	for _, p := range f.cluster.On(other) {
		p.Seed += 1 << 40
		p.Started = []time.Time{time.Now().Add(-30 * time.Minute)}
		s.Pods = append(s.Pods, p)
	}
	f.must(t, f.kubelets.Add(s))
}

// restart ends the kubelet of m, and starts it with another certificate, possibly at another
// address.
func (f *fleet) restart(t *testing.T, m *cluster.Machine, to netip.AddrPort) {
	t.Helper()
	s := f.spec(m)
	s.Addr = to
	f.must(t, f.kubelets.Remove(m.Addr.Addr()))
	f.must(t, f.kubelets.Add(s))
}

// victim is the pod that the kubelet of m lies about: the first of its answer.
func (f *fleet) victim(m *cluster.Machine) string {
	first := slices.MinFunc(f.cluster.On(m), func(a, b kubelettest.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return first.Namespace + "/" + first.Name
}

// named checks that the log since an offset has one line that names m, with all these words, or none if there are none.
func (f *fleet) named(t *testing.T, since int, m *cluster.Machine, words ...string) {
	t.Helper()
	lines := f.log(since, m)
	if len(words) == 0 && len(lines) == 0 {
		return
	}
	ok := len(lines) == 1 && len(words) > 0
	for _, w := range words {
		ok = ok && strings.Contains(lines[0], w)
	}
	if !ok {
		t.Errorf("node %d (%s) is named in %d lines, want one with %q:\n%s", m.Index, m.Name, len(lines), words,
			strings.Join(lines, "\n"))
	}
}

// recovers waits until each of the nodes that failed answers at its address and the log says so,
// and checks that it does not take longer than promised.
func (f *fleet) recovers(t *testing.T, logged int, healed time.Time, at map[*cluster.Machine]netip.AddrPort) {
	t.Helper()
	slowest := time.Duration(0)
	f.eventually(t, "all nodes recover", func() error {
		for m, addr := range at {
			answered := f.kubelets.LastAnswer(addr.Addr())
			if !answered.After(healed) {
				return fmt.Errorf("node %d is not asked", m.Index)
			}
			if lines := strings.Join(f.log(logged, m), "\n"); !strings.Contains(lines, "works again") {
				return fmt.Errorf("node %d is not said to recover: %s", m.Index, lines)
			}
		}
		slowest = time.Since(healed)
		return nil
	})
	t.Logf("%d nodes recovered within %v", len(at), slowest.Round(100*time.Millisecond))
	if slowest > 2*resolution+late {
		t.Errorf("recovery took %v, want two resolutions of %v", slowest, resolution)
	}
	for m := range at {
		lines := slices.DeleteFunc(f.log(logged, m), func(line string) bool {
			return strings.Contains(line, "no longer refused") || strings.Contains(line, "fails for another cause")
		})
		if len(lines) != 2 {
			t.Errorf("node %d is named in %d lines, want one that it fails and one that it works:\n%s", m.Index, len(lines),
				strings.Join(lines, "\n"))
		}
	}
}

// expires checks that what is on nodes that fail since then is served for as long as promised and not longer.
func (f *fleet) expires(t *testing.T, began time.Time, nodes map[string]*cluster.Machine) {
	t.Helper()
	time.Sleep(time.Until(began.Add(expiry + 3*late)))
	for name, m := range nodes {
		received := began // lies start at once
		pods := []string{f.victim(m)}
		if name != "1970" {
			received = f.kubelets.LastAnswer(m.Addr.Addr())
			pods = f.podsOn(m)
		}
		for _, l := range f.seen(began, time.Now()) {
			for _, p := range pods {
				switch _, served := l.pods[p]; {
				case !served && l.answered.Before(received.Add(expiry-2*late)):
					t.Errorf("%s: pod %s is not served %v after it was received", name, p, l.answered.Sub(received))
				case served && l.asked.After(received.Add(expiry+2*late)):
					t.Errorf("%s: pod %s is still served %v after it was received", name, p, l.asked.Sub(received))
				}
			}
		}
	}
}

// refusals are the samples that were refused so far, by reason.
func (f *fleet) refusals(t *testing.T) map[string]float64 {
	t.Helper()
	all, err := f.client.Metrics(t.Context())
	f.must(t, err)
	refusals := map[string]float64{}
	for series, n := range all {
		if reason, ok := strings.CutPrefix(series, `metrics_server_samples_refused_total{reason="`); ok {
			refusals[strings.TrimSuffix(reason, `"}`)] = n
		}
	}
	return refusals
}

func (f *fleet) metric(t *testing.T, series string) float64 {
	t.Helper()
	all, err := f.client.Metrics(t.Context())
	f.must(t, err)
	n, ok := all[series]
	if !ok {
		t.Errorf("there is no %s", series)
	}
	return n
}

func (f *fleet) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
