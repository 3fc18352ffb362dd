package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"metrics-server/pkg/fairshare"
	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

type (
	numbersStorage = Storage[metav1.PartialObjectMetadata, sample.Revision, *metav1.PartialObjectMetadata]
	numbersWatcher = watcher[metav1.PartialObjectMetadata, sample.Revision, *metav1.PartialObjectMetadata]
	numbersBurst   = burst[metav1.PartialObjectMetadata, sample.Revision, *metav1.PartialObjectMetadata]
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

func (numbers) NodeOf(*sample.Revision) (string, sample.Revision) { return "", 0 }

func (numbers) Fill(*metav1.PartialObjectMetadata, *sample.Object, *sample.Revision) {}

// numbered is a set of objects, of which as many exist as it is set to.
type numbered struct{ atomic.Int64 }

func (n *numbered) Get(string, string) (sample.Object, bool) { return sample.Object{}, false }

func (n *numbered) All(string, func(sample.Labels) bool) iter.Seq[sample.Object] {
	return func(yield func(sample.Object) bool) {
		for i := range n.Load() {
			if !yield(sample.Object{Name: fmt.Sprintf("%05d", i)}) {
				return
			}
		}
	}
}

func newNumbers(o Objects) *numbersStorage {
	clock := revision.NewClock(time.Now())
	return NewStorage(nil, numbers{}, o, clock, NewDeletions(clock))
}

// A burst that the end of the watch cuts short was not delivered: no bookmark may follow it.
func TestBurstIsCutShort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &numbersWatcher{
		Storage:   newNumbers(nil),
		ctx:       ctx,
		known:     []version{{of: &known{Object: sample.Object{Name: "p"}}}},
		changed:   []change{{index: 0, revision: 1}},
		delivered: make(chan error, 1),
	}
	b := &numbersBurst{w}
	if err := b.CacheEncode("", nil, io.Discard); err != nil {
		t.Errorf("the client is reported to be gone: %v", err)
	}
	if err := <-w.delivered; !errors.Is(err, context.Canceled) {
		t.Errorf("the burst ended with %v, want that of the watch", err)
	}
}

// The memory of a watch is counted also if its objects appear later. A watch that would take too much
// ends, and is not accepted as long as that is so.
func TestWatchGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := fairshare.New(fairPart, fairshare.Fixed(20*knownSize))
		pool.Take("other", 5*knownSize)
		var objects numbered
		s := newNumbers(&objects)
		open := func() (watch.Interface, error) {
			o := &output{standard: true, watch: newWatchShare(pool, "user")}
			return s.Watch(context.WithValue(t.Context(), outputKey{}, o), &internalversion.ListOptions{})
		}
		held := func(want int64) {
			t.Helper()
			synctest.Wait()
			if size, _ := pool.Taken(); size != (5+want)*knownSize {
				t.Errorf("%d bytes are held, want those of %d objects besides the others", size, want)
			}
		}
		w, err := open()
		if err != nil {
			t.Fatal(err)
		}
		held(0)
		for _, n := range []int64{10, 3, 12} {
			objects.Store(n)
			time.Sleep(2 * time.Second)
			for len(w.ResultChan()) > 0 {
				<-w.ResultChan()
			}
			time.Sleep(2 * time.Second)
			held(max(n, 10))
		}
		objects.Store(16)
		if e, more := <-w.ResultChan(); more {
			t.Errorf("%v, want the end of the watch", e)
		}
		held(0)
		_, err = open()
		if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "watches") {
			t.Errorf("another watch: %v, want TooManyRequests", err)
		}
		held(0)
		objects.Store(15)
		if w, err = open(); err != nil {
			t.Fatal(err)
		}
		held(15)
		w.Stop()
		held(0)
	})
}
