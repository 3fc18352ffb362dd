package inventory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
)

// setOf returns a label set without labels.
func setOf(namespace string) *labelSet { return &labelSet{namespace: namespace} }

func names(x *ObjectSet, namespace string) []string {
	var out []string
	for o := range x.All(namespace, nil) {
		out = append(out, o.Namespace+"/"+o.Name)
	}
	return out
}

// check fails unless the chunks of x are as documented.
func check(t *testing.T, x *ObjectSet) {
	t.Helper()
	n := 0
	for _, chunk := range x.load().chunks {
		if len(chunk) == 0 || len(chunk) > maxChunk {
			t.Fatalf("a chunk has %d entries", len(chunk))
		}
		n += len(chunk)
	}
	if n != x.Len() {
		t.Fatalf("Len is %d, the chunks hold %d", x.Len(), n)
	}
}

func TestObjectSetAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	namespaces := []string{"a", "a-b", "b", "kube-system"} // "a" is a prefix of "a-b"
	var x ObjectSet
	want := map[string]*labelSet{}
	compare := func() {
		t.Helper()
		check(t, &x)
		for _, ns := range append(namespaces, "", "0", "zz") {
			keys := slices.Collect(maps.Keys(want))
			if ns != "" {
				keys = slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, ns+"/") })
			}
			slices.SortFunc(keys, func(a, b string) int { // by namespace, then name
				an, ap, _ := strings.Cut(a, "/")
				bn, bp, _ := strings.Cut(b, "/")
				return slices.Compare([]string{an, ap}, []string{bn, bp})
			})
			if d := cmp.Diff(keys, names(&x, ns), cmp.Transformer("nil",
				func(s []string) []string { return append([]string{}, s...) })); d != "" {
				t.Fatalf("All(%q) (-want +got):\n%s", ns, d)
			}
		}
		for k, set := range want {
			ns, name, _ := strings.Cut(k, "/")
			if r, ok := x.load().get(ns, name); !ok || r.set != set {
				t.Fatalf("get(%s) = %v, %v", k, r, ok)
			}
		}
	}
	compare()
	for _, adding := range []int{90, 50, 10, 90, 2} { // per cent of the changes; grows, stays, shrinks
		for range 6000 {
			ns, name := namespaces[rnd.IntN(len(namespaces))], fmt.Sprint("pod-", rnd.IntN(3000))
			key := ns + "/" + name
			if rnd.IntN(100) < adding {
				set := setOf(ns)
				want[key] = set
				x.put(entry{name: name, set: set})
				continue
			}
			_, had := want[key]
			delete(want, key)
			if got := x.remove(ns, name); got != had {
				t.Fatalf("remove(%s) = %v, want %v", key, got, had)
			}
		}
		compare()
	}
	for k := range want {
		ns, name, _ := strings.Cut(k, "/")
		x.remove(ns, name)
		if n := x.Len(); n == 100 && len(x.load().chunks) > 2 {
			t.Errorf("%d entries are left in %d chunks, want at most 2", n, len(x.load().chunks))
		}
	}
	if x.Len() != 0 || len(x.load().chunks) != 0 {
		t.Errorf("an emptied set has %d entries in %d chunks", x.Len(), len(x.load().chunks))
	}
}

func TestObjectSetGet(t *testing.T) {
	var x ObjectSet
	labels := sample.Labels{{Key: "app", Value: "web"}}
	x.replace([]entry{{name: "web-0", set: &labelSet{namespace: "shop", labels: labels}}})
	f := func(namespace, name string, want sample.Object, wantOK bool) {
		t.Helper()
		got, ok := x.Get(namespace, name)
		if d := cmp.Diff(want, got); d != "" || ok != wantOK {
			t.Errorf("Get(%q, %q): %v (-want +got):\n%s", namespace, name, ok, d)
		}
	}
	f("shop", "web-0", sample.Object{Namespace: "shop", Name: "web-0", Labels: labels}, true)
	f("shop", "web-1", sample.Object{}, false)
	f("sho", "web-0", sample.Object{}, false)
	f("", "web-0", sample.Object{}, false)
	f("zoo", "", sample.Object{}, false)
}

// A selector is evaluated once for neighbours that share their labels, and never for another
// namespace.
func TestObjectSetAllSelects(t *testing.T) {
	var x ObjectSet
	web := &labelSet{namespace: "shop", labels: sample.Labels{{Key: "app", Value: "web"}}}
	db := &labelSet{namespace: "shop", labels: sample.Labels{{Key: "app", Value: "db"}}}
	for i := range 600 {
		x.put(entry{name: fmt.Sprintf("db-%03d", i), set: db})
		x.put(entry{name: fmt.Sprintf("web-%03d", i), set: web})
	}
	x.put(entry{name: "web-000", set: &labelSet{namespace: "zoo", labels: web.labels}})
	f := func(namespace, app string, wantObjects, wantAsked int) {
		t.Helper()
		objects, asked := 0, 0
		for o := range x.All(namespace, func(l sample.Labels) bool { asked++; return l.Get("app") == app }) {
			if o.Labels.Get("app") != app {
				t.Fatalf("%s was not selected", o.Name)
			}
			objects++
		}
		if objects != wantObjects || asked != wantAsked {
			t.Errorf("app=%s in %q: %d objects after asking %d times, want %d and %d", app, namespace, objects, asked,
				wantObjects, wantAsked)
		}
	}
	f("shop", "web", 600, 2)
	f("shop", "none", 0, 2)
	f("", "web", 601, 3)
	f("attic", "web", 0, 0)
}

// A reader that is half-way through sees nothing of what is written meanwhile.
func TestObjectSetReaderSeesOneMoment(t *testing.T) {
	var x ObjectSet
	for i := range 1000 {
		x.put(entry{name: fmt.Sprintf("pod-%04d", i), set: setOf("a")})
	}
	want, got := names(&x, "a"), []string(nil)
	for o := range x.All("a", nil) {
		if len(got) == 500 {
			for _, n := range want {
				x.remove("a", strings.TrimPrefix(n, "a/"))
			}
			x.put(entry{name: "pod-9999", set: setOf("a")})
		}
		got = append(got, o.Namespace+"/"+o.Name)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"a/pod-9999"}, names(&x, "")); d != "" {
		t.Errorf("afterwards (-want +got):\n%s", d)
	}
}

func TestObjectSetConcurrently(t *testing.T) {
	const pods = 2000
	var x ObjectSet
	sets := []*labelSet{setOf("a"), setOf("b")}
	var writer, readers sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				last := ""
				for o := range x.All("", nil) {
					if o.Namespace+o.Name <= last {
						t.Errorf("%s after %s", o.Namespace+o.Name, last)
						return
					}
					last = o.Namespace + o.Name
				}
				x.Get("b", "pod-0500")
			}
		})
	}
	writer.Go(func() {
		for round := range 3 {
			for i := range pods {
				x.put(entry{name: fmt.Sprintf("pod-%04d", i), set: sets[i%2]})
			}
			for i := round; i < pods; i += 3 {
				x.remove(sets[i%2].namespace, fmt.Sprintf("pod-%04d", i))
			}
		}
	})
	writer.Wait()
	close(done)
	readers.Wait()
	check(t, &x)
}

func TestObjectSetReadsDoNotAllocate(t *testing.T) {
	x := cluster(1000).objectSet()
	found := 0
	f := func(what string, want float64, f func()) {
		t.Helper()
		if got := testing.AllocsPerRun(100, f); got > want {
			t.Errorf("%s allocates %v times, want at most %v", what, got, want)
		}
	}
	all := slices.Collect(x.All("", nil))
	f("Get", 0, func() {
		if _, ok := x.Get(all[500].Namespace, all[500].Name); ok {
			found++
		}
	})
	f("All", 0, func() {
		for range x.All("", nil) {
			found++
		}
	})
	if found != 101+101*1000 {
		t.Errorf("found %d", found)
	}
}

func BenchmarkObjectSetGet(b *testing.B) {
	x := cluster(150_000).objectSet()
	all := slices.Collect(x.All("", nil))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		o := &all[i*7919%len(all)]
		x.Get(o.Namespace, o.Name)
	}
}

func BenchmarkObjectSetAll(b *testing.B) {
	x := cluster(150_000).objectSet()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for range x.All("", nil) {
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/pod")
}

// BenchmarkObjectSetSelect takes one workload of a namespace of 10,000 pods, as an autoscaler does.
func BenchmarkObjectSetSelect(b *testing.B) {
	var x ObjectSet
	var entries []entry
	for w := range 1000 {
		set := &labelSet{namespace: "shop", labels: sample.Labels{{Key: "app", Value: fmt.Sprintf("app-%03d", w)}}}
		for i := range 10 {
			entries = append(entries, entry{name: fmt.Sprintf("app-%03d-%d", w, i), set: set})
		}
	}
	x.replace(entries)
	b.ReportAllocs()
	for b.Loop() {
		for range x.All("shop", func(l sample.Labels) bool { return l.Get("app") == "app-500" }) {
		}
	}
}

func BenchmarkObjectSetChange(b *testing.B) {
	x := cluster(150_000).objectSet()
	all := slices.Collect(x.load().from(""))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := all[i*7919%len(all)]
		x.remove(r.set.namespace, r.name)
		x.put(r)
	}
}
