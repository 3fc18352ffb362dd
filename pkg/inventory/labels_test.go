package inventory

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// podMeta returns the metadata of pod i of a cluster, every string freshly made, as a decoder does: of 20
// pods 12 belong to ReplicaSets of four, 4 to a DaemonSet of their namespace, 3 to a StatefulSet of three and
// 1 to a Job of its own.
func podMeta(i int) *metav1.PartialObjectMetadata {
	ns := fmt.Sprintf("team-%02d", i/20%50)
	app := fmt.Sprintf("service-%d", i/20)
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace:   ns,
		UID:         types.UID("b26c3b0e-5c77-4c0a-9f0e-" + fmt.Sprintf("%012x", i)),
		Annotations: map[string]string{"kubernetes.io/config.source": "api"},
	}}
	labels := func(kv ...string) map[string]string {
		l := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			l[strings.Clone(kv[i])] = strings.Clone(kv[i+1])
		}
		return l
	}
	switch k := i % 20; {
	case k < 12:
		hash := fmt.Sprintf("%x", 0x7c5f9d0000+i/4)
		m.Name = fmt.Sprintf("%s-%d-%s-%05x", app, k/4, hash, i)
		m.Labels = labels("app.kubernetes.io/name", app, "app.kubernetes.io/instance", fmt.Sprintf("%s-%d", app, k/4),
			"app.kubernetes.io/managed-by", "Helm", "app.kubernetes.io/version", "1.27.3", "pod-template-hash", hash)
	case k < 16:
		m.Name = fmt.Sprintf("agent-%02d-%05x", i/20%50, i)
		m.Labels = labels("k8s-app", fmt.Sprintf("agent-%02d", i/20%50),
			"controller-revision-hash", "6d5b8c7f9", "pod-template-generation", "1")
	case k < 19:
		m.Name = fmt.Sprintf("%s-db-%d", app, k-16)
		m.Labels = labels("app.kubernetes.io/name", app+"-db", "app.kubernetes.io/managed-by", "Helm",
			"apps.kubernetes.io/pod-index", fmt.Sprint(k-16), "controller-revision-hash", app+"-db-5d9fd8ddd5",
			"statefulset.kubernetes.io/pod-name", m.Name)
	default:
		uid := fmt.Sprintf("%08x-02d1-4f86-b7d0-%012x", i, i)
		m.Name = fmt.Sprintf("%s-report-%d-%05x", app, 29_000_000+i, i)
		m.Labels = labels("job-name", app+"-report", "batch.kubernetes.io/job-name", app+"-report",
			"controller-uid", uid, "batch.kubernetes.io/controller-uid", uid)
	}
	return m
}

// managedMeta is podMeta with what manages the pod.
func managedMeta(i int) *metav1.PartialObjectMetadata {
	m := podMeta(i)
	c := metav1.OwnerReference{Controller: new(true)}
	c.Kind, c.Name = strings.Clone("StatefulSet"), fmt.Sprintf("service-%d-db", i/20)
	switch k := i % 20; {
	case k < 12:
		c.Kind, c.Name = strings.Clone("ReplicaSet"), m.Name[:len(m.Name)-6]
	case k < 16:
		c.Kind, c.Name = strings.Clone("DaemonSet"), fmt.Sprintf("agent-%02d", i/20%50)
	case k == 19:
		c.Kind, c.Name = strings.Clone("Job"), m.Name[:len(m.Name)-6]
	}
	m.OwnerReferences = []metav1.OwnerReference{c}
	return m
}

// cluster returns a store of pods as a list of n fills it.
func cluster(n int) *podStore { return clusterOf(n, podMeta) }

func clusterOf(n int, podMeta func(int) *metav1.PartialObjectMetadata) *podStore {
	s := &podStore{}
	items := make([]any, n)
	for i := range items {
		items[i], _ = s.compact(podMeta(i))
	}
	_ = s.Replace(items, "1")
	return s
}

func TestBytesPerPod(t *testing.T) {
	t.Run("unmanaged", func(t *testing.T) { checkBytesPerPod(t, 170, podMeta) })
	t.Run("managed", func(t *testing.T) { checkBytesPerPod(t, 185, managedMeta) })
}

func checkBytesPerPod(t *testing.T, budget float64, podMeta func(int) *metav1.PartialObjectMetadata) {
	const pods = 20_000
	nameBytes := int64(0)
	for i := range pods {
		nameBytes += int64(sizeClass(len(podMeta(i).Name)))
	}
	before := sharedtest.Heap()
	s := clusterOf(pods, podMeta)
	listed := sharedtest.Heap() - before
	// Events: a change of every pod's status, and a third of the workloads replaced by others.
	replaced := func(i int) bool { return i/20%3 == 0 }
	for i := range pods {
		if err := s.Update(podMeta(i)); err != nil {
			t.Fatal(err)
		}
		if replaced(i) {
			_ = s.Delete(podMeta(i))
			_ = s.Add(podMeta(i + 20*pods))
		}
	}
	churned := sharedtest.Heap() - before
	perPod := func(bytes int64) float64 { return float64(bytes-nameBytes) / pods }
	t.Logf("besides a name of %d bytes on average, a pod takes %.1f bytes after the list, %.1f after churn; %d label sets",
		nameBytes/pods, perPod(listed), perPod(churned), len(s.labels.sets))
	for _, got := range []float64{perPod(listed), perPod(churned)} {
		if got > budget {
			t.Errorf("a pod takes %.1f bytes besides its name, want at most %v", got, budget)
		}
	}

	for i := range pods { // all but a hundredth leave
		if i%100 != 0 {
			_ = s.Delete(podMeta(i))
			_ = s.Delete(podMeta(i + 20*pods))
		}
	}
	left := s.objectSet().Len()
	if after := sharedtest.Heap() - before; after > churned/10 {
		t.Errorf("%d of %d pods are left, %d KiB of %d KiB", left, pods, after>>10, churned>>10)
	}
	runtime.KeepAlive(s)
}

// sizeClass is what the allocator takes for a string of n bytes.
func sizeClass(n int) int {
	return cap(append([]byte(nil), make([]byte, n)...))
}

func TestLabelsShared(t *testing.T) {
	s := cluster(0)
	// If words collide at one place of the table, the first is not found again: these words have
	// different places.
	places := map[uint64]bool{}
	word := func(w string) string {
		for {
			place := maphash.String(seed, w) % uint64(len(s.labels.words))
			if !places[place] {
				places[place] = true
				return w
			}
			w += "x"
		}
	}
	shop, test, webName, dbName := word("shop"), word("test"), word("web"), word("db")
	app, podName, template, revision := word("app"), word("pod-name"), word("pod-template-hash"), word("5d9f")
	add := func(namespace, name string, labels map[string]string) entry {
		m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: strings.Clone(namespace), Name: name,
			Labels: map[string]string{},
		}}
		for k, v := range labels {
			m.Labels[strings.Clone(k)] = strings.Clone(v)
		}
		if err := s.Add(m); err != nil {
			t.Fatal(err)
		}
		r, _ := s.objectSet().load().get(namespace, name)
		return r
	}
	web := map[string]string{template: revision, app: webName}
	a, b := add(shop, "web-5d9f-a", web), add(shop, "web-5d9f-b", web)
	if a.set != b.set {
		t.Error("two pods of a ReplicaSet do not share their labels")
	}
	if d := cmp.Diff(sample.Labels{{Key: app, Value: webName}, {Key: template, Value: revision}}, a.set.labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if c := add(test, "web-5d9f-a", web); c.set == a.set || c.set.namespace != test {
		t.Error("pods of two namespaces share a set")
	}
	if c := add(shop, "none", nil); c.set.labels != nil {
		t.Errorf("a pod without labels has %v", c.set.labels)
	}

	db := add(shop, "db-0", map[string]string{app: dbName, podName: "db-0"})
	db1 := add(shop, "db-1", map[string]string{app: dbName, podName: "db-1"})
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	if !same(db.set.labels[0].Value, db1.set.labels[0].Value) || !same(db.set.labels[0].Key, a.set.labels[0].Key) {
		t.Error("equal strings of different sets are not shared")
	}
	if !same(db.set.labels[1].Value, db.name) || !same(db.set.namespace, a.set.namespace) {
		t.Error("a label that is the pod's name, or its namespace, is a copy")
	}

	// Sets that no object has any more are forgotten; the others are still shared.
	s.sweep()
	sets := len(s.labels.sets)
	if err := s.Delete(podNamed(test, "web-5d9f-a")); err != nil {
		t.Fatal(err)
	}
	add(shop, "db-0", map[string]string{app: dbName, podName: "db-0", "role": "primary"})
	s.sweep()
	if got := len(s.labels.sets); got != sets-1 {
		t.Errorf("%d sets after one left and one changed, want %d", got, sets-1)
	}
	if c := add(shop, "web-5d9f-c", web); c.set != a.set {
		t.Error("after a sweep a new pod does not share the labels of its ReplicaSet")
	}
}

// Two keys that every set has are shared even if their hashes meet.
func TestWordsCollide(t *testing.T) {
	var table labelTable
	place := func(w string) uint64 { return maphash.String(seed, w) % uint64(len(table.words)) }
	first, second := "app.kubernetes.io/name", ""
	for i := 0; second == "" || place(second) != place(first); i++ {
		second = fmt.Sprintf("app.kubernetes.io/part-%d", i)
	}
	var sets []*labelSet
	for i := range 3 {
		labels := map[string]string{strings.Clone(first): "shop", strings.Clone(second): fmt.Sprint(i)}
		sets = append(sets, table.entry("ns", fmt.Sprint("pod-", i), labels, sample.Controller{}).set)
	}
	for i, set := range sets[1:] {
		for k := range set.labels {
			if unsafe.StringData(set.labels[k].Key) != unsafe.StringData(sets[0].labels[k].Key) {
				t.Errorf("set %d has a copy of the key %s", i+1, set.labels[k].Key)
			}
		}
	}
}

// Two sets with one hash are kept apart.
func TestLabelsCollide(t *testing.T) {
	var table labelTable
	a := table.entry("ns", "a", map[string]string{"app": "a"}, sample.Controller{})
	other := &labelSet{namespace: "ns", labels: sample.Labels{{Key: "app", Value: "z"}}}
	table.sets[a.set.hash] = other
	b := table.entry("ns", "b", map[string]string{"app": "a"}, sample.Controller{})
	if !slices.Equal(a.set.labels, b.set.labels) || table.sets[a.set.hash] != other {
		t.Errorf("labels of a: %v, of b: %v", a.set.labels, b.set.labels)
	}
}

// What manages pods is kept with the labels that they share.
func TestManaged(t *testing.T) {
	s := &podStore{}
	add := func(name string, owners ...metav1.OwnerReference) {
		p := podNamed("shop", name)
		p.Labels, p.OwnerReferences = map[string]string{"app": "web"}, owners
		if err := s.Update(p); err != nil {
			t.Fatal(err)
		}
	}
	owner := func(name string, controls *bool) metav1.OwnerReference {
		return metav1.OwnerReference{Kind: "ReplicaSet", Name: strings.Clone(name), Controller: controls}
	}
	add("a", owner("other", nil), owner("web-1", new(true)))
	add("b", owner("web-1", new(true)))
	add("c", owner("web-2", new(true)))
	add("d", owner("web-1", new(false)))
	add("e")
	set := func(name string) *labelSet {
		e, _ := s.all.load().get("shop", name)
		return e.set
	}
	if set("a") != set("b") || set("d") != set("e") || set("a") == set("c") {
		t.Error("pods share a label set although what manages them differs, or do not although it does not")
	}
	replicaSet := func(name string) sample.Controller { return sample.Controller{Kind: "ReplicaSet", Name: name} }
	check := func(want map[string]sample.Controller) {
		t.Helper()
		got := map[string]sample.Controller{}
		for o, c := range s.all.Managed() {
			got[o.Name] = c
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("controllers (-want +got):\n%s", d)
		}
	}
	want := map[string]sample.Controller{
		"a": replicaSet("web-1"), "b": replicaSet("web-1"), "c": replicaSet("web-2"), "d": {}, "e": {},
	}
	check(want)
	add("e", owner("web-2", new(true))) // it was adopted
	add("a")                            // it was released
	want["e"], want["a"] = replicaSet("web-2"), sample.Controller{}
	check(want)
}

// A pod's status changes often and its labels do not: such an event leaves nothing behind.
func TestEventWithoutChange(t *testing.T) {
	s := cluster(1000)
	before, event := s.objectSet().load(), podMeta(500)
	if got := testing.AllocsPerRun(100, func() { _ = s.Update(event) }); got > 0 {
		t.Errorf("%v allocations, want none", got)
	}
	if s.objectSet().load() != before {
		t.Error("the set was written")
	}
}

func podNamed(namespace, name string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func BenchmarkPodEvent(b *testing.B) {
	s := cluster(150_000)
	events := make([]*metav1.PartialObjectMetadata, 1000)
	for i := range events {
		events[i] = podMeta(i * 149)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = s.Update(events[i%len(events)])
	}
}

func BenchmarkSweep(b *testing.B) {
	s := cluster(150_000)
	b.ReportAllocs()
	for b.Loop() {
		s.sweep()
	}
}
