package customserver

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"metrics-server/pkg/demand"
	"metrics-server/pkg/fairshare"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// startWith is start with limits of that many endpoints and bytes in all.
func startWith(t *testing.T, endpoints, memory int64) *system {
	t.Helper()
	l := newLimits()
	l.endpoints = newPool(fairshare.Fixed(endpoints))
	l.memory = newPool(fairshare.Fixed(memory))
	return startLimited(t, l)
}

// podsIn returns pods of a namespace, which all answer.
func (s *system) podsIn(namespace string, count int) []*sample.Pod {
	all := pods(count)
	for i, p := range all {
		p.Namespace, p.UID = namespace, namespace+p.UID
		p.IP = fmt.Sprintf("10.%d.0.%d", len(namespace), i+1)
		s.listen(p, packets(100))
	}
	return all
}

// wantIn wants the metric queue of pods in a namespace.
func (s *system) wantIn(namespace string, all []*sample.Pod) *demand.Want {
	w := ofPods("queue", all)
	w.Request = demand.PodsRequest(namespace, web, "queue", labels.Everything())
	return s.want(w)
}

// count returns how many pods have a value, and the errors of the others.
func (s *system) count(w *demand.Want) (values int, errs []string) {
	s.t.Helper()
	found := s.collector.find(w.Request)
	if err := found.query.err; err != nil {
		return 0, []string{err.Error()}
	}
	a, err := found.evaluate(s.t.Context(), s.store, time.Now())
	if a == nil {
		return 0, []string{err.Error()}
	}
	for _, m := range a.Missing {
		errs = append(errs, m.Err.Error())
	}
	slices.Sort(errs)
	return len(a.Values), slices.Compact(errs)
}

func (s *system) checkCount(w *demand.Want, values int, errs ...string) {
	s.t.Helper()
	if n, got := s.count(w); n != values || !slices.Equal(got, errs) {
		s.t.Errorf("namespace %s: %d values, want %d; errors %q, want %q", w.Namespace, n, values, got, errs)
	}
}

// nothingTaken checks that all limits are free again.
func (s *system) nothingTaken() {
	s.t.Helper()
	s.collector.mu.RLock()
	defer s.collector.mu.RUnlock()
	for _, of := range []limit{endpointLimit, memoryLimit} {
		if taken, _ := s.collector.limits.pool(of).Taken(); taken != 0 {
			s.t.Errorf("%d of the %s were not given back", taken, of)
		}
	}
	if n := len(s.collector.ofPod) + len(s.collector.refused); n != 0 {
		s.t.Errorf("%d pods and refused wants are remembered", n)
	}
}

// A namespace gets its share of the endpoints, and others theirs. What was refused is scraped as soon as there is room.
func TestEndpointsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startWith(t, 100, 10<<20)
		const refused = `namespace "many" has used up its share of the 100 endpoints that the custom metrics server ` +
			`scrapes: let its HorizontalPodAutoscalers refer to fewer pods, or to the same port and path of a pod`
		many := s.wantIn("many", s.podsIn("many", 90))
		few := s.wantIn("few", s.podsIn("few", 10))
		time.Sleep(time.Minute)
		s.checkCount(many, 75, refused)
		s.checkCount(few, 10)
		if n := s.collector.limits.limited(endpointLimit); n != 1 {
			t.Errorf("%d namespaces are limited, want 1", n)
		}

		second := *many // another metric of the same pods needs no further endpoints
		second.Request = demand.PodsRequest("many", web, "packets-per-second", labels.Everything())
		second.Metric = "packets-per-second"
		s.want(&second)
		time.Sleep(time.Minute)
		s.checkCount(&second, 75, refused)
		s.drop(&second)

		s.wantIn("few", few.Pods[:1])
		s.wantIn("many", many.Pods[:60])
		s.wantIn("many", many.Pods)
		rest := s.wantIn("third", s.podsIn("third", 60)) // more than is free
		time.Sleep(time.Minute)
		if n, errs := s.count(rest); n == 0 || n == 60 || len(errs) != 1 || !strings.Contains(errs[0], `"third"`) {
			t.Errorf("a third namespace: %d values and the errors %q, want some of 60 values and one error", n, errs)
		}
		s.drop(many)
		time.Sleep(time.Minute)
		s.checkCount(rest, 60)
		s.drop(rest)
		s.drop(few)
		time.Sleep(time.Minute)
		s.nothingTaken()
		time.Sleep(quietAfter)
		if n := s.collector.limits.limited(endpointLimit); n != 0 {
			t.Errorf("%d namespaces are limited, want none", n)
		}
	})
}

// HPAs that differ in the path only multiply the scrapes of a pod, up to a limit.
// TestRemediesOfLimits checks that no remedy tells to raise a memory limit that does not matter.
func TestRemediesOfLimits(t *testing.T) {
	before := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(before)
	if remedy := newLimits().orRaise(memoryLimit); remedy != "" {
		t.Errorf("without a memory limit, the remedy is %q", remedy)
	}
	debug.SetMemoryLimit(1 << 26)
	for _, of := range []limit{endpointLimit, memoryLimit} {
		if remedy := newLimits().orRaise(of); remedy != ", or raise the memory limit of the server" {
			t.Errorf("%s: with a memory limit of 64 MiB, the remedy is %q", of, remedy)
		}
	}
}

func TestEndpointsOfAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		wants := make([]*demand.Want, maxEndpointsOfPod+2)
		for i := range wants {
			wants[i] = ofPods(fmt.Sprint("queue-", i), all)
			wants[i].Ask.Path = fmt.Sprint("/", i)
			wants[i].Expression = "sum by (pod) (queue)"
			s.want(wants[i])
		}
		time.Sleep(time.Minute)
		for i, w := range wants {
			want := "web-0 100"
			if i >= maxEndpointsOfPod {
				want = "error: pod web-0 is scraped at 5 endpoints already, which is the limit: let the " +
					`HorizontalPodAutoscalers of namespace "shop" agree on its port and path`
			}
			s.check(w, want)
		}
		s.drop(wants[0])
		s.drop(wants[maxEndpointsOfPod])
		time.Sleep(time.Minute)
		s.check(wants[maxEndpointsOfPod+1], "web-0 100")
		for _, w := range wants {
			s.drop(w)
		}
		s.nothingTaken()
	})
}

func TestMetricsOfAnEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		wants := make([]*demand.Want, maxMetricsOfEndpoint+1)
		for i := range wants {
			wants[i] = ofPods(fmt.Sprint("queue-", i), all)
			wants[i].Expression = "sum by (pod) (queue)"
			s.want(wants[i])
		}
		time.Sleep(time.Minute)
		last := wants[maxMetricsOfEndpoint]
		s.check(wants[0], "web-0 100")
		s.check(last, "error: pod web-0 has 50 metrics already, which is the limit at one URL "+
			`(http://10.0.0.1:8080/metrics): let the HorizontalPodAutoscalers of namespace "shop" that select it refer to fewer`)
		s.drop(wants[0])
		time.Sleep(time.Minute)
		s.check(last, "web-0 100")
		for _, w := range wants {
			s.drop(w)
		}
		s.nothingTaken()
	})
}

// Expressions and series count for the memory of their namespace.
func TestMemoryIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startWith(t, 1000, 100<<10)
		const refused = `namespace "shop" has used up its share of the memory for custom metrics: let its ` +
			`HorizontalPodAutoscalers select fewer series by label, shorten the ranges of expressions, or remove metrics`
		all := s.podsIn("shop", 1)
		var wants []*demand.Want
		for i := range 100 {
			w := ofPods(fmt.Sprint("queue-", i), nil)
			w.Expression = "sum by (pod) (queue{x!~\"" + strings.Repeat("x", 100) + "\"})"
			w.Pods = all
			wants = append(wants, s.want(w))
		}
		time.Sleep(time.Minute)
		s.check(wants[0], "web-0 100")
		s.check(wants[99], "error: "+refused)
		few := s.wantIn("few", s.podsIn("few", 5))
		time.Sleep(time.Minute)
		s.checkCount(few, 5)
		for _, w := range wants[:97] {
			s.drop(w)
		}
		time.Sleep(time.Minute)
		s.check(wants[99], "web-0 100")
		for _, w := range append(wants[97:], few) {
			s.drop(w)
		}
		time.Sleep(time.Minute)
		s.nothingTaken()
	})
}

// However HPAs, pods and limits change, nothing that was taken is lost or given back twice.
func TestLimitsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startWith(t, 40, 60<<10)
		r := rand.New(rand.NewPCG(1, 2))
		all := s.podsIn("shop", 20)
		last := map[string]*demand.Want{}
		for range 500 {
			name := fmt.Sprint("queue-", r.IntN(10))
			w := ofPods(name, nil)
			for _, p := range all {
				if r.IntN(3) == 0 {
					w.Pods = append(w.Pods, p)
				}
			}
			w.Ask.Path = fmt.Sprint("/", r.IntN(7))
			w.Ask.Scheme = []string{"", "", "https"}[r.IntN(3)]
			w.Expression = []string{"", "sum by (pod) (queue)", "(", "sum by (pod) (rate(queue[10s]))"}[r.IntN(4)]
			if r.IntN(4) == 0 {
				s.drop(w)
				delete(last, name)
			} else {
				last[name] = s.want(w)
			}
			time.Sleep(time.Duration(r.IntN(8)) * time.Second)
			s.collector.mu.RLock()
			endpoints, most := s.collector.limits.endpoints.Taken()
			sum := int64(0)
			for _, p := range s.collector.pages {
				sum += p.cost
			}
			s.collector.mu.RUnlock()
			if endpoints != sum || sum > most {
				t.Fatalf("%d of %d endpoints are taken, but %d are scraped", endpoints, most, sum)
			}
		}
		for _, w := range last {
			s.drop(w)
		}
		time.Sleep(time.Minute)
		s.nothingTaken()
	})
}

// However many metrics of pods that cannot be scraped HPAs refer to, what the server holds for them is the memory
// that their namespace may have.
func TestMemoryOfRefusals(t *testing.T) {
	for _, tt := range []struct {
		name      string
		endpoints int64
		change    func(i int, w *demand.Want)
	}{
		{"pods without a port", 1 << 20, func(_ int, w *demand.Want) {
			for _, p := range w.Pods {
				p.Containers = nil
			}
		}},
		{"too many endpoints", 10, func(int, *demand.Want) {}},
		{"too many endpoints of a pod", 1 << 20, func(i int, w *demand.Want) { w.Ask.Path = fmt.Sprint("/", i) }},
		{"too much memory", 1 << 20, func(_ int, w *demand.Want) { w.Expression = "sum by (pod) (queue)" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startWith(t, tt.endpoints, 2<<20)
				all := pods(500)
				before := sharedtest.Heap()
				for _, now := range [][]*sample.Pod{nil, all} { // so that there is memory for all expressions
					for i := range 200 {
						w := ofPods(fmt.Sprint("queue-", i), now)
						tt.change(i, w)
						s.want(w)
					}
				}
				// Without a limit it would be 200 times 500 times 24 bytes and more, and several times that with errors.
				if grown := sharedtest.Heap() - before; grown > 6<<20 {
					t.Errorf("the heap has grown by %d KiB, want 2 MiB and some more", grown>>10)
				}
				for _, w := range s.current {
					s.drop(w)
				}
				time.Sleep(time.Minute)
				s.nothingTaken()
			})
		})
	}
}

// variable returns a pool whose limit the test may change.
func variable(limit int64) (*fairshare.Pool, *atomic.Int64) {
	l := new(atomic.Int64)
	l.Store(limit)
	return newPool(l.Load), l
}

// A metric that was refused because of a limit on a pod is tried again only when the pod has room, so that many of
// them delay nobody.
func TestRefusedByAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(2)
		for _, p := range all {
			s.listen(p, packets(100))
		}
		wantAt := func(path int, pods ...*sample.Pod) *demand.Want {
			w := ofPods(fmt.Sprint("queue-", path), pods)
			w.Ask.Path, w.Expression = fmt.Sprint("/", path), "sum by (pod) (queue)"
			return s.want(w)
		}
		for i := range maxEndpointsOfPod {
			wantAt(i, all...)
		}
		var refused []*demand.Want
		for i := range 2 {
			refused = append(refused, wantAt(100+i, all[0]))
		}
		other := wantAt(200, all[1])
		find := func(w *demand.Want) *wanted { return s.collector.find(w.Request) }
		first, second, third := find(refused[0]), find(refused[1]), find(other)
		time.Sleep(time.Minute)
		if find(refused[0]) != first || find(refused[1]) != second || find(other) != third {
			t.Error("metrics are tried again although their pods have no room")
		}
		wantAt(0, all[1]) // so that the first pod has room for one, and the second pod has not
		time.Sleep(time.Minute)
		if find(other) != third {
			t.Error("a metric of another pod is tried again")
		}
		got := []string{s.served(refused[0]), s.served(refused[1])}
		slices.Sort(got)
		if got[1] != "web-0 100" || !strings.Contains(got[0], "is scraped at 5 endpoints already") {
			t.Errorf("got %q, want one metric served and one refused", got)
		}
		for _, w := range s.current {
			s.drop(w)
		}
		time.Sleep(time.Minute)
		s.nothingTaken()
	})
}

// A namespace that has room for a little, but not for any of its many metrics, does not keep others from being tried
// again.
func TestRetriesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		endpoints, most := variable(1000)
		l.endpoints = endpoints
		s := startLimited(t, l)
		all := s.podsIn("shop", 46)
		s.wantIn("shop", all)
		most.Store(46)
		var others []*demand.Want
		for i := range 15 {
			name := "other" + strings.Repeat("-", i)
			others = append(others, s.wantIn(name, s.podsIn(name, 1)))
		}
		for i := range 3 * retries {
			w := ofPods(fmt.Sprint("queue-", i), all[:1])
			w.Ask.Scheme = "https" // four endpoints; the namespace may take 3*16-46
			s.want(w)
		}
		time.Sleep(time.Minute)
		for _, w := range others {
			if n, _ := s.count(w); n != 0 {
				t.Fatalf("namespace %s is scraped although there are no endpoints", w.Namespace)
			}
		}
		most.Store(46 + 16)
		time.Sleep(interval + time.Second)
		for _, w := range others {
			s.checkCount(w, 1)
		}
	})
}

// What was refused for lack of memory is tried again when there is memory, and no other limit is blamed. A namespace
// that goes on wanting more counts as limited for as long.
func TestRetriesOfOneLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		endpoints, most := variable(100)
		memory, bytes := variable(1 << 20)
		l.endpoints, l.memory = endpoints, memory
		s := startLimited(t, l)
		first := s.wantIn("shop", s.podsIn("shop", 10))
		time.Sleep(time.Minute)
		most.Store(10)
		taken, _ := memory.Taken()
		bytes.Store(taken + 3<<10)
		second := *first
		second.Request = demand.PodsRequest("shop", web, "packets", labels.Everything())
		second.Metric = "packets"
		s.want(&second)
		limited := func(endpoints, memory int) {
			t.Helper()
			if e, m := l.limited(endpointLimit), l.limited(memoryLimit); e != endpoints || m != memory {
				t.Errorf("limited: %d by endpoints and %d by memory, want %d and %d", e, m, endpoints, memory)
			}
		}
		time.Sleep(time.Minute)
		limited(0, 1)
		time.Sleep(2 * quietAfter)
		limited(0, 1)
		bytes.Store(1 << 20)
		time.Sleep(time.Minute)
		s.checkCount(&second, 10)
		time.Sleep(quietAfter)
		limited(0, 0)
	})
}

// An HPA that changes where or how its pods are scraped may take what it gives back by that.
func TestAnEditTakesWhatItGives(t *testing.T) {
	for _, tt := range []struct {
		name              string
		endpoints, memory int64
		edit              func(w *demand.Want)
	}{
		{"path", 100, 10 << 20, func(w *demand.Want) { w.Ask.Path = "/other" }},
		{"expression", 1000, 200 << 10, func(w *demand.Want) { w.Window = 2 * demand.DefaultWindow }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startWith(t, tt.endpoints, tt.memory)
				w := s.wantIn("shop", s.podsIn("shop", 60))
				time.Sleep(time.Minute + time.Second) // not when refused metrics are tried again
				s.checkCount(w, 60)
				edited := *w
				tt.edit(&edited)
				s.want(&edited)
				time.Sleep(time.Second)
				s.checkCount(&edited, 60)
				s.drop(&edited)
				time.Sleep(time.Minute)
				s.nothingTaken()
			})
		})
	}
}

// Namespaces that were limited long ago are forgotten even if nobody reads the metrics.
func TestRefusalsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		for range 10 {
			for i := range 100 {
				l.refuse(endpointLimit, fmt.Sprint(time.Now(), i))
			}
			time.Sleep(quietAfter)
		}
		if n := len(l.refused); n > 200 {
			t.Errorf("%d namespaces are remembered, want those of the last 10 minutes", n)
		}
	})
}

// A namespace whose share has shrunk because others have grown can still replace its pods. It gets back what it gave a
// moment ago, and no more.
func TestRolloutAboveTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startWith(t, 100, 10<<20)
		all := s.podsIn("shop", 90)
		w := s.wantIn("shop", all[:70])
		s.wantIn("other", s.podsIn("other", 20))
		time.Sleep(time.Minute)
		s.checkCount(w, 70) // and with 10 free endpoints, its share is 30
		scraped := func() int {
			n := 0
			for _, at := range s.collector.find(w.Request).places {
				if at.page != nil {
					n++
				}
			}
			return n
		}
		check := func(want int) {
			t.Helper()
			if n := scraped(); n != want {
				t.Errorf("%d pods are scraped, want %d", n, want)
			}
		}
		s.wantIn("shop", all[:71]) // surge
		time.Sleep(time.Minute)
		check(70)
		s.wantIn("shop", all[1:71])
		check(70)
		s.wantIn("shop", all[11:81]) // ten are replaced at once
		check(70)
		s.wantIn("shop", all[11:])
		time.Sleep(time.Minute)
		check(70)
		s.wantIn("shop", all[31:])
		check(59)
		time.Sleep(2 * replaceWithin)
		s.wantIn("shop", all[21:])
		check(60) // that is its share
	})
}

// Of the large pages of a namespace, one is parsed at a time. Others are not affected, nor are small pages.
func TestLargePagesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		large := metricsPage("# "+strings.Repeat("x", turnPage)+"\nqueue 1\n", func(float64) []any { return nil })
		many, few := s.podsIn("many", 3), s.podsIn("few", 3)
		for _, p := range []*sample.Pod{many[0], many[1], few[0], few[1]} {
			s.listen(p, large)
		}
		end, err := s.collector.parsing.take(t.Context(), "many")
		if err != nil {
			t.Fatal(err)
		}
		of, others := s.wantIn("many", many), s.wantIn("few", few)
		time.Sleep(20 * time.Second)
		s.checkCount(others, 3)
		const late = `its page was not parsed in time, because only one page of namespace "many" that has more than ` +
			`64 KiB, or is matched with many or long patterns, is parsed at a time: make the pages smaller, or use = ` +
			`instead of =~ in expressions`
		n, errs := s.count(of)
		if n != 1 || len(errs) != 2 || !strings.HasSuffix(errs[0], late) || !strings.Contains(errs[0], many[0].Name) {
			t.Errorf("%d values and the errors %q, want one value and two errors", n, errs)
		}
		end()
		time.Sleep(time.Minute)
		s.checkCount(of, 3)
	})
}

// TestCostlyPagesTakeTurns checks that of the small pages of a namespace that may take long to match with patterns, one
// is parsed at a time.
func TestCostlyPagesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], metricsPage("# "+strings.Repeat("x", 10_000)+"\nqueue 1\n", func(float64) []any { return nil }))
		end, err := s.collector.parsing.take(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		cheap := ofPods("queue", all)
		cheap.Expression = `sum by (pod) (queue{a=~"x|y|"})`
		s.want(cheap)
		time.Sleep(20 * time.Second)
		s.check(cheap, "web-0 1")
		costly := ofPods("queues", all)
		costly.Expression = `sum by (pod) (queue{a!~"(x*){100}y"})`
		s.want(costly)
		time.Sleep(20 * time.Second)
		if got := s.served(costly); !strings.Contains(got, "is matched with many or long patterns") {
			t.Errorf("got %s, want that the page waits for its turn", got)
		}
		end()
		time.Sleep(20 * time.Second)
		s.check(costly, "web-0 1")
	})
}
