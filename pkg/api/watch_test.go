package api

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/sample"
)

// numbers is a resource whose values are the revisions of their last change, which are all 1.
type numbers struct {
	Resource[metav1.PartialObjectMetadata, sample.Revision]
}

func (numbers) Read(of []sample.Object, _ time.Time, into []sample.Revision) {
	for i := range of {
		into[i] = 1
	}
}

func (numbers) Exists(v *sample.Revision) bool              { return *v != 0 }
func (numbers) Revision(v *sample.Revision) sample.Revision { return *v }
func (numbers) Served(*sample.Revision, time.Time)          {}

// A burst that the end of the watch cuts short was not delivered: no bookmark may follow it.
func TestBurstIsCutShort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &watcher[metav1.PartialObjectMetadata, sample.Revision, *metav1.PartialObjectMetadata]{
		Storage: &Storage[metav1.PartialObjectMetadata, sample.Revision, *metav1.PartialObjectMetadata]{
			Resource: numbers{}, batches: sync.Pool{New: func() any { return &batch[sample.Revision]{} }},
		},
		ctx:       ctx,
		known:     []version{{of: &known{Object: sample.Object{Name: "p"}}}},
		changed:   []change{{index: 0, revision: 1}},
		delivered: make(chan error, 1),
	}
	b := &burst[metav1.PartialObjectMetadata, sample.Revision, *metav1.PartialObjectMetadata]{w}
	if err := b.CacheEncode("", nil, io.Discard); err != nil {
		t.Errorf("the client is reported to be gone: %v", err)
	}
	if err := <-w.delivered; !errors.Is(err, context.Canceled) {
		t.Errorf("the burst ended with %v, want that of the watch", err)
	}
}
