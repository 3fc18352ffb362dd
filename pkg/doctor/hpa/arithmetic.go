package hpa

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// Defaults of flags of kube-controller-manager, which cannot be read from outside.
const (
	defaultTolerance     = 0.1             // --horizontal-pod-autoscaler-tolerance
	defaultDownscale     = 5 * time.Minute // --horizontal-pod-autoscaler-downscale-stabilization
	initializationPeriod = 5 * time.Minute // --horizontal-pod-autoscaler-cpu-initialization-period
	initialReadiness     = 30 * time.Second
)

// reading is the value of one pod, in thousandths.
type reading struct {
	value  int64
	time   time.Time
	window time.Duration
}

// Tolerance is how far a ratio may be from 1 without a change of the replicas.
type Tolerance struct {
	Up   float64 `json:"up"`
	Down float64 `json:"down"`
}

func (t Tolerance) contains(ratio float64) bool { return 1-t.Down <= ratio && ratio <= 1+t.Up }

func toleranceOf(h *autoscalingv2.HorizontalPodAutoscaler) Tolerance {
	t := Tolerance{Up: defaultTolerance, Down: defaultTolerance}
	if b := h.Spec.Behavior; b != nil {
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.Up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.Down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// groups are the pods that the controller sees, by how it counts them, sorted by name.
type groups struct {
	ready                     int
	unready, missing, ignored []string
}

// groupPods groups pods as the controller does. Only for CPU does a pod's readiness matter: during its start, a
// pod takes more than it will need.
func groupPods(pods []*corev1.Pod, values map[string]reading, cpu bool, now time.Time) groups {
	var g groups
	for _, p := range pods {
		v, found := values[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			g.ignored = append(g.ignored, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, p.Name)
		case !found:
			g.missing = append(g.missing, p.Name)
		case cpu && starting(p, v, now):
			g.unready = append(g.unready, p.Name)
		default:
			g.ready++
		}
	}
	for _, names := range [][]string{g.unready, g.missing, g.ignored} {
		slices.Sort(names)
	}
	return g
}

// starting reports whether the CPU usage of a pod is left out because the pod is still starting.
func starting(p *corev1.Pod, v reading, now time.Time) bool {
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	if i < 0 || p.Status.StartTime == nil {
		return true
	}
	ready, started := p.Status.Conditions[i], p.Status.StartTime.Time
	notReady, changed := ready.Status == corev1.ConditionFalse, ready.LastTransitionTime.Time
	if started.Add(initializationPeriod).After(now) {
		return notReady || v.time.Before(changed.Add(v.window))
	}
	return notReady && started.Add(initialReadiness).After(changed)
}

// Calculation is how many replicas one metric asks for, and why. Values are in thousandths.
type Calculation struct {
	// Value is the mean of the pods, or the value of the object.
	Value int64 `json:"value"`
	// Utilization is the value as a percentage of the requests; absent unless the target is one.
	Utilization *int32 `json:"utilization,omitempty"`
	// Ratio is the value divided by the target.
	Ratio float64 `json:"ratio"`
	// Assumed is the ratio with assumptions for pods without values; absent if none are made.
	Assumed *float64 `json:"assumed,omitempty"`
	// Ready is how many pods the replicas are calculated from.
	Ready    int      `json:"ready"`
	Unready  []string `json:"unready,omitempty"` // left out because they are not ready
	Missing  []string `json:"missing,omitempty"` // without a value
	Ignored  []string `json:"ignored,omitempty"` // being deleted, or failed
	Replicas int32    `json:"replicas"`
	Why      string   `json:"why"` // how Replicas follows
}

// question is all that a metric with a value for each pod depends on.
type question struct {
	current   int32
	target    int64 // in thousandths; with requests a percentage
	values    map[string]reading
	pods      []*corev1.Pod    // that the selector selects
	requests  map[string]int64 // of each pod, if the target is a percentage of them
	cpu       bool
	tolerance Tolerance
	now       time.Time
}

// ratio returns the ratio of values to the target, their mean, and with requests their utilization.
func (q *question) ratio(values map[string]int64) (ratio float64, mean int64, utilization *int32, err error) {
	var sum, requested, n int64
	for name, v := range values {
		if q.requests != nil {
			request, ok := q.requests[name]
			if !ok {
				continue
			}
			requested += request
		}
		sum += v
		n++
	}
	if q.requests == nil {
		mean = sum / n
		return float64(mean) / float64(q.target), mean, nil, nil
	}
	if requested == 0 {
		return 0, 0, nil, errNoRequests
	}
	u := int32(sum * 100 / requested)
	return float64(u) / float64(q.target), sum / n, &u, nil
}

// perPod calculates the replicas for a metric of which each pod has a value.
func perPod(q question) (*Calculation, error) {
	if len(q.pods) == 0 {
		return nil, errNoPods
	}
	if q.target <= 0 {
		return nil, errNotPositive
	}
	g := groupPods(q.pods, q.values, q.cpu, q.now)
	values := make(map[string]int64, len(q.values))
	for name, v := range q.values {
		if !slices.Contains(g.ignored, name) && !slices.Contains(g.unready, name) {
			values[name] = v.value
		}
	}
	if len(values) == 0 {
		return nil, &noValueError{g}
	}
	ratio, mean, utilization, err := q.ratio(values)
	if err != nil {
		return nil, err
	}
	c := &Calculation{
		Value: mean, Utilization: utilization, Ratio: ratio, Ready: g.ready,
		Unready: g.unready, Missing: g.missing, Ignored: g.ignored, Replicas: q.current,
	}
	fillUnready := len(g.unready) > 0 && ratio > 1
	if !fillUnready && len(g.missing) == 0 {
		if q.tolerance.contains(ratio) {
			c.Why = q.tolerance.within(ratio)
			return c, nil
		}
		c.Replicas = ceil(ratio * float64(g.ready))
		c.Why = fmt.Sprintf("ratio %s x %d ready pods, rounded up", number(ratio), g.ready)
		return c, nil
	}
	for _, name := range g.missing {
		switch {
		case ratio < 1 && q.requests != nil:
			values[name] = q.requests[name] * max(100, q.target) / 100
		case ratio < 1:
			values[name] = q.target
		case ratio > 1:
			values[name] = 0
		}
	}
	if fillUnready {
		for _, name := range g.unready {
			values[name] = 0
		}
	}
	assumed, _, _, err := q.ratio(values)
	if err != nil {
		return nil, err
	}
	c.Assumed = &assumed
	n := ceil(assumed * float64(len(values)))
	assumption := fmt.Sprintf("with assumptions for pods without values the ratio is %s", number(assumed))
	switch {
	case q.tolerance.contains(assumed):
		c.Why = assumption + ": " + q.tolerance.within(assumed)
	case ratio < 1 && assumed > 1, ratio > 1 && assumed < 1:
		c.Why = assumption + ", on the other side of 1, so nothing changes"
	case assumed < 1 && n > q.current, assumed > 1 && n < q.current:
		c.Why = fmt.Sprintf("%s; x %d pods it would be %d, in the wrong direction, so nothing changes", assumption,
			len(values), n)
	default:
		c.Replicas = n
		c.Why = fmt.Sprintf("%s, x %d pods, rounded up", assumption, len(values))
	}
	return c, nil
}

func (g groups) String() string {
	return fmt.Sprintf("%d not ready, %d without a value, %d being deleted or failed", len(g.unready), len(g.missing),
		len(g.ignored))
}

// total calculates the replicas for the value of an object with a target of type Value: the ratio counts for each
// pod that is ready.
func total(current int32, value, target int64, ready int, t Tolerance) (*Calculation, error) {
	if target <= 0 {
		return nil, errNotPositive
	}
	c := &Calculation{Value: value, Ratio: float64(value) / float64(target), Ready: ready, Replicas: current}
	switch {
	case current == 0:
		c.Replicas, c.Why = ceil(c.Ratio), "from zero replicas, the ratio rounded up"
	case t.contains(c.Ratio):
		c.Why = t.within(c.Ratio)
	default:
		c.Replicas = ceil(c.Ratio * float64(ready))
		c.Why = fmt.Sprintf("ratio %s x %d ready pods, rounded up", number(c.Ratio), ready)
	}
	return c, nil
}

// average calculates the replicas for the value of an object with a target of type AverageValue, which is for each
// of the replicas that the status of the scale has.
func average(status int32, value, target int64, t Tolerance) (*Calculation, error) {
	if target <= 0 {
		return nil, errNotPositive
	}
	c := &Calculation{Value: value, Ready: int(status), Replicas: status}
	if status > 0 {
		c.Ratio = float64(value) / (float64(target) * float64(status))
		if t.contains(c.Ratio) {
			c.Why = t.within(c.Ratio)
			return c, nil
		}
	}
	c.Replicas, c.Why = ceil(float64(value)/float64(target)), "value / target, rounded up"
	return c, nil
}

// within says that a ratio is within t.
func (t Tolerance) within(ratio float64) string {
	return fmt.Sprintf("ratio %s is within the tolerance of %s to %s, so nothing changes", number(ratio),
		number(1-t.Down), number(1+t.Up))
}

func ceil(v float64) int32 { return int32(min(math.Ceil(v), math.MaxInt32)) }

// number writes a ratio with the precision in which it may matter.
func number(v float64) string {
	s := fmt.Sprintf("%.3f", v)
	for s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	if s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	return s
}

// requestsOf returns what each pod requests of a resource, in thousandths, for one container or with "" for all.
func requestsOf(pods []*corev1.Pod, container string, resource corev1.ResourceName) (map[string]int64, error) {
	requests := make(map[string]int64, len(pods))
	for _, p := range pods {
		var err error
		if container == "" && hasPodRequests(p) {
			requests[p.Name], err = podRequest(p, resource)
		} else {
			requests[p.Name], err = containerRequests(p, container, resource)
		}
		if err != nil {
			return nil, err
		}
	}
	return requests, nil
}

// hasPodRequests reports whether a pod has pod-level requests, that is, for all of its containers
// together.
func hasPodRequests(p *corev1.Pod) bool {
	if p.Spec.Resources == nil {
		return false
	}
	for name := range p.Spec.Resources.Requests {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory ||
			strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			return true
		}
	}
	return false
}

// podRequest returns the request of a pod with pod-level requests. For a resource that these lack,
// it is what the scheduler reserves for the containers. The pod's overhead is added in both cases.
func podRequest(p *corev1.Pod, resource corev1.ResourceName) (int64, error) {
	var sum, sidecars, starting int64
	found := false
	of := func(requests corev1.ResourceList) int64 {
		r, ok := requests[resource]
		found = found || ok
		return r.MilliValue()
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if request := of(c.Resources.Requests); isSidecar(c) {
			sidecars += request
		} else {
			starting = max(starting, sidecars+request)
		}
	}
	for i := range p.Spec.Containers {
		sum += of(p.Spec.Containers[i].Resources.Requests)
	}
	sum = max(sum+sidecars, starting)
	if r, ok := p.Spec.Resources.Requests[resource]; ok {
		sum, found = r.MilliValue(), true
	}
	sum += of(p.Spec.Overhead)
	if !found {
		return 0, &noRequestError{pod: p.Name, resource: resource}
	}
	return sum, nil
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// longRunning returns the containers of a pod that run as long as it does.
func longRunning(p *corev1.Pod) []corev1.Container {
	all := slices.Clone(p.Spec.Containers)
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; isSidecar(c) {
			all = append(all, *c)
		}
	}
	return all
}

// checkContainer returns an error if not every pod has the container.
func checkContainer(pods []*corev1.Pod, container string) error {
	for _, p := range pods {
		if !slices.ContainsFunc(longRunning(p), func(c corev1.Container) bool { return c.Name == container }) {
			return &noContainerError{pod: p.Name, container: container}
		}
	}
	return nil
}

func containerRequests(p *corev1.Pod, container string, resource corev1.ResourceName) (int64, error) {
	var sum int64
	found := container == ""
	for _, c := range longRunning(p) {
		if container != "" && c.Name != container {
			continue
		}
		found = true
		r, ok := c.Resources.Requests[resource]
		if !ok {
			return 0, &noRequestError{pod: p.Name, container: c.Name, resource: resource}
		}
		sum += r.MilliValue()
	}
	if !found {
		return 0, &noContainerError{pod: p.Name, container: container}
	}
	return sum, nil
}

// errNoPods is explained by the line about the pods. With zero replicas, nothing has to be explained.
var errNoPods = reported{errors.New("the selector selects no pods")}

// noValueError says that there are pods, and none that counts has a value.
type noValueError struct{ groups }

func (e *noValueError) Error() string { return "no pod that counts has a value: " + e.String() }

// unfitError is why values and a target give no number of replicas.
type unfitError struct{ text, cause, remedy string }

func (e *unfitError) Error() string { return e.text }

const wrongTarget = "the controller cannot calculate with this target"

var (
	errNoAverage = &unfitError{
		text: "the target of a metric of type Pods must be an averageValue", cause: wrongTarget,
		remedy: "set target.type to AverageValue, and target.averageValue",
	}
	errNoValue = &unfitError{
		text: "the target has neither a value nor an averageValue", cause: wrongTarget,
		remedy: "set target.value, or target.averageValue with target.type AverageValue",
	}
	errOtherType = &unfitError{
		text: "target.type does not fit the value that the target has", cause: wrongTarget,
		remedy: "set target.type to Value with target.value, or to AverageValue with target.averageValue",
	}
	errNotPositive = &unfitError{
		text: "the target is not positive", cause: wrongTarget, remedy: "set a target greater than zero",
	}
	errNoRequests = &unfitError{
		text:   "the pods with values request nothing, so there is no percentage of it",
		cause:  "the target is a percentage of the requests, and these are zero",
		remedy: "set requests greater than zero, or use a target of type AverageValue",
	}
)

// noRequestError reports a container without the request that a utilization target needs, or such a
// pod if it has pod-level requests.
type noRequestError struct {
	pod, container string // container is "" for a pod
	resource       corev1.ResourceName
}

func (e *noRequestError) Error() string {
	if e.container == "" {
		return fmt.Sprintf("pod %s has no request for %s", e.pod, e.resource)
	}
	return fmt.Sprintf("container %s of pod %s has no request for %s", e.container, e.pod, e.resource)
}

type noContainerError struct{ pod, container string }

func (e *noContainerError) Error() string {
	return fmt.Sprintf("pod %s has no container %s", e.pod, e.container)
}
