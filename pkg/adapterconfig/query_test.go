package adapterconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/labels"
)

// example is an element of testdata/cases.yaml, which hack/adapter reads, too.
type example struct {
	Config  string
	Series  []string
	Queries []struct {
		Metric, Resource, Group, Namespace string
		Names                              []string
		Selector                           string
		External                           bool
		Want, Error                        string
		Differs                            string // why prometheus-adapter sends something else
	}
}

func examples(t *testing.T) []example {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(file(t, "cases.yaml")))
	decoder.KnownFields(true)
	var all []example
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("%d examples, want at least 10", len(all))
	}
	return all
}

func file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func selector(t *testing.T, text string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// discover evaluates the queries for names over some series, as a Prometheus would.
func discover(t *testing.T, series []string) Discover {
	t.Helper()
	return func(_ *Rule, query string) (names []string, err error) {
		expr, err := promQL.ParseExpr(query)
		if err != nil {
			return nil, err
		}
		group, ok := expr.(*parser.AggregateExpr)
		if !ok || group.Op != parser.GROUP || !slices.Equal(group.Grouping, []string{"__name__"}) {
			t.Fatalf("%s is not by name", expr)
		}
		matchers := group.Expr.(*parser.VectorSelector).LabelMatchers
		for _, one := range series {
			has, err := promQL.ParseMetric(one)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(matchers, func(m *promlabels.Matcher) bool { return !m.Matches(has.Get(m.Name)) }) {
				names = append(names, has.Get("__name__"))
			}
		}
		return names, nil
	}
}

// singular returns a resource by its plural name.
func resource(group, plural string) Resource {
	s := strings.TrimSuffix(plural, "s")
	if plural == "ingresses" {
		s = "ingress"
	}
	return Resource{Group: group, Plural: plural, Singular: s}
}

func TestQuery(t *testing.T) {
	for _, e := range examples(t) {
		t.Run(e.Config, func(t *testing.T) {
			c, _ := Parse(file(t, e.Config))
			if c == nil {
				t.Fatal("it cannot be read")
			}
			for _, q := range e.Queries {
				var got string
				var err error
				if q.External {
					got, err = c.QueryExternal(q.Metric, q.Namespace, selector(t, q.Selector), discover(t, e.Series))
				} else {
					got, _, err = c.Query(Request{
						Metric: q.Metric, Namespace: q.Namespace, Resource: resource(q.Group, q.Resource), Names: q.Names,
						Selector: selector(t, q.Selector),
					}, discover(t, e.Series))
				}
				switch {
				case q.Error != "" && (err == nil || !strings.Contains(err.Error(), q.Error)):
					t.Errorf("%s: %q, %v, want the error %s", q.Metric, got, err, q.Error)
				case q.Error == "" && err != nil:
					t.Errorf("%s has no query: %v", q.Metric, err)
				case got != q.Want:
					t.Errorf("%s:\n%s, want\n%s", q.Metric, got, q.Want)
				}
			}
		})
	}
}

// TestAllObjects checks queries without names of objects.
func TestAllObjects(t *testing.T) {
	for name, tt := range map[string]struct {
		config  string
		request Request
		want    string
		labels  Labels
	}{
		"pods": {
			"http.yaml",
			Request{Metric: "orders_per_second", Namespace: "shop", Resource: resource("", "pods")},
			`sum(rate(shop_orders_total{namespace="shop",pod!=""}[3m])) by (pod)`,
			Labels{"pod", "namespace"},
		},
		"values by name": {
			"workers.yaml",
			Request{
				Metric: "ingress_requests_rate", Namespace: "shop", Resource: resource("networking.k8s.io", "ingresses"),
			},
			`sum(rate(ingress_requests{ingress=~".+",exported_namespace="shop"}[2m])) by (ingress)`,
			Labels{"ingress", "exported_namespace"},
		},
		"renamed label": {
			"gpu.yaml",
			Request{Metric: "GPU_UTIL_AVG", Namespace: "ai", Resource: resource("", "pods")},
			`ceil(avg_over_time(GPU_UTIL{exported_namespace="ai",exported_pod!=""}[60s]))`,
			Labels{"exported_pod", "exported_namespace"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := Parse(file(t, tt.config))
			got, of, err := c.Query(tt.request, unexpected(t))
			if err != nil || got != tt.want || of != tt.labels {
				t.Errorf("%s by %s, %v, want\n%s", got, of, err, tt.want)
			}
		})
	}
}

// TestMixed checks which queries need the names of objects.
func TestMixed(t *testing.T) {
	q := Request{Metric: "hits", Namespace: "shop", Resource: resource("", "pods")}
	for query, want := range map[string]bool{
		`<<.Series>>{<<.LabelMatchers>>}`:                                                            false,
		`sum(hits{<<.LabelMatchers>>}) by (<<.GroupBy>>)`:                                            false,
		`sum(hits{<<.LabelMatchers>>}) by (zone, pod)`:                                               false,
		`sum(hits{<<.LabelMatchers>>}) without (instance)`:                                           false,
		`a{<<.LabelMatchers>>} / b{<<.LabelMatchers>>}`:                                              false,
		`a{<<.LabelMatchers>>} / on (pod) b{<<.LabelMatchers>>}`:                                     false,
		`a{<<.LabelMatchers>>} * on (node) group_left () sum(b) by (node)`:                           false,
		`a * on (node) group_left () b{<<.LabelMatchers>>}`:                                          true,
		`a * on (node) group_right () b{<<.LabelMatchers>>}`:                                         false,
		`a{<<.LabelMatchers>>} and on (node) b`:                                                      false,
		`a unless on (node) b{<<.LabelMatchers>>}`:                                                   true,
		`a{<<.LabelMatchers>>} or on (node) b`:                                                       true,
		`(a{<<.LabelMatchers>>}) > on () b`:                                                          true,
		`a{<<.LabelMatchers>>} > 3`:                                                                  false,
		`max_over_time(rate(hits{<<.LabelMatchers>>}[1m])[5m:])`:                                     false,
		`sum(hits{state="active"}) by (namespace)`:                                                   false,
		`count(hits{state="active"})`:                                                                false,
		`sum(hits{<<.LabelMatchers>>})`:                                                              true,
		`sum(hits{<<.LabelMatchers>>}) by (namespace)`:                                               true,
		`sum(hits{<<.LabelMatchers>>}) without (pod)`:                                                true,
		`topk(3, hits{<<.LabelMatchers>>})`:                                                          true,
		`topk(3, hits{<<.LabelMatchers>>}) by (pod)`:                                                 false,
		`hits{<<.LabelMatchers>>} / scalar(sum(hits{<<.LabelMatchers>>}))`:                           true,
		`hits{<<.LabelMatchers>>} / scalar(sum(hits))`:                                               false,
		`hits{<<.LabelMatchers>>} or absent(hits{<<.LabelMatchers>>})`:                               true,
		`a{<<.LabelMatchers>>} / ignoring (pod) b{<<.LabelMatchers>>}`:                               true,
		`histogram_quantile(0.9, sum(rate(h{<<.LabelMatchers>>}[1m])) by (le))`:                      true,
		`sum(hits{pod=~"<<index .LabelValuesByName "pod">>"}) by (pod)`:                              false,
		`hits{pod=~"<<.LabelValuesByName.pod>>"} / on (pod) hits{pod=~"<<.LabelValuesByName.pod>>"}`: false,
		`hits{pod="<<.LabelValuesByName.pod>>"}`:                                                     true,
		`hits{pod=~"<<.LabelValuesByName.pod>>-.*"}`:                                                 true,
		`label_replace(hits, "pod", "<<.LabelValuesByName.pod>>", "", "")`:                           true,
		`sum(hits{pod=~"<<index .LabelValuesByName "pod">>"}) by (app)`:                              true,
	} {
		c := parse(t, "rules:\n- seriesQuery: hits\n  "+podLabels+"\n  metricsQuery: '"+query+"'\n")
		named := q
		named.Names = []string{"a", "b"}
		if _, _, err := c.Query(named, unexpected(t)); err != nil {
			t.Errorf("%s with names: %v", query, err)
		}
		if _, _, err := c.Query(q, unexpected(t)); errors.Is(err, ErrMixed) != want {
			t.Errorf("%s: %v, want mixed %v", query, err, want)
		}
	}
}

// unexpected fails if something is discovered.
func unexpected(t *testing.T) Discover {
	t.Helper()
	return func(r *Rule, _ string) ([]string, error) {
		t.Errorf("%s is discovered, although its series are known", r.Path)
		return nil, nil
	}
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, problems := Parse([]byte(text))
	for i := range problems {
		if problems[i].LeftOut {
			t.Errorf("unexpected problem: %v", &problems[i])
		}
	}
	if c == nil {
		t.FailNow()
	}
	return c
}

const podLabels = `resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}`

// TestHostileSeries checks that the name of a discovered series, which whoever exposes metrics chooses, is not put into
// a query if it is more than a name there.
func TestHostileSeries(t *testing.T) {
	const hostile = `up) by (pod) * 0 + on () group_left () sum(secret{namespace="victim"}) or sum(up`
	c := parse(t, `
rules:
- seriesQuery: '{__name__=~".+",pod!=""}'
  `+podLabels+`
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: '{__name__=~".+",pod!=""}'
  `+podLabels+`
  name: {matches: "^up.*$", as: load}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: '{__name__=~"http[.]requests|http[.]errors",pod!=""}'
  `+podLabels+`
  name: {matches: "^http.(.*)$"}
  metricsQuery: sum({"<<.Series>>",<<.LabelMatchers>>}) by (<<.GroupBy>>)
externalRules:
- seriesQuery: '{__name__=~"^.+"}'
  `+podLabels+`
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>})
`)
	find := func(names ...string) Discover {
		return func(*Rule, string) ([]string, error) { return names, nil }
	}
	of := func(metric string) Request {
		return Request{Metric: metric, Namespace: "me", Resource: resource("", "pods")}
	}
	for _, name := range []string{hostile, "http.requests", `a"b`, "a b", "0", "größe", ""} {
		query, _, err := c.Query(of(name), find(name))
		if query != "" {
			t.Errorf("%q became %s", name, query)
		}
		wantText(t, err, "rules[0] (line 3)", strconv.Quote(name), "rename the series")
		if query, err = c.QueryExternal(name, "me", nil, find(name)); query != "" {
			t.Errorf("%q became %s", name, query)
		}
		wantText(t, err, "externalRules[0] (line 15)", "rename the series")
	}
	// Such a series does not take the name away from another one.
	got, _, err := c.Query(of("load"), find(hostile, "up"))
	if want := `max(up{namespace="me",pod!=""}) by (pod)`; err != nil || got != want {
		t.Errorf("%q, %v, want %s", got, err, want)
	}
	// An administrator can name any series.
	got, _, err = c.Query(of("errors"), find("http.errors"))
	if want := `sum({"http.errors",namespace="me",pod!=""}) by (pod)`; err != nil || got != want {
		t.Errorf("%q, %v, want %s", got, err, want)
	}
}

// TestSameName checks what happens if several series have one name in the API.
func TestSameName(t *testing.T) {
	c := parse(t, `
rules:
- seriesQuery: '{__name__=~"old|older",pod!=""}'
  `+podLabels+`
  name: {as: rate}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
- seriesQuery: new{pod!=""}
  `+podLabels+`
  name: {as: rate}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
`)
	q := Request{Metric: "rate", Namespace: "shop", Resource: resource("", "pods"), Names: []string{"a"}}
	const here, other = `{namespace="shop",pod="a"} `, `{namespace="other",pod="a"} `
	for _, tt := range []struct{ series, want, err string }{
		{series: `old{pod="a"}`, want: `old{namespace="shop",pod="a"}`},
		{series: `old{pod="a"} old{pod="b"} new`, want: `old{namespace="shop",pod="a"}`},
		{
			series: `old{pod="a"} older{pod="a"}`,
			err:    `rules[0] (line 3) gives more than one series the name "rate", and namespace "shop" has none of them`,
		},
		{
			series: `old` + here + `older` + here,
			err:    `rules[0] (line 3) gives more than one series the name "rate": make seriesQuery`,
		},
		{series: `old` + here + `older` + other, want: `old{namespace="shop",pod="a"}`},
		{series: `other{pod="a"}`, err: ErrNotFound.Error()},
		// Several rules have the metric. The second one comes first.
		{series: `new` + here + `old` + here + `older` + here, want: `new{namespace="shop",pod="a"}`},
		{series: `new` + other + `old` + here, want: `old{namespace="shop",pod="a"}`},
		{series: `new` + other + `old` + here + `older` + other, want: `old{namespace="shop",pod="a"}`},
		{series: `new` + here + `old` + other + `older` + other, want: `new{namespace="shop",pod="a"}`},
		{
			series: `new` + other + `old` + other + `older` + other,
			err:    `rules[1] (line 7) and other rules give series the name "rate", and namespace "shop" has none`,
		},
	} {
		got, _, err := c.Query(q, discover(t, strings.Fields(tt.series)))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %q, %v, want %s", tt.series, got, err, tt.err)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.series, got, err, tt.want)
		}
	}
	// A query that reads all namespaces does not become another one.
	c = parse(t, `
rules:
- seriesQuery: old{pod!=""}
  `+podLabels+`
  name: {as: rate}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>}
- seriesQuery: new{pod!=""}
  `+podLabels+`
  name: {as: rate}
  metricsQuery: sum(<<.Series>>) by (<<.GroupBy>>)
`)
	got, _, err := c.Query(q, discover(t, []string{`new{namespace="other",pod="a"}`, `old{namespace="shop",pod="a"}`}))
	if want := "sum(new) by (pod)"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	failed := errors.New("the backend is down")
	if _, _, err := c.Query(q, func(*Rule, string) ([]string, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Errorf("%v, want %v", err, failed)
	}
}

// TestFewDiscoveries checks that series are discovered for a single namespace only if those of all namespaces do not
// decide which rule applies: there can be very many namespaces.
func TestFewDiscoveries(t *testing.T) {
	rule := "- seriesQuery: '{__name__=~\"%s_.*\",pod!=\"\"}'\n  " + podLabels + "\n  name: {matches: '_(.*)$'}\n" +
		"  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)\n"
	c := parse(t, "rules:\n"+fmt.Sprintf(rule, "a")+fmt.Sprintf(rule, "b")+fmt.Sprintf(rule, "c"))
	q := Request{Metric: "hits", Namespace: "shop", Resource: resource("", "pods")}
	const want = `sum(b_hits{namespace="shop",pod!=""}) by (pod)`
	query, _, err := c.Query(q, func(r *Rule, query string) ([]string, error) {
		switch {
		case strings.Contains(query, "shop"):
			t.Errorf("needless query for the names in a namespace: %s", query)
		case r.Path == "rules[1]":
			return []string{"b_hits"}, nil
		}
		return nil, nil
	})
	if err != nil || query != want {
		t.Errorf("%q, %v, want %q", query, err, want)
	}

	// The series of an earlier rule are not known, so the rule applies only if it has series in the namespace.
	failed := errors.New("too many names")
	for _, here := range [][]string{{"b_hits"}, nil} {
		query, _, err := c.Query(q, func(r *Rule, query string) ([]string, error) {
			switch {
			case r.Path == "rules[0]":
				return nil, failed
			case r.Path == "rules[2]":
				return nil, nil
			case strings.Contains(query, "shop"):
				return here, nil
			}
			return []string{"b_hits"}, nil
		})
		switch {
		case here == nil && !errors.Is(err, failed):
			t.Errorf("%q, %v, want the error %v", query, err, failed)
		case here != nil && (err != nil || query != want):
			t.Errorf("%q, %v, want %q", query, err, want)
		}
	}

	// The names of all rules are asked for at once.
	asked := map[string]bool{}
	_, _, err = c.Query(q, func(r *Rule, _ string) ([]string, error) {
		asked[r.Path] = true
		return nil, failed
	})
	if !errors.Is(err, failed) || len(asked) != 3 {
		t.Errorf("%v, and %d rules are discovered, want %v and 3", err, len(asked), failed)
	}
}

// TestLeftOutRule checks that a metric of a rule which is left out does not get the meaning of another rule or of its
// name, if it is known that the rule has it.
func TestLeftOutRule(t *testing.T) {
	const first = `
rules:
- seriesQuery: '{__name__=~".+_total",pod!=""}'
  ` + podLabels + `
  name: {matches: "^(.*)_total$"}
  metricsQuery: sum(rate(<<.Series>>{<<.LabelMatchers>>}[5m])) by (<<.GroupBy>>)
`
	q := Request{Metric: "hits", Namespace: "shop", Resource: resource("", "pods")}
	names := func(*Rule, string) ([]string, error) { return []string{"hits", "hits_total"}, nil }
	const series, byPod, named = "- seriesQuery: hits_total\n", "  " + podLabels + "\n", "  name: {as: hits}\n"
	const query = "  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)\n"
	for name, tt := range map[string]struct {
		rule   string
		served bool // by the first rule
	}{
		"a query":                    {series + byPod + named + "  metricsQuery: max(\n", false},
		"no query":                   {series + byPod + named, false},
		"a pattern":                  {"- seriesQuery: '{__name__=~\"hits_.*\"}'\n" + byPod + named, false},
		"an unknown field":           {series + byPod + named + query + "  a: b\n", false},
		"of other objects":           {series + "  resources: {overrides: {node: {resource: node}}}\n" + named, true},
		"another metric":             {series + byPod + "  name: {as: misses}\n", true},
		"a mistake in name":          {series + byPod + "  name: {matches: '('}\n" + query, true},
		"a mistake in seriesQuery":   {"- seriesQuery: hits_total}\n" + byPod + named + query, true},
		"a mistake in seriesFilters": {series + "  seriesFilters: [{}]\n" + byPod + named + query, true},
		"name misspelt":              {"- seriesQuery: hits\n" + byPod + "  names: {as: misses}\n" + query, true},
		"seriesFilters misspelt":     {series + "  seriesFilter: [{is: ^misses}]\n" + byPod + named + query, true},
		"metricsQuery misspelt":      {series + byPod + named + "  metricQuery: max(hits)\n", false},
		"metricsQuery twice":         {series + byPod + named + query + query, false},
		"seriesQuery twice":          {"- seriesQuery: misses\n  seriesQuery: hits_total\n" + byPod + named + query, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := Parse([]byte(first + tt.rule))
			if len(problems) == 0 || c.Used() != 1 {
				t.Fatalf("%d rules are used, with the problems %v", c.Used(), problems)
			}
			got, _, err := c.Query(q, names)
			if tt.served != (err == nil) {
				t.Fatalf("%q, %v", got, err)
			}
			if !tt.served {
				wantText(t, err, `rules[1] (line 7)`, `has metric "hits", but contains a mistake`)
			}
		})
	}
}

// TestLeftOutRuleElsewhere checks that a rule which is left out does not break a metric of another rule in namespaces
// where it has no series.
func TestLeftOutRuleElsewhere(t *testing.T) {
	const rules = `
rules:
- seriesQuery: hits_total{pod!=""}
  ` + podLabels + `
  name: {as: hits}
  metricsQuery: max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- seriesQuery: '{__name__=~".+_seconds_total",pod!=""}'
  name: {matches: "^(.*)_seconds_total$"}
  metricsQuery: max(
`
	const here, other = `{namespace="shop",pod="a"} `, `{namespace="other",pod="a"} `
	const labels = `resources: {overrides: {pod: {resource: pod}}}`
	q := Request{Metric: "hits", Namespace: "shop", Resource: resource("", "pods")}
	failed := errors.New("the backend is down")
	for _, tt := range []struct {
		series, resources string
		fails             bool // whether discovery within the namespace does
		err               string
	}{
		{series: "hits_total" + here, resources: podLabels},
		{series: "hits_seconds_total" + other + "hits_total" + here, resources: podLabels},
		{series: "hits_seconds_total" + here + "hits_total" + here, resources: podLabels, err: "contains a mistake"},
		{series: "hits_seconds_total" + other, resources: podLabels, err: "contains a mistake"},
		{
			series: "hits_seconds_total" + other + "hits_total" + here, resources: podLabels, fails: true,
			err: failed.Error(),
		},
		{series: "hits_seconds_total" + other + "hits_total" + here, resources: labels, err: "contains a mistake"},
	} {
		c, problems := Parse([]byte(rules + "  " + tt.resources + "\n"))
		if len(problems) == 0 || c.Used() != 1 {
			t.Fatalf("%d rules are used, with the problems %v", c.Used(), problems)
		}
		find := discover(t, strings.Fields(tt.series))
		got, _, err := c.Query(q, func(r *Rule, query string) ([]string, error) {
			if tt.fails && strings.Contains(query, "shop") {
				return nil, failed
			}
			return find(r, query)
		})
		switch want := `max(hits_total{namespace="shop",pod!=""}) by (pod)`; {
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%+v: %q, %v", tt, got, err)
		case tt.err == "" && (err != nil || got != want):
			t.Errorf("%+v: %q, %v, want %q", tt, got, err, want)
		}
	}
}

func TestQueryMistakes(t *testing.T) {
	c := parse(t, `
rules:
- seriesQuery: nodes_only
  resources: {overrides: {instance: {resource: node}}}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
externalRules:
- seriesQuery: queue
  resources: {namespaced: false}
  metricsQuery: <<.Series>>{<<.LabelMatchers>>,topic!=""}
`)
	q := Request{Metric: "nodes_only", Namespace: "shop", Resource: resource("", "nodes"), Names: []string{"a"}}
	_, _, err := c.Query(q, unexpected(t))
	wantText(t, err, "no label for namespaces", "resources.overrides")
	q.Resource = resource("", "services")
	for _, name := range []string{`a"} or secret{b="`, "a|b", ".*", ""} {
		q.Names = []string{name}
		_, _, err = c.Query(q, unexpected(t))
		wantText(t, err, fmt.Sprintf("%q cannot be in a query", name))
	}
	_, err = c.QueryExternal("queue", "shop", nil, unexpected(t))
	wantText(t, err, `becomes "queue{,topic!=\"\"}"`, "1:7: parse error")
	_, err = c.QueryExternal("queue", "shop", selector(t, "app.kubernetes.io/name=web"), unexpected(t))
	wantText(t, err, `label "app.kubernetes.io/name", which Prometheus cannot have`)
}

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}
