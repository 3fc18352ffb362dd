package adminfile

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/sample"
)

// Metric is a metric of type Object. One expression over the series of all namespaces has the values of all objects of
// a resource, and two labels of its result say to which object a value belongs.
type Metric struct {
	// Name is the name that autoscalers use for the metric.
	Name string `yaml:"name"`
	// Preset is the name of a controller whose metrics are known. It fills in Name, Resource, Path, Query, NamespaceLabel
	// and NameLabel where they are empty.
	Preset string `yaml:"preset"`
	// Resource is that of the objects, such as ingresses.networking.k8s.io.
	Resource string `yaml:"resource"`
	// Service is service/NAMESPACE/NAME:PORT. Its pods are scraped. It excludes Backend.
	Service string `yaml:"service"`
	// Path is where the pods are scraped. Default: as their annotations say, or /metrics.
	Path string `yaml:"path"`
	// Scheme is http or https. Default: as their annotations say, or http.
	Scheme string `yaml:"scheme"`
	// Backend is the name of the backend that has the series.
	Backend string `yaml:"backend"`
	// Query is PromQL. It sees the series of all namespaces.
	Query string `yaml:"query"`
	// NamespaceLabel is the label of the result that has the namespace of the object.
	NamespaceLabel string `yaml:"namespaceLabel"`
	// NameLabel is the label of the result that has the name of the object.
	NameLabel string `yaml:"nameLabel"`
	// Missing says what an object without a series gets: "error", the default, or "zero", the value 0 if other objects
	// have a series.
	Missing string `yaml:"missing" jsonschema:"enum=error,enum=zero"`
}

// The values of Metric.Missing.
const (
	MissingError = "error"
	MissingZero  = "zero"
)

// MaxMetrics is how many metrics a file may name. A page with series of all of them is read for each.
const MaxMetrics = 20

var (
	metricName   = regexp.MustCompile(`^[a-zA-Z_]([-a-zA-Z0-9_.:]{0,251}[a-zA-Z0-9_])?$`)
	resourceName = regexp.MustCompile(`^[a-z][a-z0-9]*(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelName    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// mistakesInMetrics completes the metrics, and returns every mistake in them. backends are the names of those.
func (f *File) mistakesInMetrics(backends []string, at lines) (errs []error) {
	if len(f.Metrics) > MaxMetrics {
		errs = append(errs, at.mistake("metrics", MaxMetrics, "metrics: there are %d: at most %d are allowed", len(f.Metrics),
			MaxMetrics))
	}
	known := map[[2]string]bool{}
	for i := range f.Metrics {
		m := &f.Metrics[i]
		problem := m.complete()
		subject := fmt.Sprintf("metric %q", m.Name)
		if m.Name == "" {
			subject = fmt.Sprintf("metric number %d", i+1)
		}
		wrong := func(format string, args ...any) {
			errs = append(errs, at.mistake("metrics", i, "%s: "+format, append([]any{subject}, args...)...))
		}
		if problem != "" {
			wrong("%s", problem)
			continue // the other fields may be those of the preset
		}
		for _, text := range m.mistakes(backends) {
			wrong("%s", text)
		}
		key := [2]string{m.Name, m.Resource}
		if known[key] {
			wrong("two metrics of %s have this name: rename one", m.Resource)
		}
		known[key] = true
	}
	return errs
}

// mistakes returns the mistakes in m, which is complete.
func (m *Metric) mistakes(backends []string) (texts []string) {
	wrong := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	switch {
	case m.Name == "":
		wrong("it has no name: add the one by which autoscalers refer to it")
	case !metricName.MatchString(m.Name):
		wrong("the name is not valid: use at most 253 letters, digits, -, _, . and :, the first one a letter or _, the " +
			"last one a letter, a digit or _")
	}
	switch {
	case m.Resource == "":
		wrong("it has no resource: add that of its objects, such as ingresses.networking.k8s.io")
	case !resourceName.MatchString(m.Resource):
		wrong("%q is not a resource: write the plural in lower case and the group, as kubectl api-resources lists them, "+
			"such as ingresses.networking.k8s.io", m.Resource)
	case m.Resource == "pods" || m.Resource == "namespaces":
		wrong("metrics of %s cannot be named here: in the autoscalers, use type Pods, or an entry in "+
			"metrics-server/queries", m.Resource)
	case !strings.Contains(m.Resource, ".") && m.Resource != "services":
		if similar := didYouMean(m.Resource, presetResources()); similar != "" {
			wrong("the resource %q has no group%s", m.Resource, similar)
		}
	}
	switch _, _, _, err := ParseService(m.Service); {
	case m.Service == "" && m.Backend == "":
		wrong("it has neither service nor backend: add service: service/NAMESPACE/NAME:PORT to scrape the pods of a Service")
	case m.Service != "" && m.Backend != "":
		wrong("it has both service and backend: remove one of them")
	case m.Service != "" && err != nil:
		wrong("%v", err)
	case m.Backend != "" && !slices.Contains(backends, m.Backend):
		wrong("there is no backend %q%s", m.Backend, didYouMean(m.Backend, backends))
	}
	if m.Path != "" {
		if err := sample.CheckPath(m.Path); err != nil {
			wrong("%v", err)
		}
	}
	if m.Scheme != "" {
		if err := sample.CheckScheme(m.Scheme); err != nil {
			wrong("%v", err)
		}
	}
	if m.Backend != "" && (m.Path != "" || m.Scheme != "") {
		wrong("path and scheme are for scraped pods, not for a backend: remove them")
	}
	if m.Missing != MissingError && m.Missing != MissingZero {
		wrong("missing is %q: use %s or %s", m.Missing, MissingError, MissingZero)
	}
	return append(texts, m.mistakesInQuery()...)
}

// mistakesInQuery returns what is wrong with the query and its labels.
func (m *Metric) mistakesInQuery() (texts []string) {
	by := []string{m.NamespaceLabel, m.NameLabel}
	for i, field := range []string{"namespaceLabel", "nameLabel"} {
		switch label := by[i]; {
		case label == "":
			texts = append(texts, fmt.Sprintf("it has no %s: add the label of the result that has the object's %s", field,
				strings.TrimSuffix(field, "Label")))
		case !labelName.MatchString(label):
			texts = append(texts, fmt.Sprintf("%s: %q is not the name of a label", field, label))
		}
	}
	if by[0] == by[1] && by[0] != "" {
		texts = append(texts, "namespaceLabel and nameLabel are the same: name two labels")
	}
	if m.Query == "" {
		return append(texts, "it has no query: write PromQL, such as sum by (exported_namespace, ingress) (rate(X[1m]))")
	}
	if len(texts) > 0 {
		return texts
	}
	d := appmetrics.Definition{Name: m.Name, Expression: m.Query, Shape: appmetrics.Grouped, By: by}
	var err error
	if m.Backend != "" {
		_, err = appmetrics.CompileRemote(d, "pod")
	} else {
		_, err = appmetrics.Compile(d)
	}
	if err != nil {
		texts = append(texts, err.Error())
	}
	return texts
}

// ParseService parses service/NAMESPACE/NAME:PORT.
func ParseService(s string) (namespace, name, port string, err error) {
	at, port, _ := strings.Cut(s, ":")
	parts := strings.Split(at, "/")
	if len(parts) != 3 || parts[0] != "service" || !dnsLabel.MatchString(parts[1]) || !dnsLabel.MatchString(parts[2]) ||
		sample.CheckPort(port) != nil && !dnsLabel.MatchString(port) {
		return "", "", "", fmt.Errorf("%q is not a Service: write service/NAMESPACE/NAME:PORT with the name or number of "+
			"one of its ports", sample.Quotable(s))
	}
	return parts[1], parts[2], port, nil
}

// complete fills in what the preset says and the defaults, and returns what is wrong with the preset.
func (m *Metric) complete() (problem string) {
	m.Missing = cmp.Or(m.Missing, MissingError)
	if m.Preset == "" {
		return ""
	}
	all, ok := presets[m.Preset]
	if !ok {
		names := presetNames()
		return fmt.Sprintf("there is no preset %q%s", m.Preset,
			cmp.Or(didYouMean(m.Preset, names), ": use "+strings.Join(names, " or ")))
	}
	var resources []string
	for _, p := range all {
		resources = append(resources, p.Resource)
	}
	i := max(0, slices.Index(resources, m.Resource))
	if m.Resource != "" && resources[i] != m.Resource && m.Query == "" {
		return fmt.Sprintf("the preset %s has no metric of %s: use %s", m.Preset, m.Resource, strings.Join(resources, " or "))
	}
	p, period := &all[i], "1m" // of four scrapes
	if m.Backend != "" {
		period = "2m" // others scrape less often
	} else {
		m.Path = cmp.Or(m.Path, p.Path)
	}
	m.Name = cmp.Or(m.Name, "requests_per_second")
	m.Resource = cmp.Or(m.Resource, p.Resource)
	m.NamespaceLabel = cmp.Or(m.NamespaceLabel, p.NamespaceLabel)
	m.NameLabel = cmp.Or(m.NameLabel, p.NameLabel)
	m.Query = cmp.Or(m.Query, strings.NewReplacer(
		"NAMESPACE", m.NamespaceLabel, "NAME", m.NameLabel, "PERIOD", period).Replace(p.Query))
	return ""
}
