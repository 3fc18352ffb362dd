package appmetrics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Pod is one of those that an evaluation is about.
type Pod struct {
	UID, Name string
	// Problem says why the last attempt to get a page failed, nil if it did not. It is the cause
	// that is reported if the pod has no value.
	Problem error
}

// Value is the value of a pod, or the single value.
type Value struct {
	Pod    string        // name, empty for a single value and for a Grouped metric
	Labels labels.Labels // of a Grouped metric
	Value  float64
	// Time is when the page arrived that the value is from: the oldest one, for a single value.
	Time time.Time
	// Window is the range that the value covers, 0 if it is a level at Time.
	Window time.Duration
}

// Missing is a pod without a value.
type Missing struct {
	Pod string
	Err *Error
}

// Answer is the result of an evaluation.
type Answer struct {
	// Values are sorted by pod. A single value is the only one. Those of a Grouped metric are in no particular order,
	// and may be NaN or too large to be served.
	Values []Value
	// Missing are the pods without a value, sorted.
	Missing []Missing
	// Expression is what was evaluated, "" if no pod's page says which default to choose.
	Expression string
	// Families are those that the query looks at and the pods have, sorted.
	Families []Family
	// Warnings say what is probably not meant. They do not keep a value from being served.
	Warnings []string
	// Filled is how many missing pods a value of several pods counts with the mean of the others, or
	// leaves out because it is a ratio or a mean.
	Filled int
	err    *Error // why there is no value at all
}

// Err returns why there is no value: nil if there is one, or else an *Error, whose text is stable.
func (a *Answer) Err() error {
	if len(a.Values) > 0 {
		return nil
	}
	if a.err != nil {
		return a.err
	}
	return summarize(a.Missing)
}

// Costly reports whether the evaluation itself exceeded a limit, as the next one probably would. It returns
// false if only pages exceed a limit.
func (a *Answer) Costly() bool { return a.err != nil && a.err.Cause == OverLimit }

// state is a pod during an evaluation.
type state struct {
	snapshot
	pod    *Pod
	at     int64    // of the last good page
	wanted []Family // those of its families that the query looks at
}

// evaluation is one call of Evaluate.
type evaluation struct {
	s      *Store
	q      *Query
	now    time.Time
	epoch  time.Time
	live   []*state // pods with a page that is not too old
	reads  []string // names of the series that the default expression reads; nil if there is none
	answer *Answer
	work   work // of explanations
	// compared is how many pages a missing name was compared with, and suggested has what was found, by name.
	compared  int
	suggested map[string][][]string
}

// Slot is one of the Config.Parallel places for evaluations. Its holder runs one evaluation at a time.
type Slot struct{ store *Store }

// Slot waits for a free Slot, and returns an error if ctx ends first. The caller has to Free it.
func (s *Store) Slot(ctx context.Context) (*Slot, error) {
	select {
	case slot := <-s.slots:
		return slot, nil
	case <-ctx.Done():
		return nil, errCanceled
	}
}

var errCanceled = Errorf(Canceled, "the evaluation was canceled")

// Free gives l back to the Store.
func (l *Slot) Free() { l.store.slots <- l }

// Evaluate waits for a Slot and calls its Evaluate. Pods may be deleted and values may expire during the wait. If there
// are other users of s, call Slot first, and determine pods and now afterwards.
func (s *Store) Evaluate(ctx context.Context, q *Query, pods []Pod, now time.Time) *Answer {
	l, err := s.Slot(ctx)
	if err != nil {
		return &Answer{err: errCanceled}
	}
	defer l.Free()
	return l.Evaluate(ctx, q, pods, now)
}

// Evaluate evaluates a query over pods, which are those of one namespace. It ends early with ctx.
func (l *Slot) Evaluate(ctx context.Context, q *Query, pods []Pod, now time.Time) *Answer {
	e := &evaluation{
		s: l.store, q: q, now: now, answer: &Answer{}, work: work{left: freeSteps, done: ctx.Done()},
	}
	e.collect(pods)
	if e.answer.err != nil {
		return e.answer
	}
	if q.expression != "" {
		e.own(ctx)
	} else {
		e.byDefault(ctx)
	}
	switch { // then it is not known what a missing pod means
	case e.work.over && ctx.Err() != nil:
		e.fail(errCanceled)
	case e.work.over:
		e.fail(e.tooLong())
	}
	a := e.answer
	slices.SortFunc(a.Values, func(x, y Value) int { return strings.Compare(x.Pod, y.Pod) })
	slices.SortFunc(a.Missing, func(x, y Missing) int { return strings.Compare(x.Pod, y.Pod) })
	slices.Sort(a.Warnings)
	return a
}

// collect finds the pods' targets, and sorts out those without a page that is recent enough.
func (e *evaluation) collect(pods []Pod) {
	e.s.mu.RLock()
	e.epoch = e.s.epoch
	targets := make([]*target, len(pods))
	for i := range pods {
		targets[i] = e.s.targets[pods[i].UID]
	}
	e.s.mu.RUnlock()

	copied := 0
	now := e.now.Sub(e.epoch).Milliseconds()
	hold := holdFor(e.s.config.Interval).Milliseconds()
	families := map[Family]int{} // how many pods have them
	e.live = make([]*state, 0, len(pods))
	for i, t := range targets {
		p := &state{pod: &pods[i]}
		if t != nil {
			p.snapshot = t.snapshot(e.q)
		}
		if why := p.leftOut[e.q]; why != nil {
			e.miss(p.pod, why.Cause, why.Text)
			continue
		}
		if copied += len(p.series) * len(p.times); copied > e.s.config.MaxSamples {
			e.answer.err = Errorf(OverLimit, "the expression of metric %q needs more than %d samples at a time: "+
				"shorten its ranges or select fewer series", e.q.def.Name, e.s.config.MaxSamples)
			return
		}
		if len(p.times) == 0 {
			e.miss(p.pod, NoAnswer, "the pod has not answered a scrape yet: retry in a few seconds")
			continue
		}
		p.at = p.times[len(p.times)-1]
		switch {
		case now-p.at > hold:
			e.miss(p.pod, Expired, "the pod has not answered a scrape for a minute or longer: see its log and kubectl "+
				"describe pod")
		case !p.kept.serves(e.q):
			e.miss(p.pod, TooFewPoints, fmt.Sprintf("metric %q was added after the pod's last scrape: retry in a few seconds",
				e.q.def.Name))
		default:
			p.wanted = e.familiesOf(&p.snapshot)
			for _, f := range p.wanted {
				families[f]++
			}
			e.live = append(e.live, p)
		}
	}
	e.answer.Families = byMostPods(families)
}

// byMostPods returns each family once, sorted by name, with the type that most pods give it, or
// "untyped" if none gives a type.
func byMostPods(pods map[Family]int) []Family {
	all := slices.SortedFunc(maps.Keys(pods), func(a, b Family) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		switch {
		case a.Type == "untyped":
			return 1
		case b.Type == "untyped":
			return -1
		}
		return cmp.Or(cmp.Compare(pods[b], pods[a]), strings.Compare(a.Type, b.Type))
	})
	return slices.CompactFunc(all, func(a, b Family) bool { return a.Name == b.Name })
}

// familiesOf returns those of a target that the query looks at, each once.
func (e *evaluation) familiesOf(t *snapshot) (all []Family) {
	add := func(name, kind string) {
		if f := (Family{Name: name, Type: kind}); !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	has := func(f Family, name string) bool {
		base, part := cutSuffix(name)
		return f.Name == name || part && f.Name == base && (f.Type == "histogram" || f.Type == "summary")
	}
	for i := range e.q.selectors {
		for _, f := range t.families {
			if has(f, e.q.selectors[i].name) {
				add(f.Name, f.Type)
			}
		}
	}
	for i := range t.series { // all are of names that the query selects
		name := t.series[i].name()
		typed := slices.ContainsFunc(t.families, func(f Family) bool { return has(f, name) })
		if !typed && t.series[i].now() {
			add(name, "untyped")
		}
	}
	return all
}

// missing adds a pod without a value.
func (e *evaluation) missing(pod string, err *Error) {
	e.answer.Missing = append(e.answer.Missing, Missing{Pod: pod, Err: err})
}

// miss is missing with an error to be made. If its last scrape failed, that is the better explanation.
func (e *evaluation) miss(p *Pod, c Cause, text string) {
	err := Errorf(c, "%s", text)
	if p.Problem != nil {
		if own := (*Error)(nil); errors.As(p.Problem, &own) {
			c = own.Cause
		}
		err = Errorf(c, "%s", p.Problem.Error())
	}
	e.missing(p.Name, err)
}

// fail gives all pods that have no value yet the same reason.
func (e *evaluation) fail(err *Error) {
	for _, p := range e.live {
		known := func(m Missing) bool { return m.Pod == p.pod.Name }
		if !slices.ContainsFunc(e.answer.Missing, known) {
			e.missing(p.pod.Name, err)
		}
	}
	e.answer.Values = nil
	e.answer.err = err
}

// own evaluates an expression that the HPA gives.
func (e *evaluation) own(ctx context.Context) {
	q := e.q
	e.answer.Expression = q.expression
	e.warn()
	e.live = slices.DeleteFunc(e.live, func(p *state) bool {
		if e.fillsRanges(p) {
			return false
		}
		e.missing(p.pod.Name, Errorf(TooFewPoints,
			"the scrapes of the pod do not cover the ranges of the expression of metric %q yet: wait until they do",
			q.def.Name))
		return true
	})
	if len(e.live) == 0 {
		return
	}
	if q.def.Shape == PerPod {
		e.perPod(ctx, q.expression, e.live, q.span)
		return
	}
	if q.def.Shape == Grouped {
		e.grouped(ctx)
		return
	}
	if q.perPod != "" {
		e.perPod(ctx, q.perPod, e.live, q.span)
		e.total()
		return
	}
	e.single(ctx, q.expression, q.span, q.scaleFree)
}

// byDefault evaluates the default expression.
func (e *evaluation) byDefault(ctx context.Context) {
	q := e.q
	if len(e.live) == 0 {
		return
	}
	x, err := e.choose()
	if err != nil {
		e.fail(err)
		return
	}
	if x == nil {
		for _, p := range e.live {
			e.missing(p.pod.Name, e.explain(p))
		}
		return
	}
	e.reads = x.reads
	shape := q.def.Shape
	e.answer.Expression = x.expression(shape, q.def.Window)
	if x.level {
		if shape == Single && x.observations {
			e.single(ctx, e.answer.Expression, 0, true)
			return
		}
		e.perPod(ctx, x.expression(PerPod, 0), e.live, 0)
		if shape == Single {
			e.total()
		}
		return
	}
	if shape == Single && x.observations {
		w := e.widest(x.name)
		if len(e.live) == 0 {
			return
		}
		e.single(ctx, x.expression(Single, w), w, true)
		return
	}
	byWindow := map[time.Duration][]*state{}
	for _, p := range e.live {
		w := e.window(p, x.name)
		byWindow[w] = append(byWindow[w], p)
	}
	for w, pods := range byWindow {
		if w == 0 { // one point, or none
			for _, p := range pods {
				e.missing(p.pod.Name, e.explain(p))
			}
			continue
		}
		e.perPod(ctx, x.expression(PerPod, w), pods, w)
		if e.answer.err != nil {
			return
		}
	}
	if shape == Single {
		e.total()
	}
}

// widest returns the widest of the pods' windows. Pods without a window leave e.live, and
// those that have too few pages are reported as missing.
func (e *evaluation) widest(name string) time.Duration {
	widest := time.Duration(0)
	e.live = slices.DeleteFunc(e.live, func(p *state) bool {
		w := e.window(p, name)
		if widest = max(widest, w); w > 0 {
			return false
		}
		m := Missing{Pod: p.pod.Name, Err: e.explain(p)}
		if m.silent() {
			return false
		}
		e.answer.Missing = append(e.answer.Missing, m)
		return true
	})
	return cmp.Or(widest, e.q.def.Window)
}

// meaning is a family that a metric's name may mean, and its type.
type meaning struct {
	candidate int // index in Query.candidates
	kind      string
}

// meaningOf returns the likeliest family that the metric's name may mean among those of a page, if there is any.
func (q *Query) meaningOf(families []Family) (meaning, bool) {
	for i, c := range q.candidates {
		if kind := c.kindAmong(families); kind != "" {
			return meaning{i, kind}, true
		}
	}
	return meaning{}, false
}

// kindAmong returns the type that families give the candidate, "" if it is not there. A part of a histogram or summary,
// as X_count is of X, is a counter.
func (c candidate) kindAmong(families []Family) string {
	for _, f := range families {
		if f.Name == c.name {
			return f.Type
		}
	}
	if base, part := cutSuffix(c.name); part {
		for _, f := range families {
			if f.Name == base && (f.Type == "histogram" || f.Type == "summary") {
				return "counter"
			}
		}
	}
	return ""
}

// choose returns the default expression for what the metric's name means on the pages of most pods. It leaves out the
// pods on whose pages it means something else, because the expression would misread their series. A page that gives
// no type does not contradict the others, but counts as untyped where most do not give one. It returns nil if no pod
// has such a family.
func (e *evaluation) choose() (*chosen, *Error) {
	type expression struct {
		x    *chosen
		err  *Error
		text string // of the expression or error: meanings with the same text are the same
	}
	known := map[meaning]expression{}
	expressionOf := func(m meaning) expression {
		found, ok := known[m]
		if !ok {
			if found.x, found.err = e.q.choose(e.q.candidates[m.candidate], m.kind); found.err != nil {
				found.text = found.err.Text
			} else {
				found.text = found.x.expression(PerPod, time.Minute)
			}
			known[m] = found
		}
		return found
	}
	pods := map[string]int{} // by text
	for _, p := range e.live {
		if m, ok := e.q.meaningOf(p.wanted); ok {
			pods[expressionOf(m).text]++
		}
	}
	if len(pods) == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	most := slices.MinFunc(slices.Collect(maps.Keys(known)), func(a, b meaning) int {
		untyped := func(m meaning) int {
			if m.kind == "untyped" {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(pods[known[b].text], pods[known[a].text]), cmp.Compare(a.candidate, b.candidate),
			cmp.Compare(untyped(a), untyped(b)), strings.Compare(a.kind, b.kind))
	})
	family, chosen := e.q.candidates[most.candidate], known[most]
	if chosen.err != nil {
		return nil, chosen.err
	}
	e.live = slices.DeleteFunc(e.live, func(p *state) bool {
		var text string
		other, ok := e.q.meaningOf(p.wanted)
		switch kind := family.kindAmong(p.wanted); {
		case kind == "untyped", !ok, kind != "" && expressionOf(meaning{most.candidate, kind}).text == chosen.text:
			return false
		case kind != "":
			text = fmt.Sprintf("pod %s exposes %s with the type %s, but most pods expose it with the type %s: "+
				"expose it with one type", p.pod.Name, family.name, kind, most.kind)
		default:
			text = fmt.Sprintf("pod %s exposes %s, but most pods expose %s: expose it under one name",
				p.pod.Name, e.q.candidates[other.candidate].name, family.name)
		}
		e.missing(p.pod.Name, Errorf(WrongType, "%s", text))
		return true
	})
	return chosen.x, nil
}

func (e *evaluation) timeOf(at int64) time.Time {
	return e.epoch.Add(time.Duration(at) * time.Millisecond)
}
