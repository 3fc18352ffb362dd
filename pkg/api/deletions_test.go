package api

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// Whoever knows a revision finds that the objects which left until then are gone. Otherwise they are in the
// log after that revision, also if many leave with one revision.
func TestDeletionsAreCompleteAtEachRevision(t *testing.T) {
	clock := revision.NewClock(time.Now())
	d := NewDeletions(clock)
	var left sync.Map // the objects that have left
	leave := func(objects ...sample.Object) {
		clock.Publish(time.Now(), func(r sample.Revision) {
			d.Record(objects, r)
			for _, o := range objects {
				left.Store(o.Name, true)
			}
		})
	}
	var all []sample.Object
	var writers sync.WaitGroup
	for i := range 100 {
		all = append(all, sample.Object{Name: fmt.Sprint(i)})
	}
	writers.Go(func() {
		for i := range 50 {
			leave(all[2*i : 2*i+2]...)
		}
	})
	writers.Go(func() {
		for range 50 {
			d.Add(sample.Object{Name: "other"})
		}
	})
	known := map[sample.Revision][]string{} // what clients know that have listed at a revision
	for range 100 {
		r := clock.Last()
		for _, o := range all {
			if _, gone := left.Load(o.Name); !gone {
				known[r] = append(known[r], o.Name)
			}
		}
	}
	writers.Wait()
	for r, names := range known {
		found := map[string]bool{}
		gone, complete := d.after(r)
		for _, o := range gone {
			found[o.Name] = true
		}
		for _, name := range names {
			if !complete || !found[name] {
				t.Fatalf("a client that knows %s at revision %d does not learn that it is gone", name, r)
			}
		}
	}

	clock.Publish(time.Now(), func(r sample.Revision) { d.Record(make([]sample.Object, maxDeletions+1), r) })
	if gone, complete := d.after(clock.Last() - 1); complete || len(gone) != maxDeletions {
		t.Errorf("%d of %d deletions with one revision are found, complete: %v", len(gone), maxDeletions+1, complete)
	}
	if gone, complete := d.after(clock.Last()); !complete || len(gone) != 0 {
		t.Errorf("%d deletions after the last revision, complete: %v", len(gone), complete)
	}
}
