package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// testNode returns a node; change, unless nil, makes it special.
func testNode(name string, change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID("uid-" + name), ResourceVersion: "1",
			Labels: map[string]string{"kubernetes.io/hostname": name, "pool": "blue"},
		},
		Status: corev1.NodeStatus{
			Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250}},
			Images:          []corev1.ContainerImage{{Names: []string{"registry/app@sha256:0"}}},
		},
	}
	if change != nil {
		change(n)
	}
	return n
}

func testPod(namespace, name string, labels map[string]string) *metav1.PartialObjectMetadata {
	m := podNamed(namespace, name)
	m.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}
	m.Labels, m.ResourceVersion = labels, "1"
	return m
}

// running is an inventory that runs until it is stopped, with the changes that it reported and its log.
type running struct {
	*Inventory
	stop func()

	mu          sync.Mutex
	nodeChanges []string // "+name" or "-name"
	gone        []string // pods
	log         bytes.Buffer
}

// run starts an inventory; its caller is in a synctest bubble, which sees to it that no goroutine is left.
func run(t *testing.T, c Config) *running {
	r := &running{}
	report := func(to *[]string, format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		*to = append(*to, fmt.Sprintf(format, args...))
	}
	c.OnNode = func(n Node) {
		if o, ok := r.Nodes().Get("", n.Name); !ok || !slices.Equal(o.Labels, n.Labels) {
			t.Errorf("reported node %s before the set had it", n.Name)
		}
		report(&r.nodeChanges, "+%s", n.Name)
	}
	c.OnNodeGone = func(o sample.Object) { report(&r.nodeChanges, "-%s", o.Name) }
	c.OnPodGone = func(o sample.Object) {
		now := "" // the entry in the set under that name
		if same, ok := r.Pods().Get(o.Namespace, o.Name); ok {
			now = " " + same.Labels.Get("is")
		}
		report(&r.gone, "%s/%s%s", o.Namespace, o.Name, now)
	}
	r.Inventory = New(c)
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&lockedWriter{r}), textlogger.Verbosity(0)))
	stop := sharedtest.Start(t, klog.NewContext(t.Context(), logger), r.Run)
	r.stop = sync.OnceFunc(func() {
		began := time.Now()
		stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("Run returned %v after its context had ended", took)
		}
	})
	t.Cleanup(r.stop)
	return r
}

type lockedWriter struct{ r *running }

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	return w.r.log.Write(p)
}

// news returns the changes of nodes that were reported since the last call.
func (r *running) news() []string { return r.take(&r.nodeChanges) }

// gonePods returns the pods that were reported as gone since the last call.
func (r *running) gonePods() []string { return r.take(&r.gone) }

func (r *running) take(from *[]string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	reported := *from
	*from = nil
	return reported
}

// logged returns the lines that were logged since the last call, without their time and place.
func (r *running) logged() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for line := range strings.Lines(r.log.String()) {
		_, line, _ = strings.Cut(line, "] ")
		lines = append(lines, strings.TrimSpace(line))
	}
	r.log.Reset()
	slices.Sort(lines) // nodes and pods are independent
	return lines
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// settle lets d pass, with everything that happens in it.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestWatchList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		if idle := New(config); idle.NodesSynced() == nil || idle.PodsSynced() == nil || idle.Pods().Len() != 0 {
			t.Error("an inventory that never ran knows all")
		}
		server.set(testNode("a", nil))
		server.set(testPod("shop", "web-1", map[string]string{"app": "web"}))
		server.set(testPod("ci", "job", nil))
		r := run(t, config)
		synctest.Wait()

		if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
			t.Fatal(err)
		}
		equal(t, "nodes", []string{"/a"}, names(r.Nodes(), ""))
		equal(t, "pods", []string{"ci/job", "shop/web-1"}, names(r.Pods(), ""))
		pod, _ := r.Pods().Get("shop", "web-1")
		equal(t, "pod", sample.Object{Namespace: "shop", Name: "web-1", Labels: sample.Labels{{Key: "app", Value: "web"}}},
			pod)

		server.set(testPod("shop", "web-2", nil))
		server.remove(testPod("ci", "job", nil))
		server.set(testPod("shop", "web-1", map[string]string{"app": "www"}))
		synctest.Wait()
		equal(t, "pods", []string{"shop/web-1", "shop/web-2"}, names(r.Pods(), ""))
		pod, _ = r.Pods().Get("shop", "web-1")
		equal(t, "label", "www", pod.Labels.Get("app"))

		for _, q := range server.requests {
			if q.query.Get("watch") == "" || q.query.Get("sendInitialEvents") != "true" {
				t.Errorf("%s were asked for with %v, not with a watch that sends the list", q.resource, q.query)
			}
		}
		equal(t, "number of requests", 2, len(server.requests))
		equal(t, "logged", []string(nil), r.logged())
	})
}

func TestRequests(t *testing.T) {
	for _, streams := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.streams = streams
			config.NodeSelector = "pool=blue"
			run(t, config)
			synctest.Wait()
			server.endWatches(true)
			settle(time.Minute)
			for _, q := range server.requests {
				wantFields, wantLabels, wantAs := "", "pool=blue", ","
				if q.resource == "pods" {
					wantFields, wantLabels, wantAs = "status.phase=Running", "", ";as=PartialObjectMetadata"
				}
				if !strings.HasPrefix(q.accept, "application/vnd.kubernetes.protobuf"+wantAs) {
					t.Errorf("%s were asked for as %q", q.resource, q.accept)
				}
				equal(t, q.resource+" field selector", wantFields, q.query.Get("fieldSelector"))
				equal(t, q.resource+" label selector", wantLabels, q.query.Get("labelSelector"))
			}
			if len(server.requests) < 4 {
				t.Errorf("%d requests, want at least 4", len(server.requests))
			}
		})
	}
}

func TestNodeEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		config.NodeSelector = "pool=blue"
		server.set(testNode("a", nil))
		server.set(testNode("green", func(n *corev1.Node) { n.Labels["pool"] = "green" }))
		r := run(t, config)
		synctest.Wait()
		equal(t, "first", []string{"+a"}, r.news())
		f := func(what string, want []string, change func(*corev1.Node)) {
			t.Helper()
			server.set(testNode("a", change))
			synctest.Wait()
			equal(t, what, want, r.news())
		}
		reported := []string{"+a"}
		f("heartbeat", nil, func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: "Ready", LastHeartbeatTime: metav1.Now()}}
			n.Annotations = map[string]string{"other": "annotation"}
		})
		f("port", reported, func(n *corev1.Node) { n.Status.DaemonEndpoints.KubeletEndpoint.Port = 10350 })
		f("port back", reported, nil)
		f("addresses", reported, func(n *corev1.Node) {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: "a"})
		})
		f("path", reported, func(n *corev1.Node) { n.Annotations = map[string]string{kubeapi.PathAnnotation: "/metrics"} })
		f("version", reported, func(n *corev1.Node) { n.Status.NodeInfo.KubeletVersion = "v1.38.0" })
		f("version back", reported, nil)
		f("more CPUs", reported, func(n *corev1.Node) {
			n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8")}
		})
		f("more memory", reported, func(n *corev1.Node) {
			n.Status.Capacity = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Gi")}
		})
		f("capacity back", reported, nil)
		f("label", reported, func(n *corev1.Node) { n.Labels["zone"] = "z1" })
		f("made anew", []string{"-a", "+a"}, func(n *corev1.Node) { n.Labels["zone"] = "z1"; n.UID = "another" })
		f("selected no more", []string{"-a"}, func(n *corev1.Node) { n.Labels["pool"] = "green" })
		equal(t, "nodes", 0, r.Nodes().Len())
		f("selected again", reported, nil)
		server.remove(testNode("a", nil))
		server.remove(testNode("green", nil))
		synctest.Wait()
		equal(t, "deleted", []string{"-a"}, r.news())
	})
}

// podOf returns pod shop/web with a UID, which is also in its labels.
func podOf(uid types.UID) *metav1.PartialObjectMetadata {
	p := testPod("shop", "web", map[string]string{"is": string(uid)})
	p.UID = uid
	return p
}

func TestPodGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.set(podOf("a"))
		server.set(testPod("ci", "job", nil))
		r := run(t, config)
		f := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			equal(t, what, want, r.gonePods())
		}
		f("first list")
		server.set(podOf("a"))
		f("status")
		p := podOf("a")
		p.Labels["more"] = "labels"
		server.set(p)
		f("labels")
		server.set(podOf("b"))
		f("made anew", "shop/web")
		p = podOf("c")
		p.Labels["is"] = "b"
		server.set(p)
		f("made anew with the same labels", "shop/web")
		server.remove(p) // this is also how a pod that no longer runs leaves a watch of running pods
		f("deleted", "shop/web")
		server.set(p)
		f("new")
	})
}

func TestPodGoneWithoutAListener(t *testing.T) {
	_, config := newAPIServer(t)
	s := New(config).pods.store
	for _, change := range []func(any) error{s.Add, s.Delete, s.Delete} {
		if err := change(podOf("a")); err != nil {
			t.Error(err)
		}
	}
}

func TestNodeIsWhole(t *testing.T) {
	var got []Node
	s := &nodeStore{onNode: func(n Node) { got = append(got, n) }}
	if err := s.Add(testNode("a", func(n *corev1.Node) {
		n.Annotations = map[string]string{kubeapi.PathAnnotation: "/custom", "x": "y"}
		n.Status.NodeInfo.KubeletVersion = "v1.37.2"
	})); err != nil {
		t.Fatal(err)
	}
	equal(t, "node", []Node{{
		Object: sample.Object{Name: "a", Labels: sample.Labels{
			{Key: "kubernetes.io/hostname", Value: "a"}, {Key: "pool", Value: "blue"},
		}},
		Addresses:   []Address{{Type: "InternalIP", Address: "10.0.0.1"}},
		KubeletPort: 10250,
		MetricsPath: "/custom",
		Version:     "v1.37.2",
	}}, got)
}

// A kubelet may report any valid quantity.
func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		cpu, memory string // "": not given
		want        sample.Capacity
	}{
		{"4", "32867612Ki", sample.Capacity{CPU: 4e9, Memory: 32867612 << 10}},
		{"4000m", "33656434688", sample.Capacity{CPU: 4e9, Memory: 33656434688}},
		{"1500m", "1.5Gi", sample.Capacity{CPU: 1_500_000_000, Memory: 3 << 29}},
		{"100n", "128974848000m", sample.Capacity{CPU: 100, Memory: 128974848}},
		{"", "", sample.Capacity{}},
		{"0", "0", sample.Capacity{}},
		{"-4", "-1Gi", sample.Capacity{}},
		{"9223372037", "8E", sample.Capacity{CPU: math.MaxInt64, Memory: 8e18}},
		{"1e30", "1e300", sample.Capacity{CPU: math.MaxInt64, Memory: math.MaxInt64}},
		{"-1e30", "99999999999999999999999999Ei", sample.Capacity{Memory: math.MaxInt64}},
	} {
		n := testNode("a", nil)
		n.Status.Capacity = corev1.ResourceList{}
		for name, text := range map[corev1.ResourceName]string{corev1.ResourceCPU: c.cpu, corev1.ResourceMemory: c.memory} {
			if text != "" {
				n.Status.Capacity[name] = resource.MustParse(text)
			}
		}
		got, err := (&nodeStore{}).node(n)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, c.cpu+", "+c.memory, c.want, got.capacity)
	}
}

// An object of another kind is refused, and not mistaken for a node or a pod.
func TestWrongObject(t *testing.T) {
	nodes, pods := &nodeStore{}, &podStore{}
	for what, err := range map[string]error{
		"Add of a pod to nodes":    nodes.Add(testPod("a", "b", nil)),
		"Add of a node to pods":    pods.Add(testNode("a", nil)),
		"Delete of what has none":  pods.Delete("a string"),
		"Delete of no node":        nodes.Delete("a string"),
		"Update of a pod of nodes": nodes.Update(testPod("a", "b", nil)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := nodes.compact(testPod("a", "b", nil)); err == nil {
		t.Error("compact of a pod as a node: no error")
	}
	if _, err := pods.compact(testNode("a", nil)); err == nil {
		t.Error("compact of a node as a pod: no error")
	}
}

// Whoever knows a revision finds the labels that changed up to it, and whoever finds labels finds their
// revision. Otherwise, a watch that is resumed would miss that a selector no longer matches.
func TestLabelsAndTheirRevisionAppearAtOnce(t *testing.T) {
	type reading struct {
		upTo    sample.Revision
		objects []sample.Object
	}
	var readings []reading
	var last sample.Revision
	var set *ObjectSet
	read := func() { readings = append(readings, reading{last, slices.Collect(set.All("", nil))}) }
	inventory := New(Config{Publish: func(change func(sample.Revision)) {
		read() // before anybody knows the new revision, and after
		change(last + 1)
		last++
		read()
	}})

	const objects = maxChunk + 10
	for what, tc := range map[string]struct {
		of     *source
		object func(i int, label string) any
	}{
		"pods": {inventory.pods, func(i int, label string) any {
			return testPod("ns", fmt.Sprint(i), map[string]string{"label": label})
		}},
		"nodes": {inventory.nodes, func(i int, label string) any {
			return testNode(fmt.Sprint(i), func(n *corev1.Node) { n.Labels = map[string]string{"label": label} })
		}},
	} {
		set = tc.of.objectSet()
		list := func(label func(i int) string) {
			var items []any
			for i := range objects {
				item, err := tc.of.store.compact(tc.object(i, label(i)))
				if err != nil {
					t.Fatal(err)
				}
				items = append(items, item)
			}
			if err := tc.of.store.Replace(items, ""); err != nil {
				t.Fatal(err)
			}
		}
		for step, change := range []func(){
			func() { list(func(int) string { return "first" }) },
			func() { _ = tc.of.store.Update(tc.object(7, "changed")) },
			func() { list(func(i int) string { return fmt.Sprint("changed ", i%2) }) },
			func() { list(func(i int) string { return fmt.Sprint("changed ", i%3) }) },
		} {
			readings = nil
			before := last
			change()
			if changes := min(step, 1); last != before+sample.Revision(changes) || len(readings) != 2*changes {
				t.Errorf("%s, step %d: %d revisions, want %d", what, step, last-before, changes)
			}
			for i, now := range slices.Collect(set.All("", nil)) {
				for _, then := range readings {
					if same := slices.Equal(then.objects[i].Labels, now.Labels); same != (now.Changed <= then.upTo) {
						t.Errorf("%s, step %d: %s, which changed at %d, is the same at %d: %v",
							what, step, now.Name, now.Changed, then.upTo, same)
					}
				}
			}
		}
	}
}

// A deletion is recorded with its revision before an object leaves, and the object leaves before anybody
// knows that revision. Otherwise, a watch that is resumed in between would miss the deletion. The same
// holds for a pod or node that is recreated: nobody finds the new one before the old one is reported.
func TestDeletionIsRecordedBeforeItIsSeen(t *testing.T) {
	var last sample.Revision
	var set *ObjectSet
	var got []string
	note := func(format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) }
	leaving := func(gone []sample.Object, r sample.Revision) {
		for _, o := range gone {
			note("record %s %s at %d", o.Name, o.Labels.Get("is"), r)
		}
		note("of %v, known %d", names(set, ""), last)
	}
	onGone := func(o sample.Object) { note("gone %s, left %v", o.Name, names(set, "")) }
	inventory := New(Config{
		Publish: func(change func(sample.Revision)) {
			change(last + 1)
			last++
			note("known %d, left %v", last, names(set, ""))
		},
		OnNodesLeaving: leaving, OnPodsLeaving: leaving, OnNodeGone: onGone, OnPodGone: onGone,
	})
	for what, tc := range map[string]struct {
		of     *source
		object func(name, uid string) any
	}{
		"pods": {inventory.pods, func(name, uid string) any {
			p := testPod("", name, map[string]string{"is": uid})
			p.UID = types.UID(uid)
			return p
		}},
		"nodes": {inventory.nodes, func(name, uid string) any {
			return testNode(name, func(n *corev1.Node) { n.UID, n.Labels = types.UID(uid), map[string]string{"is": uid} })
		}},
	} {
		last, set = 0, tc.of.objectSet()
		store := tc.of.store
		list := func(namesAndUIDs ...string) {
			var items []any
			for i := 0; i < len(namesAndUIDs); i += 2 {
				item, err := store.compact(tc.object(namesAndUIDs[i], namesAndUIDs[i+1]))
				if err != nil {
					t.Fatal(err)
				}
				items = append(items, item)
			}
			if err := store.Replace(items, ""); err != nil {
				t.Fatal(err)
			}
		}
		f := func(step string, change func(), want ...string) {
			t.Helper()
			got = nil
			change()
			equal(t, what+", "+step, want, got)
		}
		f("first list", func() { list("a", "1", "b", "2", "c", "3") })
		f("deleted", func() { _ = store.Delete(tc.object("c", "3")) },
			"record c 3 at 1", "of [/a /b /c], known 0", "known 1, left [/a /b]", "gone c, left [/a /b]")
		f("recreated", func() { _ = store.Update(tc.object("a", "4")) },
			"record a 1 at 2", "of [/a /b], known 1", "known 2, left [/b]", "gone a, left [/b]")
		equal(t, what, []string{"/a", "/b"}, names(set, ""))
		f("list", func() { list("a", "5", "d", "6") },
			"record a 4 at 3", "record b 2 at 3", "of [/a /b], known 2", "known 3, left [/d]", "gone a, left [/d]",
			"gone b, left [/d]")
		equal(t, what, []string{"/a", "/d"}, names(set, ""))
	}
}

// A pod is reported as new after it is in the set, also if only a later list shows it, but not with the
// first list.
func TestPodNew(t *testing.T) {
	var got []string
	var pods *ObjectSet
	inventory := New(Config{OnPodNew: func(o sample.Object) {
		if _, found := pods.Get(o.Namespace, o.Name); !found {
			t.Errorf("%s is reported before it is there", o.Name)
		}
		got = append(got, o.Name)
	}})
	pods = inventory.Pods()
	store := inventory.pods.store
	pod := func(name string, uid types.UID, label string) *metav1.PartialObjectMetadata {
		p := testPod("ns", name, map[string]string{"label": label})
		p.UID = uid
		return p
	}
	list := func(pods ...*metav1.PartialObjectMetadata) {
		var items []any
		for _, p := range pods {
			item, err := store.compact(p)
			if err != nil {
				t.Fatal(err)
			}
			items = append(items, item)
		}
		if err := store.Replace(items, ""); err != nil {
			t.Fatal(err)
		}
	}
	f := func(what string, want []string, change func()) {
		t.Helper()
		got = nil
		change()
		equal(t, what, want, got)
	}
	f("first list", nil, func() { list(pod("a", "1", ""), pod("b", "2", "")) })
	f("added", []string{"c"}, func() { _ = store.Add(pod("c", "3", "")) })
	f("relabeled", nil, func() { _ = store.Update(pod("c", "3", "x")) })
	f("recreated", []string{"c"}, func() { _ = store.Update(pod("c", "4", "x")) })
	f("deleted", nil, func() { _ = store.Delete(pod("c", "4", "x")) })
	f("list", []string{"a", "d"}, func() { list(pod("a", "5", ""), pod("b", "2", "y"), pod("d", "6", "")) })
}
