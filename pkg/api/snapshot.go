package api

import (
	"context"
	"iter"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"metrics-server/pkg/sample"
)

// snapshotPeriod is how long watches use one snapshot of what is served.
const snapshotPeriod = 500 * time.Millisecond

// known is an object as it was in a snapshot. It is immutable and shared by the snapshots in which it
// is the same, and by the watchers that know it.
type known struct {
	sample.Object        // Changed is when the labels or the node changed
	node          string // the node that it runs on
}

func (k *known) same(o *sample.Object, node string) bool {
	return k.Name == o.Name && k.Namespace == o.Namespace && k.Changed == o.Changed && k.node == node &&
		(len(k.Labels) == 0 && len(o.Labels) == 0 || sameLabels(k.Labels, o.Labels))
}

func (k *known) compare(namespace, name string) int {
	if c := strings.Compare(k.Namespace, namespace); c != 0 {
		return c
	}
	return strings.Compare(k.Name, name)
}

// version is an object and the revision of its last change.
type version struct {
	of       *known
	revision sample.Revision
}

// snapshot says what was served at one moment, without the values: those are read again when they are
// sent. It is immutable.
type snapshot struct {
	number uint64 // among those of all namespaces, in the order in which they were begun
	begun  time.Time
	// upTo is the revision of the last change that the snapshot is sure to contain. It may contain
	// later ones.
	upTo sample.Revision
	// versions has all objects of a namespace or of all, sorted by namespace and name, and lacking
	// those that have no value, with the revision of its loss.
	versions, lacking []version
}

// within returns the part of s in a namespace.
func (s *snapshot) within(namespace string) *snapshot {
	part := func(all []version) []version {
		from := sort.Search(len(all), func(i int) bool { return all[i].of.Namespace >= namespace })
		n := sort.Search(len(all)-from, func(i int) bool { return all[from+i].of.Namespace > namespace })
		return all[from : from+n : from+n]
	}
	within := *s
	within.versions, within.lacking = part(s.versions), part(s.lacking)
	return &within
}

// snapshots makes the snapshots that all watches of a resource share. It holds one for each namespace
// that is watched.
type snapshots struct {
	take  func(namespace string, before *snapshot) *snapshot
	begun atomic.Uint64 // how many were begun

	mu sync.Mutex
	of map[string]*latest // by namespace, empty for all namespaces
}

// latest is the latest snapshot of a namespace.
type latest struct {
	watches int // guarded by snapshots.mu

	mu       sync.Mutex // held while it is taken
	snapshot *snapshot
}

// watch keeps snapshots of a namespace until end is called.
func (s *snapshots) watch(namespace string) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]*latest{}
	}
	l := s.of[namespace]
	if l == nil {
		l = &latest{}
		s.of[namespace] = l
	}
	l.watches++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.watches--; l.watches == 0 {
			delete(s.of, namespace)
		}
	}
}

// get returns a snapshot of a namespace that is watched. It is at most snapshotPeriod old.
func (s *snapshots) get(namespace string) *snapshot {
	s.mu.Lock()
	own, all := s.of[namespace], s.of[""]
	s.mu.Unlock()
	if all != nil && all != own {
		return s.refresh(all, "").within(namespace)
	}
	return s.refresh(own, namespace)
}

// getNew returns a snapshot that is begun after the call. It waits for snapshotPeriod at most, so that
// watches that begin meanwhile share it. The error is that of ctx.
func (s *snapshots) getNew(ctx context.Context, namespace string) (*snapshot, error) {
	for old := s.begun.Load(); ; {
		latest := s.get(namespace)
		if latest.number > old {
			return latest, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Until(latest.begun.Add(snapshotPeriod))):
		}
	}
}

func (s *snapshots) refresh(l *latest, namespace string) *snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.snapshot == nil || now.Sub(l.snapshot.begun) >= snapshotPeriod {
		number := s.begun.Add(1)
		l.snapshot = s.take(namespace, l.snapshot)
		l.snapshot.number, l.snapshot.begun = number, now
	}
	return l.snapshot
}

// takeSnapshot takes a snapshot of a namespace. Objects that have not changed since before, which may
// be nil, are shared with it.
func (s *Storage[T, V, P]) takeSnapshot(namespace string, before *snapshot) *snapshot {
	next := &snapshot{upTo: s.clock.Last()}
	var old, lacked []version
	if before != nil {
		old, lacked = before.versions, before.lacking
		next.versions = make([]version, 0, len(old)+len(old)/64)
	}
	b := s.batches.Get().(*batch[V])
	defer s.freeBatch(b)
	flush := func(n int) {
		s.Read(b.objects[:n], time.Now(), b.values[:n])
		for i := range n {
			o, v := &b.objects[i], &b.values[i]
			one := version{revision: s.revisionOf(o, v)}
			if s.Exists(v) {
				node, since := s.NodeOf(v)
				o.Changed = max(o.Changed, since)
				one.of, old = keep(old, o, node)
				next.versions = append(next.versions, one)
			} else {
				one.of, lacked = keep(lacked, o, "")
				next.lacking = append(next.lacking, one)
			}
		}
	}
	n := 0
	for o := range s.objects.All(namespace, nil) {
		b.objects[n] = o
		if n++; n == len(b.objects) {
			flush(n)
			n = 0
		}
	}
	flush(n)
	return next
}

// keep returns the object from old, which is sorted, if it is there, or else a new one, and the part of
// old that follows.
func keep(old []version, o *sample.Object, node string) (*known, []version) {
	for len(old) > 0 {
		c := old[0].of.compare(o.Namespace, o.Name)
		if c > 0 {
			break
		}
		of := old[0].of
		old = old[1:]
		if c == 0 && of.same(o, node) {
			return of, old
		}
	}
	return &known{Object: *o, node: node}, old
}

// merge yields the positions of each object in a and in b, which are sorted, -1 for none, in order.
func merge(a, b []version) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for i, j := 0, 0; i < len(a) || j < len(b); {
			at, in := -1, -1
			c := 0
			switch {
			case i == len(a):
				c = +1
			case j == len(b):
				c = -1
			case a[i].of != b[j].of:
				c = a[i].of.compare(b[j].of.Namespace, b[j].of.Name)
			}
			if c <= 0 {
				at, i = i, i+1
			}
			if c >= 0 {
				in, j = j, j+1
			}
			if !yield(at, in) {
				return
			}
		}
	}
}
