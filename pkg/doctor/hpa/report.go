package hpa

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

// Report is the result of Run. Its JSON is documented in docs/doctor.md; fields are only ever added.
type Report struct {
	Schema  int           `json:"schema"` // 1
	Status  doctor.Status `json:"status"` // the worst of Checks
	Version string        `json:"version"`
	// Autoscaler is the one that was asked for; absent if all were.
	Autoscaler *Autoscaler   `json:"autoscaler,omitempty"`
	Checks     []doctor.Line `json:"checks"`
}

// Autoscaler is what is known about one HorizontalPodAutoscaler.
type Autoscaler struct {
	Namespace   string      `json:"namespace"`
	Name        string      `json:"name"`
	Target      string      `json:"target"`
	MinReplicas int32       `json:"minReplicas"`
	MaxReplicas int32       `json:"maxReplicas"`
	Tolerance   Tolerance   `json:"tolerance"`
	Scale       *Scale      `json:"scale,omitempty"`
	Pods        []Pod       `json:"pods"`
	Metrics     []Metric    `json:"metrics"`
	Decision    *Decision   `json:"decision,omitempty"`
	Status      Observed    `json:"status"`
	Conditions  []Condition `json:"conditions"`
}

// Scale is the scale of the target.
type Scale struct {
	Resource       string `json:"resource"`
	SpecReplicas   int32  `json:"specReplicas"`
	StatusReplicas int32  `json:"statusReplicas"`
	Selector       string `json:"selector"`
}

// Pod is a pod that the selector of the scale selects.
type Pod struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	WasReady bool   `json:"wasReady"`
	Owner    string `json:"owner,omitempty"` // the workload that owns it, if that is not the target; or noOwner
}

// Metric is a metric of the autoscaler.
type Metric struct {
	Index     int    `json:"index"` // in spec.metrics
	Type      string `json:"type"`
	Name      string `json:"name"`
	Selector  string `json:"selector,omitempty"`
	Container string `json:"container,omitempty"`
	Object    string `json:"object,omitempty"`
	Target    string `json:"target"`
	ServedBy  string `json:"servedBy,omitempty"` // the Service behind the API

	Expression string `json:"expression,omitempty"` // the PromQL in use
	Own        bool   `json:"own,omitempty"`        // the expression is from an annotation
	Backend    string `json:"backend,omitempty"`    // where the metric comes from, if no pods are scraped for it
	Named      string `json:"named,omitempty"`      // what the administrator's file says, if it names the metric
	// DefaultBackend says that Backend is the default one, and ByRule that a rule of prometheus-adapter's configuration
	// defines the metric.
	DefaultBackend bool `json:"defaultBackend,omitempty"`
	ByRule         bool `json:"byRule,omitempty"`

	Window   string   `json:"window,omitempty"`   // of the default expression
	Families []string `json:"families,omitempty"` // type and name, as the pods have them
	Pages    []Page   `json:"pages,omitempty"`
	Omitted  int      `json:"omitted,omitempty"` // pods that were not scraped

	Request     string       `json:"request,omitempty"` // what the controller asks
	Values      []Value      `json:"values,omitempty"`
	Calculation *Calculation `json:"calculation,omitempty"`
	Error       string       `json:"error,omitempty"` // why there is no Calculation

	goal      string // the quantity in Target
	shared    bool   // one value is compared with the target for each replica
	explained bool   // a line says why it has no value
	clean     bool   // the pages of all pods were read, without a fault
}

// Page is the metrics page of a pod.
type Page struct {
	Pod   string `json:"pod"`
	URL   string `json:"url,omitempty"`
	Why   string `json:"why,omitempty"` // what its port was chosen by
	Bytes int    `json:"bytes,omitempty"`
	Error string `json:"error,omitempty"`
}

// Value is a served value.
type Value struct {
	Of    string `json:"of"`
	Value string `json:"value"`
	Age   string `json:"age"`
}

// Decision is what follows from the metrics.
type Decision struct {
	Highest  int32    `json:"highest"` // what the metrics ask for
	Metric   int      `json:"metric"`  // the metric that asks for most; -1 if none decides
	Replicas int32    `json:"replicas"`
	Steps    []string `json:"steps"`   // what leads from Highest to Replicas
	Unknown  []string `json:"unknown"` // what only the controller knows
	Verdict  string   `json:"verdict"`

	capped bool // by maxReplicas
}

// Observed is what the status of the autoscaler says.
type Observed struct {
	Current   int32      `json:"currentReplicas"`
	Desired   int32      `json:"desiredReplicas"`
	LastScale *time.Time `json:"lastScaleTime,omitempty"`
}

func observe(s *autoscalingv2.HorizontalPodAutoscalerStatus) Observed {
	o := Observed{Current: s.CurrentReplicas, Desired: s.DesiredReplicas}
	if t := s.LastScaleTime; t != nil {
		o.LastScale = new(t.UTC())
	}
	return o
}

// desired returns the replicas that the controller has calculated, for people. The field is 0 until it has
// calculated any, which must not be read as a decision to scale to zero.
func (o Observed) desired() string {
	if o.Desired == 0 && o.Current > 0 && o.LastScale == nil {
		return "no number calculated yet"
	}
	return fmt.Sprintf("%d desired", o.Desired)
}

// Condition is a condition of the autoscaler.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (r *Report) add(lines ...doctor.Line) {
	for _, l := range lines {
		r.Status = doctor.Worse(r.Status, l.Status)
	}
	r.Checks = append(r.Checks, lines...)
}

// ExitCode is 1 if there is a problem, else 0.
func (r *Report) ExitCode() int { return r.Status.ExitCode() }

// WriteText writes r for people: what was found in the order in which the controller goes through it, and then what is
// wrong with it.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	if r.Autoscaler != nil {
		p := printer{&b}
		p.autoscaler(r.Autoscaler)
		b.WriteString("\n")
	}
	doctor.WriteLines(&b, r.Checks)
	_, err := io.WriteString(w, b.String())
	return err
}

// title names m in findings.
func (m *Metric) title() string {
	s := fmt.Sprintf("spec.metrics[%d] (%s %s", m.Index, m.Type, m.Name)
	if m.Object != "" {
		s += " of " + m.Object
	}
	if m.Container != "" {
		s += " of container " + m.Container
	}
	return s + ")"
}

func (m *Metric) value(of string, v int64, at, now time.Time) {
	m.Values = append(m.Values, Value{
		Of: of, Value: m.quantity(v), Age: max(0, now.Sub(at)).Round(time.Second).String(),
	})
}

// printer writes an autoscaler for people.
type printer struct{ *strings.Builder }

// row writes a line with a label.
func (p printer) row(label, format string, args ...any) {
	fmt.Fprintf(p, "  %-11s %s\n", label, doctor.OneLine(fmt.Sprintf(format, args...)))
}

func (p printer) autoscaler(a *Autoscaler) {
	fmt.Fprintf(p, "HorizontalPodAutoscaler %s/%s\n", a.Namespace, a.Name)
	target := a.Target
	if a.Scale != nil {
		target += fmt.Sprintf(": %s in its spec, %d in its status, selector %s",
			doctor.Plural(int(a.Scale.SpecReplicas), "replica"), a.Scale.StatusReplicas, cmp.Or(a.Scale.Selector, "none"))
	}
	p.row("target", "%s", target)
	p.row("limits", "%d to %d replicas; a ratio from %s to %s changes nothing%s", a.MinReplicas, a.MaxReplicas,
		number(1-a.Tolerance.Down), number(1+a.Tolerance.Up), a.Tolerance.origin())
	if a.Scale == nil || a.Scale.Selector == "" {
		p.row("pods", "not known")
	} else {
		p.pods(a.Pods)
	}
	for i := range a.Metrics {
		p.metric(&a.Metrics[i], len(a.Metrics))
	}
	p.WriteString("\nDecision\n")
	if d := a.Decision; d != nil {
		if d.Metric >= 0 {
			p.row("metrics", "%s, highest of all metrics (spec.metrics[%d])", doctor.Plural(int(d.Highest), "replica"), d.Metric)
		}
		for _, s := range d.Steps {
			p.row("", "%s", s)
		}
		p.row("result", "%s", d.Verdict)
		for _, s := range d.Unknown {
			p.row("unknown", "%s", s)
		}
	} else {
		p.row("result", "none: the replicas of the target are not known")
	}
	last := "never"
	if t := a.Status.LastScale; t != nil {
		last = t.Format(time.RFC3339)
	}
	p.row("status", "%d current, %s; last changed: %s", a.Status.Current, a.Status.desired(), last)
	for _, c := range a.Conditions {
		p.row("condition", "%s %s: %s: %s", c.Type, c.Status, c.Reason, c.Message)
	}
}

// mostPods is how many pods the text lists; the JSON has all.
const mostPods = 20

func (p printer) pods(pods []Pod) {
	count := map[string]int{}
	var states []string
	for _, one := range pods {
		if count[one.State]++; count[one.State] == 1 {
			states = append(states, one.State)
		}
	}
	for i, s := range states {
		states[i] = fmt.Sprintf("%d %s", count[s], s)
	}
	p.row("pods", "%d selected%s", len(pods), prefixed(": ", strings.Join(states, ", ")))
	for i, one := range pods {
		if i == mostPods {
			p.row("", "and %d more", len(pods)-i)
			break
		}
		owner := prefixed(", belongs to ", one.Owner)
		if one.Owner == noOwner {
			owner = ", has no owner"
		}
		p.row("", "%s: %s%s", one.Name, one.State, owner)
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (p printer) metric(m *Metric, of int) {
	fmt.Fprintf(p, "\nMetric %d of %d: %s %s%s%s%s, target %s\n", m.Index+1, of, m.Type, doctor.OneLine(m.Name),
		prefixed(" of container ", m.Container), prefixed(" of ", m.Object), prefixed(" with ", doctor.OneLine(m.Selector)),
		m.Target)
	if m.Named != "" {
		p.row("named", "in the administrator's file %s", m.Named)
	}
	if m.Backend != "" {
		by := ""
		if m.DefaultBackend {
			by = ", the default of the custom metrics server"
		}
		p.row("backend", "%s%s; it is polled, and no pods are scraped for the metric", m.Backend, by)
	}
	switch {
	case m.Named != "" && m.Expression == "":
	case m.Named != "":
		p.row("expression", "%s (from the administrator's file)", m.Expression)
	case m.ByRule:
		p.row("expression", "by a rule in the configuration of prometheus-adapter")
	case m.Backend != "" && m.Expression == "":
		p.row("expression", "default, by the name of the metric")
	case m.Expression != "" && m.Own:
		p.row("expression", "%s (from annotation %s)", m.Expression, kubeapi.QueriesAnnotation)
	case m.Expression != "":
		p.row("expression", "%s (default)", m.Expression)
	case len(m.Pages) > 0:
		p.row("expression", "default (window %s); unknown which, because no page has a matching family", m.Window)
	}
	if len(m.Families) > 0 {
		p.row("families", "%s", strings.Join(m.Families, ", "))
	}
	if len(m.Pages) > 0 {
		p.row("pages", "read through the API server; the path from the custom metrics server to the pods is not tested")
	}
	for _, page := range m.Pages {
		text := page.Pod
		if page.URL != "" {
			text += fmt.Sprintf(": %s (port: %s)", page.URL, page.Why)
		}
		switch {
		case page.Error != "":
			text += ": " + page.Error
		case page.URL != "":
			text += fmt.Sprintf(": %d bytes", page.Bytes)
		}
		p.row("", "%s", text)
	}
	if m.Omitted > 0 {
		p.row("", "%d more pods were not scraped", m.Omitted)
	}
	if m.ServedBy != "" {
		p.row("served by", "Service %s", m.ServedBy)
	}
	if m.Request != "" {
		p.row("request", "%s", m.Request)
	}
	for i, v := range m.Values {
		if i == mostPods {
			p.row("", "and %d more", len(m.Values)-i)
			break
		}
		label := ""
		if i == 0 {
			label = "values"
		}
		p.row(label, "%s: %s, %s old", v.Of, v.Value, v.Age)
	}
	if m.Error != "" {
		p.row("no value", "%s", m.Error)
	}
	p.calculation(m)
}

func (p printer) calculation(m *Metric) {
	c := m.Calculation
	if c == nil {
		return
	}
	value := m.quantity(c.Value)
	if c.Utilization != nil {
		value = fmt.Sprintf("%d %% of the requests (%s)", *c.Utilization, value)
	}
	switch {
	case !m.shared:
		p.row("ratio", "%s / target %s = %s", value, m.goal, number(c.Ratio))
	case c.Ready > 0:
		p.row("ratio", "%s / (%s x %s) = %s", value, m.goal, doctor.Plural(c.Ready, "replica"), number(c.Ratio))
	}
	for _, g := range []struct {
		label string
		names []string
		what  string
	}{
		{"not ready", c.Unready, c.countsUnready()},
		{"missing", c.Missing, c.countsMissing()},
		{"ignored", c.Ignored, "being deleted or failed"},
	} {
		if len(g.names) > 0 {
			p.row(g.label, "%s: %s", doctor.Some(g.names), g.what)
		}
	}
	p.row("replicas", "%d: %s", c.Replicas, c.Why)
}

// countsUnready says how pods that are not ready count.
func (c *Calculation) countsUnready() string {
	if c.Ratio > 1 {
		return "counted as zero when scaling up"
	}
	return "left out"
}

// countsMissing says how pods without a value count: always so that less changes.
func (c *Calculation) countsMissing() string {
	switch {
	case c.Ratio > 1:
		return "counted as zero (no value)"
	case c.Ratio == 1:
		return "no value; no effect at ratio 1"
	case c.Utilization != nil:
		return "counted as using their whole requests, or the target if that is higher (no value)"
	}
	return "counted as exactly at the target (no value)"
}

// origin says where a tolerance is from, unless it is the HPA alone.
func (t Tolerance) origin() string {
	if t.Up == defaultTolerance || t.Down == defaultTolerance {
		return " (10 % is the default of the controller's --horizontal-pod-autoscaler-tolerance)"
	}
	return ""
}
