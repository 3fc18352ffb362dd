package appmetrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"metrics-server/pkg/fairshare"
)

func TestPageLimits(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+"\n", i)
		}
		return b.String()
	}
	for _, tt := range []struct{ name, body, want string }{
		{"bytes", "depth 1\n" + strings.Repeat("y 1\n", 30_000), "its page has more than 100000 bytes"},
		{"series", many(101, "depth{x=\"%d\"} 1"), "the metrics of this pod together select more than 100 series of its " +
			"page, which is the limit: filter them by label"},
		{"label value", "depth{x=\"" + strings.Repeat("x", 1025) + "\"} 1\n", "a series of depth has a label " +
			"value of more than 1024 bytes, or a label name of more than 512: shorten it"},
		{"label name", "depth{" + strings.Repeat("x", 513) + "=\"\"} 1\n", "a series of depth has a label value of " +
			"more than 1024 bytes, or a label name of more than 512: shorten it"},
		{
			"labels", "depth{" + strings.ReplaceAll(many(65, "x%d=\"1\","), "\n", "") + "} 1\n",
			"a series of depth has more than 64 labels: expose fewer",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Definition{Name: "depth"})
			w.store = New(Config{MaxPage: 100_000, MaxSeries: 100})
			w.page("a", 0, "depth 7")
			err := w.try("a", 15, tt.body)
			if causeOf(err) != OverLimit || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			w.want(w.answer(16, "a"), "a=7") // nothing has changed
		})
	}
	t.Run("lines", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "depth", Expression: `sum by (pod) (depth{x="1"})`})
		err := w.try("a", 0, many(maxLines+1, "depth{x=\"%d\"} 1"))
		if causeOf(err) != OverLimit {
			t.Errorf("got %v", err)
		}
		w.page("a", 1, many(maxLines, "depth{x=\"%d\"} 1"))
		w.want(w.answer(2, "a"), "a=1")
	})
	t.Run("series that come and go", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "depth"})
		w.store = New(Config{MaxSeries: 100})
		for i := range 50 {
			w.page("a", 15*float64(i), many(20, fmt.Sprintf("depth{x=\"%%d\",y=\"%d\"} 1", i)))
		}
		w.want(w.answer(15*49, "a"), "a=20")
		if got := w.store.Size(); got.Series > 100 {
			t.Errorf("%d series are kept, want at most 100", got.Series)
		}
	})
	t.Run("a label twice", func(t *testing.T) {
		w := newWorld(t, Definition{Name: "depth"})
		if err := w.try("a", 0, "depth{x=\"1\",x=\"2\"} 1"); causeOf(err) != NotExposition {
			t.Errorf("got %v", err)
		}
	})
}

// processorTime is the CPU time that this process has taken. Unlike the time of day, it hardly depends on what else the
// machine does.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestHostileExpressions checks that expressions of hostile size end by a limit, and do not take
// memory before they do.
func TestHostileExpressions(t *testing.T) {
	const pods, series = 60, 200
	const timeout = 300 * time.Millisecond
	s := New(Config{Timeout: timeout})
	var body strings.Builder
	for i := range series {
		fmt.Fprintf(&body, "x{i=\"%d\",v=\"%s\"} %d\n", i, strings.Repeat("v", 1000), i)
	}
	first, err := Compile(Definition{Name: "x", Expression: "sum by (pod) (rate(x[10m]))"})
	if err != nil {
		t.Fatal(err)
	}
	k := Keep(first)
	var all []Pod
	for i := range pods {
		p := Pod{UID: fmt.Sprint(i), Name: fmt.Sprint("pod", i)}
		for j := range 5 {
			if err := s.Record(p.UID, k, Page{
				Namespace: "n", Pod: p.Name, At: at(float64(15 * j)),
				Body: []byte(body.String()),
			}); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, p)
	}
	for _, expression := range []string{
		"max_over_time(x[10m:1s])",
		"max_over_time(max_over_time(max_over_time(x[3m:1s])[3m:1s])[3m:1s])",
		"sum by (pod) (quantile_over_time(0.5, x[9m:1s]))",
		"sum by (pod) (x" + strings.Repeat(" + x", 19) + ")",
		"sum by (pod) (x or x * 2" + strings.Repeat(" or x * 2", 17) + ")",
		"sum by (pod) (label_replace(x, \"v\", \"$1$1$1$1\", \"v\", \"(.*)\"))",
		"sum by (pod) (label_join(x, \"v\", \"\", \"v\", \"v\", \"v\", \"v\"))",
		"count_values by (pod) (\"v\", x)",
		"x * on (pod) group_left () x",
		"sum by (pod) (x{v=~\"(v*)*(v*)*(v*)*w\"})",
		strings.Repeat("-", maxDepth) + "x",
		strings.Repeat("(", maxDepth) + "x" + strings.Repeat(")", maxDepth),
	} {
		q, err := Compile(Definition{Name: "m", Expression: expression})
		if err != nil {
			t.Errorf("%.60s does not compile: %v", expression, err)
			continue
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		stop := make(chan struct{})
		peak := make(chan uint64)
		go func() { // the most that is alive at a time
			most := uint64(0)
			for {
				select {
				case <-stop:
					peak <- most
					return
				case <-time.After(20 * time.Millisecond):
					runtime.ReadMemStats(&after)
					most = max(most, after.HeapAlloc)
				}
			}
		}()
		began := processorTime(t)
		a := s.Evaluate(t.Context(), q, all, at(61))
		took := processorTime(t) - began
		close(stop)
		most := <-peak
		if limit := before.HeapAlloc + 400<<20; most > limit {
			t.Errorf("%.60s: up to %d MiB are in use, want 400 more than before", expression, most>>20)
		}
		t.Logf("%.60s: %v, %d MiB, %v", expression, took.Round(time.Millisecond), (most-min(most,
			before.HeapAlloc))>>20, causeOf(a.Err()))
		if took > 20*timeout {
			t.Errorf("%.60s: takes %v of CPU time", expression, took)
		}
		allowed := []Cause{0, OverLimit, WrongShape, TooFewPoints}
		if err := a.Err(); !slices.Contains(allowed, causeOf(err)) {
			t.Errorf("%.60s: got %v, want a value or a limit", expression, err)
		}
	}

	t.Run("texts", func(t *testing.T) {
		q, err := Compile(Definition{Name: "m", Expression: "max by (pod) (max_over_time(x[10m:1s]))"})
		if err != nil {
			t.Fatal(err)
		}
		small := New(Config{MaxSamples: 1000})
		small.targets, small.epoch = s.targets, s.epoch
		want := `the expression of metric "m" needs more than 1000 samples at a time: shorten its ranges or select ` +
			`fewer series`
		if err := small.Evaluate(t.Context(), q, all, at(61)).Err(); causeOf(err) != OverLimit || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		quick := New(Config{Timeout: time.Nanosecond})
		quick.targets, quick.epoch = s.targets, s.epoch
		want = `the expression of metric "m" takes longer than 1ns: simplify it, or give the custom metrics ` +
			`server more CPU`
		if err := quick.Evaluate(t.Context(), q, all, at(61)).Err(); causeOf(err) != OverLimit || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // a slot may be free, or may not
			err := s.Evaluate(ctx, q, all, at(61)).Err()
			if causeOf(err) != Canceled || err.Error() != "the evaluation was canceled" {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestSelectedLimit(t *testing.T) {
	w := newWorld(t, Definition{Name: "x", Expression: "x" + strings.Repeat(" + x", 9)})
	var body strings.Builder
	for i := range 900 {
		fmt.Fprintf(&body, "x{i=\"%d\"} 1\n", i)
	}
	var pods []string
	for i := range 6 {
		pods = append(pods, fmt.Sprint("p", i))
		w.page(pods[i], 0, body.String())
	}
	w.want(w.answer(1, pods...), `over limit: the expression of metric "x" selects more than 50000 series: `+
		`filter them by label`)
}

// TestConcurrency has the race detector look at everything at once.
func TestConcurrency(t *testing.T) {
	s := New(Config{})
	q, err := Compile(Definition{Name: "x_total"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := Compile(Definition{Name: "y", Expression: "sum by (pod) (y)"})
	if err != nil {
		t.Fatal(err)
	}
	kept := []*Kept{Keep(q), Keep(q, own)}
	pods := []Pod{{UID: "0", Name: "0"}, {UID: "1", Name: "1"}, {UID: "2", Name: "2"}}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 100 {
				p := pods[(i+j)%len(pods)]
				body := fmt.Sprintf("x_total{a=\"%d\"} %d\ny %d\n", j%5, j, j)
				_ = s.Record(p.UID, kept[j/10%2], Page{Namespace: "n", Pod: p.Name, At: at(float64(j)), Body: []byte(body)})
				if j%50 == 49 {
					s.Forget(p.UID)
				}
			}
		})
		wg.Go(func() {
			for j := range 50 {
				s.Evaluate(t.Context(), q, pods, at(float64(2*j)))
				s.Evaluate(t.Context(), own, pods, at(float64(2*j)))
				s.Size()
			}
		})
	}
	wg.Wait()
}

// TestCostlyPatterns checks that patterns which take too much memory or time are refused, wherever they are.
func TestCostlyPatterns(t *testing.T) {
	pattern := strings.Repeat("[ab]{0,1000}", 10)
	for _, expression := range []string{
		`sum by (pod) (x{v=~"` + pattern + `"})`,
		`sum by (pod) (x{v!~"` + pattern + `"})`,
		`sum by (pod) (label_replace(x, "v", "$1", "v", "` + pattern + `"))`,
		`sum by (pod) (label_replace(x, "v", ("$1$1$1$1$1$1"), "v", "(.*)"))`,
	} {
		if _, err := Compile(Definition{Name: "m", Expression: expression}); causeOf(err) != OverLimit {
			t.Errorf("%s: got %v, want a limit", expression[:40], err)
		}
	}
	usual := `sum by (pod) (x{v=~"(2..|3..)|.*/api/v[0-9]{1,3}/.*"})`
	if _, err := Compile(Definition{Name: "m", Expression: usual}); err != nil {
		t.Error(err)
	}
	many := Requirement{Label: "v", Operator: In}
	for i := range 1000 {
		many.Values = append(many.Values, strconv.Itoa(i))
	}
	if _, err := Compile(Definition{Name: "m", Selector: []Requirement{many}}); causeOf(err) != OverLimit {
		t.Errorf("a thousand values: %v", err)
	}
}

// TestHostileProtobuf checks that pages which the parser would need endless stack or time for are refused or passed
// over.
func TestHostileProtobuf(t *testing.T) {
	w := newWorld(t, Definition{Name: "x"})
	record := func(body []byte) error {
		return w.store.Record("uid-a", w.kept, Page{
			Pod: "a", At: at(0), Body: body,
			ContentType: "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
		})
	}
	if err := record(bytes.Repeat([]byte{3, 0x0a, 1, 'x'}, 1_600_000)); err != nil {
		t.Errorf("empty families: %v", err)
	}
	label := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), bytes.Repeat([]byte("l"), 1000))
	metric := bytes.Repeat(label, 17)
	family := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x")
	family = protowire.AppendBytes(protowire.AppendTag(family, 4, protowire.BytesType), metric)
	if err := record(protowire.AppendBytes(nil, family)); causeOf(err) != OverLimit {
		t.Errorf("a metric with 17 KB of labels: %v", err)
	}
}

// TestMemoryIsShared checks that a namespace gets no more than its share of the memory for series, that others are
// not affected, and that whatever is forgotten is given back.
func TestMemoryIsShared(t *testing.T) {
	memory := fairshare.New(3, fairshare.Fixed(400_000))
	s := New(Config{Memory: memory})
	q := compileB(t, Definition{Name: "depth"})
	k := Keep(q)
	page := func(series, seconds int) Page {
		var b strings.Builder
		for i := range series {
			fmt.Fprintf(&b, "depth{x=\"%s%d\"} 1\n", strings.Repeat("x", 200), i)
		}
		return Page{Namespace: "many", Pod: "a", At: at(float64(seconds)), Body: []byte(b.String())}
	}
	const want = `namespace "many" has used up its share of the memory for custom metrics: let its ` +
		`HorizontalPodAutoscalers select fewer series by label, shorten the ranges of expressions, or remove metrics`
	pods := 0
	for ; pods < 100; pods++ {
		if err := s.Record(fmt.Sprint(pods), k, page(50, 0)); err != nil {
			if causeOf(err) != OverShare || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			break
		}
	}
	taken, limit := memory.Taken()
	if pods < 5 || taken < limit/2 || taken > limit*4/5 {
		t.Errorf("%d pods take %d of %d bytes, want at least 5 pods in a half to four fifths", pods, taken, limit)
	}
	// Nothing of what it has is lost, and it may change, but not grow.
	if err := s.Record("0", k, page(50, 15)); err != nil {
		t.Error(err)
	}
	if err := s.Record("0", k, page(300, 30)); causeOf(err) != OverShare {
		t.Errorf("more series: %v", err)
	}
	a := s.Evaluate(t.Context(), q, []Pod{{UID: "0", Name: "a"}}, at(31))
	if len(a.Values) != 1 || a.Values[0].Value != 50 {
		t.Errorf("got %+v, want the last value, 50", a)
	}
	if err := s.Record("0", Keep(compileB(t, Definition{
		Name: "depth", Expression: "sum by (pod) (rate(depth[10m]))",
	})), page(50, 45)); causeOf(err) != OverShare {
		t.Errorf("a longer range: %v", err)
	}
	// A page that lacks something is explained without suggestions.
	other := page(50, 0)
	other.Namespace = "few"
	if err := s.Record("few", k, other); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	for i := range pods {
		s.Forget(fmt.Sprint(i))
	}
	s.Forget("few")
	s.Forget("few")
	if taken, _ := memory.Taken(); taken != 0 {
		t.Errorf("%d bytes were not given back", taken)
	}
}

// TestGoneSeriesMakeRoom checks that series that are gone take no memory that those on the page need, and that a
// counter that comes back on such a page does not seem to have begun at zero.
func TestGoneSeriesMakeRoom(t *testing.T) {
	memory := fairshare.New(3, fairshare.Fixed(40_000))
	w := newWorld(t, Definition{Name: "jobs_total"})
	w.store = New(Config{Memory: memory})
	for i := range 100 {
		var lines []string
		for j := range 20 {
			lines = append(lines, fmt.Sprintf("jobs_total{x=\"%d\",y=\"%d\"} 0", j, i))
		}
		now := 15 * float64(i)
		if i%6 < 2 {
			lines = append(lines, fmt.Sprintf("jobs_total{x=\"back\"} %g", 1e6+10*now))
		}
		w.page("a", now, lines...)
		switch a := w.answer(now+1, "a"); {
		case i == 0:
		case i%6 == 1:
			w.want(a, "a=10")
		case len(a.Values) != 1 || a.Values[0].Value > 10:
			t.Errorf("page %d: got %v, %v, want at most 10", i, a.Values, a.Err())
		}
	}
	w.store.Forget("uid-a")
	if taken, _ := memory.Taken(); taken != 0 {
		t.Errorf("%d bytes were not given back", taken)
	}
}

// TestSeriesGoneForLongestMakeRoom checks that a counter which was absent for a short time does not count from zero
// when it comes back, although others were dropped to make room.
func TestSeriesGoneForLongestMakeRoom(t *testing.T) {
	const absent = 5
	for leaves := 1; leaves <= 15; leaves++ {
		w := newWorld(t, Definition{Name: "jobs_total"})
		w.store = New(Config{MaxSeries: 250})
		for i := range 30 {
			now := 15 * float64(i)
			lines := []string{"jobs_total{x=\"other\"} 0"}
			for j := range 20 {
				lines = append(lines, fmt.Sprintf("jobs_total{x=\"%d\",y=\"%d\"} 0", j, i))
			}
			if i < leaves || i >= leaves+absent {
				lines = append(lines, fmt.Sprintf("jobs_total{x=\"back\"} %g", 1e6+10*now))
			}
			w.page("a", now, lines...)
			switch a := w.answer(now+1, "a"); {
			case i > leaves+absent:
				w.want(a, "a=10")
			case i > 0 && (len(a.Values) != 1 || a.Values[0].Value > 10.001):
				t.Errorf("absent from page %d on, page %d: %v, %v", leaves, i, a.Values, a.Err())
			}
		}
	}
}

// TestRecompiledQueryKeepsItsRoom checks that a metric whose query is compiled again is not displaced by a new metric
// that needs less, and that its last values are held if there is room for neither.
func TestRecompiledQueryKeepsItsRoom(t *testing.T) {
	o := newOutgrown(t, Config{MaxSeries: 100}, Definition{Name: "requests_total"})
	lines := func(seconds float64, requests, jobs int) string {
		text := o.lines(seconds, requests) + "# TYPE jobs gauge\n"
		for i := range jobs {
			text += fmt.Sprintf("jobs{x=\"%d\"} 1\n", i)
		}
		return text
	}
	o.record(0, 80, 0)
	o.record(15, 80, 0)
	again := compileB(t, Definition{Name: "requests_total"})
	jobs := compileB(t, Definition{Name: "jobs"})
	o.kept = Keep(jobs, again)
	if partial, ok := errors.AsType[*PartialError](o.try("a", 30, lines(30, 80, 40))); !ok {
		t.Errorf("got %v, want that a part of the page is refused", partial)
	}
	o.check(again, 31, "a=800")
	o.check(jobs, 31, "over limit: the metrics of this pod together select more than 100 series of its page, which is "+
		"the limit: filter them by label")

	last := compileB(t, Definition{Name: "requests_total"})
	o.kept = Keep(last)
	if err := o.try("a", 45, lines(45, 120, 0)); causeOf(err) != OverLimit {
		t.Errorf("got %v, want that the page is refused", err)
	}
	o.check(last, 46, "a=800")
}

// outgrown is a pod with two metrics, of which one may outgrow a limit.
type outgrown struct {
	*world
	small, large *Query
}

func newOutgrown(t *testing.T, c Config, large Definition) *outgrown {
	t.Helper()
	o := &outgrown{world: newWorld(t, Definition{Name: "queue"}), large: compileB(t, large)}
	o.store, o.small, o.kept = New(c), o.query, Keep(o.query, o.large)
	return o
}

// lines returns a page with a gauge, and so many series of a counter, each of which grows by 10 a second.
func (o *outgrown) lines(seconds float64, series int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# TYPE queue gauge\nqueue %g\n# TYPE requests_total counter\n", seconds)
	for i := range series {
		fmt.Fprintf(&b, "requests_total{x=\"%s%d\"} %g\n", strings.Repeat("x", 200), i, 1e6+10*seconds)
	}
	return b.String()
}

// record records such a page, and checks whether a part of it is refused.
func (o *outgrown) record(seconds float64, series int, refused Cause) {
	o.t.Helper()
	err := o.try("a", seconds, o.lines(seconds, series))
	partial, ok := errors.AsType[*PartialError](err)
	if ok && refused != 0 && partial.Reason.Cause == refused || err == nil && refused == 0 {
		return
	}
	o.t.Errorf("page at %v s: %v", seconds, err)
}

// check checks the value of a metric, or why it has none.
func (o *outgrown) check(q *Query, seconds float64, want string) {
	o.t.Helper()
	o.query = q
	o.want(o.answer(seconds, "a"), want)
}

// TestAMetricOutgrowsItsRoom checks that only the metric that grows beyond a limit is refused, that it has a reason
// and never a value from a part of its series, and that it has the right value when it fits again.
func TestAMetricOutgrowsItsRoom(t *testing.T) {
	const overShare = `over share: namespace "shop" has used up its share of the memory for custom metrics: let its ` +
		`HorizontalPodAutoscalers select fewer series by label, shorten the ranges of expressions, or remove metrics`
	for _, tt := range []struct {
		name  string
		c     Config
		cause Cause
		want  string
	}{
		{"memory", Config{Memory: fairshare.New(3, fairshare.Fixed(60_000))}, OverShare, overShare},
		{"series", Config{MaxSeries: 100}, OverLimit, "over limit: the metrics of this pod together select more than " +
			"100 series of its page, which is the limit: filter them by label"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOutgrown(t, tt.c, Definition{Name: "requests_total"})
			o.record(0, 5, 0)
			o.record(15, 5, 0)
			o.check(o.large, 16, "a=50")
			at := 30.0
			for ; at <= 150; at += 15 {
				o.record(at, 300, tt.cause)
				o.check(o.small, at+1, fmt.Sprintf("a=%g", at))
				o.check(o.large, at+1, tt.want)
				if n := o.store.Size().Series; n != 1 {
					t.Errorf("%d series are kept, want that of the other metric", n)
				}
			}
			// The counters did not begin at zero, although they are new here.
			o.record(at, 8, 0)
			o.check(o.small, at+1, fmt.Sprintf("a=%g", at))
			o.check(o.large, at+1, "too few points: the pod has been scraped only once for this metric; a rate needs two "+
				"scrapes: retry in a few seconds")
			o.record(at+15, 8, 0)
			o.check(o.large, at+16, "a=80")
			o.record(at+30, 8, 0)
			o.check(o.large, at+31, "a=80")

			o.store.Forget("uid-a")
			if m := tt.c.Memory; m != nil {
				if taken, _ := m.Taken(); taken != 0 {
					t.Errorf("%d bytes were not given back", taken)
				}
			}
		})
	}
	t.Run("a longer range", func(t *testing.T) {
		o := newOutgrown(t, Config{Memory: fairshare.New(3, fairshare.Fixed(4500))}, Definition{Name: "requests_total"})
		o.record(0, 5, 0)
		long := compileB(t, Definition{Name: "requests_total", Window: 10 * time.Minute})
		o.kept = Keep(o.small, o.large, long)
		for at := 15.0; at <= 150; at += 15 {
			o.record(at, 5, OverShare)
			o.check(o.small, at+1, fmt.Sprintf("a=%g", at))
			o.check(o.large, at+1, "a=50")
			o.check(long, at+1, overShare)
		}
	})
	t.Run("all metrics", func(t *testing.T) {
		memory := fairshare.New(3, fairshare.Fixed(60_000))
		o := newOutgrown(t, Config{Memory: memory}, Definition{Name: "requests_total"})
		o.kept = Keep(o.large)
		o.record(0, 5, 0)
		o.record(15, 5, 0)
		for at := 30.0; at <= 150; at += 15 {
			if err := o.try("a", at, o.lines(at, 300)); causeOf(err) != OverShare {
				t.Errorf("page at %v s: %v", at, err)
			}
			if at <= 75 { // as after a failed scrape
				o.check(o.large, at, "a=50")
				continue
			}
			o.check(o.large, at, overShare)
			if taken, _ := memory.Taken(); taken != 0 {
				t.Errorf("%d bytes are taken by what is not served, want none", taken)
			}
		}
		o.record(165, 8, 0)
		o.record(180, 8, 0)
		o.check(o.large, 181, "a=80")
	})
	t.Run("lines that are not selected", func(t *testing.T) {
		o := newOutgrown(t, Config{Memory: fairshare.New(3, fairshare.Fixed(5000))}, Definition{
			Name: "requests_total", Selector: []Requirement{{"x", In, []string{strings.Repeat("x", 200) + "1"}}},
		})
		o.record(0, 5, 0)
		for at := 15.0; at <= 60; at += 15 {
			o.record(at, 500, 0)
			o.check(o.large, at+1, "a=10")
		}
	})
}

// TestNoPartialValues checks with random pages that whatever fits, a value is that of a whole page.
func TestNoPartialValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const metrics = 5
	memory := fairshare.New(3, fairshare.Fixed(40_000))
	s := New(Config{Memory: memory, MaxSeries: 80})
	queries := make([]*Query, metrics)
	for i := range queries {
		queries[i] = compileB(t, Definition{Name: fmt.Sprint("depth", i), Expression: []string{
			fmt.Sprintf("sum by (pod) (depth%d)", i), fmt.Sprintf("sum by (pod) (depth%d) + 0 * sum by (pod) (depth0)", i),
		}[r.IntN(2)]})
	}
	kept := Keep(queries...)
	served, refused := 0, 0
	totals := map[string][metrics]float64{} // of the last page that was recorded
	for n := range 3000 {
		pod := fmt.Sprint("pod", r.IntN(4))
		now := float64(n)
		if r.IntN(10) == 0 {
			kept = Keep(queries[:1+r.IntN(metrics)]...)
		}
		var b strings.Builder
		var total [metrics]float64
		for i := range metrics {
			for j := range 1 + r.IntN(4)*r.IntN(15) {
				v := float64(r.IntN(1000))
				total[i] += v
				fmt.Fprintf(&b, "depth%d{x=\"%d\"} %g\n", i, j, v)
			}
		}
		err := s.Record(pod, kept, Page{Namespace: "shop", Pod: pod, At: at(now), Body: []byte(b.String())})
		if _, partial := errors.AsType[*PartialError](err); err == nil || partial {
			totals[pod] = total
		}
		for i, q := range kept.queries {
			a := s.Evaluate(t.Context(), q, []Pod{{UID: pod, Name: pod}}, at(now))
			if len(a.Values) == 0 {
				refused++
				continue
			}
			served++
			if got := a.Values[0].Value; got != totals[pod][i] {
				t.Fatalf("page %d of %s, metric %d: %g is served, the page has %g", n, pod, i, got, totals[pod][i])
			}
		}
		if taken, limit := memory.Taken(); taken > limit {
			t.Fatalf("%d bytes are taken, more than the limit of %d", taken, limit)
		}
	}
	if served < 1000 || refused < 1000 {
		t.Errorf("%d values were served and %d refused, want at least 1,000 each", served, refused)
	}
	for i := range 4 {
		s.Forget(fmt.Sprint("pod", i))
	}
	if taken, _ := memory.Taken(); taken != 0 {
		t.Errorf("%d bytes were not given back", taken)
	}
}

// TestMemoryOfExplanations checks that what is remembered of a page that lacks something counts, and that a page is
// recorded also if there is no memory for that.
func TestMemoryOfExplanations(t *testing.T) {
	memory := fairshare.New(3, fairshare.Fixed(10_000))
	s := New(Config{Memory: memory})
	q := compileB(t, Definition{Name: "depth"})
	record := func(seconds float64, body string) {
		t.Helper()
		if err := s.Record("a", Keep(q), Page{Namespace: "n", Pod: "a", At: at(seconds), Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	why := func() string {
		return s.Evaluate(t.Context(), q, []Pod{{UID: "a", Name: "a"}}, at(60)).Err().Error()
	}
	record(0, "depths 1\n")
	taken, _ := memory.Taken()
	if got, want := why(), "the pod exposes no metric depth; did you mean depths?"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var many strings.Builder
	for i := range 900 {
		fmt.Fprintf(&many, "depths%d 1\n", i)
	}
	record(1000, many.String())
	now, _ := memory.Taken()
	if got := s.Evaluate(t.Context(), q, []Pod{{UID: "a", Name: "a"}}, at(1001)).Err().Error(); got !=
		"the pod exposes no metric depth: check the name" {
		t.Errorf("got %s", got)
	}
	if taken <= targetBytes || now >= taken {
		t.Errorf("a suggestion takes %d bytes, no suggestion %d, want more than %d and less", taken, now, targetBytes)
	}
	record(2000, "depth 1\n")
	if now, _ := memory.Taken(); now > targetBytes+300 {
		t.Errorf("%d bytes are taken after the page was corrected, want hardly more than a target needs", now)
	}
	s.Forget("a")
	if left, _ := memory.Taken(); left != 0 {
		t.Errorf("%d bytes were not given back", left)
	}
}
