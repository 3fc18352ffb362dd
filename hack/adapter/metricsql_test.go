package adapter

import (
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"k8s.io/apimachinery/pkg/labels"

	"metrics-server/pkg/adapterconfig"
	"metrics-server/pkg/backend"
)

// hostile are expressions of PromQL with names and strings that mean something in MetricsQL, the language of
// VictoriaMetrics: there, matchers can be alternatives.
var hostile = []string{
	`sum by (pod) (rate(x{a="b"}[5m]))`, `a * on (pod) group_left b`, `x{namespace="kube"} @ end() offset 5m`,
	`max_over_time(rate(x[1m])[10m:30s])`, `topk(scalar(n), y)`, `count_values("namespace", x)`,
	`{a="b",or="c"}`, `{or="b",OR="c"}`, `{"or"}`, `{"or",a="b"}`, `{a="b","or"="c"}`, `{a="} or {b="}`, `min(x) or (y)`,
	`default or if`, `if - default`, `limit + ifnot`, `keep_metric_names`, `WITH + with`, `{"with"}`,
	`sum(x) by (limit)`, `x{a="b",by="c",limit="d"}`, `{__graphite__="a.*"}`, `{"a.b",c=~"d|e"}`, `x{"a.b"="c"}`,
	`{"{}"}`, `{"x{a='b'} or y"}`, `{"5"}`, `{"1m"}`, `{"Inf"}`, `{"time()"}`, `{"a\"b"}`, "{`a b`}", `{"rollup"}`,
	"x{a=`\\`,b='\\xff'} or y",
}

// confinedAs returns how many selectors MetricsQL reads in a confined expression.
func confinedAs(t *testing.T, text string) (selectors int) {
	t.Helper()
	e, err := backend.Confine(text, "namespace", "shop")
	if err != nil {
		return 0
	}
	return selectorsOf(t, text, e.String())
}

// selectorsOf returns how many selectors MetricsQL finds in became, the query that was made from text, and checks that
// each of them is confined.
func selectorsOf(t *testing.T, text, became string) (selectors int) {
	t.Helper()
	expr, err := metricsql.Parse(became)
	if err != nil {
		return 0 // VictoriaMetrics refuses it
	}
	metricsql.VisitAll(expr, func(x metricsql.Expr) {
		m, ok := x.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		selectors++
		if len(m.LabelFilterss) == 0 {
			t.Errorf("%q became %q, which selects everything", text, became)
		}
		for _, alternative := range m.LabelFilterss {
			confined := false
			for _, f := range alternative {
				confined = confined || f.Label == "namespace" && f.Value == "shop" && !f.IsNegative && !f.IsRegexp
			}
			if !confined {
				t.Errorf("%q became %q, and its selector %s is not confined", text, became, m.AppendString(nil))
			}
		}
	})
	return selectors
}

func TestConfined(t *testing.T) {
	for _, text := range hostile {
		if confinedAs(t, text) == 0 {
			t.Errorf("%s is not checked: Confine or VictoriaMetrics refuses it", text)
		}
	}
}

// TestRulesConfined checks that neither the selector of a metric of a rule nor the name of its series widens the query.
func TestRulesConfined(t *testing.T) {
	c, problems := adapterconfig.Parse([]byte(`
rules:
- seriesQuery: '{__name__=~".+",pod!=""}'
  resources: {template: <<.Resource>>}
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
`))
	if len(problems) > 0 {
		t.Fatal(problems[0].Error())
	}
	for _, series := range []string{"hits", "a:b", "or", "default", "if", "by", "limit", "keep_metric_names", "WITH"} {
		for _, text := range []string{"", "or=b", "a=b,or=c", "or", "!or", "or in (b,c)", "OR=b,or=c", "by=c,limit=d", "a="} {
			selector, err := labels.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			query, _, err := c.Query(adapterconfig.Request{
				Metric: series, Namespace: "shop", Selector: selector,
				Resource: adapterconfig.Resource{Plural: "pods", Singular: "pod"},
			}, func(*adapterconfig.Rule, string) ([]string, error) { return []string{series}, nil })
			if err != nil {
				t.Fatal(err)
			}
			if n := selectorsOf(t, series+" with "+text, query); n != 1 {
				t.Errorf("%s has %d selectors, want 1", query, n)
			}
		}
	}
}

func FuzzConfined(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { confinedAs(t, text) })
}
