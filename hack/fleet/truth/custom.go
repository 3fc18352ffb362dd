package truth

import (
	"math"
	"sync"
	"time"

	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/pods"
)

// Custom compares served custom metrics with the true values of pods. Its methods may be called
// from any goroutine.
type Custom struct {
	mu        sync.Mutex
	lives     map[string][]*life // by namespace and name; the last one is the current pod
	verdict   Verdict
	ages      []time.Duration
	deviation float64
	slack     float64 // see Late
}

// life is the life of one pod with one UID.
type life struct {
	name    string // with the namespace
	uid     string
	kind    pods.Kind
	spec    pods.Spec
	begun   time.Time // when the pod was started
	changed time.Time // when its fault began or ended; zero if neither happened
	ended   time.Time // zero: it exists
}

const (
	// pointsGrace is how long after its recovery a pod may have no value: a scrape that began before may time out after
	// 10 s, and a rate takes two more.
	pointsGrace = 50 * time.Second
	// startGrace is how long a new pod may have no value: more than the budget, which is measured separately.
	startGrace = 15 * time.Second
	// heldFor is how long the last values of a failing pod are served.
	heldFor = 60 * time.Second
)

// NewCustom returns a Custom that knows no pods.
func NewCustom() *Custom { return &Custom{lives: map[string][]*life{}} }

// Late reports by how much this machine was late recently, at most. Both the pod and the server may
// be late at each of the two pages of a rate, which are at least 5 s apart, so rates may deviate by
// that much more.
func (c *Custom) Late(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slack = 4 * by.Seconds() / 5
}

// Set records that from now on p is as s says.
func (c *Custom) Set(p *cluster.Pod, k pods.Kind, s pods.Spec, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := p.Namespace + "/" + p.Name
	all := c.lives[key]
	if n := len(all); n > 0 && all[n-1].uid == p.UID() {
		if all[n-1].spec.Fault != s.Fault {
			all[n-1].changed = now
		}
		all[n-1].spec = s
		return
	}
	c.lives[key] = append(all, &life{name: key, uid: p.UID(), kind: k, spec: s, begun: p.Created})
}

// Spec returns the current Spec of the pod of that name.
func (c *Custom) Spec(namespace, name string) (pods.Spec, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.lives[namespace+"/"+name]
	if len(all) == 0 {
		return pods.Spec{}, false
	}
	return all[len(all)-1].spec, true
}

// End records that the pod was deleted.
func (c *Custom) End(namespace, name string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.lives[namespace+"/"+name]
	all[len(all)-1].ended = now
}

// CustomItems returns the items of an answer in protobuf.
func CustomItems(list []byte) ([]custommetrics.MetricValue, error) {
	var items []custommetrics.MetricValue
	err := EachItem(list, func(item []byte) error {
		items = append(items, custommetrics.MetricValue{})
		return items[len(items)-1].Unmarshal(item)
	})
	return items, err
}

// Check checks the answer to a request for a metric of some pods, which existed when the request
// was made.
func (c *Custom) Check(present []*cluster.Pod, items []custommetrics.MetricValue, asked, answered time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verdict.Lists++
	served := map[string]bool{}
	for i := range items {
		m := &items[i]
		key := m.DescribedObject.Namespace + "/" + m.DescribedObject.Name
		served[key] = true
		c.verdict.Numbers++
		spec := pods.Spec{}
		if all := c.lives[key]; len(all) > 0 {
			spec = all[len(all)-1].spec
		}
		if c.right(c.lives[key], m, asked) {
			if spec.Fault == "" {
				c.ages = append(c.ages, answered.Sub(m.Timestamp.Time))
			}
			continue
		}
		c.verdict.wrong("%s of pod %s is %s at %s in the answer of %s; the pod has load %g, fault %q, steps %v",
			m.Metric.Name, key, m.Value.String(), m.Timestamp.UTC().Format(clock), answered.UTC().Format(clock), spec.Level,
			spec.Fault, spec.Steps)
	}
	for _, l := range c.dueLocked(present, asked) {
		if key := l.name; !served[key] {
			c.verdict.missing("%s of pod %s in the answer of %s: it started at %s", l.kind.Metric(), key,
				answered.UTC().Format(clock), l.begun.UTC().Format(clock))
		}
	}
}

// Failed checks an error that was the answer to such a request: an error is correct if no pod has a
// value.
func (c *Custom) Failed(present []*cluster.Pod, text string, asked, answered time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verdict.Lists++
	if due := c.dueLocked(present, asked); len(due) > 0 {
		c.verdict.missing("%s of pod %s and others in the answer of %s: %s", due[0].kind.Metric(), due[0].name,
			answered.UTC().Format(clock), text)
	}
}

// dueLocked returns those of present that must have a value in an answer to a request that was made at a time.
func (c *Custom) dueLocked(present []*cluster.Pod, asked time.Time) (due []*life) {
	for _, p := range present {
		all := c.lives[p.Namespace+"/"+p.Name]
		if len(all) == 0 {
			continue
		}
		l := all[len(all)-1]
		if l.ended.IsZero() && !l.spec.Missing(l.kind) && asked.Sub(l.begun) > startGrace &&
			asked.Sub(l.changed) > pointsGrace {
			due = append(due, l)
		}
	}
	return due
}

// right reports whether m may be served for a pod with these lives.
func (c *Custom) right(lives []*life, m *custommetrics.MetricValue, asked time.Time) bool {
	window := time.Duration(0)
	if m.WindowSeconds != nil {
		window = time.Duration(*m.WindowSeconds) * time.Second
	}
	// Timestamps are truncated to seconds.
	from, to := m.Timestamp.Add(-window-time.Second), m.Timestamp.Add(time.Second)
	least := math.Inf(1)
	for _, l := range lives {
		if !l.ended.IsZero() && asked.After(l.ended.Add(deletedGrace)) {
			continue
		}
		if asked.After(to.Add(heldFor + deletedGrace)) {
			continue
		}
		if l.spec.Missing(l.kind) && (l.changed.IsZero() || m.Timestamp.After(l.changed)) {
			continue
		}
		least = min(least, l.spec.Deviation(l.kind, m.Value.AsApproximateFloat64(), from, to))
	}
	if least <= pods.Tolerance+c.slack {
		c.deviation = max(c.deviation, least)
		return true
	}
	return false
}

// Verdict is the result of all checks so far.
func (c *Custom) Verdict() Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.verdict
}

// Deviation is the largest of a value that is right all the same: see pods.Tolerance and Late.
func (c *Custom) Deviation() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deviation
}

// Ages returns how old values of pods without a fault were when they were served, since the last call.
func (c *Custom) Ages() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	ages := c.ages
	c.ages = nil
	return ages
}
