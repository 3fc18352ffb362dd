package backend

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

func TestConfine(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`up`, `up{namespace="shop"}`},
		{`up{}`, `up{namespace="shop"}`},
		{`up{namespace="kube"}`, `up{namespace="kube",namespace="shop"}`},
		{`up{namespace=~".*"}`, `up{namespace="shop",namespace=~".*"}`},
		{`{__name__="up"}`, `{__name__="up",namespace="shop"}`},
		{`{"up"}`, `{__name__="up",namespace="shop"}`},
		{`{"http.requests"}`, `{__name__="http.requests",namespace="shop"}`},
		{`{job=~".+"}`, `{job=~".+",namespace="shop"}`},
		{`sum by (pod) (rate(x[5m]))`, `sum by (pod) (rate(x{namespace="shop"}[5m]))`},
		{`max_over_time(rate(x[1m])[10m:30s])`, `max_over_time(rate(x{namespace="shop"}[1m])[10m:30s])`},
		{`x offset 5m`, `x{namespace="shop"} offset 5m`},
		{`x offset -5m`, `x{namespace="shop"} offset -5m`},
		{`x @ 100`, `x{namespace="shop"} @ 100.000`},
		{`rate(x[5m] @ end() offset 1h)`, `rate(x{namespace="shop"}[5m] @ end() offset 1h)`},
		{
			`a * on (pod) group_left (node) b`,
			`a{namespace="shop"} * on (pod) group_left (node) b{namespace="shop"}`,
		},
		{
			`a unless ignoring (x) (b or c)`,
			`a{namespace="shop"} unless ignoring (x) (b{namespace="shop"} or c{namespace="shop"})`,
		},
		{`topk(scalar(n), x)`, `topk(scalar(n{namespace="shop"}), x{namespace="shop"})`},
		{`quantile(scalar(q), x)`, `quantile(scalar(q{namespace="shop"}), x{namespace="shop"})`},
		{`absent(x) or vector(0)`, `absent(x{namespace="shop"}) or vector(0)`},
		{
			`label_replace(x, "pod", "$1", "p", "(.*)")`,
			`label_replace(x{namespace="shop"}, "pod", "$1", "p", "(.*)")`,
		},
		{`-x ^ 2 > bool 1`, `-x{namespace="shop"} ^ 2 > bool 1`},
		{"x{a=`b\"}`} # or y", `x{a="b\"}",namespace="shop"}`},
		{"x #{namespace=\"shop\"}\n+ y", `x{namespace="shop"} + y{namespace="shop"}`},
		{`{"namespace"="kube", x="y"}`, `{namespace="kube",namespace="shop",x="y"}`},
		{
			`histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))`,
			`histogram_quantile(0.9, sum by (le) (rate(x_bucket{namespace="shop"}[5m])))`,
		},
	} {
		e, err := Confine(tt.text, "namespace", "shop")
		if err != nil {
			t.Errorf("%s is refused: %v", tt.text, err)
		} else if e.String() != tt.want {
			t.Errorf("%s:\n%s, want\n%s", tt.text, e, tt.want)
		}
	}
}

func TestConfineMore(t *testing.T) {
	e, err := Confine(`a + b{x="1"}`, "exported_namespace", "shop",
		labels.MustNewMatcher(labels.MatchNotRegexp, "code", "4..|5.."))
	if err != nil {
		t.Fatal(err)
	}
	const want = `a{code!~"4..|5..",exported_namespace="shop"} + b{code!~"4..|5..",exported_namespace="shop",x="1"}`
	if e.String() != want {
		t.Errorf("%s, want %s", e, want)
	}
}

func TestConfineMistakes(t *testing.T) {
	for name, tt := range map[string]struct{ text, label, namespace, want string }{
		"syntax":           {`sum(x`, "namespace", "shop", "1:6: parse error: unclosed"},
		"two lines":        {"sum(\nx y)", "namespace", "shop", "2:3: parse error"},
		"empty":            {``, "namespace", "shop", "not valid PromQL"},
		"no series":        {`vector(1)`, "namespace", "shop", "selects no series"},
		"a number":         {`1`, "namespace", "shop", "selects no series"},
		"range":            {`x[5m]`, "namespace", "shop", "range of samples"},
		"string":           {`"x"`, "namespace", "shop", "returns a string"},
		"all series":       {`{}`, "namespace", "shop", "parse error"},
		"MetricsQL or":     {`{a="b" or c="d"}`, "namespace", "shop", "parse error"},
		"MetricsQL WITH":   {`WITH (x = y) x`, "namespace", "shop", "parse error"},
		"hidden selector":  {`info(x, {a="b"})`, "namespace", "shop", "not enabled"},
		"too long":         {strings.Repeat("x", 4097), "namespace", "shop", "4097 bytes"},
		"too many":         {strings.Repeat("x+", 2000) + "x", "namespace", "shop", "each of its 2001 selectors"},
		"no namespace":     {`x`, "namespace", "", "not the name of a namespace"},
		"matcher in value": {`x`, "namespace", `a",b="`, "not the name of a namespace"},
		"label":            {`x`, `a="b",c`, "shop", "not the name of a label"},
		"name as label":    {`x`, "__name__", "shop", "not the name of a label"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Confine(tt.text, tt.label, tt.namespace)
			wantError(t, err, BadExpression, tt.want)
		})
	}
}

// TestVerify checks that what was not confined everywhere is refused.
func TestVerify(t *testing.T) {
	want := labels.MustNewMatcher(labels.MatchEqual, "namespace", "shop")
	for text, ok := range map[string]bool{
		`a{namespace="shop"} + b{namespace="shop"}`:  true,
		`a{namespace="shop"} + b`:                    false,
		`a{namespace="shop"} + b{namespace="else"}`:  false,
		`a{namespace="shop"} + b{namespace=~"shop"}`: false,
		`a{namespace="shop"}`:                        false,
		`a{namespace="shop"} +`:                      false,
	} {
		if err := verify(text, 2, want); (err == nil) != ok {
			t.Errorf("%s: got error %v, want it accepted: %v", text, err, ok)
		}
	}
}

func TestTrust(t *testing.T) {
	const text = `sum(x) by (y)`
	if e, err := Trust(text, "", ""); err != nil || e.String() != text {
		t.Errorf("got %q, %v, want the text unchanged", e, err)
	}
	_, err := Trust("sum(", "", "")
	wantError(t, err, BadExpression, "parse error")
}

// TestNarrow checks that matchers are added to every selector of an expression, and that nothing else changes.
func TestNarrow(t *testing.T) {
	e, err := Trust(`sum by (y) (x{a="b"}) / rate(z[1m])`, "shop", "y,z")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := e.Narrow(); err != nil || same != e {
		t.Errorf("%v, %v", same, err)
	}
	narrow, err := e.Narrow(labels.MustNewMatcher(labels.MatchEqual, "c", "d"))
	const want = `sum by (y) (x{a="b",c="d"}) / rate(z{c="d"}[1m])`
	if err != nil || narrow.String() != want || narrow.owner != "shop" || narrow.keep != "y,z" {
		t.Errorf("%+v, %v, want %s", narrow, err, want)
	}
	_, err = e.Narrow(labels.MustNewMatcher(labels.MatchEqual, "c", strings.Repeat("d", maxTrusted)))
	wantError(t, err, BadExpression, "at most 65536 are allowed: shorten the selector")
}

// FuzzConfine checks that every selector of a confined expression has the matcher, and that nothing else about
// the expression has changed.
func FuzzConfine(f *testing.F) {
	for _, text := range []string{
		`sum by (pod) (rate(x{a="b"}[5m]))`, `a * on (pod) group_left b`, `x{namespace="kube"} @ end() offset 5m`,
		`max_over_time(rate(x[1m])[10m:30s])`, `{"a.b",c=~"d|e"}`,
		"x{a=`\\`,b='\\xff'} or y", `topk(scalar(n), {__name__!="y"})`,
		`{a="b" or c="d"}`, `-1 ^ x % 2 == bool on() y`, `x{"namespace"="y"}`, `info(x)`, `count_values("namespace", x)`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Confine(text, "namespace", "shop")
		if err != nil {
			return
		}
		before, err := promQL.ParseExpr(text)
		if err != nil {
			t.Fatalf("%q was confined and is not PromQL: %v", text, err)
		}
		after, err := promQL.ParseExpr(e.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", text, e, err)
		}
		parser.Inspect(after, func(n parser.Node, _ []parser.Node) error {
			s, ok := n.(*parser.VectorSelector)
			if !ok {
				return nil
			}
			// One matcher is ours. What the user wrote may have the same one.
			for i, m := range s.LabelMatchers {
				if m.Type == labels.MatchEqual && m.Name == "namespace" && m.Value == "shop" {
					s.LabelMatchers = append(s.LabelMatchers[:i:i], s.LabelMatchers[i+1:]...)
					return nil
				}
			}
			t.Errorf("%q became %q, in which %s is not confined", text, e, s)
			return nil
		})
		if before.String() != after.String() {
			t.Errorf("%q became %q: %s is now %s", text, e, before, after)
		}
	})
}
