package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubeapi"
)

const (
	// pageSize is the limit of a list. Servers of metrics ignore it.
	pageSize = 500
	// requestTimeout is how long a page of a list may take, or the API server to accept a watch.
	requestTimeout = time.Minute
	// watchTimeout is how long a watch lasts: from once to twice as long.
	watchTimeout = 5 * time.Minute
	// shortWatch is the time within which a working watch does not end without an event.
	shortWatch = time.Second
	// watchRetry is how long a source is polled before a watch is tried again.
	watchRetry = 5 * time.Minute
	// relistAfter is how many errors in a row make a reader list again instead of resuming a watch.
	relistAfter = 3
	// pageTries is how often a page of a list is requested before the list begins again.
	pageTries = 4
	// The pause after an error grows from firstRetry to lastRetry, minus a random part of up to one half. If the API
	// server asks for a longer pause, it is granted up to refusedRetry. If nothing is expected to change soon, the pause
	// is always refusedRetry.
	firstRetry   = time.Second
	lastRetry    = 15 * time.Second
	refusedRetry = 30 * time.Second
)

var (
	errShortWatch = errors.New("the API server ended the watch at once")
	errLateWatch  = fmt.Errorf("the API server did not accept the watch within %v", requestTimeout)
)

// reader keeps the objects of one source as the API server has them.
type reader struct {
	cluster  *Cluster
	source   SourceName
	group    string
	version  string // "": the first of kubeapi.MetricsVersions that is served
	resource string
	convert  func(runtime.Object) (item, error)

	path      []string  // of the version in the API server
	unwatched time.Time // until then it is polled
	failures  int       // in a row
}

// readers returns a reader for each source except History.
func (c *Cluster) readers() []*reader {
	all := []*reader{
		{source: Pods, version: "v1", resource: "pods", convert: converter(podOf)},
		{
			source: HPAs, group: autoscalingv2.GroupName, version: "v2", resource: "horizontalpodautoscalers",
			convert: converter(hpaOf),
		},
		{source: PodMetrics, group: kubeapi.MetricsGroup, resource: "pods", convert: converter(podUsageOf)},
	}
	if c.namespace == "" {
		all = append(all,
			&reader{source: Nodes, version: "v1", resource: "nodes", convert: converter(nodeOf)},
			&reader{source: NodeMetrics, group: kubeapi.MetricsGroup, resource: "nodes", convert: converter(nodeUsageOf)})
	}
	for _, r := range all {
		r.cluster = c
		r.path = []string{"apis", r.group, r.version}
		if r.group == "" {
			r.path = []string{"api", r.version}
		}
	}
	return all
}

// converter returns a function that converts objects of type *T.
func converter[T any, P interface {
	*T
	runtime.Object
}, I item](convert func(P) I) func(runtime.Object) (item, error) {
	return func(o runtime.Object) (item, error) {
		if p, ok := o.(P); ok {
			return convert(p), nil
		}
		return nil, fmt.Errorf("the API server sent a %T instead of a %T", o, P(nil))
	}
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	for version := ""; ctx.Err() == nil; {
		next, err := r.step(ctx, version)
		version = next
		if err == nil || ctx.Err() != nil {
			continue
		}
		if r.failures >= relistAfter && kubeapi.CauseOf(err) != kubeapi.Unreachable {
			version = ""
		}
		pause(ctx, r.failed(err))
	}
}

// step lists the objects if version is "", and then watches them or waits until the next list is due. It returns the
// version from which to resume the watch, or "" if the objects have to be listed.
func (r *reader) step(ctx context.Context, version string) (next string, err error) {
	if version == "" {
		watched := true
		if r.version == "" {
			if watched, err = r.findMetrics(ctx); err != nil {
				return "", err
			}
		}
		state := Watching
		if !watched || time.Now().Before(r.unwatched) {
			state = Polling
		}
		if version, err = r.list(ctx, state); err != nil {
			r.unwatched = time.Time{} // the server that comes back may be another one
			return "", err
		}
		if state == Polling || version == "" {
			r.poll(ctx)
			return "", nil
		}
	}
	next, err = r.watch(ctx, version)
	switch {
	case apierrors.IsForbidden(err), apierrors.IsMethodNotSupported(err), apierrors.IsNotAcceptable(err),
		errors.Is(err, errShortWatch) && r.failures >= relistAfter:
		r.unwatched = time.Now().Add(watchRetry)
		r.poll(ctx)
		return "", nil
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		pause(ctx, firstRetry) // so that it never lists in a tight loop
		return "", nil
	case apierrors.IsBadRequest(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		return "", err // this server does not know the version
	}
	return next, err
}

// poll waits until the next list is due.
func (r *reader) poll(ctx context.Context) {
	r.cluster.update(func(m *model) {
		s := m.sources[r.source]
		s.State, s.Error, s.Remedy = Polling, "", ""
	})
	pause(ctx, r.cluster.interval)
}

// findMetrics finds out which version of metrics.k8s.io is served, and whether it can be watched.
func (r *reader) findMetrics(ctx context.Context) (watched bool, err error) {
	version, resources, err := r.cluster.metricsVersion(ctx)
	if err != nil {
		return false, err
	}
	r.path = []string{"apis", r.group, version}
	i := slices.IndexFunc(resources, func(a metav1.APIResource) bool { return a.Name == r.resource })
	return i >= 0 && slices.Contains(resources[i].Verbs, "watch"), nil
}

// metricsVersion returns the version of metrics.k8s.io that is served and its resources.
func (c *Cluster) metricsVersion(ctx context.Context) (string, []metav1.APIResource, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var absent error
	for _, version := range kubeapi.MetricsVersions() {
		list := &metav1.APIResourceList{}
		err := c.client.Get().AbsPath("apis", kubeapi.MetricsGroup, version).MaxRetries(0).Do(ctx).Into(list)
		if err == nil {
			return version, list.APIResources, nil
		}
		if !apierrors.IsNotFound(err) {
			return "", nil, err
		}
		absent = err
	}
	return "", nil, absent
}

func (r *reader) request(o *metav1.ListOptions) *rest.Request {
	return r.cluster.client.Get().AbsPath(r.path...).
		NamespaceIfScoped(r.cluster.namespace, r.cluster.namespace != "").Resource(r.resource).
		VersionedParams(o, metav1.ParameterCodec).MaxRetries(0)
}

// list reads all objects, sets the state of the source, and returns the version from which to watch. Each page is
// applied at once, because many pages take a while. All pages show the same version of the objects. If that version
// expires before the last page, all objects are requested in one response from the API server's cache.
func (r *reader) list(ctx context.Context, state State) (version string, err error) {
	present := map[types.NamespacedName]struct{}{}
	o := &metav1.ListOptions{Limit: pageSize}
	for more := true; more; more = o.Continue != "" {
		page, err := r.page(ctx, o)
		if o.Continue != "" && apierrors.IsResourceExpired(err) {
			clear(present)
			o = &metav1.ListOptions{ResourceVersion: "0"}
			page, err = r.page(ctx, o)
		}
		if err != nil {
			return "", err
		}
		var items []item
		if err := meta.EachListItem(page, func(object runtime.Object) error {
			i, err := r.convert(object)
			items = append(items, i)
			return err
		}); err != nil {
			return "", err
		}
		of, err := meta.ListAccessor(page)
		if err != nil {
			return "", err
		}
		o.Continue, version = of.GetContinue(), of.GetResourceVersion()
		now := time.Now()
		r.cluster.update(func(m *model) {
			for _, i := range items {
				present[i.key()] = struct{}{}
				i.put(m)
			}
			s := m.sources[r.source]
			if s.Updated = now; s.State == Failed {
				s.State, s.Error, s.Remedy = Waiting, "", "" // a page failed, and has been read since
			}
		})
	}
	r.failures = 0
	r.update(state, func(m *model) { m.keep(r.source, present) })
	return version, nil
}

// page reads a page of a list. If it fails and is not the first one, it is requested again: otherwise each error would
// make the list begin again, and a long one might never end.
func (r *reader) page(ctx context.Context, o *metav1.ListOptions) (runtime.Object, error) {
	for tries := 1; ; tries++ {
		page, err := r.requestPage(ctx, o)
		if err == nil || o.Continue == "" || tries == pageTries {
			return page, err
		}
		if state, _ := r.judge(err); state != Failed || apierrors.IsResourceExpired(err) || !pause(ctx, r.failed(err)) {
			return nil, err
		}
	}
}

func (r *reader) requestPage(ctx context.Context, o *metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return r.request(o).Do(ctx).Get()
}

// watch follows the objects from a version on until the watch ends, and returns the version from which to resume it.
func (r *reader) watch(ctx context.Context, version string) (string, error) {
	lasts := watchTimeout + rand.N(watchTimeout)
	seconds := int64(lasts / time.Second)
	ctx, cancel := context.WithTimeout(ctx, lasts+requestTimeout) // for a server that does not end it
	defer cancel()
	late := time.AfterFunc(requestTimeout, cancel)
	w, err := r.request(&metav1.ListOptions{
		Watch: true, ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	}).Watch(ctx)
	if err == nil {
		defer w.Stop()
	}
	if !late.Stop() {
		err = errLateWatch
	}
	if err != nil {
		return version, err
	}
	proof := time.NewTimer(shortWatch)
	defer proof.Stop()
	for works := false; ; {
		change := func(*model) {}
		select {
		case <-proof.C:
			if works {
				continue
			}
		case e, open := <-w.ResultChan():
			switch {
			case !open && !works:
				return version, errShortWatch
			case !open:
				return version, nil
			case e.Type == watch.Error:
				return version, apierrors.FromObject(e.Object)
			}
			if version, change, err = r.changeOf(e); err != nil {
				return version, err
			}
		}
		works, r.failures = true, 0
		r.update(Watching, change)
	}
}

// changeOf returns the version after an event, and what the event changes.
func (r *reader) changeOf(e watch.Event) (version string, change func(*model), err error) {
	object, err := meta.Accessor(e.Object)
	if err != nil {
		return "", nil, fmt.Errorf("read an event of the watch of %s: %w", r.resource, err)
	}
	version = object.GetResourceVersion()
	if e.Type == watch.Bookmark {
		return version, func(*model) {}, nil
	}
	i, err := r.convert(e.Object)
	if err != nil {
		return "", nil, err
	}
	if e.Type == watch.Deleted {
		return version, func(m *model) { m.drop(r.source, i.key()) }, nil
	}
	return version, i.put, nil
}

// update changes the model after a list of all objects, or an event of the watch that follows it.
func (r *reader) update(state State, change func(*model)) {
	now := time.Now()
	r.cluster.update(func(m *model) {
		change(m)
		*m.sources[r.source] = Source{Name: r.source, State: state, Updated: now, listed: true}
	})
}

// failed records an error, and returns the time to the next attempt.
func (r *reader) failed(err error) time.Duration {
	state, remedy := r.judge(err)
	r.cluster.update(func(m *model) {
		s := m.sources[r.source]
		s.State, s.Error, s.Remedy = state, err.Error(), remedy
		if state == Absent {
			m.keep(r.source, nil)
		}
	})
	if state != Failed {
		return refusedRetry
	}
	r.failures++
	return retryAfter(r.failures-1, err)
}

// retryAfter returns the pause before the next attempt. others is the number of consecutive errors before err.
func retryAfter(others int, err error) time.Duration {
	d := min(firstRetry<<min(others, 10), lastRetry)
	d = d/2 + rand.N(d/2)
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		d = max(d, min(time.Duration(seconds)*time.Second, refusedRetry))
	}
	return d
}

// judge returns the state of a source after an error, and the remedy.
func (r *reader) judge(err error) (State, string) {
	cause := kubeapi.CauseOf(err)
	metrics := r.group == kubeapi.MetricsGroup
	switch {
	case cause == kubeapi.Forbidden:
		return Denied, r.missingRight()
	case cause == kubeapi.NotFound && metrics:
		return Absent, "install a metrics server: nothing serves " + kubeapi.MetricsGroup + " in this cluster"
	case cause == kubeapi.NotFound:
		return Absent, "use a cluster that serves " + strings.Join(r.path, "/")
	case cause == kubeapi.Failing && metrics:
		return Failed, "run metrics-server doctor: it finds out why the metrics server does not answer"
	}
	return Failed, remedyOf(cause)
}

// remedyOf returns the remedy for any other cause. A token in the kubeconfig is read only once.
func remedyOf(c kubeapi.Cause) string {
	if c == kubeapi.Unauthorized {
		return "the API server does not accept the credentials: renew them, then run metrics-server ui again"
	}
	return c.Remedy()
}

// missingRight returns the remedy for a right that the user lacks.
func (r *reader) missingRight() string {
	what := r.resource
	if r.group != "" {
		what += "." + r.group
	}
	switch {
	case r.cluster.namespace != "":
		return fmt.Sprintf("have an administrator allow you to list and watch %s in namespace %s", what, r.cluster.namespace)
	case r.resource == "nodes":
		return fmt.Sprintf("have an administrator allow you to list and watch %s", what)
	}
	return fmt.Sprintf("have an administrator allow you to list and watch %s in all namespaces, or give --namespace "+
		"and a namespace in which you may", what)
}
