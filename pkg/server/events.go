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

	"metrics-server/pkg/scrape"
)

// eventsFrom is the component in the events' source.
const eventsFrom = "metrics-server"

// Reasons of events.
const (
	reasonFailing   = "MetricsScrapeFailing"
	reasonRecovered = "MetricsScrapeRecovered"
)

// events tells on the Node objects whose scraping fails, where kubectl describe node shows it. Equal ones are counted up by the
// library, and no more than a few a second are written, however many nodes fail: that many more say nothing new.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	sink        record.EventSink
}

// newEvents returns events that are written by a client of their own, so that a flood of them takes nothing from others.
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

func (e *events) failing(node string, st scrape.NodeStatus) {
	e.recorder.Eventf(reference(node), corev1.EventTypeWarning, reasonFailing, "cannot scrape resource metrics: %s", withRemedy(&st))
}

func (e *events) recovered(node string, after time.Duration) {
	e.recorder.Eventf(reference(node), corev1.EventTypeNormal, reasonRecovered, "resource metrics are scraped again, after %v", after.Round(time.Second))
}

// reference names a node as the kubelet's own events do: with its name for a UID, by which kubectl describe finds them.
func reference(node string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: node, UID: types.UID(node)}
}

// eventSink passes over events that the API server does not take, after it has said so once: older manifests do not
// permit them.
type eventSink struct {
	typedcorev1.EventSinkImpl
	told atomic.Bool
}

func (s *eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	written, err := s.EventSinkImpl.Create(e)
	return written, s.heed(err)
}

func (s *eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	written, err := s.EventSinkImpl.Patch(e, data)
	return written, s.heed(err)
}

// heed returns err unless it is passed over.
func (s *eventSink) heed(err error) error {
	if !apierrors.IsForbidden(err) && !apierrors.IsMethodNotSupported(err) {
		return err
	}
	if !s.told.Swap(true) {
		klog.InfoS("events about nodes cannot be recorded", "err", err,
			"remedy", "apply the current manifests, which permit to create and patch events in the namespace default, or give --node-events=false")
	}
	return nil
}
