package customserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/semaphore"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/near"
)

// tableAge is for how long the values of all objects are served without another evaluation of their expression. With
// many objects, an evaluation takes tens of milliseconds, and each object is requested every 15 s.
const tableAge = 2 * time.Second

// tables are the values of the metrics that an administrator names.
type tables struct {
	mu  sync.Mutex // guards the field that follows
	all map[demand.Request]*table
}

// table has the values of all objects of one metric.
type table struct {
	turn   *semaphore.Weighted // of one evaluation, which requests share; guards the fields that follow
	query  *compiled           // that was evaluated; nil for a backend
	answer *backend.Answer     // that was read; nil without a backend
	at     time.Time           // of the evaluation
	values *objectValues
	err    error
	logged string    // the last error that was logged; "" if there are values again
	warned time.Time // when that was
}

// objectValues are the values of objects. They are immutable.
type objectValues struct {
	of       map[types.NamespacedName]objectValue
	complete bool // no pod and no part of a backend's answer is missing
}

// objectValue is the value of an object, or why there is none.
type objectValue struct {
	appmetrics.Value
	ambiguous bool // several series belong to it
}

// dropLater drops the values of an evaluation once they are too old to be served. With many objects they
// are megabytes, which no namespace's share of the memory covers.
func (t *table) dropLater() {
	evaluated := t.at
	time.AfterFunc(tableAge, func() {
		_ = t.turn.Acquire(context.Background(), 1) // it fails only if the context ends
		defer t.turn.Release(1)
		if t.at.Equal(evaluated) {
			t.query, t.values, t.err = nil, nil, nil
		}
	})
}

// table returns the table of a request, which is made if there is none.
func (t *tables) table(r demand.Request) *table {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.all[r]
	if known == nil {
		if t.all == nil {
			t.all = map[demand.Request]*table{}
		}
		known = &table{turn: semaphore.NewWeighted(1)}
		t.all[r] = known
	}
	return known
}

func (t *tables) remove(r demand.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, r)
}

// byObject returns values by object. Two labels of a value name its object.
func byObject(n *demand.Named, all []appmetrics.Value, complete bool) *objectValues {
	o := &objectValues{of: make(map[types.NamespacedName]objectValue, len(all)), complete: complete}
	for _, v := range all {
		of := types.NamespacedName{Namespace: v.Labels.Get(n.NamespaceLabel), Name: v.Labels.Get(n.NameLabel)}
		if of.Namespace == "" || of.Name == "" {
			continue
		}
		_, known := o.of[of]
		v.Labels = labels.EmptyLabels() // they are not needed any more
		o.of[of] = objectValue{Value: v, ambiguous: known}
	}
	return o
}

// value returns the value of the object of w. Its errors name nothing of other namespaces.
func (o *objectValues) value(w *demand.Want) (appmetrics.Value, error) {
	n, of := w.Named, types.NamespacedName{Namespace: w.Namespace, Name: w.Object}
	fail := func(format string, args ...any) (appmetrics.Value, error) {
		return appmetrics.Value{}, noValue(w, appmetrics.NoResult, format, args...)
	}
	got, ok := o.of[of]
	if !ok && n.MissingIsZero && o.complete {
		for other, v := range o.of { // all have the same time
			// A selector could otherwise reveal whether another namespace has certain series.
			if w.Selector == "" || other.Namespace == of.Namespace {
				return appmetrics.Value{Time: v.Time, Window: v.Window}, nil
			}
		}
	}
	switch {
	case !ok:
		return fail("no series has %s=%q and %s=%q: %s", n.NamespaceLabel, of.Namespace, n.NameLabel, of.Name, o.remedy(of))
	case got.ambiguous:
		return fail("several series belong to the object: an administrator has to aggregate more, as in "+
			"sum by (%s, %s) (...)", n.NamespaceLabel, n.NameLabel)
	case math.IsNaN(got.Value.Value):
		return fail("it is NaN, which is not a number")
	}
	if err := tooLarge(got.Value.Value); err != nil {
		return fail("%v", err)
	}
	return got.Value, nil
}

// noValue returns the error of a metric that an administrator names.
func noValue(w *demand.Want, cause appmetrics.Cause, format string, args ...any) error {
	return appmetrics.Errorf(cause, "%s, "+demand.NamedInFile+", has no value: "+format,
		append([]any{w.Request}, args...)...)
}

// remedy returns what to do about an object without a series.
func (o *objectValues) remedy(of types.NamespacedName) string {
	var names []string
	for other := range o.of {
		if other.Namespace == of.Namespace {
			names = append(names, other.Name)
		}
	}
	slices.Sort(names)
	if similar := near.Nearest(of.Name, names); similar != "" {
		return fmt.Sprintf("did you mean %q?", similar)
	}
	return "check its name; many controllers expose a series only after the first request"
}

// named returns the value of a metric that an administrator names.
func (v *values) named(ctx context.Context, w *demand.Want) (*appmetrics.Answer, error) {
	series, err := v.find(w.SeriesOf())
	if err != nil {
		return nil, errNotCollected
	}
	if series.Err != nil {
		return nil, series.Err
	}
	objects, err := v.objects(ctx, series, w.Namespace)
	if _, gone := v.find(series.Request); gone != nil { // meanwhile
		v.tables.remove(series.Request)
	}
	if err != nil {
		return nil, err
	}
	value, err := objects.value(w)
	if err != nil {
		return nil, err
	}
	return &appmetrics.Answer{Values: []appmetrics.Value{value}}, nil
}

// objects returns the values of all objects. namespace is that of who asks.
func (v *values) objects(ctx context.Context, w *demand.Want, namespace string) (*objectValues, error) {
	t := v.tables.table(w.Request)
	if w.Backend != "" {
		p := v.polled(w.Request)
		switch {
		case p == nil:
			return nil, errNotPolled
		case p.err != nil: // of metric.selector, because the query was checked with the file, or why it is not sent
			return nil, p.err
		}
		if err := t.turn.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer t.turn.Release(1)
		a, err := p.answer(time.Now())
		if said, ok := errors.AsType[*backend.Error](err); ok && said.Cause() == string(backend.NotAsked) {
			return nil, noValue(w, appmetrics.NoAnswer, "%v", said)
		}
		t.report(w, err)
		if err != nil {
			return nil, withheld(w, err)
		}
		if t.answer != a {
			all := make([]appmetrics.Value, len(a.Samples))
			for i, s := range a.Samples {
				all[i] = appmetrics.Value{Labels: s.Labels, Value: s.Value, Time: a.Received}
			}
			t.answer, t.values = a, byObject(w.Named, all, !a.Partial)
		}
		return t.values, nil
	}
	c := v.collected(w.Request)
	if c == nil {
		return nil, errNotCollected
	}
	if c.query.err != nil { // of metric.selector, because the query was checked with the file
		return nil, c.query.err
	}
	if err := t.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	values, err, fresh := t.values, t.err, t.isFresh(c.query)
	t.turn.Release(1)
	if fresh {
		return values, err
	}
	turn := namespace
	if w.Selector == "" {
		turn = "" // it is the same for all
	}
	// Nobody waits for the turn of a namespace with that of the table, for which other namespaces wait.
	end, err := v.evaluating.take(ctx, turn)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := t.turn.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer t.turn.Release(1)
	if t.isFresh(c.query) { // meanwhile
		return t.values, t.err
	}
	_, a, err := v.inTurn(ctx, w.Request)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	t.query, t.at, t.values, t.err = c.query, time.Now(), nil, nil
	switch {
	case err == nil:
		t.values = byObject(w.Named, a.Values, a.Filled == 0)
	case w.Selector != "" && lacksSeries(err):
		t.values = &objectValues{} // as if only other namespaces had series: users must not learn which
	default:
		t.err = withheld(w, err)
	}
	t.dropLater()
	t.report(w, err)
	return t.values, t.err
}

// isFresh reports whether the values are those of a query, and recent enough to be served. The caller has the turn.
func (t *table) isFresh(of *compiled) bool { return t.query == of && time.Since(t.at) < tableAge }

// report logs why there are no values, at most once in quietAfter, and when there are some again.
func (t *table) report(w *demand.Want, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == t.logged, err != nil && !t.warned.IsZero() && time.Since(t.warned) < quietAfter:
		return
	case err != nil:
		t.warned = time.Now()
		klog.InfoS("Warning: A metric of the administrator's file has no values", "metric", w.Name, "resource", w.Resource,
			"selector", w.Selector, "err", err)
	default:
		klog.InfoS("A metric of the administrator's file has values again", "metric", w.Name, "resource", w.Resource)
	}
	t.logged = text
}

// lacksSeries reports whether an evaluation failed because no pod has a series that the expression selects.
func lacksSeries(err error) bool {
	said, ok := errors.AsType[*appmetrics.Error](err)
	return ok && slices.Contains([]appmetrics.Cause{
		appmetrics.NoFamily, appmetrics.NoMatch, appmetrics.NoResult, appmetrics.NoObservations,
	}, said.Cause)
}

// withheld returns the error that users get when a query or an evaluation fails. It names neither pods nor labels,
// because they belong to other namespaces.
func withheld(w *demand.Want, err error) error {
	const details = ": the log of the custom metrics server has the details for an administrator"
	if said, ok := errors.AsType[*backend.Error](err); ok {
		return noValue(w, appmetrics.NoAnswer, "backend %q has not given a usable answer (%s)"+details, w.Backend,
			said.Cause())
	}
	said, ok := errors.AsType[*appmetrics.Error](err)
	if !ok {
		return err
	}
	from := fmt.Sprintf("service/%s/%s", w.Named.Namespace, w.Service)
	why := "its series cannot be used"
	if lacksSeries(err) {
		why = fmt.Sprintf("the pods of %s have no such series; many controllers expose one only after the first request",
			from)
	}
	switch said.Cause {
	case appmetrics.NoAnswer, appmetrics.Expired, appmetrics.TooFewPoints, appmetrics.Incomplete, appmetrics.Canceled:
		why = fmt.Sprintf("too many pods of %s cannot be scraped or are too new", from)
	case appmetrics.OverLimit, appmetrics.OverShare:
		why = "its series or its expression exceed a limit"
	}
	return noValue(w, said.Cause, "%s"+details, why)
}
