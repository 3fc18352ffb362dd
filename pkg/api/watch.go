package api

import (
	"cmp"
	"context"
	"io"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"

	"metrics-server/pkg/api/wire"
	"metrics-server/pkg/sample"
)

const (
	// watchPeriod is how often a watcher looks for changes.
	watchPeriod = time.Second
	// bookmarkPeriod is how often a client that allows bookmarks gets one.
	bookmarkPeriod = time.Minute
	// knownSize is the memory in bytes that a watcher takes for each object.
	knownSize = 32
)

// The revision in watcher.known of an object whose version at the client is not that of any revision.
const (
	absent  sample.Revision = 0 // the client does not have the object
	unknown sample.Revision = 1 // the client may have the object, in some version
)

// watcher sends the changes of the selected objects to one client. There is no queue: it compares what
// the client has with what is served, sends the difference, and looks again when the client has read
// that. A slow client skips values. Every event has the property that a client that has seen it, and
// all before it, can resume at its resourceVersion.
//
// The fields are for run, and for deliver while run waits for it.
type watcher[T, V any, P object[T]] struct {
	*Storage[T, V, P]
	ctx       context.Context
	cancel    context.CancelFunc
	query     *query
	output    *output
	bookmarks bool

	initial bool             // the first events are everything
	encoder *eventEncoder[V] // unless the output is standard

	events    chan watch.Event
	delivered chan error // the result of deliver for a burst

	matched sample.Labels // the labels that selects was asked about last, and its result
	matches bool

	at sample.Revision // the client knows all changes up to it
	// known are the selected objects with a value, and the versions that the client has, sorted.
	known, spare []version

	// What deliver sends.
	next    sample.Revision // becomes at
	gone    []*known        // the client may have them
	changed []change        // sorted by revision
}

// change is an object whose value has to be sent.
type change struct {
	index    int             // in watcher.known
	revision sample.Revision // that is sent
}

// Watch implements rest.Watcher.
func (s *Storage[T, V, P]) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	q, err := newQuery(genericapirequest.NamespaceValue(ctx), options)
	if err != nil {
		return nil, err
	}
	r, err := parseRevision(options.ResourceVersion)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher[T, V, P]{
		Storage: s, ctx: ctx, cancel: cancel, query: q, output: outputOf(ctx), bookmarks: options.AllowWatchBookmarks,
		events: make(chan watch.Event, 1), delivered: make(chan error, 1),
	}
	if info, ok := genericapirequest.RequestInfoFrom(ctx); ok {
		w.encoder = newEventEncoder(s.Resource, w.output.protobuf, info.APIGroup+"/"+info.APIVersion)
	}
	if w.output.standard {
		w.events = make(chan watch.Event, 64) // the generic server flushes when this is empty
	}
	initial := r == 0
	if options.SendInitialEvents != nil {
		initial = *options.SendInitialEvents
	}
	endSnapshots := s.watched.watch(q.namespace)
	end := func() {
		w.output.watch.release()
		endSnapshots()
	}
	if err := w.start(r, initial); err != nil {
		cancel()
		end()
		return nil, err
	}
	go func() {
		defer end()
		defer close(w.events)
		w.run(initial && w.bookmarks)
	}()
	return w, nil
}

// ResultChan implements watch.Interface.
func (w *watcher[T, V, P]) ResultChan() <-chan watch.Event { return w.events }

// Stop implements watch.Interface.
func (w *watcher[T, V, P]) Stop() { w.cancel() }

// start finds the first events: everything if initial, or else what has changed since r, unless that is
// zero.
func (w *watcher[T, V, P]) start(r sample.Revision, initial bool) (err error) {
	var s *snapshot
	if r == 0 {
		s = w.watched.get(w.query.namespace)
	} else {
		// The client may know whatever was served before its request, also what is later than r: a list
		// has values that are later than its revision. If an older snapshot lacked such an object, no
		// comparison would find that the object is gone.
		if s, err = w.watched.getNew(w.ctx, w.query.namespace); err != nil {
			return err
		}
	}
	var from resumption
	if !initial && r != 0 {
		// After the snapshot, which may lack what is deleted while it is taken. What is deleted in
		// between is found missing by the next comparison.
		if from, err = w.Storage.gone.resume(r, time.Now(), w.output.people); err != nil {
			return err
		}
	}
	w.at, w.next = s.upTo, s.upTo
	for _, v := range s.versions {
		if w.selects(v.of) {
			w.known = append(w.known, v)
		}
	}
	if err := w.grow(); err != nil {
		return err
	}
	switch {
	case initial:
		w.initial = true
		for i := range w.known {
			// No later revision than that of the snapshot, because older changes may be missing from it.
			w.changed = append(w.changed, change{i, min(w.known[i].revision, s.upTo)})
			w.known[i].revision = absent
		}
	case r != 0:
		w.at = from.at
		for i := range w.known {
			v := &w.known[i]
			if !from.misses(v.revision) {
				continue
			}
			if v.revision <= s.upTo { // later ones are sent in their order by the next comparison
				w.changed = append(w.changed, change{i, v.revision})
			}
			v.revision = unknown
		}
		w.gone = w.goneSince(&from, s)
	}
	w.sortChanged()
	return nil
}

// grow takes the memory for what the client knows. It is kept until the watch ends.
func (w *watcher[T, V, P]) grow() error { return w.output.watch.grow(int64(len(w.known)) * knownSize) }

// goneSince returns the objects that s does not have, or the query does not select any more, and that a
// client which knows what is in from may have.
func (w *watcher[T, V, P]) goneSince(from *resumption, s *snapshot) []*known {
	var gone []version
	add := func(of *known) {
		in := w.query.namespace == "" || of.Namespace == w.query.namespace
		if in && w.query.selectsName(&of.Object) && (from.misses(of.Changed) || w.query.selectsLabels(of.Labels)) {
			gone = append(gone, version{of: of})
		}
	}
	for i := range from.gone {
		o := from.gone[i]
		// The client may have the object that was deleted, or one that took its name. If the query may have
		// selected both, the event has the labels of the later one.
		if now, ok := w.objects.Get(o.Namespace, o.Name); ok {
			add(&known{Object: now})
		}
		add(&known{Object: o})
	}
	for _, v := range s.lacking {
		if from.misses(v.revision) {
			add(v.of)
		}
	}
	for _, v := range s.versions { // labels or node may have been others
		if v.of.Changed != 0 && from.misses(v.of.Changed) && !w.selects(v.of) {
			add(v.of)
		}
	}
	compare := func(a, b version) int { return a.of.compare(b.of.Namespace, b.of.Name) }
	slices.SortStableFunc(gone, compare)
	gone = slices.CompactFunc(gone, func(a, b version) bool { return compare(a, b) == 0 })
	var missing []*known
	for i, j := range merge(gone, w.known) {
		if j < 0 {
			missing = append(missing, gone[i].of)
		}
	}
	return missing
}

// selects reports whether the query selects an object with a value.
func (w *watcher[T, V, P]) selects(of *known) bool {
	if !w.query.selectsName(&of.Object) || !w.query.selectsNode(of.node) {
		return false
	}
	if w.query.labels == nil {
		return true
	}
	if !sameLabels(w.matched, of.Labels) {
		w.matched, w.matches = of.Labels, w.query.selectsLabels(of.Labels)
	}
	return w.matches
}

// run sends events until the watch ends.
func (w *watcher[T, V, P]) run(endOfInitial bool) {
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	if !w.send() {
		return
	}
	w.initial = false
	if endOfInitial && !w.sendBookmark(map[string]string{metav1.InitialEventsAnnotationKey: "true"}) {
		return
	}
	last := time.Now()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-ticker.C:
		}
		if len(w.events) > 0 {
			continue // the client has not read what it was sent last
		}
		w.compare(w.watched.get(w.query.namespace))
		if w.grow() != nil {
			return // the client resumes the watch, and is told why it cannot
		}
		if !w.send() {
			return
		}
		if w.bookmarks && time.Since(last) >= bookmarkPeriod {
			last = time.Now()
			if !w.sendBookmark(nil) {
				return
			}
		}
	}
}

// compare finds what the client lacks of s.
func (w *watcher[T, V, P]) compare(s *snapshot) {
	w.next, w.gone, w.changed = s.upTo, nil, w.changed[:0]
	known := w.spare[:0]
	for i, j := range merge(w.known, s.versions) {
		client := absent
		if i >= 0 {
			client = w.known[i].revision
		}
		if j < 0 || !w.selects(s.versions[j].of) {
			if client != absent {
				w.gone = append(w.gone, w.known[i].of)
			}
			continue
		}
		v := s.versions[j]
		if v.revision != client && v.revision <= s.upTo {
			w.changed = append(w.changed, change{len(known), v.revision})
		}
		known = append(known, version{v.of, client})
	}
	clear(w.known) // or it would keep objects that no longer exist
	w.known, w.spare = known, w.known
	w.sortChanged()
}

func (w *watcher[T, V, P]) sortChanged() {
	slices.SortFunc(w.changed, func(a, b change) int { return cmp.Compare(a.revision, b.revision) })
}

// send sends what compare found, and returns false if the watch has ended.
func (w *watcher[T, V, P]) send() bool {
	switch {
	case len(w.gone) == 0 && len(w.changed) == 0:
	case w.output.standard:
		if !w.deliver(func(t watch.EventType, o *sample.Object, v *V, r sample.Revision) bool {
			return w.push(watch.Event{Type: t, Object: w.standardObject(o, v, r)})
		}) {
			return false
		}
	default:
		if !w.push(watch.Event{Type: watch.Modified, Object: &burst[T, V, P]{w}}) {
			return false
		}
		select {
		case err := <-w.delivered:
			if err != nil {
				return false // the client is gone, or did not get everything in time
			}
		case <-w.ctx.Done():
			return false
		}
	}
	w.at = w.next
	return true
}

func (w *watcher[T, V, P]) push(e watch.Event) bool {
	select {
	case w.events <- e:
		return true
	case <-w.ctx.Done():
		return false
	}
}

func (w *watcher[T, V, P]) sendBookmark(annotations map[string]string) bool {
	o := P(new(T))
	o.SetResourceVersion(formatRevision(w.at))
	o.SetAnnotations(annotations)
	return w.push(watch.Event{Type: watch.Bookmark, Object: o})
}

// deliver passes each event to emit, until that returns false or the watch ends. It then returns false.
//
// Deletions come first, at the revision that the client has reached already, and changes follow in the
// order of their revisions. Values that have changed since the snapshot are left to the next comparison,
// because other changes, not yet sent, may be older. Only if everything is sent, an object is not left out:
// its present value is sent with the revision that it had in the snapshot, and the next comparison sends
// it again.
func (w *watcher[T, V, P]) deliver(emit func(watch.EventType, *sample.Object, *V, sample.Revision) bool) bool {
	var none V
	for _, of := range w.gone {
		if !emit(watch.Deleted, &of.Object, &none, w.at) {
			return false
		}
	}
	b := w.batches.Get().(*batch[V])
	defer w.freeBatch(b)
	for changes := range slices.Chunk(w.changed, len(b.objects)) {
		for i, c := range changes {
			b.objects[i] = w.known[c.index].of.Object
		}
		now := time.Now()
		w.Read(b.objects[:len(changes)], now, b.values[:len(changes)])
		for i, c := range changes {
			o, v, client := &b.objects[i], &b.values[i], &w.known[c.index].revision
			if !w.Exists(v) || w.revisionOf(o, v) != c.revision && !w.initial {
				continue
			}
			kind := watch.Modified
			if *client == absent {
				kind = watch.Added
			}
			if w.ctx.Err() != nil || !emit(kind, o, v, c.revision) {
				return false
			}
			*client = c.revision
			w.Served(v, now)
		}
	}
	return true
}

// burst is all events of one call of deliver, which encode themselves. The generic server writes it as
// if it were one event.
type burst[T, V any, P object[T]] struct{ *watcher[T, V, P] }

// GetObjectKind implements runtime.Object.
func (*burst[T, V, P]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject implements runtime.Object.
func (b *burst[T, V, P]) DeepCopyObject() runtime.Object { return b }

// GetObject implements runtime.CacheableObject. It is not called for events.
func (b *burst[T, V, P]) GetObject() runtime.Object { return P(new(T)) }

// CacheEncode implements runtime.CacheableObject.
func (b *burst[T, V, P]) CacheEncode(
	_ runtime.Identifier, _ func(runtime.Object, io.Writer) error, w io.Writer,
) error {
	buffer := newBuffer()
	defer func() { freeBuffer(buffer) }()
	var failed error
	if !b.deliver(func(t watch.EventType, o *sample.Object, v *V, r sample.Revision) bool {
		buffer = b.encoder.append(buffer[:0], t, o, v, r)
		_, failed = w.Write(buffer)
		return failed == nil
	}) {
		b.delivered <- cmp.Or(failed, b.ctx.Err())
		return failed // the end of a watch is no error
	}
	b.delivered <- nil
	return nil
}

// eventEncoder encodes events exactly as the generic server does, each as one frame.
type eventEncoder[V any] struct {
	protobuf   bool
	apiVersion string
	json       jsonEncoder[V]
	message    protobufEncoder[V]
}

func newEventEncoder[V any](i ItemEncoder[V], protobuf bool, apiVersion string) *eventEncoder[V] {
	return &eventEncoder[V]{
		protobuf: protobuf, apiVersion: apiVersion,
		json: jsonEncoder[V]{ItemEncoder: i}, message: protobufEncoder[V]{ItemEncoder: i},
	}
}

func (e *eventEncoder[V]) append(
	b []byte, t watch.EventType, o *sample.Object, v *V, r sample.Revision,
) []byte {
	if !e.protobuf {
		b = append(b, `{"type":"`...)
		b = append(b, t...)
		b = append(b, `","object":`...)
		b = appendTypeMeta(b, e.json.Kind(), e.apiVersion)
		b = e.json.appendFields(b, o, v, r)
		return append(b, "}}\n"...)
	}
	b = wire.AppendField(b, wire.Field1, string(t))
	b, object := wire.Begin(b, wire.Field2, 2)
	b, raw := wire.Begin(b, wire.Field1, 2)
	b = e.message.appendObject(b, e.apiVersion, o, v, r)
	return wire.End(wire.End(b, raw, 2), object, 2)
}
