package demand

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sharedtest"
)

// largeHPAs are as large as the API server accepts, by name.
func largeHPAs() map[string]*autoscalingv2.HorizontalPodAutoscaler {
	long := func(n int) string { return strings.Repeat("x", n) }
	all := map[string]*autoscalingv2.HorizontalPodAutoscaler{
		"annotation": testHPA("web", metrics(podsMetric("a")), "queries", "a: "+long(250<<10)),
		"spaces":     testHPA("web", metrics(podsMetric("a")), "queries", "a: x\nb: \""+strings.Repeat(" ", 12<<10)+"\""),
		"path":       testHPA("web", metrics(podsMetric("a")), "path", "/"+long(12<<10)),
		"YAML":       testHPA("web", metrics(podsMetric("a")), "queries", "a: *"+long(12<<10)),
		"name":       testHPA("web", metrics(podsMetric("a"), podsMetric(long(1<<20)))),
		"object":     testHPA("web", metrics(objectMetric("a", "v1", "Service", long(1<<20)), podsMetric("b"))),
	}
	unknown := testHPA("web", metrics(podsMetric("a")))
	for i := range 5000 {
		unknown.Annotations[fmt.Sprintf("%sunknown-%04d", kubeapi.AutoscalerPrefix, i)] = long(20)
	}
	all["unknown annotations"] = unknown
	var unused strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&unused, "b%d: x\n", i)
	}
	all["unused entries"] = testHPA("web", metrics(podsMetric("a")), "queries", unused.String())
	var many, resources []autoscalingv2.MetricSpec
	for i := range 10000 {
		many = append(many, podsMetric(fmt.Sprintf("m%d", i)))
		resources = append(resources, autoscalingv2.MetricSpec{
			Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu"},
		})
	}
	all["metrics"] = testHPA("web", many)
	all["metrics of other types"] = testHPA("web", append(metrics(podsMetric("a")), resources...))
	all["external metrics"] = testHPA("web", nil)
	for i := range 10000 {
		all["external metrics"].Spec.Metrics = append(all["external metrics"].Spec.Metrics,
			externalMetric(fmt.Sprintf("m%d", i)))
	}
	all["external name"] = testHPA("web", metrics(externalMetric(long(1<<20)), podsMetric("b")))
	selector := podsMetric("b")
	selector.Pods.Metric.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{}}
	for i := range 20000 {
		selector.Pods.Metric.Selector.MatchLabels[fmt.Sprintf("label-%d", i)] = long(30)
	}
	all["selector"] = testHPA("web", metrics(podsMetric("a"), selector))
	target := testHPA("web", metrics(podsMetric("a")))
	target.Spec.ScaleTargetRef.Name = long(1 << 20)
	all["target"] = target
	return all
}

// TestLargeAutoscalers checks that little is kept of what exceeds a limit, and that the error is
// the same as that of the whole HPA.
func TestLargeAutoscalers(t *testing.T) {
	for name, h := range largeHPAs() {
		t.Run(name, func(t *testing.T) {
			want := Parse(h, true)
			if len(want.Metrics) == 0 || want.Metrics[0].Err == nil || len(want.Metrics[0].Err.Error()) > 1000 {
				t.Fatalf("%d metrics, want at least one, with an error of at most 1,000 bytes", len(want.Metrics))
			}
			reduced := h.DeepCopy()
			reduce(reduced, true)
			first := digestOf(reduced)
			reduce(reduced, true)
			if digestOf(reduced) != first {
				t.Error("it changes if it is reduced twice")
			}
			got := Parse(reduced, true)
			if diff := cmp.Diff(want.Metrics, got.Metrics, cmp.AllowUnexported(Metric{}, Error{})); diff != "" {
				t.Error(diff)
			}
			text, err := json.Marshal(reduced)
			if err != nil || len(text) > maxAnnotation+20<<10 {
				t.Errorf("%d bytes are kept (%v), want at most one annotation and 20 KiB", len(text), err)
			}
		})
	}
}

// TestMemoryOfLargeAutoscalers checks what a server keeps of HPAs as large as the API server
// accepts.
func TestMemoryOfLargeAutoscalers(t *testing.T) {
	const each = 20
	d := New(Config{External: true})
	for name, h := range largeHPAs() {
		before := sharedtest.Heap()
		for i := range each {
			o := h.DeepCopy()
			o.Namespace, o.Name = name, fmt.Sprintf("%s-%d", name, i)
			for key, value := range o.Annotations {
				o.Annotations[key] = strings.Clone(value)
			}
			if err := d.hpas.Add(o); err != nil {
				t.Fatal(err)
			}
		}
		if kept := (sharedtest.Heap() - before) / each; kept > 24<<10 {
			t.Errorf("%s: %d KiB are kept of each HPA, want at most 24", name, kept>>10)
		}
	}
	runtime.KeepAlive(d)
}

// TestMemoryOfLargePods checks what a server keeps of the annotations of a pod that was created or has changed. The
// annotations of listed pods are reduced earlier.
func TestMemoryOfLargePods(t *testing.T) {
	const each = 50
	d := New(Config{})
	into := &scope{demand: d, into: podSink{d}}
	before := sharedtest.Heap()
	for i := range each {
		p := pod(fmt.Sprint("web-", i), "web", func(p *corev1.Pod) {
			p.Annotations = map[string]string{kubeapi.PodPathAnnotation: "/" + strings.Repeat("x", 250<<10)}
		})
		if err := into.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	if kept := (sharedtest.Heap() - before) / each; kept > 8<<10 {
		t.Errorf("%d KiB are kept of each pod, want at most 8", kept>>10)
	}
	runtime.KeepAlive(d)
}

// TestMemoryOfAutoscalersAtTheLimits checks what a server keeps of HPAs that are as large as the limits allow, and of
// the Wants made from them.
func TestMemoryOfAutoscalersAtTheLimits(t *testing.T) {
	const each = 50
	largest := func(n int) *autoscalingv2.HorizontalPodAutoscaler {
		var all []autoscalingv2.MetricSpec
		var queries, targets strings.Builder
		for i := range MaxMetrics {
			m := objectMetric(fmt.Sprintf("m%d", i), "networking.k8s.io/v1", "Ingress", fmt.Sprintf("object-%d-%d", n, i))
			labels := map[string]string{}
			m.Object.Metric.Selector = &metav1.LabelSelector{MatchLabels: labels}
			for j := 0; sizeOf(m.Object.Metric, m.Object.DescribedObject) < maxMetric-150; j++ {
				labels[fmt.Sprintf("label-%d-%d-%d", n, i, j)] = strings.Repeat("v", 40)
			}
			all = append(all, m)
			long := strings.Repeat("x", maxAnnotation/MaxMetrics-40)
			fmt.Fprintf(&queries, "m%d: sum(x{a=\"%d-%s\"})\n", i, n, long)
			fmt.Fprintf(&targets, "m%d: service/web:8080 # %s\n", i, long)
		}
		return testHPA(fmt.Sprint("hpa-", n), all, "queries", queries.String(), "targets", targets.String(),
			"path", "/"+strings.Repeat("p", maxAsk-1))
	}
	for _, m := range Parse(largest(0), true).Metrics {
		if m.Err != nil {
			t.Fatal(m.Err)
		}
	}
	d := New(Config{})
	before := sharedtest.Heap()
	for i := range each {
		if err := d.hpas.Add(largest(i)); err != nil {
			t.Fatal(err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, n := range d.namespaces {
		d.wants[name], _ = d.joinLocked(name, n)
		if len(d.wants[name]) != each*MaxMetrics {
			t.Fatalf("%d Wants, want one for each metric", len(d.wants[name]))
		}
	}
	kept := (sharedtest.Heap() - before) / each
	t.Logf("%d KiB are kept of each HPA", kept>>10)
	if kept > 128<<10 {
		t.Errorf("%d KiB are kept of each HPA, want at most 128", kept>>10)
	}
	runtime.KeepAlive(d)
}
