package customserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"metrics-server/pkg/adapterconfig"
	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/near"
	"metrics-server/pkg/schedule"
)

// queryMemory is the part of the memory that namespaces share which a query takes without its expression and its
// answer: its schedule, and a goroutine while it is sent.
const queryMemory = 8 << 10

// backends polls the backends of the administrator's file for metrics.
type backends struct {
	limits  *limits
	queries *queries
	connect func(backend.Config) (client, error)

	mu      sync.RWMutex    // guards the fields that follow
	ctx     context.Context // of run; nil before it
	running sync.WaitGroup  // of pollers
	servers map[string]*server
	wants   map[demand.Request]*remote
	// refused are wants to be retried: once it is known which series exist if the value is true, else once there is
	// memory.
	refused map[demand.Request]bool

	rules     *rules     // nil if there are none
	discovery *discovery // for rules; nil if there are none
}

// client sends queries. A backend.Client is one.
type client interface {
	backend.Querier
	CheckFiles() error
	Close()
}

// server is one backend with its settings, which do not change.
type server struct {
	config backend.Config // with defaults
	client client
	poller *backend.Poller
	stop   context.CancelFunc // nil before run
}

// remote is a Want whose values come from a backend. It is immutable.
type remote struct {
	*demand.Want
	server       *server // nil if there is no backend of this name
	expression   backend.Expression
	err          error                 // why it is not queried
	subscription *backend.Subscription // nil if err is not
	labels       adapterconfig.Labels  // say which object a series belongs to
	rules        *rules                // of the time when it was compiled
	ruled        bool                  // the expression is from a rule of prometheus-adapter
	nanAsZero    bool                  // NaN is served as 0
	discovered   []*discovered         // series on whose existence the expression depends
	// old is the last answer under the previous settings of the backend. It is served until there is a new one. Nil if
	// there is none.
	old *oldAnswer
}

// oldAnswer is an answer under previous settings. It is immutable.
type oldAnswer struct {
	*backend.Answer
	until time.Time // when it is not served any more: by the interval that it was asked at
}

func newBackends(l *limits, q *queries) *backends {
	return &backends{
		limits: l, queries: q, connect: func(c backend.Config) (client, error) { return backend.New(c) },
		servers: map[string]*server{}, wants: map[demand.Request]*remote{},
		refused: map[demand.Request]bool{},
	}
}

// run polls until ctx ends, and calls each at every tick.
func (b *backends) run(ctx context.Context, tick time.Duration, each func()) {
	b.mu.Lock()
	b.ctx = ctx
	for _, s := range b.servers {
		b.startLocked(s)
	}
	if b.discovery != nil {
		b.startLocked(b.discovery.server)
	}
	b.mu.Unlock()
	defer b.running.Wait()
	_ = wait.PollUntilContextCancel(ctx, tick, false, func(context.Context) (done bool, err error) {
		each()
		b.retry(true)
		return false, nil
	})
}

// startLocked starts to poll a backend, if run was called.
func (b *backends) startLocked(s *server) {
	if b.ctx == nil {
		return
	}
	ctx, cancel := context.WithCancel(b.ctx)
	s.stop = cancel
	b.running.Go(func() {
		_ = s.poller.Run(ctx) // it returns nil
		s.client.Close()
	})
}

// apply replaces the settings of all backends, and the rules, nil for none. A backend whose settings are the same is
// not disturbed. Call it before run, or from run.
func (b *backends) apply(all []backend.Config, r *rules) error {
	old := b.servers // which nothing else changes
	servers := make(map[string]*server, len(all))
	for _, c := range all {
		c = c.WithDefaults()
		if known := old[c.Name]; known != nil && reflect.DeepEqual(known.config, c) {
			servers[c.Name] = known
			continue
		}
		client, err := b.connect(c)
		if err != nil {
			return err
		}
		if err := client.CheckFiles(); err != nil {
			klog.InfoS("Warning: A file with credentials or certificates of a backend cannot be used now", "backend", c.Name,
				"err", err)
		}
		servers[c.Name] = &server{
			config: c, client: client,
			poller: backend.NewPoller(backend.PollerConfig{
				Config: c, Backend: client, Memory: b, OnResult: b.queries.reporter(c.Name),
			}),
		}
	}
	b.mu.Lock()
	b.servers = servers
	for name, s := range servers {
		if old[name] != s {
			b.startLocked(s)
		}
	}
	b.applyRulesLocked(r)
	wants := slices.Collect(maps.Keys(b.wants))
	b.mu.Unlock()
	b.setAgain(wants, func(demand.Request) bool { return true })
	for name, s := range old {
		if servers[name] != s && s.stop != nil {
			s.stop()
		}
		if servers[name] == nil {
			b.queries.forget(name)
		}
	}
	return nil
}

func (b *backends) applyRulesLocked(r *rules) {
	if b.discovery != nil && b.discovery.server.stop != nil {
		b.discovery.server.stop()
	}
	b.rules, b.discovery = nil, nil
	if r == nil || b.servers[r.backend] == nil {
		return
	}
	report := b.queries.reporter(r.backend)
	b.rules, b.discovery = r, newDiscovery(b.servers[r.backend], func(ctx context.Context, r schedule.Report) {
		report(ctx, r)
		b.retry(false) // wants that need this answer
	})
	b.startLocked(b.discovery.server)
}

// Take implements backend.Memory.
func (b *backends) Take(namespace string, n int64) error {
	return b.limits.take(memoryLimit, namespace, n)
}

// Give implements backend.Memory.
func (b *backends) Give(namespace string, n int64) { b.limits.memory.Give(namespace, n) }

// find returns what is polled for a request, or nil.
func (b *backends) find(r demand.Request) *remote {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.wants[r]
}

// counts returns how many metrics are polled, and how many cannot be.
func (b *backends) counts() (good, bad int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, w := range b.wants {
		if w.err != nil {
			bad++
		} else {
			good++
		}
	}
	return good, bad
}

// statuses returns the state of the queries of each backend.
func (b *backends) statuses() map[string]schedule.Status {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make(map[string]schedule.Status, len(b.servers))
	for name, s := range b.servers {
		all[name] = s.poller.Status()
	}
	return all
}

// discovering returns an error until every query that discovers series for rules was answered or has failed twice.
func (b *backends) discovering() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.discovery == nil {
		return nil
	}
	if st := b.discovery.server.poller.Status(); !complete(&st) {
		return fmt.Errorf("%d queries that discover series for the rules of prometheus-adapter: %d not sent yet, %d failed "+
			"once", st.Targets, st.Waiting, st.Doubtful)
	}
	return nil
}

// set starts or continues polling for a Want, which is new or has changed.
func (b *backends) set(w *demand.Want) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.setLocked(w)
}

func (b *backends) setLocked(w *demand.Want) {
	old := b.wants[w.Request]
	if old != nil && b.isCompiledLocked(old, w) {
		same := *old
		same.Want = w
		b.wants[w.Request] = &same
		return
	}
	n := b.compileLocked(w)
	b.wants[w.Request] = n
	delete(b.refused, w.Request)
	found, undiscovered := errors.AsType[discoveryError](n.err)
	if found.unknown {
		b.refused[w.Request] = true
	}
	// The previous expression, or else its last answer, is kept until it is known again which series exist, and while
	// the rules are unchanged but the existing series do not allow a query.
	kept := undiscovered && old != nil && (old.ruled || old.discovered != nil) && old.SameQuery(w) &&
		(found.unknown || old.rules.same(n.rules))
	if old != nil && old.subscription != nil {
		if kept && old.server == n.server {
			before := *old
			before.Want, before.discovered = w, n.discovered
			b.wants[w.Request] = &before
			return
		}
		if n.err == nil && old.server == n.server && old.expression == n.expression {
			n.subscription, n.old = old.subscription, old.old
			return
		}
	}
	if kept {
		n.labels, n.ruled, n.nanAsZero = old.labels, old.ruled, old.nanAsZero // as its last answer is read
	}
	if kept || n.err == nil && old != nil && old.SameQuery(w) && old.labels.Name == n.labels.Name {
		n.old = old.last(time.Now())
	}
	if old != nil && old.subscription != nil {
		b.releaseLocked(old)
	}
	if n.err != nil {
		return
	}
	if n.err = b.Take(n.expression.Owner(), n.size()); n.err != nil {
		b.refused[w.Request] = false
		return
	}
	n.subscription = n.server.poller.Subscribe(n.expression)
}

// isCompiledLocked reports whether what compileLocked would return for w is known from old, as when only the pods have
// changed. What a rule says may depend on them.
func (b *backends) isCompiledLocked(old *remote, w *demand.Want) bool {
	_, refused := b.refused[w.Request]
	return !refused && old.server != nil && old.server == b.servers[w.Backend] && old.rules == b.rules && !old.ruled &&
		old.discovered == nil && old.Err == nil && w.Err == nil && old.SameQuery(w)
}

// compileLocked returns what to poll for a Want.
func (b *backends) compileLocked(w *demand.Want) *remote {
	n := &remote{Want: w, server: b.servers[w.Backend], rules: b.rules}
	switch {
	case w.Err != nil:
		n.err = w.Err
	case n.server == nil:
		n.err = b.unknownLocked(w)
	default:
		n.labels.Name = n.server.config.PodLabel
		n.err = adapterconfig.ErrNotFound
		if w.Expression == "" && b.rules != nil && b.rules.backend == w.Backend {
			n.err = b.ruleLocked(n)
		}
		if errors.Is(n.err, adapterconfig.ErrNotFound) {
			n.expression, n.err = definition.CompileRemote(metricOf(w), w.Namespace, &n.server.config)
		}
	}
	return n
}

// unknownLocked returns the error of a Want that names a backend which does not exist.
func (b *backends) unknownLocked(w *demand.Want) error {
	names := slices.Sorted(maps.Keys(b.servers))
	remedy := "use one of " + strings.Join(names, ", ")
	similar := near.Nearest(w.Backend, names)
	switch {
	case len(names) == 0:
		remedy = "the custom metrics server has none; an administrator sets them up with --config"
	case similar != "":
		remedy = fmt.Sprintf("did you mean %q?", similar)
	case len(names) > 10:
		remedy = "correct the annotation"
	}
	subject := w.ExpressionAt // of a metric that the file names
	if w.Named == nil {
		subject = fmt.Sprintf("HorizontalPodAutoscaler %q", w.HPAs[0])
	}
	return fmt.Errorf("%s names backend %q, which does not exist: %s", subject, w.Backend, remedy)
}

// size is what the query of w takes of the memory that namespaces share.
func (w *remote) size() int64 { return queryMemory + w.expression.Size() }

// releaseLocked ends the query of w.
func (b *backends) releaseLocked(w *remote) {
	w.subscription.Close()
	b.Give(w.expression.Owner(), w.size())
}

// remove stops polling for a request.
func (b *backends) remove(r demand.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.wants[r]; old != nil && old.subscription != nil {
		b.releaseLocked(old)
	}
	delete(b.wants, r)
	delete(b.refused, r)
}

// retry tries refused wants again, and forgets old answers that have expired. Without all, it leaves alone wants that
// were refused for lack of memory.
func (b *backends) retry(all bool) {
	b.setAgain(b.retryable(all), func(r demand.Request) bool {
		_, refused := b.refused[r]
		return refused
	})
}

// setAgain sets those of wants that still exist and for which still returns true, which it calls with the lock held. It
// takes the lock for one at a time, because requests wait for it.
func (b *backends) setAgain(wants []demand.Request, still func(demand.Request) bool) {
	for _, r := range wants {
		b.mu.Lock()
		if w := b.wants[r]; w != nil && still(r) {
			b.setLocked(w.Want)
		}
		b.mu.Unlock()
	}
}

// retryable returns the wants that were refused, or whose expression may have changed with the series that exist.
func (b *backends) retryable(all bool) (wants []demand.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.discovery.read(now)
	needed := map[*discovered]bool{}
	for r, w := range b.wants {
		for _, d := range w.discovered {
			needed[d] = true
			if d.changed {
				b.refused[r] = true // to be compiled again
			}
		}
		if w.old != nil && now.After(w.old.until) {
			without := *w
			without.old = nil
			b.wants[r] = &without
		}
	}
	b.discovery.retain(needed)
	for r, undiscovered := range b.refused {
		if all || undiscovered {
			wants = append(wants, r)
		}
	}
	return wants
}

// last returns the present answer of w, nil if there is none.
func (w *remote) last(now time.Time) *oldAnswer {
	a, err := w.answer(now)
	switch {
	case err != nil:
		return nil
	case w.old != nil && w.old.Answer == a:
		return w.old
	}
	return &oldAnswer{a, a.Received.Add(backend.HeldPolls * w.server.config.Interval)}
}

// answer returns the last answer of the backend.
func (w *remote) answer(now time.Time) (a *backend.Answer, err error) {
	if err = w.err; err == nil {
		a, err = w.subscription.Answer(now)
	}
	if err != nil && w.old != nil && !now.After(w.old.until) {
		return w.old.Answer, nil
	}
	return a, err
}

// evaluate returns the values of w, at least one unless there is an error. As for scraped pods, those that were never
// ready are missing.
func (w *remote) evaluate(now time.Time) (*appmetrics.Answer, error) {
	a, err := w.answer(now)
	if err != nil {
		return nil, err
	}
	a = a.Within(w.labels.Namespace, w.Namespace)
	if w.nanAsZero {
		a = a.NaNAsZero()
	}
	if w.Type != autoscalingv2.PodsMetricSourceType {
		v, err := w.single(a)
		if err == nil {
			err = tooLarge(v)
		}
		if err != nil {
			return nil, w.wrong(err)
		}
		return &appmetrics.Answer{Values: []appmetrics.Value{{Value: v, Time: a.Received}}}, nil
	}
	if len(w.Pods) == 0 {
		return nil, noPods(w.Want)
	}
	out := &appmetrics.Answer{}
	var names []string
	for _, p := range w.Pods {
		if p.WasReady {
			names = append(names, p.Name)
		} else {
			out.Missing = append(out.Missing, notReady(p))
		}
	}
	for _, v := range a.By(w.labels.Name, names) {
		var err error
		switch {
		case v.Err != nil && v.Err.Cause() == string(backend.Ambiguous):
			return nil, w.wrong(v.Err) // the others may be wrong, too
		case v.Err != nil:
			err = v.Err
		default:
			err = tooLarge(v.Value)
		}
		if err != nil {
			out.Missing = append(out.Missing, appmetrics.Missing{Pod: v.Name, Err: w.wrong(err)})
			continue
		}
		out.Values = append(out.Values, appmetrics.Value{Pod: v.Name, Value: v.Value, Time: a.Received})
	}
	return out, out.Err()
}

// single returns the single value of an answer. By a rule, the value of an object is that of the series which has its
// name, and an external metric is the sum of its series: prometheus-adapter serves each, and the HPA controller adds
// them up.
func (w *remote) single(a *backend.Answer) (float64, error) {
	switch {
	case !w.ruled:
		return a.Single()
	case w.Type == autoscalingv2.ExternalMetricSourceType:
		return a.Sum()
	}
	v := a.By(w.labels.Name, []string{w.Object})[0]
	if v.Err != nil {
		return 0, v.Err
	}
	return v.Value, nil
}

// wrong returns the error of a value that cannot be used.
func (w *remote) wrong(err error) *appmetrics.Error {
	return appmetrics.Errorf(appmetrics.NoResult, "metric %q in backend %q: %v", w.Name, w.Backend, err)
}

// tooLarge returns the error of a value that cannot be served.
func tooLarge(v float64) error {
	if math.Abs(v) > appmetrics.MaxValue {
		return errors.New("the value is outside of ±2^50, the range that can be served: correct the expression")
	}
	return nil
}
