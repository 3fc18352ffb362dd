// Package demand tells which metrics of which pods HorizontalPodAutoscalers want.
//
// # Purpose
//
// The HPA controller asks for a metric of type Pods, Object or External by its name. The
// HorizontalPodAutoscaler (HPA) and its annotations say what the name means, and which pods have to be scraped
// for it. Parse reads one HPA; it is pure. A Demand watches all of them, resolves their targets to pods by the
// scale subresource or by a Service, watches those pods, and reports each Want: a metric, its definition, and
// its pods, or the reason why it cannot be served.
//
// # Contract
//
// A Want belongs to a Request, which is all that the controller says. Where two HPAs mean different things by
// one Request, the Want has an error that names both. A Named metric has two kinds of Want: that of
// the HPAs has no pods, and one with Request.Series has the pods that expose the series of all
// objects. A mistake in an annotation affects all metrics that it
// may be about: the server does not guess. Errors are of type *Error; their texts name the object, the
// cause and the remedy, and stay the same while the situation does, because the controller copies them
// into conditions and Events.
//
// Changes of HPAs and pods are reported within a second. The selector of a target is read when the
// target is first used, again every two minutes, and earlier if there are signs of a change: Find
// is asked for a known metric of other pods, or for a metric of type Object whose selector was read
// half a minute ago, or no pod of the target exists. A failed attempt is repeated after half a
// second, and then ever later, up to a minute, or up to ten seconds if the target does not exist.
// Many targets that fail are retried less often, 15 a second together, and delay no new one.
// Namespaces take turns, and the targets of one namespace or resource may occupy half of the
// workers that are free. While the API server cannot be reached, the last known state stays.
//
// Pods and Services are watched in the namespaces of HPAs that need them, or in the whole cluster once
// there are more than Config.MaxWatches of those.
//
// # Structure
//
// From an HPA to a Want, in the order of reading: watch.go watches, sinks.go takes what it brings
// into namespace.go, parse.go reads the HPAs, join.go joins them with their targets and pods, and
// want.go merges and finds the result. named.go has the metrics that an administrator names.
// targets.go decides when the scale of a target is read, queue.go in which order, and scale.go
// reads it. synced.go knows what was not read yet since the start.
//
// # Threading
//
// Run blocks and leaves no goroutine behind. It makes all callbacks from one goroutine. All other functions
// may be called from any goroutine at any time. Everything that is returned is immutable.
package demand

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// Config configures a Demand. The first three fields must be set.
type Config struct {
	// Client lists and watches HPAs, pods and Services.
	Client kubernetes.Interface
	// Dynamic gets the scale of targets. It needs no rate limit, because these requests have one.
	Dynamic dynamic.Interface
	// Mapper finds the resources of kinds. It is reset at most every 30 s when a kind is unknown or has
	// no scale, if it is a meta.ResettableRESTMapper.
	Mapper meta.RESTMapper

	// External says that metrics of type External are served, too.
	External bool
	// MaxPods is how many pods a metric may have. Default 2,000.
	MaxPods int
	// MaxWatches is in how many namespaces pods and Services are watched one by one. Default 20.
	MaxWatches int

	// OnWant is called with a Want that is new or has changed, OnGone with the Request of one that is no
	// longer wanted. Changes are collected for 100 ms. Both are called in order from one goroutine,
	// after Find knows the change. Either may be nil.
	OnWant func(*Want)
	OnGone func(Request)
}

func (c *Config) setDefaults() {
	c.MaxPods = cmp.Or(c.MaxPods, 2000)
	c.MaxWatches = cmp.Or(c.MaxWatches, 20)
	if c.OnWant == nil {
		c.OnWant = func(*Want) {}
	}
	if c.OnGone == nil {
		c.OnGone = func(Request) {}
	}
}

// Demand is what HPAs want. Make one with New.
type Demand struct {
	config  Config
	targets *resolver
	wake    chan struct{} // holds an element if dirty may have one

	// mu guards the fields that follow.
	mu             sync.Mutex
	hpas           *scope
	pods, services *scopes
	namespaces     map[string]*namespace
	dirty          map[string]bool // namespaces to join again
	listed         time.Time       // when the first list of HPAs was complete; zero before
	unread         map[string]*unread
	defaultBackend string
	named          map[string][]*Named // by name
	sources        map[string]bool     // the namespaces with pods for named; "" if a backend has one

	// published guards wants, whose maps are replaced and never changed.
	published sync.RWMutex
	wants     map[string]map[Request]*Want
}

// New returns a Demand that knows nothing until Run.
func New(c Config) *Demand {
	c.setDefaults()
	d := &Demand{
		config: c, wake: make(chan struct{}, 1), namespaces: map[string]*namespace{}, dirty: map[string]bool{},
		wants: map[string]map[Request]*Want{},
	}
	d.targets = newResolver(c, func(namespace string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dirtyLocked(namespace)
	})
	d.hpas = &scope{demand: d, into: hpaSink{d}, from: &collection{
		client: c.Client, name: "horizontalpodautoscalers", example: &autoscalingv2.HorizontalPodAutoscaler{},
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error) {
			return c.Client.AutoscalingV2().HorizontalPodAutoscalers(namespace).List(ctx, o)
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return c.Client.AutoscalingV2().HorizontalPodAutoscalers(namespace).Watch(ctx, o)
		},
	}}
	d.hpas.onSynced = d.listedLocked
	d.pods = &scopes{demand: d, into: podSink{d}, limit: c.MaxWatches, each: map[string]*scope{}, from: collection{
		client: c.Client, name: "pods", example: &corev1.Pod{}, fields: "status.phase!=Succeeded,status.phase!=Failed",
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error) {
			return c.Client.CoreV1().Pods(namespace).List(ctx, o)
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return c.Client.CoreV1().Pods(namespace).Watch(ctx, o)
		},
	}}
	d.services = &scopes{demand: d, into: serviceSink{d}, limit: c.MaxWatches, each: map[string]*scope{}, from: collection{
		client: c.Client, name: "services", example: &corev1.Service{},
		list: func(ctx context.Context, namespace string, o metav1.ListOptions) (runtime.Object, error) {
			return c.Client.CoreV1().Services(namespace).List(ctx, o)
		},
		watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return c.Client.CoreV1().Services(namespace).Watch(ctx, o)
		},
	}}
	return d
}

// Run watches until ctx ends and returns nil then: whatever the API server does, it goes on trying. It may
// be called once.
func (d *Demand) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.targets.run(ctx) })
	d.hpas.start(ctx, &wg)
	defer d.hpas.cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(debounce):
		}
		d.join(ctx, &wg)
	}
}

// Synced returns nil once everything that the first complete list of HPAs refers to was read or a
// request for it has failed, and the Wants were reported; until then an error with what is missing.
// It waits for targets for a minute at most. Later changes do not matter: if they did, somebody who
// edits HPAs all the time could delay it without end.
func (d *Demand) Synced() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.hpas.failureLocked(); err != nil {
		return err
	}
	for namespace, u := range d.unread {
		if u.joined && !u.watches && time.Since(d.listed) >= targetGrace {
			continue
		}
		d.published.RLock()
		wants := d.wants[namespace]
		d.published.RUnlock()
		for _, w := range wants {
			if w.Err != nil && w.Err.cause == NotRead {
				return w.Err
			}
		}
		return errNotSynced
	}
	return nil
}

// errNotSynced is the error of Synced before the state that was listed is joined.
var errNotSynced = errors.New("HorizontalPodAutoscalers are still being read")

// Find returns the Want that r asks for. If there is none, the error is an *Error that says what is nearest.
func (d *Demand) Find(r Request) (*Want, error) {
	d.published.RLock()
	wants := d.wants[r.Namespace]
	d.published.RUnlock()
	w, err := findIn(wants, r)
	if err == nil {
		if w.Type == autoscalingv2.ObjectMetricSourceType {
			d.targets.confirm(target{namespace: w.Namespace, Reference: w.Describes, scale: true})
		}
		return w, nil
	}
	d.mu.Lock() // only now: a join may hold it for some time
	defer d.mu.Unlock()
	if failure := d.hpas.failureLocked(); failure != nil {
		return nil, failure
	}
	if r.Pods != "" {
		d.contradictLocked(r)
	}
	return nil, err
}

// contradictLocked has the targets of the HPAs that refer to the metric of r read again: the controller asks for
// other pods.
func (d *Demand) contradictLocked(r Request) {
	n := d.namespaces[r.Namespace]
	if n == nil {
		return
	}
	for _, h := range n.hpas {
		for i := range h.Metrics {
			m := &h.Metrics[i]
			if m.Type == autoscalingv2.PodsMetricSourceType && m.Name == r.Metric && m.selector == r.Selector {
				d.targets.contradict(target{namespace: r.Namespace, Reference: h.Target, scale: true})
			}
		}
	}
}

// Wants returns all Wants of a namespace, in no particular order.
func (d *Demand) Wants(namespace string) []*Want {
	d.published.RLock()
	defer d.published.RUnlock()
	return slices.Collect(maps.Values(d.wants[namespace]))
}

// PodsRequest returns the Request for a metric of type Pods.
func PodsRequest(namespace string, pods labels.Selector, metric string, selector labels.Selector) Request {
	return Request{
		Namespace: namespace, Resource: podsResource, Pods: canonical(pods), Metric: metric, Selector: canonical(selector),
	}
}

// ObjectRequest returns the Request for a metric of type Object.
func ObjectRequest(namespace string, resource schema.GroupResource, object, metric string,
	selector labels.Selector,
) Request {
	return Request{
		Namespace: namespace, Resource: resource, Object: object, Metric: metric, Selector: canonical(selector),
	}
}

// ExternalRequest returns the Request for a metric of type External. Clients write the name in lower case.
func ExternalRequest(namespace, metric string, selector labels.Selector) Request {
	return Request{Namespace: namespace, Metric: strings.ToLower(metric), Selector: canonical(selector)}
}

// SetDefaultBackend sets the name of the backend for metrics whose HPA names neither a backend nor where pods are
// scraped; "" if they come from pods.
func (d *Demand) SetDefaultBackend(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.defaultBackend != name {
		d.defaultBackend = name
		d.allDirtyLocked("")
	}
}

// dirtyLocked has a namespace joined again.
func (d *Demand) dirtyLocked(namespace string) {
	d.dirty[namespace] = true
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// allDirtyLocked has a namespace joined again, or with "" all that have HPAs.
func (d *Demand) allDirtyLocked(namespace string) {
	if namespace != "" {
		d.dirtyLocked(namespace)
		return
	}
	for name, n := range d.namespaces {
		if len(n.hpas) > 0 || d.sources[name] {
			d.dirtyLocked(name)
		}
	}
}
