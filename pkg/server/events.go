package server

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"metrics-server/pkg/schedule"
)

// eventsFrom is the source component of the events.
const eventsFrom = "metrics-server"

// Reasons of events.
const (
	reasonFailing   = "MetricsScrapeFailing"
	reasonRecovered = "MetricsScrapeRecovered"
)

// events records Events on Nodes whose scrapes fail, where kubectl describe node shows them. The
// library aggregates equal events, and the client limits them to a few per second however many
// nodes fail, because more would carry no new information.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	sink        record.EventSink
}

// newEvents returns events with a client of their own, whose rate limit affects no other requests.
func newEvents(c *rest.Config) (*events, error) {
	c = rest.CopyConfig(c)
	c.QPS, c.Burst = 5, 50
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("make a client for events: %w", err)
	}
	b := record.NewBroadcaster()
	return &events{
		broadcaster: b,
		recorder:    b.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: eventsFrom}),
		sink:        &eventSink{EventSinkImpl: typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}},
	}, nil
}

// run writes events until ctx ends.
func (e *events) run(ctx context.Context) error {
	e.start()
	<-ctx.Done()
	e.broadcaster.Shutdown()
	return nil
}

func (e *events) start() { e.broadcaster.StartRecordingToSink(e.sink) }

func (e *events) failing(node string, st schedule.TargetStatus) {
	e.recorder.Eventf(reference(node), corev1.EventTypeWarning, reasonFailing,
		"cannot scrape resource metrics: %s", withRemedy(&st))
}

func (e *events) recovered(node string, after time.Duration) {
	e.recorder.Eventf(reference(node), corev1.EventTypeNormal, reasonRecovered,
		"resource metrics are scraped again, after %v", after.Round(time.Second))
}

// reference returns a reference to a node in the form of the kubelet's own events: its UID is the
// node's name, which is what kubectl describe searches for.
func reference(node string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node, UID: types.UID(node)}
}

// eventSink discards events that the API server rejects, because older manifests do not permit
// them, and logs that once.
type eventSink struct {
	typedcorev1.EventSinkImpl
	logged atomic.Bool // the rejection was logged
}

func (s *eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	written, err := s.EventSinkImpl.Create(e)
	return written, s.ignoreRejected(err)
}

func (s *eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	written, err := s.EventSinkImpl.Patch(e, data)
	return written, s.ignoreRejected(err)
}

// ignoreRejected returns err, or nil if it means that events are forbidden or not supported.
func (s *eventSink) ignoreRejected(err error) error {
	if !apierrors.IsForbidden(err) && !apierrors.IsMethodNotSupported(err) {
		return err
	}
	if !s.logged.Swap(true) {
		klog.InfoS("Warning: Events about nodes cannot be recorded", "err", err,
			"remedy", "give the server's service account the rights to create and patch events in the namespace "+
				"default, as the ClusterRole system:metrics-server of deploy/ has them, or give the server --node-events=false")
	}
	return nil
}
