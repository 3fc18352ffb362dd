package customserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/podtarget"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// network is where pods listen, by address. Each address is that of a handler.
type network struct {
	mu    sync.Mutex
	pods  map[string]http.Handler
	asked map[string]int // requests by address
	wg    sync.WaitGroup
}

// dial connects to a pod, whose server ends with the connection.
func (n *network) dial(_ context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods[addr] == nil {
		return nil, &net.OpError{Op: "dial", Err: errors.New("nobody listens")}
	}
	ours, theirs := net.Pipe()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.asked[addr]++
		h := n.pods[addr]
		n.mu.Unlock()
		h.ServeHTTP(w, r)
	})}
	n.wg.Go(func() { _ = s.Serve(&single{conn: theirs}) })
	return ours, nil
}

// requests returns how often a pod was asked.
func (n *network) requests(p *sample.Pod) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[p.IP+":8080"]
}

// single is a listener with one connection.
type single struct {
	conn net.Conn
	once sync.Once
}

func (l *single) Accept() (net.Conn, error) {
	err := net.ErrClosed
	l.once.Do(func() { err = nil })
	return l.conn, err
}
func (*single) Close() error     { return nil }
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// page is a handler with a page that depends on how long it has run, in seconds.
func metricsPage(format string, value func(seconds float64) []any) http.Handler {
	start := time.Now()
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, format, value(time.Since(start).Seconds())...)
	})
}

// packets is a page with a counter that grows by so much a second, and a gauge.
func packets(perSecond float64) http.Handler {
	return metricsPage("# TYPE packets_total counter\npackets_total %g\n# TYPE queue gauge\nqueue %g\n",
		func(s float64) []any { return []any{1e6 + perSecond*s, perSecond} })
}

// system is a collector with values, and the pods of one Deployment.
type system struct {
	*values
	t         *testing.T
	network   *network
	collector *collector
	backends  *backends
	current   map[demand.Request]*demand.Want
}

// start runs a collector until the test ends.
func start(t *testing.T) *system {
	t.Helper()
	return startLimited(t, newLimits())
}

func startLimited(t *testing.T, l *limits) *system {
	t.Helper()
	n := &network{pods: map[string]http.Handler{}, asked: map[string]int{}}
	targets, err := podtarget.New(podtarget.Config{Dial: n.dial})
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, network: n, current: map[demand.Request]*demand.Want{}}
	s.collector = newCollector(l, targets, newScrapes(prometheus.NewRegistry()).report)
	s.backends = newBackends(l, newQueries(prometheus.NewRegistry()))
	s.values = &values{
		find: func(r demand.Request) (*demand.Want, error) {
			if w := s.current[r]; w != nil {
				return w, nil
			}
			return nil, errors.New("nobody refers to it")
		},
		wants: func(string) (all []*demand.Want) {
			for _, w := range s.current {
				all = append(all, w)
			}
			return all
		},
		collected: s.collector.find, store: s.collector.store,
		polled: s.backends.find, tables: &tables{},
	}
	t.Cleanup(n.wg.Wait)
	sharedtest.Start(t, t.Context(), s.collector.run)
	return s
}

// listen lets a pod answer.
func (s *system) listen(p *sample.Pod, h http.Handler) {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	s.network.pods[p.IP+":8080"] = h
}

func (s *system) want(w *demand.Want) *demand.Want {
	s.current[w.Request] = w
	s.collector.set(w)
	return w
}

func (s *system) drop(w *demand.Want) {
	delete(s.current, w.Request)
	s.collector.remove(w.Request)
}

// pods returns ready pods with a metrics port.
func pods(count int) []*sample.Pod {
	all := make([]*sample.Pod, count)
	for i := range all {
		all[i] = &sample.Pod{
			Object: sample.Object{Namespace: "shop", Name: fmt.Sprintf("web-%d", i)}, UID: fmt.Sprintf("uid-%d", i),
			IP: fmt.Sprintf("10.0.0.%d", i+1), Ready: true, WasReady: true,
			Containers: []sample.PodContainer{{Name: "web", Ports: []sample.ContainerPort{
				{Name: "metrics", Number: 8080, Protocol: "TCP"},
			}}},
		}
	}
	return all
}

var web = labels.SelectorFromSet(labels.Set{"app": "web"})

// ofPods is a metric of type Pods.
func ofPods(metric string, all []*sample.Pod) *demand.Want {
	return &demand.Want{
		Request: demand.PodsRequest("shop", web, metric, labels.Everything()), Name: metric, HPAs: []string{"web"},
		Type: autoscalingv2.PodsMetricSourceType, Definition: demand.Definition{Window: demand.DefaultWindow}, Pods: all,
	}
}

// served returns what the HPA controller gets: the values by pod, or the error.
func (s *system) served(w *demand.Want) string {
	s.t.Helper()
	list, err := s.Pods(s.t.Context(), "shop", web, w.Metric, labels.Everything())
	if err != nil {
		return "error: " + err.Error()
	}
	var got []string
	for _, v := range list {
		got = append(got, fmt.Sprintf("%s %.4g", v.Of.Name, v.Number))
	}
	return strings.Join(got, ", ")
}

func (s *system) check(w *demand.Want, want string) {
	s.t.Helper()
	if got := s.served(w); got != want {
		s.t.Errorf("%s is %q, want %q", w.Metric, got, want)
	}
}

// TestANewMetric follows an HPA from its creation to its end: rates after the second page, levels after the first,
// pods that come and go, another metric of the same pods.
func TestANewMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(3)
		for i, p := range all {
			s.listen(p, packets(float64(100*(i+1))))
		}
		time.Sleep(time.Hour) // the counters did not begin just now
		rate := s.want(ofPods("packets-per-second", all[:2]))
		time.Sleep(time.Second)
		if got := s.served(rate); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, "rate") {
			t.Errorf("after the first page: %s", got)
		}
		time.Sleep(6 * time.Second)
		s.check(rate, "web-0 100, web-1 200")

		level := s.want(ofPods("queue", all[:2]))
		time.Sleep(time.Second)
		s.check(level, "web-0 100, web-1 200")
		s.check(rate, "web-0 100, web-1 200")

		rate = s.want(ofPods("packets-per-second", all)) // one more pod
		time.Sleep(7 * time.Second)
		s.check(rate, "web-0 100, web-1 200, web-2 300")
		rate = s.want(ofPods("packets-per-second", all[1:])) // one fewer
		s.check(rate, "web-1 200, web-2 300")
		s.check(level, "web-0 100, web-1 200")

		s.drop(rate)
		s.check(rate, "error: nobody refers to it")
		if n := s.collector.size(); n != 2 {
			t.Errorf("%d pages are asked for the metric that is left, want 2", n)
		}
		s.drop(level)
		time.Sleep(time.Minute)
		if size := s.store.Size(); s.collector.size() != 0 || size != (appmetrics.Size{}) || len(s.collector.shared) != 0 {
			t.Errorf("left: %d pages, %+v, %d Kept", s.collector.size(), size, len(s.collector.shared))
		}
		asked := s.network.requests(all[0])
		time.Sleep(time.Hour)
		if again := s.network.requests(all[0]); again != asked {
			t.Errorf("a pod that nobody wants was asked %d times", again-asked)
		}
	})
}

// TestDroppedDuringAScrape checks that an answer which arrives when nobody wants it any more leaves nothing behind.
func TestDroppedDuringAScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		w := s.want(ofPods("queue", all))
		p := s.collector.find(w.Request).places[0].page
		kept := p.keep.Kept
		s.drop(w)
		// A scrape that was canceled too late records its page.
		late := func() {
			a := podtarget.Page{At: time.Now(), Body: []byte("queue 1\n")}
			if err := p.record(t.Context(), a, kept, all[0]); err != nil {
				t.Error(err)
			}
		}
		late()
		s.listen(all[0], packets(100))
		s.want(w)
		time.Sleep(time.Second)
		late() // even now, when it is wanted again
		s.check(w, "web-0 100")
		s.drop(w)
		time.Sleep(time.Minute)
		if size := s.store.Size(); size != (appmetrics.Size{}) {
			t.Errorf("the store has %+v", size)
		}
	})
}

// TestARemovedMetricCausesNoScrape checks that pods are not asked out of turn if only one of their metrics goes.
func TestARemovedMetricCausesNoScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		first := s.want(ofPods("queue", all))
		s.want(ofPods("packets-per-second", all))
		time.Sleep(time.Minute)
		p := s.collector.find(first.Request).places[0].page
		before := p.round
		s.drop(first)
		if p.round != before {
			t.Error("the pod is scraped at once, as if something were new")
		}
	})
}

// TestWhatIsKeptIsShared checks that pods with the same queries share what describes it.
func TestWhatIsKeptIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(50)
		s.want(ofPods("queue", all))
		s.want(ofPods("packets-per-second", all[:25]))
		if n := len(s.collector.shared); n != 2 {
			t.Errorf("%d Kept for pods with two sets of queries, want 2", n)
		}
	})
}

// TestPodsWithoutAValue checks who is missing, and what is said if all are.
func TestPodsWithoutAValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(4)
		s.listen(all[0], packets(100))
		s.listen(all[1], http.NotFoundHandler())
		all[2].Ready, all[2].WasReady = false, false
		s.listen(all[2], packets(300))
		all[3].Containers[0].Ports = nil
		w := s.want(ofPods("queue", all))
		time.Sleep(10 * time.Second)
		s.check(w, "web-0 100")

		s.check(s.want(ofPods("queue", all[2:3])), "error: pod web-2 has not been ready yet: "+
			"if this lasts, see kubectl describe pod")
		one := s.want(ofPods("queue", all[1:2]))
		time.Sleep(time.Second)
		got := s.served(one)
		if want := "pod web-1 at http://10.0.0.2:8080/metrics: it answers 404 Not Found: "; !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		got = s.served(s.want(ofPods("queue", all[3:])))
		const noPort = "pod web-3 does not say on which port its metrics are: it declares no ports"
		if !strings.Contains(got, noPort) {
			t.Errorf("%q, want %q", got, noPort)
		}
		got = s.served(s.want(ofPods("queue", nil)))
		if !strings.Contains(got, "no pods for metric queue") {
			t.Errorf("%q without pods", got)
		}
	})
}

// TestAPodThatStarts checks that a pod which did not answer yet is asked again as soon as it is ready.
func TestAPodThatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		starting := pods(1)
		starting[0].Ready, starting[0].WasReady = false, false
		s.want(ofPods("packets-per-second", starting))
		time.Sleep(10 * time.Second) // nobody listens: it fails twice
		ready := pods(1)
		s.listen(ready[0], packets(100))
		w := s.want(ofPods("packets-per-second", ready))
		time.Sleep(7 * time.Second)
		s.check(w, "web-0 100")
	})
}

// TestAnotherRate checks that another rate of a pod that has been asked for long has a value soon, wherever in its
// interval the pod is, and even if it is being asked at that moment.
func TestAnotherRate(t *testing.T) {
	for at := time.Duration(0); at < interval; at += interval / 30 {
		synctest.Test(t, func(t *testing.T) {
			s, all := start(t), pods(1)
			page := packets(100)
			s.listen(all[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-time.After(time.Second):
					page.ServeHTTP(w, r)
				case <-r.Context().Done():
				}
			}))
			s.want(ofPods("queue", all))
			time.Sleep(time.Minute + at)
			w := s.want(ofPods("packets-per-second", all))
			// The answer that is awaited, which does not know of the rate, and two more, 5 s apart, take a second each.
			time.Sleep(8*time.Second + 100*time.Millisecond)
			s.check(w, "web-0 100")
		})
	}
}

// TestEditsDelayNobody checks that an HPA that is edited all the time makes pods asked every 5 s at most, moves none
// that hangs to those that answer, and does not delay the first value of another HPA.
func TestEditsDelayNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(200)
		hanging, answering, other := all[0], all[1], all[199]
		s.listen(hanging, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		s.listen(answering, packets(100))
		s.listen(other, packets(200))
		edited := func(i int) *demand.Want {
			w := ofPods("load", all[:199])
			w.Definition = demand.Definition{Expression: fmt.Sprintf("%d * sum by (pod) (queue)", i)}
			return s.want(w)
		}
		edited(0)
		time.Sleep(time.Minute)
		before, beforeHanging := s.network.requests(answering), s.network.requests(hanging)
		for i := range 300 {
			edited(i)
			time.Sleep(time.Second / 10)
		}
		status := s.collector.usual.Status()
		if status.Failing != 198 || status.Waiting != 0 {
			t.Errorf("%d pods fail and %d wait for their first scrape, want 198 and 0", status.Failing, status.Waiting)
		}
		if n := s.network.requests(answering) - before; n < 6 || n > 9 {
			t.Errorf("a pod was scraped %d times in 30 s, want 6 to 9", n)
		}
		if n := s.network.requests(hanging) - beforeHanging; n > 4 {
			t.Errorf("a pod that hangs was scraped %d times in 30 s, want at most 4", n)
		}
		level := s.want(ofPods("queue", all[199:]))
		time.Sleep(time.Second / 10)
		s.check(level, "web-199 200")
		w := edited(1000)
		time.Sleep(6 * time.Second)
		s.check(w, "web-1 1e+05")
	})
}

// TestAFailureHidesNothing checks that the last value is held for a minute, and then the reason is given.
func TestAFailureHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		w := s.want(ofPods("packets-per-second", all))
		time.Sleep(40 * time.Second)
		s.listen(all[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "simulated", http.StatusInternalServerError)
		}))
		time.Sleep(40 * time.Second)
		s.check(w, "web-0 100")
		time.Sleep(60 * time.Second)
		if got := s.served(w); !strings.Contains(got, "it answers 500 Internal Server Error") {
			t.Errorf("a minute after the last good answer got %q, want the status 500", got)
		}
	})
}

// TestFilters checks that a pod whose filter by name hides what is wanted is asked for everything, and that its
// counter does not seem to begin at that moment.
func TestFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		page := packets(100)
		var filtered atomic.Int32
		s.listen(all[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("name[]") {
				filtered.Add(1)
				w.Header().Set("Content-Type", "text/plain; version=0.0.4")
				fmt.Fprintln(w, "process_start_time_seconds 1")
				return
			}
			page.ServeHTTP(w, r)
		}))
		w := s.want(ofPods("packets-per-second", all))
		time.Sleep(time.Minute)
		s.check(w, "web-0 100")
		if n := filtered.Load(); n != 1 {
			t.Errorf("it was asked with a filter %d times, want once", n)
		}
	})
}

// TestShortWindow checks that pods are asked more often for a window that is shorter than two intervals.
func TestShortWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		w := ofPods("packets-per-second", all)
		w.Window = demand.MinWindow
		s.want(w)
		time.Sleep(time.Minute)
		s.check(w, "web-0 100")
		if n := s.network.requests(all[0]); n < 12 || n > 16 {
			t.Errorf("the pod was scraped %d times in a minute, want 12 to 16", n)
		}
	})
}

// TestAnotherMeaning checks that a metric whose expression changes has its new value, and that mistakes say where
// they are.
func TestAnotherMeaning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		w := s.want(ofPods("load", all))
		time.Sleep(2 * time.Second)
		if got := s.served(w); !strings.Contains(got, "load") {
			t.Errorf("got %q, want a text that names the metric", got)
		}
		w = ofPods("load", all)
		w.Definition = demand.Definition{Expression: "2 * sum by (pod) (queue)"}
		w.ExpressionAt = "annotation metrics-server/queries of HorizontalPodAutoscaler web, line 1"
		s.want(w)
		time.Sleep(2 * time.Second)
		s.check(w, "web-0 200")
		w = ofPods("load", all)
		w.Definition, w.ExpressionAt = demand.Definition{Expression: "sum by (pod) (queue"}, "annotation x, line 1"
		s.want(w)
		if got := s.served(w); !strings.HasPrefix(got, "error: annotation x, line 1: ") {
			t.Errorf("got %q, want an error that says where the expression is", got)
		}
		if n := s.collector.size(); n != 0 {
			t.Errorf("%d pods are scraped for a wrong expression, want none", n)
		}
	})
}

// TestObject asks for a metric of a Service, and for that of one pod.
func TestObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(3)
		for _, p := range all {
			s.listen(p, packets(100))
		}
		all[2].Ready, all[2].WasReady = false, false
		services := schema.GroupResource{Resource: "services"}
		w := &demand.Want{
			Request:    demand.ObjectRequest("shop", services, "web", "packets-per-second", labels.Everything()),
			Name:       "packets-per-second",
			Type:       autoscalingv2.ObjectMetricSourceType,
			Describes:  demand.Reference{Kind: "Service", APIVersion: "v1", Name: "web"},
			Definition: demand.Definition{Window: demand.DefaultWindow}, Pods: all,
		}
		s.want(w)
		s.want(ofPods("queue", all))
		time.Sleep(time.Minute)
		v, err := s.Object(t.Context(), "shop", services, "web", "packets-per-second", labels.Everything())
		if err != nil || fmt.Sprintf("%.4g", v.Number) != "200" {
			t.Errorf("%+v, %v, want 200: a pod that was never ready is no part of it", v, err)
		}
		if v.Of.Kind != "Service" || v.Of.Name != "web" || v.Of.Namespace != "shop" || v.Window != 30*time.Second {
			t.Errorf("got %+v, want a value of Service shop/web with a window of 30 s", v)
		}
		of := schema.GroupResource{Resource: "pods"}
		if v, err = s.Object(t.Context(), "shop", of, "web-1", "queue", labels.Everything()); err != nil || v.Number != 100 {
			t.Errorf("got %+v, %v, want 100 of pod web-1", v, err)
		}
		_, err = s.Object(t.Context(), "shop", of, "web-2", "queue", labels.Everything())
		const want = "pod web-2 has not been ready yet: if this lasts, see kubectl describe pod"
		if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
			t.Error(d)
		}

		// An autoscaler that means the pod itself does not get what the name means to another one.
		s.want(&demand.Want{
			Request: demand.ObjectRequest("shop", of, "web-1", "queue", labels.Everything()), Name: "queue",
			Type:       autoscalingv2.ObjectMetricSourceType,
			Describes:  demand.Reference{Kind: "Pod", APIVersion: "v1", Name: "web-1"},
			Definition: demand.Definition{Expression: "sum(absent_here)"}, Pods: all[1:2],
		})
		time.Sleep(time.Minute)
		v, err = s.Object(t.Context(), "shop", of, "web-1", "queue", labels.Everything())
		if err == nil || !strings.Contains(err.Error(), "absent_here") {
			t.Errorf("got %+v, %v, want the error of its own expression", v, err)
		}
	})
}

// TestACostlyExpression checks that an expression which exceeds a limit is not evaluated again at once, and that two
// requests of a namespace are not evaluated at the same time.
func TestACostlyExpression(t *testing.T) {
	now := time.Now()
	compile := func(expression string) *compiled {
		q, err := appmetrics.Compile(appmetrics.Definition{Name: "m", Expression: expression})
		if err != nil {
			t.Fatal(err)
		}
		return &compiled{Query: q}
	}
	store := appmetrics.New(appmetrics.Config{MaxSamples: 2})
	answer := func(c *compiled, page string, problem error) *appmetrics.Answer {
		if page != "" {
			p := appmetrics.Page{Namespace: "shop", Pod: "web-0", At: now, Body: []byte(page)}
			if err := store.Record(page, appmetrics.Keep(c.Query), p); err != nil {
				t.Fatal(err)
			}
		}
		pods := []appmetrics.Pod{{UID: page, Name: "web-0", Problem: problem}}
		return store.Evaluate(t.Context(), c.Query, pods, now)
	}
	const costly = "m{x=\"1\"} 1\nm{x=\"2\"} 1\nm{x=\"3\"} 1\n"
	c := compile("sum by (pod) (m)")
	tooLarge := &appmetrics.Error{Cause: appmetrics.OverLimit, Text: "its page has more than 8388608 bytes"}
	for _, a := range []*appmetrics.Answer{
		answer(c, "m 1\n", nil), answer(c, "other 1\n", nil), answer(c, "", tooLarge),
	} {
		c.refuse(a, now)
		if err := c.refusal(now); err != nil {
			t.Errorf("an evaluation that exceeds no limit refuses later ones: %v", err)
		}
	}
	c.refuse(answer(c, costly, nil), now)
	if err := c.refusal(now.Add(29 * time.Second)); err == nil || !strings.Contains(err.Error(), "more than 2 samples") {
		t.Errorf("got %v, want that it needs more than 2 samples", err)
	}
	if err := c.refusal(now.Add(31 * time.Second)); err != nil {
		t.Errorf("it is still refused after 31 s: %v", err)
	}

	// A default expression is not to blame if the server is short of CPU.
	c = compile("")
	c.refuse(answer(c, costly, nil), now.Add(time.Second))
	if err := c.refusal(now.Add(time.Second)); err != nil {
		t.Errorf("a default expression is refused: %v", err)
	}

	synctest.Test(t, func(t *testing.T) {
		v := &values{}
		order := []string{}
		take := func(namespace string) func() {
			end, err := v.evaluating.take(t.Context(), namespace)
			if err != nil {
				t.Error(err)
			}
			return end
		}
		end := take("shop")
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer take("shop")()
			order = append(order, "shop")
		}()
		another := take("bank")
		order = append(order, "bank")
		another()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := v.evaluating.take(ctx, "shop"); err == nil {
			t.Error("two requests of a namespace are evaluated at the same time")
		}
		end()
		<-done
		synctest.Wait()
		if got := strings.Join(order, " "); got != "bank shop" || len(v.evaluating.of) != 0 {
			t.Errorf("evaluated in the order %q, with %d turns still taken, want bank before shop, and none", got,
				len(v.evaluating.of))
		}
	})
}

// TestRequestThatWaits checks that a request which waits for another one of its namespace is answered from what is
// known when its turn comes: a pod that has failed for too long by then has no value, and one that is gone by then is
// not counted at the mean of the others.
func TestRequestThatWaits(t *testing.T) {
	services := schema.GroupResource{Resource: "services"}
	sum := func(all []*sample.Pod) *demand.Want {
		return &demand.Want{
			Request:    demand.ObjectRequest("shop", services, "web", "queue", labels.Everything()),
			Name:       "queue",
			Type:       autoscalingv2.ObjectMetricSourceType,
			Describes:  demand.Reference{Kind: "Service", APIVersion: "v1", Name: "web"},
			Definition: demand.Definition{Window: demand.DefaultWindow}, Pods: all,
		}
	}
	for name, tt := range map[string]struct {
		meanwhile func(s *system, all []*sample.Pod)
		each, sum string
	}{
		"nothing changes": {
			func(*system, []*sample.Pod) {},
			"web-0 100, web-1 100, web-2 100, web-3 100, web-4 100", "500",
		},
		"a pod fails": {
			func(s *system, all []*sample.Pod) { s.listen(all[4], http.NotFoundHandler()) },
			"web-0 100, web-1 100, web-2 100, web-3 100", "500",
		},
		"a pod is deleted": {
			func(s *system, all []*sample.Pod) {
				s.want(ofPods("queue", all[:4]))
				s.want(sum(all[:4]))
			},
			"web-0 100, web-1 100, web-2 100, web-3 100", "400",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, all := start(t), pods(5)
				for _, p := range all {
					s.listen(p, packets(100))
				}
				w := s.want(ofPods("queue", all))
				s.want(sum(all))
				time.Sleep(time.Minute)
				end, err := s.evaluating.take(t.Context(), "shop")
				if err != nil {
					t.Fatal(err)
				}
				var requests sync.WaitGroup
				requests.Go(func() { s.check(w, tt.each) })
				requests.Go(func() {
					v, err := s.Object(t.Context(), "shop", services, "web", "queue", labels.Everything())
					if got := fmt.Sprintf("%.4g", v.Number); err != nil || got != tt.sum {
						t.Errorf("the sum is %s, %v, want %s", got, err, tt.sum)
					}
				})
				synctest.Wait()
				tt.meanwhile(s, all)
				time.Sleep(2 * time.Minute)
				end()
				requests.Wait()
			})
		})
	}
}

// TestExternal checks that a metric of type External is the sum over the pods of its Service, by the name that the HPA
// has rather than that of the request, which is in lower case, and that its errors are those of other metrics.
func TestExternal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(6)
		page := metricsPage("# TYPE queueDepth gauge\nqueueDepth{queue=\"a\"} 10\nqueueDepth{queue=\"b\"} 1\n",
			func(float64) []any { return nil })
		for _, p := range all {
			s.listen(p, page)
		}
		a := labels.SelectorFromSet(labels.Set{"queue": "a"})
		all[5].Ready, all[5].WasReady = false, false
		external := func(selector labels.Selector) string {
			v, err := s.External(t.Context(), "shop", "queuedepth", selector)
			if err != nil {
				return "error: " + err.Error()
			}
			if age := time.Since(v.Time); age < 0 || age > interval || v.Window != 0 {
				t.Errorf("%+v is %v old", v, age)
			}
			return fmt.Sprintf("%.4g", v.Number)
		}
		want := func(selector labels.Selector) {
			w := &demand.Want{
				Request: demand.ExternalRequest("shop", "queueDepth", selector), Name: "queueDepth", HPAs: []string{"web"},
				Type:       autoscalingv2.ExternalMetricSourceType,
				Definition: demand.Definition{Window: demand.DefaultWindow, Service: "exporter", ServicePort: "8080"}, Pods: all,
			}
			if !selector.Empty() {
				w.Requirements = []metav1.LabelSelectorRequirement{{Key: "queue", Operator: "In", Values: []string{"a"}}}
			}
			s.want(w)
		}
		want(labels.Everything())
		want(a)
		time.Sleep(10 * time.Second)
		for selector, want := range map[string]string{"": "55", "queue=a": "50"} {
			parsed, err := labels.Parse(selector)
			if err != nil {
				t.Fatal(err)
			}
			if got := external(parsed); got != want {
				t.Errorf("with selector %q it is %s, want %s", selector, got, want)
			}
		}
		if _, err := s.External(t.Context(), "shop", "queuedepth", labels.SelectorFromSet(labels.Set{"x": "y"})); err == nil {
			t.Error("another selector has a value")
		}
		// A fifth of the pods may be missing: they count with the mean of the others.
		s.listen(all[0], http.NotFoundHandler())
		time.Sleep(2 * time.Minute)
		if got := external(a); got != "50" {
			t.Errorf("with a pod of five that fails it is %s, want 50", got)
		}
		s.listen(all[1], http.NotFoundHandler())
		time.Sleep(2 * time.Minute)
		if got := external(a); !strings.Contains(got, "more than a fifth of the pods have no value for metric "+
			"\"queueDepth\"") || !strings.Contains(got, "404 Not Found") {
			t.Errorf("with two pods of five that fail it is %s", got)
		}
	})
}

// TestAnExporterWithoutItsQueue checks the two sides of what docs/external-metrics.md says of exporters that answer
// without the family: by default the others' values are the sum, and with its expression there is an error.
func TestAnExporterWithoutItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(2)
		page := func(text string) http.Handler { return metricsPage(text, func(float64) []any { return nil }) }
		up := page("# TYPE redis_up gauge\nredis_up 1\n# TYPE redis_key_size gauge\nredis_key_size{key=\"orders\"} 1000\n")
		down := page("# TYPE redis_up gauge\nredis_up 0\n")
		s.listen(all[0], up)
		s.listen(all[1], down)
		value := func(expression string) (float64, error) {
			s.want(&demand.Want{
				Request: demand.ExternalRequest("shop", "redis_key_size", labels.Everything()), Name: "redis_key_size",
				HPAs: []string{"web"}, Type: autoscalingv2.ExternalMetricSourceType,
				Definition: demand.Definition{
					Expression: expression, Window: demand.DefaultWindow, Service: "exporter", ServicePort: "8080",
				},
				Pods: all,
			})
			time.Sleep(2 * time.Minute)
			v, err := s.External(t.Context(), "shop", "redis_key_size", labels.Everything())
			return v.Number, err
		}
		const whole = `sum(redis_key_size{key="orders"}) and min(redis_up) == 1`
		if v, err := value(""); err != nil || v != 1000 {
			t.Errorf("by default it is %v, %v", v, err)
		}
		if v, err := value(whole); err == nil {
			t.Errorf("with the expression it is %v", v)
		}
		s.listen(all[1], up)
		if v, err := value(whole); err != nil || v != 2000 {
			t.Errorf("when both have a queue it is %v, %v", v, err)
		}
	})
}

// TestUndeclaredIsNoError checks that metrics that another program may serve count neither as collected nor as errors.
func TestUndeclaredIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		h := &autoscalingv2.HorizontalPodAutoscaler{}
		for _, name := range []string{"queue", "status"} {
			h.Spec.Metrics = append(h.Spec.Metrics, autoscalingv2.MetricSpec{
				Type:     autoscalingv2.ExternalMetricSourceType,
				External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}},
			})
		}
		for _, m := range demand.Parse(h, true).Metrics {
			w := &demand.Want{
				Request: demand.ExternalRequest("shop", m.Name, labels.Everything()), Name: m.Name, HPAs: []string{"web"},
				Type: m.Type, Definition: m.Definition, Err: m.Err, Undeclared: m.Undeclared,
			}
			s.want(w)
			if good, bad := s.collector.counts(); m.Err == nil || good != 0 || bad != 0 {
				t.Errorf("%d are counted as collected and %d as failed, want neither, for %+v", good, bad, m)
			}
			declared := *w
			declared.Undeclared = false
			s.want(&declared)
			if good, bad := s.collector.counts(); good != 0 || bad != 1 {
				t.Errorf("declared: %d are counted as collected and %d as failed, want 0 and 1, for %+v", good, bad, m)
			}
			s.want(w)
		}
	})
}

// TestGoneDuringARequest checks that the answer is complete if the HPA is deleted right after the evaluation.
func TestGoneDuringARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], packets(100))
		services := schema.GroupResource{Resource: "services"}
		w := s.want(&demand.Want{
			Request:    demand.ObjectRequest("shop", services, "web", "queue", labels.Everything()),
			Name:       "queue",
			Type:       autoscalingv2.ObjectMetricSourceType,
			Describes:  demand.Reference{Kind: "Service", APIVersion: "v1", Name: "web"},
			Definition: demand.Definition{Window: demand.DefaultWindow}, Pods: all,
		})
		time.Sleep(time.Second)
		known := s.collector.find(w.Request)
		s.collected = func(demand.Request) *wanted {
			defer func() { known = nil }()
			return known
		}
		v, err := s.Object(t.Context(), "shop", services, "web", "queue", labels.Everything())
		if err != nil || v.Number != 100 || v.Of.Kind != "Service" {
			t.Errorf("got %+v, %v, want 100 of the Service", v, err)
		}
	})
}

// TestSelector checks that metric.selector selects series.
func TestSelector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(1)
		s.listen(all[0], metricsPage("http_requests_total{code=\"200\"} %g\nhttp_requests_total{code=\"500\"} %g\n",
			func(s float64) []any { return []any{90 * s, 10 * s} }))
		failed := labels.SelectorFromSet(labels.Set{"code": "500"})
		w := ofPods("http_requests", all)
		w.Request = demand.PodsRequest("shop", web, "http_requests", failed)
		w.Requirements = []metav1.LabelSelectorRequirement{{Key: "code", Operator: "In", Values: []string{"500"}}}
		s.want(w)
		time.Sleep(time.Minute)
		list, err := s.Pods(t.Context(), "shop", web, "http_requests", failed)
		if err != nil || len(list) != 1 || fmt.Sprintf("%.4g", list[0].Number) != "10" {
			t.Errorf("got %+v, %v, want one value, 10", list, err)
		}
	})
}

// TestWaitForASlot checks that an answer which had to wait for other evaluations is about the pods and the time after
// the wait.
func TestWaitForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(2)
		for _, p := range all {
			s.listen(p, packets(100))
		}
		w := s.want(ofPods("queue", all))
		time.Sleep(20 * time.Second)
		s.check(w, "web-0 100, web-1 100")
		during := func(wait func()) string {
			var slots []*appmetrics.Slot
			for range parallel {
				slot, err := s.store.Slot(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				slots = append(slots, slot)
			}
			answer := make(chan string)
			go func() { answer <- s.served(w) }()
			synctest.Wait()
			wait()
			for _, slot := range slots {
				slot.Free()
			}
			return <-answer
		}
		if got := during(func() { s.want(ofPods("queue", all[:1])) }); got != "web-0 100" {
			t.Errorf("after a pod was deleted: %s", got)
		}
		got := during(func() {
			s.listen(all[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
			time.Sleep(2 * time.Minute)
		})
		if want := "error: pod web-0 at http://10.0.0.1:8080/metrics: it answers 418"; !strings.HasPrefix(got, want) {
			t.Errorf("after the value expired: %s, want %s...", got, want)
		}
	})
}

// TestGivenUp checks that a pod whose scrape was given up because too many hang says so, in a text that stays.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, all := start(t), pods(3*maxInFlight)
		for i, p := range all {
			p.IP = fmt.Sprintf("10.1.%d.%d", i/200, 1+i%200)
			s.listen(p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		}
		w := s.want(ofPods("queue", all))
		time.Sleep(time.Minute)
		givenUp := 0
		a, err := s.collector.find(w.Request).evaluate(t.Context(), s.store, time.Now())
		if err == nil || len(a.Missing) != len(all) {
			t.Fatalf("%+v, %v, want no values", a, err)
		}
		for _, m := range a.Missing {
			at := fmt.Sprintf("pod %s at http://10.1.", m.Pod)
			if got := m.Err.Error(); !strings.HasPrefix(got, at) {
				t.Fatalf("%q, want %q...", got, at)
			} else if strings.HasSuffix(got, ": given up without an answer, because too many others do not answer") {
				givenUp++
			}
		}
		if givenUp == 0 {
			t.Error("no scrape was given up")
		}
	})
}

// Pods of one namespace that are slow do not delay the scrapes of another, because each of them has an owner.
func TestNamespacesShareTheScrapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		many := s.podsIn("many", 250)
		for _, p := range many {
			s.listen(p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		}
		for i := range maxEndpointsOfPod { // in all, more than twice as many as may be in flight
			w := ofPods("queue", many)
			w.Request = demand.PodsRequest("many", web, fmt.Sprint("queue-", i), labels.Everything())
			w.Ask.Path = fmt.Sprint("/", i)
			s.want(w)
		}
		time.Sleep(600 * time.Millisecond)
		few := s.wantIn("few", s.podsIn("few", 10))
		time.Sleep(1100 * time.Millisecond)
		s.checkCount(few, 10)
	})
}
