package hpa

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var tenPercent = Tolerance{Up: 0.1, Down: 0.1}

// somePods returns pods p0, p1 and so on that have been ready for long, changed one by one.
func somePods(n int, changes ...func(*corev1.Pod)) []*corev1.Pod {
	pods := make([]*corev1.Pod, n)
	for i := range pods {
		pods[i] = workPod("p"+string(rune('0'+i)), "rs", nil)
		if i < len(changes) && changes[i] != nil {
			changes[i](pods[i])
		}
	}
	return pods
}

// readings returns readings of p0, p1 and so on that are 10 s old; a negative one means that the
// pod has none.
func readings(all ...int64) map[string]reading {
	m := map[string]reading{}
	for i, v := range all {
		if v >= 0 {
			m["p"+string(rune('0'+i))] = reading{value: v, time: now.Add(-10 * time.Second), window: 15 * time.Second}
		}
	}
	return m
}

func pending(p *corev1.Pod)  { p.Status.Phase = corev1.PodPending }
func failed(p *corev1.Pod)   { p.Status.Phase = corev1.PodFailed }
func deleting(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.NewTime(now)) }

// condition sets when a pod started, and when it became ready or not, both as ages.
func readiness(ready bool, started, changed time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		p.Status.StartTime = new(metav1.NewTime(now.Add(-started)))
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-changed)),
		}}
	}
}

// The rules are those of the controller's replica calculator.
func TestPerPod(t *testing.T) {
	all := func(requests int64, pods []*corev1.Pod) map[string]int64 {
		m := map[string]int64{}
		for _, p := range pods {
			m[p.Name] = requests
		}
		return m
	}
	for name, tc := range map[string]struct {
		pods    []*corev1.Pod
		values  map[string]reading
		target  int64
		current int32 // 0 is the number of pods
		request int64 // of each pod; 0 for a target that is no percentage
		cpu     bool
		tol     *Tolerance
		want    int32
		why     string
		err     string
	}{
		"at the target": {pods: somePods(3), values: readings(10, 10, 10), target: 10, want: 3, why: "ratio 1 is within"},
		"within 10 % above": {
			pods: somePods(3), values: readings(110, 110, 110), target: 100, want: 3, why: "ratio 1.1 is within",
		},
		"just outside above": {pods: somePods(3), values: readings(111, 111, 111), target: 100, want: 4, why: "rounded up"},
		"within 10 % below":  {pods: somePods(3), values: readings(90, 90, 90), target: 100, want: 3, why: "within"},
		"just outside below": {
			pods: somePods(10), values: readings(89, 89, 89, 89, 89, 89, 89, 89, 89, 89), target: 100, want: 9,
		},
		"own tolerance up": {
			pods: somePods(3), values: readings(140, 140, 140), target: 100, tol: &Tolerance{Up: 0.5, Down: 0.1}, want: 3,
			why: "tolerance of 0.9 to 1.5",
		},
		"own tolerance down of zero": {
			pods: somePods(3), values: readings(60, 60, 60), target: 100, tol: &Tolerance{Up: 0.5}, want: 2, why: "ratio 0.6",
		},
		"double": {pods: somePods(3), values: readings(20, 20, 20), target: 10, want: 6},
		"the mean, truncated": {
			pods: somePods(2), values: readings(10, 13), target: 10, want: 2, why: "ratio 1.1 is within",
		},
		"rounded up": {pods: somePods(3), values: readings(14, 14, 14), target: 10, want: 5},
		"to zero":    {pods: somePods(3), values: readings(0, 0, 0), target: 10, want: 0},
		"missing counts as 0": {
			pods: somePods(3), values: readings(30, 30, -1), target: 10, want: 6, why: "the ratio is 2, x 3 pods",
		},
		"missing at target": {
			pods: somePods(4), values: readings(2, 2, 2, -1), target: 10, want: 2, why: "the ratio is 0.4, x 4 pods",
		},
		"missing turns around": {
			pods: somePods(3), values: readings(12, -1, -1), target: 10, want: 3, why: "on the other side of 1",
		},
		"missing within tolerance": {
			pods: somePods(2), values: readings(22, -1), target: 10, want: 2, why: "within the tolerance",
		},
		"missing in the wrong direction": {
			pods: somePods(2), values: readings(-1, 40), target: 10, current: 6, want: 6, why: "in the wrong direction",
		},
		"pending counts as 0 for a scale-up": {
			pods: somePods(3, pending), values: readings(-1, 30, 30), target: 10, want: 6, why: "x 3 pods",
		},
		"pending is left out of a scale-down": {
			pods: somePods(3, pending), values: readings(-1, 5, 5), target: 10, want: 1, why: "ratio 0.5 x 2 ready pods",
		},
		"pending with a value is left out": {
			pods: somePods(2, pending), values: readings(500, 5), target: 10, want: 1, why: "x 1 ready",
		},
		"failed and deleted ones are ignored": {
			pods: somePods(4, failed, deleting), values: readings(90, 90, 20, 20), target: 10, want: 4, why: "x 2 ready",
		},
		"succeeded ones are missing": {
			pods: somePods(2, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), values: readings(-1, 40),
			target: 10, want: 4, why: "x 2 pods",
		},
		"an extra item counts": {
			pods: somePods(2), values: readings(10, 10, 40), target: 10, want: 4, why: "ratio 2 x 2",
		},
		"percentage": {
			pods: somePods(2), values: readings(90, 90), target: 60, request: 100, want: 3, why: "ratio 1.5",
		},
		"percentage is truncated": {
			pods: somePods(1), values: readings(669), target: 60, request: 1000, want: 1, why: "ratio 1.1 is within",
		},
		"percentage, missing at 100 % of the request": {
			pods: somePods(4), values: readings(20, 20, 20, -1), target: 80, request: 100, want: 2, why: "ratio is 0.5",
		},
		"percentage, missing at a target above 100 %": {
			pods: somePods(4), values: readings(20, 20, 20, -1), target: 200, request: 100, want: 2, why: "ratio is 0.325",
		},
		"cpu of a starting pod is left out": {
			pods: somePods(2, readiness(false, time.Minute, time.Minute)), values: readings(900,
				5), target: 10, cpu: true, want: 1,
			why: "x 1 ready",
		},
		"cpu of a starting pod is 0 for a scale-up": {
			pods: somePods(2, readiness(false, time.Minute, time.Minute)), values: readings(900, 40), target: 10, cpu: true,
			want: 4, why: "ratio is 2, x 2 pods",
		},
		"cpu from before a pod became ready": {
			pods: somePods(2, readiness(true, time.Minute, 20*time.Second)), values: readings(900, 5), target: 10, cpu: true,
			want: 1, why: "x 1 ready",
		},
		"cpu a window after a pod became ready": {
			pods: somePods(2, readiness(true, time.Minute, 25*time.Second)), values: readings(15, 15), target: 10, cpu: true,
			want: 3, why: "x 2 ready",
		},
		"cpu of an old pod that was never ready": {
			pods: somePods(2, readiness(false, time.Hour, time.Hour-10*time.Second)), values: readings(900, 5), target: 10,
			cpu: true, want: 1, why: "x 1 ready",
		},
		"cpu of an old pod that is not ready now": {
			pods: somePods(2, readiness(false, time.Hour, time.Minute)), values: readings(15,
				15), target: 10, cpu: true, want: 3,
			why: "x 2 ready",
		},
		"readiness matters for cpu only": {
			pods: somePods(2, readiness(false, time.Minute, time.Minute)), values: readings(15, 15), target: 10, want: 3,
			why: "x 2 ready",
		},
		"no pods": {target: 10, err: "selects no pods"},
		"no values": {
			pods: somePods(2), target: 10, err: "no pod that counts has a value: 0 not ready, 2 without a value",
		},
		"only starting": {pods: somePods(1, pending), values: readings(5), target: 10, err: "1 not ready"},
		"no target":     {pods: somePods(1), values: readings(5), err: "not positive"},
	} {
		t.Run(name, func(t *testing.T) {
			q := question{
				current: tc.current, target: tc.target, values: tc.values, pods: tc.pods, cpu: tc.cpu, tolerance: tenPercent,
				now: now,
			}
			if q.current == 0 {
				q.current = int32(len(tc.pods))
			}
			if tc.tol != nil {
				q.tolerance = *tc.tol
			}
			if tc.request > 0 {
				q.requests = all(tc.request, tc.pods)
			}
			c, err := perPod(q)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Replicas != tc.want || !strings.Contains(c.Why, tc.why) {
				t.Errorf("%d replicas, want %d: %s, want %q", c.Replicas, tc.want, c.Why, tc.why)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	c, err := perPod(question{
		current: 6, target: 10, values: readings(-1, 30, 30, -1, 30, 30), tolerance: tenPercent, now: now,
		pods: somePods(6, pending, failed, deleting, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	assumed := 1.5
	want := &Calculation{
		Value: 30, Ratio: 3, Assumed: &assumed, Ready: 2, Unready: []string{"p0"}, Missing: []string{"p3"},
		Ignored: []string{"p1", "p2"}, Replicas: 6, Why: "with assumptions for pods without values the ratio is 1.5, x 4 " +
			"pods, " +
			"rounded up",
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestTotalAndAverage(t *testing.T) {
	for name, tc := range map[string]struct {
		c    func() (*Calculation, error)
		want int32
		why  string
	}{
		"total within":    {func() (*Calculation, error) { return total(3, 105, 100, 3, tenPercent) }, 3, "within"},
		"total by ready":  {func() (*Calculation, error) { return total(3, 200, 100, 2, tenPercent) }, 4, "2 x 2 ready"},
		"total down":      {func() (*Calculation, error) { return total(3, 20, 100, 3, tenPercent) }, 1, "0.2 x 3"},
		"total from zero": {func() (*Calculation, error) { return total(0, 101, 100, 0, tenPercent) }, 2, "from zero"},
		"total huge": {
			func() (*Calculation, error) { return total(3, 1<<60, 1, 3, tenPercent) }, 1<<31 - 1, "rounded up",
		},
		"average within":   {func() (*Calculation, error) { return average(3, 31, 10, tenPercent) }, 3, "within"},
		"average up":       {func() (*Calculation, error) { return average(3, 34, 10, tenPercent) }, 4, "/ target"},
		"average to zero":  {func() (*Calculation, error) { return average(3, 0, 10, tenPercent) }, 0, "/ target"},
		"average of none":  {func() (*Calculation, error) { return average(0, 11, 10, tenPercent) }, 2, "/ target"},
		"average no value": {func() (*Calculation, error) { return average(0, 0, 10, tenPercent) }, 0, "/ target"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.c()
			if err != nil || c.Replicas != tc.want || !strings.Contains(c.Why, tc.why) {
				t.Errorf("%+v, error %v, want %d replicas, %q", c, err, tc.want, tc.why)
			}
		})
	}
	for _, f := range []func() (*Calculation, error){
		func() (*Calculation, error) { return total(1, 1, 0, 1, tenPercent) },
		func() (*Calculation, error) { return average(1, 1, 0, tenPercent) },
	} {
		if _, err := f(); err == nil {
			t.Error("a target of zero is divided by")
		}
	}
}

func TestRequests(t *testing.T) {
	sidecar := corev1.ContainerRestartPolicyAlways
	pod := workPod("p", "rs", nil)
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "init"},
		{Name: "proxy", RestartPolicy: &sidecar, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("50m"),
		}}},
	}
	levelled := workPod("l", "rs", nil)
	levelled.Spec.Containers[0].Resources.Requests = nil
	levelled.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"),
	}}
	got, err := requestsOf([]*corev1.Pod{pod, levelled}, "", corev1.ResourceCPU)
	if d := cmp.Diff(map[string]int64{"p": 150, "l": 2000}, got); d != "" || err != nil {
		t.Errorf("error %v; -want +got:\n%s", err, d)
	}
	// If a pod has no request of its own, the amount that the scheduler reserves counts; the overhead
	// is added to both.
	levelled.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	levelled.Spec.InitContainers = pod.DeepCopy().Spec.InitContainers
	levelled.Spec.InitContainers[0].Resources.Requests = corev1.ResourceList{
		corev1.ResourceMemory: resource.MustParse("7"),
	}
	for name, want := range map[corev1.ResourceName]int64{corev1.ResourceCPU: 2100, corev1.ResourceMemory: 7000} {
		if got, err := requestsOf([]*corev1.Pod{levelled}, "", name); got["l"] != want || err != nil {
			t.Errorf("%s: %v, error %v, want %d", name, got, err, want)
		}
	}
	levelled.Spec.InitContainers = nil
	if _, err := requestsOf([]*corev1.Pod{levelled}, "", corev1.ResourceMemory); err == nil ||
		err.Error() != "pod l has no request for memory" {
		t.Error(err)
	}
	if got, err = requestsOf([]*corev1.Pod{pod}, "proxy", corev1.ResourceCPU); got["p"] != 50 || err != nil {
		t.Errorf("%v, error %v", got, err)
	}
	for _, tc := range []struct {
		container, want string
		resource        corev1.ResourceName
	}{
		{"", "container proxy of pod p has no request for memory", corev1.ResourceMemory},
		{"other", "pod p has no container other", corev1.ResourceCPU},
	} {
		if _, err := requestsOf([]*corev1.Pod{pod}, tc.container, tc.resource); err == nil || err.Error() != tc.want {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
}

func rules(selected autoscalingv2.ScalingPolicySelect, window *int32, policies ...autoscalingv2.HPAScalingPolicy,
) *autoscalingv2.HPAScalingRules {
	return &autoscalingv2.HPAScalingRules{SelectPolicy: &selected, StabilizationWindowSeconds: window, Policies: policies}
}

func TestLimit(t *testing.T) {
	podsPolicy := func(n, period int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: n, PeriodSeconds: period}
	}
	percent := func(n, period int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: n, PeriodSeconds: period}
	}
	behavior := func(up, down *autoscalingv2.HPAScalingRules) *autoscalingv2.HorizontalPodAutoscalerBehavior {
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: up, ScaleDown: down}
	}
	const most, least, disabled = autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect,
		autoscalingv2.DisabledPolicySelect
	zero, minute := new(int32(0)), new(int32(60))
	for name, tc := range map[string]struct {
		behavior          *autoscalingv2.HorizontalPodAutoscalerBehavior
		min, max          int32
		current, proposed int32
		last              time.Duration // ago
		want              int32
		steps, unknown    string // contained; "" if there are none
	}{
		"nothing":            {nil, 1, 10, 3, 3, time.Hour, 3, "", ""},
		"up":                 {nil, 1, 10, 3, 5, time.Hour, 5, "", ""},
		"max":                {nil, 1, 4, 3, 9, time.Hour, 4, "maxReplicas limits it to 4", ""},
		"min":                {nil, 2, 10, 3, 1, time.Hour, 2, "minReplicas raises it to 2", "stabilized over 5m0s"},
		"twice":              {nil, 1, 100, 5, 30, time.Hour, 10, "at most 10 replicas: twice", ""},
		"four at least":      {nil, 1, 100, 1, 30, time.Hour, 4, "at most 4", ""},
		"up, lately":         {nil, 1, 10, 3, 5, time.Minute, 5, "", "highest recommendation of the last 5m0s"},
		"same, lately":       {nil, 1, 10, 3, 3, time.Minute, 3, "", "it may scale up further"},
		"max, lately":        {nil, 1, 4, 3, 9, time.Minute, 4, "maxReplicas limits it to 4", ""},
		"down, default":      {nil, 1, 10, 3, 2, time.Hour, 2, "", "--horizontal-pod-autoscaler-downscale-stabilization"},
		"up, default policy": {behavior(nil, nil), 1, 100, 2, 30, time.Hour, 6, "4 pods in 15 s", ""},
		"up, largest": {
			behavior(rules(most, zero, podsPolicy(4, 15), percent(100, 15)), nil), 1, 100, 10, 99, time.Hour, 20,
			"100 % in 15 s", "",
		},
		"up, smallest": {
			behavior(rules(least, zero, podsPolicy(4, 15), percent(100, 15)), nil), 1, 100, 10, 99, time.Hour, 14,
			"4 pods in 15 s", "",
		},
		"up, rounded up": {
			behavior(rules(most, zero, percent(10, 60)), nil), 1, 100, 11, 99, time.Hour, 13, "10 % in 60 s", "",
		},
		"up, default policy, smallest": {
			behavior(rules(least, zero), nil), 1, 100, 2, 30, time.Hour, 4, "100 % in 15 s", "",
		},
		"up, disabled": {behavior(rules(disabled, zero), nil), 1, 100, 5, 9, time.Hour, 5, "Disabled", ""},
		"up, recent": {
			behavior(rules(most, zero, podsPolicy(4, 60)), nil), 1, 100, 5, 9, 30 * time.Second, 9, "",
			"changed within the last 1m0s",
		},
		"up, not recent": {
			behavior(rules(most, zero, podsPolicy(4, 60)), nil), 1, 100, 5, 9, 90 * time.Second, 9, "", "",
		},
		"up, stabilized": {
			behavior(rules(most, minute, podsPolicy(9, 15)), nil), 1, 100, 5, 9, time.Hour, 9, "",
			"stabilized over 1m0s: the lowest",
		},
		"down, one": {
			behavior(nil, rules(most, zero, podsPolicy(1, 60))), 1, 10, 8, 2, time.Hour, 7, "1 pods in 60 s", "",
		},
		"down, percent": {
			behavior(nil, rules(most, zero, percent(10, 60))), 1, 10, 9, 2, time.Hour, 8, "10 % in 60 s", "",
		},
		"down, smallest": {
			behavior(nil, rules(least, zero, podsPolicy(1, 60), percent(50, 60))), 1, 10, 8, 2, time.Hour, 7, "1 pods", "",
		},
		"down, largest": {
			behavior(nil, rules(most, zero, podsPolicy(1, 60), percent(50, 60))), 1, 10, 8, 2, time.Hour, 4, "50 %", "",
		},
		"down, disabled":    {behavior(nil, rules(disabled, zero)), 1, 10, 8, 2, time.Hour, 8, "Disabled", ""},
		"down, all at once": {behavior(nil, nil), 1, 10, 8, 2, time.Hour, 2, "", "default"},
		"down, own window": {
			behavior(nil, rules(most, minute, percent(100, 15))), 1, 10, 8, 2, time.Hour, 2, "",
			"scale-down is stabilized over 1m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := limit(&autoscalingv2.HorizontalPodAutoscalerSpec{
				MinReplicas: &tc.min, MaxReplicas: tc.max, Behavior: tc.behavior,
			}, tc.current, tc.proposed, now.Add(-tc.last), now)
			steps, unknown := strings.Join(l.steps, "; "), strings.Join(l.unknown, "; ")
			if l.replicas != tc.want || !strings.Contains(steps, tc.steps) || (tc.steps == "") != (steps == "") ||
				!strings.Contains(unknown, tc.unknown) || (tc.unknown == "") != (unknown == "") {
				t.Errorf("%d replicas, want %d; steps %q, want %q; unknown %q, want %q", l.replicas, tc.want, steps, tc.steps,
					unknown, tc.unknown)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	asks := func(n int32) *Calculation { return &Calculation{Replicas: n} }
	for name, tc := range map[string]struct {
		current  int32
		proposed []*Calculation
		change   func(*autoscalingv2.HorizontalPodAutoscaler)
		want     int32
		by       int
		verdict  string
	}{
		"the highest wins":    {3, []*Calculation{asks(2), asks(5), asks(4)}, nil, 5, 1, "scale up from 3 to 5"},
		"the first of equals": {3, []*Calculation{asks(5), asks(5)}, nil, 5, 0, "scale up"},
		"no change":           {3, []*Calculation{asks(3)}, nil, 3, 0, "the controller decided the same (3)"},
		"down": {
			3, []*Calculation{asks(2), asks(1)}, nil, 2, 0, "scale down from 3 to 2, unless one of the unknowns",
		},
		"one fails, up": {3, []*Calculation{nil, asks(4)}, nil, 4, 1, "scale up from 3 to 4"},
		"one fails, down": {
			3, []*Calculation{nil, asks(2)}, nil, 3, -1, "1 of 2 metrics has no value, and the others ask for less",
		},
		"two fail, down": {3, []*Calculation{nil, nil, asks(2)}, nil, 3, -1, "2 of 3 metrics have no value"},
		"all fail":       {3, []*Calculation{nil}, nil, 3, -1, "no metric has a value"},
		"zero disables":  {0, []*Calculation{asks(4)}, nil, 0, -1, "scaling is disabled"},
		"above max":      {12, []*Calculation{nil}, nil, 10, -1, "scale down from 12 to 10"},
		"below min": {
			1,
			[]*Calculation{nil},
			func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.MinReplicas = new(int32(2)) }, 2,
			-1, "scale up from 1 to 2",
		},
		"all at max": {10, []*Calculation{asks(20)}, nil, 10, 0, "the limits above allow no change"},
		"scaled to zero itself": {0, []*Calculation{asks(4)}, func(h *autoscalingv2.HorizontalPodAutoscaler) {
			addCondition(h, "ScaledToZero", "True", "ScaledToZero")
		}, 4, 0, "scale up from 0 to 4"},
		"scaled to zero itself, and metrics of pods only": {
			0, []*Calculation{asks(4)}, func(h *autoscalingv2.HorizontalPodAutoscaler) {
				addCondition(h, "ScaledToZero", "True", "ScaledToZero")
				h.Spec.MinReplicas, h.Spec.Metrics = new(int32(0)), []autoscalingv2.MetricSpec{podsMetric("m", "1")}
			}, 0, -1, "scaling is disabled",
		},
		"stabilized": {
			5, []*Calculation{asks(2)}, func(h *autoscalingv2.HorizontalPodAutoscaler) {
				h.Status.Conditions, h.Status.DesiredReplicas = nil, 5
				addCondition(h, autoscalingv2.AbleToScale, "True", "ScaleDownStabilized")
			}, 2, 0, "the controller stays at 5 because a recommendation within the stabilization window was higher",
		},
		"its last attempt failed": {
			3, []*Calculation{asks(4)}, func(h *autoscalingv2.HorizontalPodAutoscaler) {
				h.Status.Conditions = conditions(false, "FailedGetPodsMetric", "m")
			}, 4, 0, "its last attempt failed",
		},
		"new": {
			3,
			[]*Calculation{asks(4)},
			func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Status.Conditions = nil }, 4, 0,
			"has not decided anything yet",
		},
		"otherwise": {3, []*Calculation{asks(4)}, nil, 4, 0, "the controller decided on 3 at its last attempt"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 10}}
			h.Status.DesiredReplicas, h.Status.Conditions = 3, conditions(true, "ValidMetricFound", "m")
			if tc.change != nil {
				tc.change(h)
			}
			d := decide(h, tc.current, tc.proposed, 0, now)
			if d.Replicas != tc.want || d.Metric != tc.by || !strings.Contains(d.Verdict, tc.verdict) {
				t.Errorf("%+v, want %d by %d, %q", d, tc.want, tc.by, tc.verdict)
			}
		})
	}
}

// TestDecideUnread checks that nothing is concluded from metrics that could not be read, which the controller may have.
func TestDecideUnread(t *testing.T) {
	three := []*Calculation{{Replicas: 2}, nil, nil}
	for name, tc := range map[string]struct {
		current  int32
		proposed []*Calculation
		unread   int
		change   func(*autoscalingv2.HorizontalPodAutoscaler)
		want     int32
		verdict  string
		unknown  string // the beginning of the only one; "" if there is none
	}{
		"the only one": {
			3,
			[]*Calculation{nil},
			1, nil, 7,
			"what the controller does cannot be known from here; it decided on 7 at its last attempt",
			"1 of 1 metric could not be read",
		},
		"one of three, and another one fails": {
			3, three, 1, nil, 7, "cannot be known from here; it decided on 7",
			"1 of 3 metrics could not be read",
		},
		"its last attempt failed": {
			3, three, 2, func(h *autoscalingv2.HorizontalPodAutoscaler) {
				h.Status.Conditions = conditions(false, "FailedGetPodsMetric", "m")
			}, 3, "cannot be known from here; but its last attempt failed", "2 of 3 metrics could not be read",
		},
		"new": {
			3, three, 2, func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Status.Conditions = nil }, 3,
			"has not decided anything yet", "2 of 3 metrics could not be read",
		},
		"zero disables": {0, three, 1, nil, 0, "scaling is disabled", ""},
		"above max":     {12, three, 1, nil, 10, "scale down from 12 to 10", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 10}}
			h.Status.DesiredReplicas, h.Status.Conditions = 7, conditions(true, "ValidMetricFound", "m")
			if tc.change != nil {
				tc.change(h)
			}
			d := decide(h, tc.current, tc.proposed, tc.unread, now)
			if d.Replicas != tc.want || d.Metric != -1 || !strings.Contains(d.Verdict, tc.verdict) ||
				strings.TrimSuffix(strings.Join(d.Unknown, "; "), ", and may ask for any number of replicas") != tc.unknown {
				t.Errorf("%+v, want %d, %q, unknown %q", d, tc.want, tc.verdict, tc.unknown)
			}
		})
	}
}

func addCondition(h *autoscalingv2.HorizontalPodAutoscaler, t autoscalingv2.HorizontalPodAutoscalerConditionType,
	status corev1.ConditionStatus, reason string,
) {
	h.Status.Conditions = append(h.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
		Type: t, Status: status, Reason: reason,
	})
}
