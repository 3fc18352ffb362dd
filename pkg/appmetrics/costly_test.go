package appmetrics

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/fairshare"
)

// costlyQueries returns as many queries with as many selectors as an autoscaler may have. Each pattern takes about 2 ms
// for the longest value of a label.
func costlyQueries(t *testing.T) (all []*Query) {
	t.Helper()
	for i := range 20 {
		var terms []string
		for j := range maxSelectors {
			terms = append(terms, fmt.Sprintf(`x{v=~"(?:[ab]*[ab]?){80}[c-\\x{1%03x}]"}`, maxSelectors*i+j))
		}
		q, err := Compile(Definition{Name: "m", Expression: "sum by (pod) (" + strings.Join(terms, " or ") + ")"})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, q)
	}
	return all
}

// costlyLines returns lines whose label v takes long to match.
func costlyLines(count, round int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "x{v=\"%s%d\"} 1\n", strings.Repeat("a", 990), count*round+i)
	}
	return b.String()
}

// mostMatching leaves room for the race detector, which makes the second about five.
const mostMatching = 10 * time.Second

// within runs f and checks that it takes less than so much CPU time.
func within(t *testing.T, most time.Duration, f func()) {
	t.Helper()
	before := processorTime(t)
	f()
	if took := processorTime(t) - before; took > most {
		t.Errorf("it takes %v of CPU time, want at most %v", took, most)
	}
}

const tooCostly = "its series take longer than 1s to match with the selectors of the metrics that refer to it: " +
	"use = instead of =~ in expressions, fewer or shorter patterns, or fewer selectors"

// TestRecordCostlyPatterns checks that a page of a pod cannot keep a CPU busy, however many patterns are matched with
// its series.
func TestRecordCostlyPatterns(t *testing.T) {
	queries := costlyQueries(t)
	k := Keep(queries...)
	page := func(p Page) Page {
		p.Namespace, p.Pod, p.At = "n", "p", at(0)
		return p
	}
	t.Run("new lines", func(t *testing.T) {
		s := New(Config{})
		within(t, mostMatching, func() {
			err := s.Record("u", k, page(Page{Body: []byte(costlyLines(60, 0))}))
			if causeOf(err) != OverLimit || err.Error() != tooCostly {
				t.Errorf("got %v, want %s", err, tooCostly)
			}
		})
		if !k.Costly(60 << 10) {
			t.Error("such a page is not called costly")
		}
	})
	// All series are kept because of one more selector. The last series has what all queries need.
	costly := []byte(costlyLines(60, 0) + "x{v=\"" + strings.Repeat("a", 1000) + "c\"} 1\n")
	q, err := Compile(Definition{Name: "m", Expression: "sum by (pod) (x)"})
	if err != nil {
		t.Fatal(err)
	}
	k = Keep(append([]*Query{q}, queries...)...)
	t.Run("lines that lack something", func(t *testing.T) {
		s := New(Config{})
		within(t, mostMatching, func() {
			if err := s.Record("u", k, page(Page{Body: costly})); err != nil {
				t.Errorf("got %v, want that the values count, and only explanations are missing", err)
			}
		})
		if a := s.Evaluate(t.Context(), q, []Pod{{UID: "u", Name: "p"}}, at(1)); len(a.Values) != 1 {
			t.Errorf("got %v, want a value", a.Err())
		}
	})
	t.Run("a filtered page", func(t *testing.T) {
		s := New(Config{})
		within(t, mostMatching, func() {
			if err := s.Record("u", k, page(Page{Filtered: true, Body: costly})); causeOf(err) != OverLimit {
				t.Errorf("got %v, want %s", err, tooCostly)
			}
		})
	})
	t.Run("a page without room", func(t *testing.T) {
		s := New(Config{Memory: fairshare.New(3, fairshare.Fixed(20<<10))})
		within(t, mostMatching, func() {
			if err := s.Record("u", k, page(Page{Body: []byte(costlyLines(60, 0))})); causeOf(err) != OverLimit {
				t.Errorf("got %v, want %s", err, tooCostly)
			}
		})
	})
	t.Run("counters that are new to the queries of before", func(t *testing.T) {
		counters := func(round int) []byte {
			return []byte("# TYPE x counter\n" + costlyLines(60, round))
		}
		s := New(Config{})
		if err := s.Record("u", Keep(queries...), page(Page{Body: []byte("x 1\n")})); err != nil {
			t.Fatal(err)
		}
		second := page(Page{Body: counters(1)})
		second.At = at(15)
		within(t, mostMatching, func() {
			if err := s.Record("u", Keep(q), second); err != nil {
				t.Errorf("got %v, want that the page counts", err)
			}
		})
	})
	t.Run("ordinary pages", func(t *testing.T) {
		var all []*Query
		for i := range 50 {
			var terms []string
			for j := range 2 {
				terms = append(terms, fmt.Sprintf(`x{code=~"%d..",handler="h%d"}`, j, i))
			}
			q, err := Compile(Definition{Name: "m", Expression: "sum by (pod) (" + strings.Join(terms, " or ") + ")"})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, q)
		}
		var b strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&b, "x{code=\"%d\",handler=\"h%d\",v=\"%d\"} 1\n", 900+i%10, i%100, i)
		}
		if err := New(Config{}).Record("u", Keep(all...), page(Page{Body: []byte(b.String())})); err != nil {
			t.Errorf("1,000 series and 100 selectors: %v", err)
		}
		usual, err := Compile(Definition{
			Name: "m", Expression: `sum by (pod) (rate(x{code=~"5..",handler!~"/api/v1/.*"}[1m]))`,
		})
		if err != nil {
			t.Fatal(err)
		}
		if Keep(usual).Costly(30 << 10) {
			t.Error("a page of 30 KiB with two patterns is called costly")
		}
	})
}

// misspelled returns a store with pods of which each has other families than the next one, all of them long and similar
// to the name of the metric of a query.
func misspelled(t *testing.T, pods int) (*Store, *Query, []Pod) {
	t.Helper()
	q, err := Compile(Definition{Name: strings.Repeat("ab", 74)})
	if err != nil {
		t.Fatal(err)
	}
	s, k := New(Config{}), Keep(q)
	var all []Pod
	for i := range pods {
		var b strings.Builder
		for j := range 20 {
			fmt.Fprintf(&b, "%s_%03d_%03d 1\n", strings.Repeat("ba", 70), i, j)
		}
		p := Pod{UID: fmt.Sprint("uid", i), Name: fmt.Sprintf("pod%03d", i)}
		if err := s.Record(p.UID, k, Page{Namespace: "n", Pod: p.Name, At: at(0), Body: []byte(b.String())}); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return s, q, all
}

// TestCostlySuggestions checks that one evaluation compares a misspelled name with the families of a few pods only, and
// that it ends with its context.
func TestCostlySuggestions(t *testing.T) {
	s, q, pods := misspelled(t, 50)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l, err := s.Slot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Free()
	compared := func() (n int) {
		for _, t := range s.targets {
			n += len(t.found.near)
		}
		return n
	}
	if a := l.Evaluate(ctx, q, pods, at(1)); causeOf(a.Err()) != Canceled || compared() > 0 {
		t.Errorf("got %v after the context has ended, and %d pods are compared", a.Err(), compared())
	}
	a := l.Evaluate(t.Context(), q, pods, at(1))
	if causeOf(a.Err()) != NoFamily || !strings.Contains(a.Err().Error(), "did you mean") {
		t.Errorf("got %v, want suggestions", a.Err())
	}
	if len(a.Missing) != len(pods) {
		t.Errorf("%d pods are missing, want %d", len(a.Missing), len(pods))
	}
	if compared() != maxCompared {
		t.Errorf("the name is compared for %d pods, want %d", compared(), maxCompared)
	}
}

// TestSuggestionsOfManyPods checks that all pods with the same families get the same suggestion.
func TestSuggestionsOfManyPods(t *testing.T) {
	w := newWorld(t, Definition{Name: "request"})
	var names []string
	for i := range 10 {
		name := string(rune('a' + i))
		w.page(name, 1, "requests 1")
		names = append(names, name)
	}
	w.page("k", 1, "other 1")
	const want = "the pod exposes no metric request; did you mean requests?"
	a := w.answer(2, append(names, "k")...)
	for _, m := range a.Missing[:10] {
		if m.Err.Text != want {
			t.Errorf("pod %s: %s", m.Pod, m.Err.Text)
		}
	}
	if got := a.Missing[10].Err.Text; got != "the pod exposes no metric request: check the name" {
		t.Errorf("a pod without that family: %s", got)
	}
}

// TestCostlySelection checks that the time limit of an evaluation ends the selection of the series of a single pod.
func TestCostlySelection(t *testing.T) {
	all, err := Compile(Definition{Name: "m", Expression: "sum by (pod) (x)"})
	if err != nil {
		t.Fatal(err)
	}
	costly := costlyQueries(t)[0]
	s := New(Config{Timeout: 100 * time.Millisecond})
	if err := s.Record("u", Keep(all, costly), Page{
		Namespace: "n", Pod: "p", At: at(0), Body: []byte(costlyLines(500, 0)),
	}); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, func() {
		err := s.Evaluate(t.Context(), costly, []Pod{{UID: "u", Name: "p"}}, at(1)).Err()
		if causeOf(err) != OverLimit || !strings.Contains(err.Error(), "takes longer than 100ms") {
			t.Errorf("got %v, want a limit", err)
		}
	})
}
