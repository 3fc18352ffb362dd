package demand

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"metrics-server/pkg/kubeapi"
)

// pageSize is the limit of a list request. API servers that stream lists send one object at a time; from others, a page
// arrives as a whole, and is reduced only then. An object may have 1.5 MiB, so somebody who creates many of that size
// makes a page take 150 MiB.
const pageSize = 100

// collection is one resource of the API server.
type collection struct {
	client  any    // the client that list and watch belong to
	name    string // its plural, for errors
	example runtime.Object
	list    func(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error)
	watch   func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error)
	fields  string // field selector
}

// sink receives the objects of a collection.
type sink interface {
	// read returns what is kept of an object; nil if the object is ignored. Demand.mu is not held,
	// because parsing may take long.
	read(object runtime.Object) any
	// setLocked stores the result of read for the object of that name.
	setLocked(namespace, name string, kept any)
	removeLocked(namespace, name string)
	// namesLocked returns the names of the objects in n.
	namesLocked(n *namespace) []string
}

// scope is the watch of a collection in one namespace, or in all of them. It is the store of its reflector.
type scope struct {
	demand    *Demand
	from      *collection
	into      sink
	namespace string // "" for all
	onSynced  func() // called with Demand.mu held after each complete list
	cancel    context.CancelFunc

	// Demand.mu guards the fields that follow.

	closed bool  // late events are ignored
	synced bool  // a list was complete
	err    error // of the last request; nil if it succeeded
}

// backoff is how long to wait between attempts: at most 10 to 15 s.
var backoff = wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 10 * time.Second}

// backoffReset is how long after the last attempt the backoff starts over.
const backoffReset = 2 * time.Minute

// start runs s until ctx ends or stopLocked is called. wg is done then.
func (s *scope) start(ctx context.Context, wg *sync.WaitGroup) {
	ctx, s.cancel = context.WithCancel(ctx)
	// report logs when watching begins to fail and when it works again, so client-go need not log each
	// attempt.
	quiet := klog.FromContext(ctx).V(2)
	ctx = klog.NewContext(ctx, quiet)
	ownBackoff := backoff // each reflector changes its own
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc:  s.listPage,
			WatchFuncWithContext: s.openWatch,
		}, s.from.client),
		s.from.example, s,
		cache.ReflectorOptions{Name: "demand", TypeDescription: s.from.name, Logger: &quiet, Backoff: &ownBackoff},
	)
	reflector.WatchListPageSize = pageSize
	// This is Reflector.RunWithContext without its handler, which logs every error.
	delay := backoff.DelayWithReset(clock.RealClock{}, backoffReset)
	wg.Go(func() {
		_ = delay.Until(ctx, true, true, func(ctx context.Context) (bool, error) {
			if err := reflector.ListAndWatchWithContext(ctx); err != nil {
				s.report(ctx, err)
			}
			return false, nil
		})
	})
}

// stopLocked ends s without waiting for it.
func (s *scope) stopLocked() {
	s.closed = true
	s.cancel()
}

// failureLocked returns why not all objects are known, nil if they are. The last known state stays valid while
// watching fails.
func (s *scope) failureLocked() *Error {
	switch {
	case s.synced:
		return nil
	case s.err == nil:
		return newError(NotRead, "retry in a moment", "the %s are still being read", s.from.name)
	}
	return apiError(s.err, "list and watch", s.from.name)
}

// apiError is the Error of a request to the API server.
func apiError(err error, verb, resource string) *Error {
	switch cause := kubeapi.CauseOf(err); cause {
	case kubeapi.Forbidden:
		return newError(Forbidden, "grant it, as the ClusterRole of the installation does",
			"the custom metrics server has no right to %s %s", verb, resource)
	case kubeapi.Unauthorized: // the remedy begins with the cause
		return newError(Forbidden, cause.Remedy(), "the custom metrics server cannot %s %s", verb, resource)
	case kubeapi.Unreachable:
		return newError(Failing, cause.Remedy(), "the API server cannot be asked to %s %s", verb, resource)
	default:
		return newError(Failing, cause.Remedy(), "the API server fails to %s %s with reason %s", verb, resource,
			apierrors.ReasonForError(err))
	}
}

// listPage requests a page and reduces its objects.
func (s *scope) listPage(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	// A reflector requests a list "not older than" a version, which the API server sends in one piece.
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	o.FieldSelector = s.from.fields
	page, err := s.from.list(ctx, s.namespace, o)
	if err != nil {
		return nil, err
	}
	err = meta.EachListItem(page, func(object runtime.Object) error {
		reduce(object, s.demand.config.External)
		return nil
	})
	return page, err
}

func (s *scope) openWatch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.FieldSelector = s.from.fields
	w, err := s.from.watch(ctx, s.namespace, o)
	s.report(ctx, err)
	return w, err
}

func (s *scope) report(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsInvalid(err) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // a streamed list that is not supported, and a version that is too old, are no failures
	}
	s.do(func() {
		began, ended := s.err == nil && err != nil, s.err != nil && err == nil
		s.err = err
		logger := klog.Background().WithValues("resource", s.from.name, "namespace", s.namespace)
		switch {
		case began:
			logger.Info("Warning: Watching the API server fails: the last known state is kept while the server retries",
				"err", err.Error(), "remedy", apiError(err, "list and watch", s.from.name).Error())
		case ended:
			logger.Info("Watching the API server works again")
		}
		if began || ended {
			s.demand.allDirtyLocked(s.namespace)
		}
	})
}

// do runs f with the state locked, unless s is closed.
func (s *scope) do(f func()) {
	s.demand.mu.Lock()
	defer s.demand.mu.Unlock()
	if !s.closed {
		f()
	}
}

// Transformer reduces objects while a reflector collects a streamed list.
func (s *scope) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		reduce(object, s.demand.config.External)
		return object, nil
	}
}

// Add implements cache.ReflectorStore.
func (s *scope) Add(object any) error {
	r, err := s.read(object)
	if err == nil {
		s.do(func() { s.into.setLocked(r.namespace, r.name, r.kept) })
	}
	return err
}

// reading is the result of reading an object.
type reading struct {
	namespace, name string
	kept            any
}

func (s *scope) read(object any) (r reading, err error) {
	o, err := meta.Accessor(object)
	if err != nil {
		return r, err
	}
	r.namespace, r.name = o.GetNamespace(), o.GetName()
	if object, ok := object.(runtime.Object); ok {
		r.kept = s.into.read(object)
	}
	return r, nil
}

// Update implements cache.ReflectorStore.
func (s *scope) Update(object any) error { return s.Add(object) }

// Delete implements cache.ReflectorStore.
func (s *scope) Delete(object any) error {
	o, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	s.do(func() { s.into.removeLocked(o.GetNamespace(), o.GetName()) })
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *scope) Replace(objects []any, _ string) error {
	all := make([]reading, 0, len(objects))
	for _, object := range objects {
		r, err := s.read(object)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	s.do(func() {
		s.replaceLocked(all)
		s.synced, s.err = true, nil
		s.demand.allDirtyLocked(s.namespace)
		if s.onSynced != nil {
			s.onSynced()
		}
	})
	return nil
}

func (s *scope) replaceLocked(objects []reading) {
	there := make(map[[2]string]bool, len(objects))
	for _, r := range objects {
		there[[2]string{r.namespace, r.name}] = true
	}
	for in, n := range s.demand.namespaces {
		if s.namespace != "" && s.namespace != in {
			continue
		}
		for _, name := range s.into.namesLocked(n) {
			if !there[[2]string{in, name}] {
				s.into.removeLocked(in, name)
			}
		}
	}
	for _, r := range objects {
		s.into.setLocked(r.namespace, r.name, r.kept)
	}
}

// Resync implements cache.ReflectorStore.
func (s *scope) Resync() error { return nil }

// scopes watches a collection in the namespaces where it is needed, or in all of them once there are more
// than limit. It does not go back: the namespaces would be listed again each time that their number passes
// the limit.
type scopes struct {
	demand *Demand
	from   collection
	into   sink
	limit  int

	// Demand.mu guards the fields that follow.

	each map[string]*scope
	all  *scope
}

// needLocked starts and stops watches so that those of namespaces run.
func (s *scopes) needLocked(ctx context.Context, wg *sync.WaitGroup, namespaces map[string]bool) {
	open := func(namespace string) *scope {
		c := &scope{demand: s.demand, from: &s.from, into: s.into, namespace: namespace}
		c.start(ctx, wg)
		return c
	}
	if s.all == nil && len(namespaces) > s.limit {
		s.all = open("")
		s.all.onSynced = s.closeEachLocked
	}
	if s.all != nil && s.all.synced {
		return
	}
	for namespace, c := range s.each {
		if !namespaces[namespace] {
			c.stopLocked()
			delete(s.each, namespace)
			if s.all == nil {
				c.replaceLocked(nil)
			}
		}
	}
	if s.all != nil {
		return // those that run go on until the watch of all namespaces is complete
	}
	for namespace := range namespaces {
		if s.each[namespace] == nil {
			s.each[namespace] = open(namespace)
		}
	}
}

func (s *scopes) closeEachLocked() {
	for namespace, c := range s.each {
		c.stopLocked()
		delete(s.each, namespace)
	}
}

// failureLocked returns why the objects of a namespace are not all known, nil if they are.
func (s *scopes) failureLocked(namespace string) *Error {
	c := s.each[namespace]
	if c == nil || s.all != nil && s.all.synced {
		c = s.all
	}
	if c == nil {
		return newError(NotRead, "retry in a moment", "the %s are still being read", s.from.name)
	}
	return c.failureLocked()
}

// debounce is how long changes are collected before they are reported.
const debounce = 100 * time.Millisecond
