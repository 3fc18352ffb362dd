package truth

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/pods"
)

func TestCustom(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	w := &cluster.Workload{Namespace: "team", Name: "web"}
	good := &cluster.Pod{Workload: w, Name: "good", Seed: 1, Created: now.Add(-time.Hour)}
	other := &cluster.Pod{Workload: w, Name: "other", Seed: 2, Created: now.Add(-time.Hour)}
	spec := func(level float64, fault string) pods.Spec {
		return pods.Spec{Level: level, Started: now.Add(-time.Hour), Fault: fault}
	}
	item := func(pod string, value float64, at time.Time) custommetrics.MetricValue {
		return custommetrics.MetricValue{
			DescribedObject: corev1.ObjectReference{Namespace: "team", Name: pod},
			Timestamp:       metav1.NewTime(at), WindowSeconds: new(int64(30)),
			Value: *resource.NewMilliQuantity(int64(1000*value), resource.DecimalSI),
		}
	}
	type items []custommetrics.MetricValue
	for _, c := range []struct {
		name           string
		prepare        func(*Custom)
		items          items
		wrong, missing int
		held           int // values of pods that fail
	}{
		{name: "right", items: items{item("good", 200.5, now), item("other", 300, now.Add(-50*time.Second))}},
		{name: "another pod's value", items: items{item("good", 300, now), item("other", 300, now)}, wrong: 1},
		{name: "too old", items: items{item("good", 200, now.Add(-70*time.Second)), item("other", 300, now)}, wrong: 1},
		{name: "missing", items: items{item("good", 200, now)}, missing: 1},
		{name: "unknown", items: items{item("good", 200, now), item("other", 300, now), item("x", 1, now)}, wrong: 1},
		{
			name:    "deleted a moment ago",
			prepare: func(c *Custom) { c.End("team", "other", now.Add(-2*time.Second)) },
			items:   items{item("good", 200, now), item("other", 300, now)},
		},
		{
			name:    "deleted long ago",
			prepare: func(c *Custom) { c.End("team", "other", now.Add(-10*time.Second)) },
			items:   items{item("good", 200, now), item("other", 300, now)}, wrong: 1,
		},
		{
			name:    "held since a fault began",
			prepare: func(c *Custom) { c.Set(other, pods.Counter, spec(300, "hang"), now.Add(-20*time.Second)) },
			items:   items{item("good", 200, now), item("other", 300, now.Add(-25*time.Second))}, held: 1,
		},
		{
			name:    "of a page that is none",
			prepare: func(c *Custom) { c.Set(other, pods.Counter, spec(300, "NaN"), now.Add(-20*time.Second)) },
			items:   items{item("good", 200, now), item("other", 300, now)}, wrong: 1,
		},
		{
			name:    "missing because of a fault",
			prepare: func(c *Custom) { c.Set(other, pods.Counter, spec(300, "hang"), now.Add(-20*time.Second)) },
			items:   items{item("good", 200, now)},
		},
		{
			name: "missing after a fault",
			prepare: func(c *Custom) {
				c.Set(other, pods.Counter, spec(300, "hang"), now.Add(-time.Minute))
				c.Set(other, pods.Counter, spec(300, ""), now.Add(-51*time.Second))
			},
			items: items{item("good", 200, now)}, missing: 1,
		},
		{
			name: "replaced under the same name",
			prepare: func(c *Custom) {
				c.End("team", "other", now.Add(-6*time.Second))
				c.Set(&cluster.Pod{Workload: w, Name: "other", Seed: 3, Created: now.Add(-5 * time.Second)}, pods.Counter,
					spec(400, ""), now)
			},
			items: items{item("good", 200, now), item("other", 400, now)},
		},
	} {
		truth := NewCustom()
		truth.Set(good, pods.Counter, spec(200, ""), now)
		truth.Set(other, pods.Counter, spec(300, ""), now)
		if c.prepare != nil {
			c.prepare(truth)
		}
		truth.Check([]*cluster.Pod{good, other}, c.items, now, now)
		if v := truth.Verdict(); v.Wrong != c.wrong || v.Missing != c.missing || v.Numbers != len(c.items) {
			t.Errorf("%s: %+v", c.name, v)
		}
		if n := len(truth.Ages()); n != len(c.items)-c.wrong-c.held {
			t.Errorf("%s: %d ages", c.name, n)
		}
	}
}

// TestCustomLate checks that a late machine excuses only rates.
func TestCustomLate(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	w := &cluster.Workload{Namespace: "team", Name: "web"}
	p := &cluster.Pod{Workload: w, Name: "one", Seed: 1, Created: now.Add(-time.Hour)}
	for kind, late := range map[pods.Kind]int{pods.Counter: 0, pods.Gauge: 1, pods.Histogram: 1} {
		truth := NewCustom()
		truth.Set(p, kind, pods.Spec{Level: 200, Started: p.Created}, now)
		value := 220.0
		if kind == pods.Histogram {
			value /= 1000
		}
		item := custommetrics.MetricValue{
			DescribedObject: corev1.ObjectReference{Namespace: "team", Name: "one"}, Timestamp: metav1.NewTime(now),
			Value: *resource.NewMilliQuantity(int64(1000*value), resource.DecimalSI),
		}
		truth.Check([]*cluster.Pod{p}, []custommetrics.MetricValue{item}, now, now)
		if v := truth.Verdict(); v.Wrong != 1 {
			t.Errorf("%s: %+v", kind.Metric(), v)
		}
		truth.Late(200 * time.Millisecond)
		truth.Check([]*cluster.Pod{p}, []custommetrics.MetricValue{item}, now, now)
		if v := truth.Verdict(); v.Wrong != 1+late {
			t.Errorf("%s on a late machine: %+v", kind.Metric(), v)
		}
	}
}

func TestCustomFailed(t *testing.T) {
	now := time.Now()
	w := &cluster.Workload{Namespace: "team", Name: "web"}
	p := &cluster.Pod{Workload: w, Name: "one", Seed: 1, Created: now.Add(-time.Hour)}
	spec := pods.Spec{Level: 200, Started: p.Created}
	truth := NewCustom()
	truth.Set(p, pods.Counter, spec, now)
	truth.Failed([]*cluster.Pod{p}, "the error", now, now)
	if v := truth.Verdict(); v.Missing != 1 || len(v.Examples) != 1 || !strings.Contains(v.Examples[0], "the error") {
		t.Errorf("an error for a pod that works: %+v", v)
	}
	spec.Fault = "hang"
	truth.Set(p, pods.Counter, spec, now)
	truth.Failed([]*cluster.Pod{p}, "the error", now.Add(time.Minute), now.Add(time.Minute))
	if v := truth.Verdict(); v.Missing != 1 {
		t.Errorf("an error for a pod that hangs: %+v", v)
	}
}
