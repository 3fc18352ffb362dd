package demand

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/near"
	"metrics-server/pkg/sample"
)

var annotations = []string{
	kubeapi.QueriesAnnotation, kubeapi.TargetsAnnotation, kubeapi.PortAnnotation,
	kubeapi.HPAPathAnnotation, kubeapi.SchemeAnnotation, kubeapi.WindowAnnotation, kubeapi.BackendAnnotation,
}

// notExternal are names that no external metric can have, in lower case: in the path of a request, the generic API
// server takes them for a subresource of the namespace.
var notExternal = []string{"status", "finalize"}

// Limits of what an HPA may say.
const (
	MinWindow     = 10 * time.Second
	MaxWindow     = 10 * time.Minute
	DefaultWindow = 30 * time.Second
	// RemoteWindow is the default for metrics of backends. Most backends scrape every 15 s to 1 min, and a rate needs two
	// points.
	RemoteWindow  = 2 * time.Minute
	MaxMetrics    = 20       // metrics of one HPA, of the types that are served, except undeclared ones
	maxEntries    = 100      // metrics of all types of one HPA
	maxMetric     = 2 << 10  // size of the name, the selector and the object of a metric, or of the scale target
	maxAnnotation = 16 << 10 // bytes of one annotation
)

// How much is kept of what is wrong in an HPA or a pod.
const (
	maxMistakes  = 20
	maxName      = 256  // bytes of the name of a metric that exceeds maxMetric or is of type External, which is not served
	maxAsk       = 1024 // bytes of a port, a path or a scheme; none that is valid has more
	maxYAMLError = 300  // bytes of the text of an error of the YAML parser
)

// cut returns s, or a copy of its first n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.Clone(s[:n])
}

// Reference names an object in the namespace of the HPA that refers to it. As in the HPA controller, only the group in
// APIVersion matters, not the version.
type Reference = autoscalingv2.CrossVersionObjectReference

// HPA is what a HorizontalPodAutoscaler says of the metrics that this program serves. It is immutable.
type HPA struct {
	Namespace, Name string
	Target          Reference // spec.scaleTargetRef
	// Metrics are those of types Pods, Object and, if they are served, External, as far as MaxMetrics allows.
	// Undeclared ones get what room the others leave.
	Metrics []Metric
	// Mistakes are the first 20 that concern more than one metric. Each of Metrics has the first one as
	// its Err.
	Mistakes []*Error
}

// Metric is one metric of an HPA.
type Metric struct {
	Index    int // in spec.metrics
	Type     autoscalingv2.MetricSourceType
	Name     string
	Selector []metav1.LabelSelectorRequirement // metric.selector, sorted; labels as operator In with one value
	Object   Reference                         // what a metric of type Object describes
	Definition
	// ExpressionAt says where Expression is, for errors in it: an annotation and a line. "" without one.
	ExpressionAt string
	Err          *Error // why it cannot be served; nil if nothing is wrong
	// Undeclared says that the metric is of type External and the HPA, which has no Mistakes, says neither which
	// pods nor which backend has it. Another program may serve it. Err says what is missing.
	Undeclared bool

	selector string // canonical text of Selector
	// unrequested says that the selector is invalid. The controller cannot ask for such a metric, so its
	// error concerns no other one.
	unrequested bool
	// unsourced is the Err of a metric whose HPA does not say where it comes from. A default backend overrides it.
	unsourced *Error
	ownWindow bool // Window is that of an annotation
}

// Definition is the meaning of a metric. Two HPAs may use one name for it only if their definitions are
// equal.
type Definition struct {
	Expression string        // own PromQL; "" for the default of the family's type
	Window     time.Duration // for the default expression; 0 with an own one
	// Service and ServicePort name the Service whose pods are scraped instead, and one of its ports by name
	// or number. Empty without annotation.
	Service, ServicePort string
	Ask                  sample.Ask // what annotations of the HPA say about where pods are scraped
	// Backend is the value of the annotation: the name of a backend, kubeapi.PodsBackend, or "" for the default. In a
	// Want it is the name of the backend that the metric comes from, "" for pods.
	Backend string
	// Named is nil unless the administrator names the metric. If it is set, the other fields are empty in the Want of an
	// HPA, and have the values of Named in the Want with the values of all objects (Request.Series).
	Named *Named
}

// Source returns the name of the backend that a metric of an HPA comes from, "" for pods. byDefault applies if the HPA
// says neither.
func (m *Metric) Source(byDefault string) string {
	switch {
	case m.Service != "" || m.Backend == kubeapi.PodsBackend:
		return ""
	case m.Backend != "":
		return m.Backend
	case m.Ask != (sample.Ask{}):
		return ""
	}
	return byDefault
}

// ErrIn returns why m cannot be served from a source, which is a result of Source: Err, or nil if the source is a
// backend and Err only says that the HPA does not tell which pods expose m.
func (m *Metric) ErrIn(source string) *Error {
	if source != "" && m.Err == m.unsourced {
		return nil
	}
	return m.Err
}

// Parse returns what h says. With external, metrics of type External are served. It never fails: mistakes are part of
// the result.
func Parse(h *autoscalingv2.HorizontalPodAutoscaler, external bool) *HPA {
	p := parser{hpa: &HPA{Namespace: h.Namespace, Name: h.Name, Target: h.Spec.ScaleTargetRef}, from: h}
	p.annotations()
	if sizeOfReference(p.hpa.Target) > maxMetric {
		p.mistake(OverLimit, "correct it", "spec.scaleTargetRef of %s has more than %d KiB", p.subject(), maxMetric>>10)
		p.hpa.Target = Reference{}
	}
	entries := h.Spec.Metrics[:min(len(h.Spec.Metrics), maxEntries)]
	var known []string
	var served, undeclared []identified
	for i, m := range entries {
		switch {
		case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
			p.portUsed = !p.isRemote()
			known = append(known, m.Pods.Metric.Name)
			served = append(served, identified{i, m.Type, m.Pods.Metric, Reference{}})
		case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
			known = append(known, m.Object.Metric.Name)
			p.targeted = append(p.targeted, m.Object.Metric.Name)
			if _, declared := find(p.targets, m.Object.Metric.Name); !declared {
				p.portUsed = !p.isRemote()
			}
			served = append(served, identified{i, m.Type, m.Object.Metric, m.Object.DescribedObject})
		case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
			known = append(known, m.External.Metric.Name)
			p.targeted = append(p.targeted, m.External.Metric.Name)
			of := identified{i, m.Type, m.External.Metric, Reference{}}
			if _, declared := find(p.targets, of.id.Name); (declared || p.isRemote()) && external {
				served = append(served, of)
			} else if external {
				undeclared = append(undeclared, of)
			}
		}
	}
	room := max(MaxMetrics-len(served), 0)
	all := slices.Concat(served[:min(len(served), MaxMetrics)], undeclared[:min(len(undeclared), room)])
	slices.SortFunc(all, func(a, b identified) int { return a.index - b.index })
	for _, of := range all {
		p.metric(of)
	}
	if len(served) > MaxMetrics {
		types := "Pods and Object"
		if external {
			types = "Pods, Object and External"
		}
		p.mistake(OverLimit, fmt.Sprintf("use at most %d", MaxMetrics),
			"%s has more than %d metrics of types %s", p.subject(), MaxMetrics, types)
	}
	if len(h.Spec.Metrics) > maxEntries {
		p.mistake(OverLimit, fmt.Sprintf("use at most %d", maxEntries),
			"%s has more than %d metrics", p.subject(), maxEntries)
	}
	if p.isRemote() && p.ask != (sample.Ask{}) && len(p.targets) == 0 {
		p.mistake(BadAnnotation, "remove "+kubeapi.BackendAnnotation+", or the annotations that say where pods are scraped",
			"%s names backend %s, and others say where pods are scraped", p.at(kubeapi.BackendAnnotation, 0), p.backend)
	}
	p.unused(kubeapi.QueriesAnnotation, p.queries, known)
	p.unused(kubeapi.TargetsAnnotation, p.targets, known)
	if len(p.hpa.Mistakes) > 0 {
		for i := range p.hpa.Metrics {
			m := &p.hpa.Metrics[i]
			m.Err, m.Undeclared = p.hpa.Mistakes[0], false
		}
	}
	return p.hpa
}

// identified is a metric as an HPA has it.
type identified struct {
	index  int
	kind   autoscalingv2.MetricSourceType
	id     autoscalingv2.MetricIdentifier
	object Reference
}

type parser struct {
	hpa              *HPA
	from             *autoscalingv2.HorizontalPodAutoscaler
	queries, targets []entry
	targeted         []string      // the names of the metrics that may have an entry in targets
	portUsed         bool          // the HPA has a metric to which ask.Port applies
	window           time.Duration // 0: not said
	ask              sample.Ask
	backend          string
}

// isRemote reports whether the HPA names a backend.
func (p *parser) isRemote() bool { return p.backend != "" && p.backend != kubeapi.PodsBackend }

func (p *parser) subject() string { return fmt.Sprintf("HorizontalPodAutoscaler %q", p.hpa.Name) }

// at names an annotation, and a line of it unless that is 0.
func (p *parser) at(annotation string, line int) string {
	s := fmt.Sprintf("annotation %s of %s", annotation, p.subject())
	if line > 0 {
		s += fmt.Sprintf(", line %d", line)
	}
	return s
}

func (p *parser) mistake(cause Cause, remedy, format string, args ...any) {
	p.add(newError(cause, remedy, format, args...))
}

func (p *parser) add(err *Error) {
	if len(p.hpa.Mistakes) < maxMistakes {
		p.hpa.Mistakes = append(p.hpa.Mistakes, err)
	}
}

// annotations parses all annotations, in order of their names.
func (p *parser) annotations() {
	for _, key := range slices.Sorted(maps.Keys(p.from.Annotations)) {
		value := p.from.Annotations[key]
		switch {
		case !strings.HasPrefix(key, kubeapi.AutoscalerPrefix):
			continue
		case len(value) > maxAnnotation && slices.Contains(annotations, key):
			p.mistake(OverLimit, "shorten it", "%s has more than %d KiB", p.at(key, 0), maxAnnotation>>10)
			continue
		}
		if err := p.annotation(key, value); err != nil {
			p.mistake(BadAnnotation, "", "%s: %v", p.at(key, 0), err)
		}
	}
}

// annotation parses one annotation. A panic becomes an error: no annotation of a user may end the
// server.
func (p *parser) annotation(key, value string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("this is a bug in metrics-server: report it with this annotation: %v", v)
		}
	}()
	switch key {
	case kubeapi.QueriesAnnotation:
		p.queries = p.entries(key, value)
	case kubeapi.TargetsAnnotation:
		p.targets = p.entries(key, value)
	case kubeapi.PortAnnotation:
		p.ask.Port, err = cut(value, maxAsk+1), sample.CheckPort(value)
	case kubeapi.HPAPathAnnotation:
		p.ask.Path, err = cut(value, maxAsk+1), sample.CheckPath(value)
	case kubeapi.SchemeAnnotation:
		p.ask.Scheme, err = cut(value, maxAsk+1), sample.CheckScheme(value)
	case kubeapi.WindowAnnotation:
		p.window, err = parseWindow(value)
	case kubeapi.BackendAnnotation:
		p.backend, err = parseBackend(value)
	default:
		remedy := "remove it, or use one of " + strings.Join(annotations, ", ")
		if similar := near.Nearest(key, annotations); similar != "" {
			remedy = fmt.Sprintf("did you mean %s?", similar)
		}
		p.mistake(BadAnnotation, remedy, "%s is unknown", p.at(sample.Quotable(key), 0))
	}
	return err
}

func parseWindow(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < MinWindow || d > MaxWindow {
		return 0, fmt.Errorf("%q is not a window: use a duration from 10s to 10m, such as 30s", sample.Quotable(s))
	}
	return d, nil
}

func parseBackend(s string) (string, error) {
	const valid = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	if s == "" || len(s) > 63 || strings.Trim(s, valid) != "" {
		return "", fmt.Errorf("%q is not the name of a backend: use one that the administrator has set up, or %q to scrape "+
			"pods", sample.Quotable(cut(s, maxName)), kubeapi.PodsBackend)
	}
	return s, nil
}

func (p *parser) entries(annotation, value string) []entry {
	entries, err := parseMap(value)
	if err != nil {
		p.mistake(BadAnnotation, err.remedy, "%s: %s", p.at(annotation, err.line), err.text)
	}
	return entries
}

// unused makes mistakes of entries for metrics that the HPA does not have: most likely a name is
// misspelled, and without its entry the metric would mean something else.
func (p *parser) unused(annotation string, entries []entry, known []string) {
	for _, e := range entries {
		if slices.Contains(known, e.key) {
			continue
		}
		if len(p.hpa.Mistakes) == maxMistakes {
			return // before it looks for the nearest name of each
		}
		remedy := "use the name of one of its metrics, or remove the entry"
		if similar := near.Nearest(e.key, known); similar != "" {
			remedy = fmt.Sprintf("did you mean %s?", similar)
		}
		p.mistake(BadAnnotation, remedy, "%s: the HorizontalPodAutoscaler has no metric %s of type Pods, Object or External",
			p.at(annotation, e.line), sample.Quotable(e.key))
	}
}

func find(entries []entry, key string) (entry, bool) {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.key == key })
	if i < 0 {
		return entry{}, false
	}
	return entries[i], true
}

func (p *parser) metric(of identified) {
	index, kind, id := of.index, of.kind, of.id
	e, declared := find(p.targets, id.Name)
	undeclared := kind == autoscalingv2.ExternalMetricSourceType && !declared && !p.isRemote()
	if sizeOf(id, of.object) > maxMetric {
		err := newError(OverLimit, "shorten it",
			"the name, selector and object of spec.metrics[%d] of %s take more than %d KiB", index, p.subject(), maxMetric>>10)
		m := Metric{Index: index, Type: kind, Name: cut(id.Name, maxName), unrequested: true, Undeclared: undeclared}
		if undeclared {
			m.Err = err
		} else {
			p.add(err)
			m.Type = autoscalingv2.PodsMetricSourceType // so that it needs no target of its own
		}
		p.hpa.Metrics = append(p.hpa.Metrics, m)
		return
	}
	m := Metric{Index: index, Type: kind, Name: id.Name, Object: of.object, Undeclared: undeclared}
	m.Definition = Definition{Window: cmp.Or(p.window, DefaultWindow), Ask: p.ask, Backend: p.backend}
	m.ownWindow = p.window != 0
	fail := func(cause Cause, remedy, format string, args ...any) {
		if m.Err == nil {
			m.Err = newError(cause, remedy, format, args...)
		}
	}

	if kind == autoscalingv2.ExternalMetricSourceType && slices.Contains(notExternal, strings.ToLower(id.Name)) {
		fail(BadMetric, "give it another name, with an entry in "+kubeapi.QueriesAnnotation,
			"no request can ask for external metric %s of %s: Kubernetes takes the name for a part of the namespace",
			id.Name, p.subject())
	}
	var err error
	if m.Selector, m.selector, err = requirements(id.Selector); err != nil {
		m.unrequested = true
		fail(BadMetric, "correct it", "metric.selector of spec.metrics[%d] of %s: %v", index, p.subject(), err)
	}
	if e, ok := find(p.queries, id.Name); ok {
		m.Expression, m.Window = e.value, 0
		m.ExpressionAt = p.at(kubeapi.QueriesAnnotation, e.line)
	}
	switch {
	case undeclared:
		unknown := m.Err == nil
		fail(BadMetric, fmt.Sprintf("add the line %q", id.Name+": service/NAME:PORT"),
			"annotation %s of %s does not say which pods have external metric %s", kubeapi.TargetsAnnotation, p.subject(),
			id.Name)
		if unknown {
			m.unsourced = m.Err
		}
	case declared && kind == autoscalingv2.PodsMetricSourceType:
		if slices.Contains(p.targeted, id.Name) {
			break // the entry is for another metric of that name
		}
		fail(BadAnnotation, "remove the entry, or use type Object",
			"%s: %s is a metric of type Pods, which is about the pods of the scale target",
			p.at(kubeapi.TargetsAnnotation, e.line), id.Name)
	case declared:
		if m.Service, m.ServicePort, err = parseTarget(e.value); err != nil {
			fail(BadAnnotation, "", "%s: %v", p.at(kubeapi.TargetsAnnotation, e.line), err)
		} else if m.Ask.Port != "" && !p.portUsed {
			fail(BadAnnotation, "remove "+kubeapi.PortAnnotation, "%s gives a port, and so does %s",
				p.at(kubeapi.TargetsAnnotation, e.line), kubeapi.PortAnnotation)
		}
		m.Ask.Port = "" // it is for metrics without an entry
	}
	p.hpa.Metrics = append(p.hpa.Metrics, m)
}

// sizeOf returns the size of a metric: the bytes of its texts, and what each requirement of its
// selector and each further value take in memory.
func sizeOf(id autoscalingv2.MetricIdentifier, object Reference) int {
	const requirement, further = 64, 16
	n := len(id.Name) + sizeOfReference(object)
	if id.Selector == nil {
		return n
	}
	for key, value := range id.Selector.MatchLabels {
		n += len(key) + len(value) + requirement
	}
	for _, r := range id.Selector.MatchExpressions {
		n += len(r.Key) + len(r.Operator) + requirement
		for _, value := range r.Values {
			n += len(value) + further
		}
	}
	return n
}

func sizeOfReference(r Reference) int { return len(r.APIVersion) + len(r.Kind) + len(r.Name) }

// parseTarget parses service/NAME:PORT.
func parseTarget(s string) (service, port string, err error) {
	name, port, hasPort := strings.Cut(strings.TrimPrefix(s, "service/"), ":")
	remedy := "use service/NAME:PORT with the name of a Service and the name or number of one of its ports"
	switch {
	case !strings.HasPrefix(s, "service/"):
		return "", "", fmt.Errorf("%q is not a Service: %s", sample.Quotable(s), remedy)
	case strings.ContainsAny(name, "/."):
		return "", "", fmt.Errorf("%q is not the name of a Service in the same namespace: %s", sample.Quotable(name), remedy)
	case len(validation.IsDNS1035Label(name)) > 0:
		return "", "", fmt.Errorf("%q cannot be the name of a Service: %s", sample.Quotable(name), remedy)
	case !hasPort || sample.CheckPort(port) != nil && len(validation.IsDNS1123Label(port)) > 0:
		return "", "", fmt.Errorf("%q has no valid port: %s", sample.Quotable(s), remedy)
	}
	return name, port, nil
}

// requirements returns s in a normal form, and as canonical text.
func requirements(s *metav1.LabelSelector) ([]metav1.LabelSelectorRequirement, string, error) {
	if s == nil {
		return nil, "", nil
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, "", err
	}
	var all []metav1.LabelSelectorRequirement
	for key, value := range s.MatchLabels {
		all = append(all, metav1.LabelSelectorRequirement{
			Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{value},
		})
	}
	for _, r := range s.MatchExpressions {
		all = append(all, metav1.LabelSelectorRequirement{
			Key: r.Key, Operator: r.Operator, Values: slices.Compact(slices.Sorted(slices.Values(r.Values))),
		})
	}
	slices.SortFunc(all, func(a, b metav1.LabelSelectorRequirement) int { return strings.Compare(a.String(), b.String()) })
	return all, canonical(selector), nil
}

// canonical returns s as text that does not depend on the order of its requirements and of their values, nor on
// repeated values: a parsed selector has each value once.
func canonical(s labels.Selector) string {
	all, _ := s.Requirements()
	texts := make([]string, len(all))
	for i, r := range all {
		if once, err := labels.NewRequirement(r.Key(), r.Operator(), r.Values().List()); err == nil {
			r = *once
		}
		texts[i] = r.String()
	}
	slices.Sort(texts)
	return strings.Join(texts, ",")
}
