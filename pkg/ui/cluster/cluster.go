package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/pkg/kubeapi"
)

const (
	defaultInterval = 15 * time.Second
	// snapshotAge is the minimum age of a snapshot before another is made.
	snapshotAge = time.Second
)

// Config says what to read.
type Config struct {
	// Rest is the API server and the credentials.
	Rest *rest.Config
	// Interval is the time between two lists where watches are refused, and between two values of the past. It is at
	// least a second. Default: 15 s.
	Interval time.Duration
	// Namespace is the only namespace that is read; nodes are not. Default: all.
	Namespace string
}

// Cluster reads a cluster.
type Cluster struct {
	interval  time.Duration
	namespace string
	http      *http.Client
	client    rest.Interface

	mu      sync.Mutex // guards the fields that follow
	model   *model
	changed bool // since last was made
	last    *Snapshot
}

// New returns a Cluster, which Run reads.
func New(c Config) (*Cluster, error) {
	if c.Rest == nil {
		return nil, errors.New("no API server is given: set Config.Rest")
	}
	if c.Interval == 0 {
		c.Interval = defaultInterval
	}
	if c.Interval < time.Second {
		return nil, fmt.Errorf("an interval of %v is too short: give a second or more", c.Interval)
	}
	r := rest.CopyConfig(c.Rest)
	r.APIPath, r.GroupVersion = "/api", &corev1.SchemeGroupVersion
	r.NegotiatedSerializer = codecs()
	r.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	r.ContentType = runtime.ContentTypeProtobuf
	r.QPS = -1    // each source has one request at a time, and waits after errors
	r.Timeout = 0 // it would end watches; each request has its own
	h, err := rest.HTTPClientFor(r)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	client, err := rest.RESTClientForConfigAndClient(r, h)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	m := newModel(c.Interval, time.Now())
	if c.Namespace != "" {
		for _, name := range []SourceName{Nodes, NodeMetrics} {
			s := m.sources[name]
			s.State, s.Error = Absent, "only namespace "+c.Namespace+" is read"
			s.Remedy = "to see nodes, leave out --namespace"
		}
	}
	return &Cluster{
		interval: c.Interval, namespace: c.Namespace, http: h, client: client, model: m, last: m.snapshot(time.Now()),
	}, nil
}

// codecs returns the codecs of all objects that are read. The versions of metrics.k8s.io have the same fields, so the
// types of one serve for both.
func codecs() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(autoscalingv2.AddToScheme(scheme))
	for _, version := range kubeapi.MetricsVersions() {
		gv := schema.GroupVersion{Group: kubeapi.MetricsGroup, Version: version}
		scheme.AddKnownTypes(gv, &metricsv1.NodeMetrics{}, &metricsv1.NodeMetricsList{},
			&metricsv1.PodMetrics{}, &metricsv1.PodMetricsList{})
		metav1.AddToGroupVersion(scheme, gv)
	}
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}

// Run reads until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, r := range c.readers() {
		group.Go(func() { r.run(ctx) })
	}
	group.Go(func() { c.readHistory(ctx) })
	group.Go(func() { c.tick(ctx) })
	group.Go(func() { c.askNodes(ctx) })
	group.Wait()
	utilnet.CloseIdleConnectionsFor(c.http.Transport)
	return nil
}

// Snapshot returns what is known. It is made at most once a second, and only if something has changed.
func (c *Cluster) Snapshot() *Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.changed && now.Sub(c.last.At).Abs() >= snapshotAge {
		c.last, c.changed = c.model.snapshot(now), false
	}
	return c.last
}

// update changes the model.
func (c *Cluster) update(change func(*model)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.model)
	c.changed = true
}

// tick adds a value to the past at each full interval.
func (c *Cluster) tick(ctx context.Context) {
	for {
		now := time.Now()
		if !pause(ctx, now.Truncate(c.interval).Add(c.interval).Sub(now)) {
			return
		}
		c.update(func(m *model) { m.tick(m.snapshot(time.Now())) })
	}
}

// pause waits for d, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
