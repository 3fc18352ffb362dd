package adapter

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	prommodel "github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/prometheus-adapter/pkg/client"
	"sigs.k8s.io/prometheus-adapter/pkg/config"
	"sigs.k8s.io/prometheus-adapter/pkg/naming"
	"sigs.k8s.io/yaml"
)

// examples is where the examples of pkg/adapterconfig are.
const examples = "../../pkg/adapterconfig/testdata"

// example is an element of cases.yaml.
type example struct {
	Config  string   `json:"config"`
	Series  []string `json:"series"`
	Queries []struct {
		Metric    string   `json:"metric"`
		Resource  string   `json:"resource"`
		Group     string   `json:"group"`
		Namespace string   `json:"namespace"`
		Names     []string `json:"names"`
		Selector  string   `json:"selector"`
		External  bool     `json:"external"`
		Want      string   `json:"want"`
		Error     string   `json:"error"`
		Differs   string   `json:"differs"`
	} `json:"queries"`
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mapper knows the resources of the examples. As in a cluster, it prefers those that Kubernetes itself has.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for group, kinds := range map[string][]string{
		"":                    {"Pod", "Service", "Namespace", "Node", "PersistentVolumeClaim"},
		"apps":                {"Deployment", "StatefulSet"},
		"networking.k8s.io":   {"Ingress"},
		"argoproj.io":         {"Rollout"},
		"data.example":        {"Dataset"},
		"serving.knative.dev": {"Service"},
		"apps.kruise.io":      {"StatefulSet", "CloneSet"},
		"config.openshift.io": {"Ingress"},
	} {
		for _, kind := range kinds {
			m.Add(schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}, meta.RESTScopeNamespace)
		}
	}
	p := meta.PriorityRESTMapper{Delegate: m}
	for _, group := range []string{"", "apps", "networking.k8s.io"} {
		p.ResourcePriority = append(p.ResourcePriority, schema.GroupVersionResource{
			Group: group, Version: meta.AnyVersion, Resource: meta.AnyResource,
		})
	}
	return p
}

// series returns those of all that a seriesQuery selects, as Prometheus would.
func series(t *testing.T, query client.Selector, all []string) []client.Series {
	t.Helper()
	p := parser.NewParser(parser.Options{})
	matchers, err := p.ParseMetricSelector(string(query))
	if err != nil {
		t.Fatal(err)
	}
	var selected []client.Series
	for _, one := range all {
		has, err := p.ParseMetric(one)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(matchers, func(m *promlabels.Matcher) bool { return !m.Matches(has.Get(m.Name)) }) {
			continue
		}
		s := client.Series{Name: has.Get("__name__"), Labels: prommodel.LabelSet{}}
		has.Range(func(l promlabels.Label) {
			if l.Name != "__name__" {
				s.Labels[prommodel.LabelName(l.Name)] = prommodel.LabelValue(l.Value)
			}
		})
		selected = append(selected, s)
	}
	return selected
}

// TestConfig checks that the queries which pkg/adapterconfig is tested with are those of prometheus-adapter. Its
// registries are not exported: what they do, take the last series that has the name, is done here.
func TestConfig(t *testing.T) {
	var all []example
	if err := yaml.UnmarshalStrict(read(t, "cases.yaml"), &all); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, e := range all {
		t.Run(e.Config, func(t *testing.T) {
			c, err := config.FromYAML(read(t, e.Config))
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range e.Queries {
				rules := c.Rules
				if q.External {
					rules = c.ExternalRules
				}
				namers, err := naming.NamersFromConfig(rules, mapper())
				if err != nil {
					t.Fatal(err)
				}
				selector, err := labels.Parse(q.Selector)
				if err != nil {
					t.Fatal(err)
				}
				resource := schema.GroupResource{Group: q.Group, Resource: q.Resource}
				var got client.Selector
				for _, n := range namers {
					for _, s := range n.FilterSeries(series(t, n.Selector(), e.Series)) {
						if name, err := n.MetricNameForSeries(s); err != nil || name != q.Metric {
							continue
						}
						if q.External {
							got, err = n.QueryForExternalSeries(s.Name, q.Namespace, selector)
						} else if of, _ := n.ResourcesForSeries(s); slices.Contains(of, resource) {
							got, err = n.QueryForSeries(s.Name, resource, q.Namespace, selector, q.Names...)
						}
						if err != nil {
							t.Logf("%s: %v", q.Metric, err)
						}
					}
				}
				if (string(got) == q.Want) != (q.Differs == "") || (q.Want == "") == (q.Error == "") {
					t.Errorf("%s with selector %q:\n%s, want\n%s (%s)", q.Metric, q.Selector, got, q.Want, q.Differs)
				}
				compared++
			}
		})
	}
	if compared < 30 {
		t.Errorf("%d queries were compared, and there are more", compared)
	}
}

// TestRefused checks that prometheus-adapter, too, refuses what pkg/adapterconfig says that it does.
func TestRefused(t *testing.T) {
	const rule = "rules:\n- seriesQuery: up\n  metricsQuery: up\n  resources: {template: <<.Resource>>}\n"
	for name, text := range map[string]string{
		"unknown key":        rule + "  interval: 1m\n",
		"the same key":       rule + "  seriesQuery: up\n",
		"unknown section":    rule + "prometheus: {}\n",
		"chart's values":     "rules: {custom: []}",
		"two filters in one": rule + "  seriesFilters: [{is: a, isNot: b}]\n",
		"no filter":          rule + "  seriesFilters: [{}]\n",
		"bad filter":         rule + "  seriesFilters: [{is: '('}]\n",
		"bad name":           rule + "  name: {matches: '('}\n",
		"two groups":         rule + "  name: {matches: '(u)(p)'}\n",
		"bad query":          strings.Replace(rule, "metricsQuery: up", "metricsQuery: <<up", 1),
		"bad template":       strings.Replace(rule, "<<.Resource>>", "<<.Kind>>", 1),
		"no resource":        strings.Replace(rule, "<<.Resource>>", "pod", 1),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.FromYAML([]byte(text))
			if err == nil {
				_, err = naming.NamersFromConfig(c.Rules, mapper())
			}
			if err == nil {
				t.Error("it is accepted")
			}
		})
	}
}
