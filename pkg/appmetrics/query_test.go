package appmetrics

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCompile(t *testing.T) {
	q, err := Compile(Definition{
		Name: "share",
		Expression: "sum by (pod) (rate(http_requests_total{code=~\"5..\"}[1m])) / sum by (pod) " +
			"(rate(http_requests_total[2m]))",
		Selector: []Requirement{
			{"tier", In, []string{"web"}},
			{"zone", In, []string{"a.1", "b"}},
			{"x", NotIn, []string{"1"}},
			{"y", NotIn, []string{"1", "2"}},
			{"z", Exists, nil},
			{"app.kubernetes.io/name", DoesNotExist, nil},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const added = `tier="web",x!="1",y!~"1|2",z!="",zone=~"a\\.1|b"`
	want := `sum by (pod) (rate(http_requests_total{"app.kubernetes.io/name"="",code=~"5..",` + added + `}[1m])) / ` +
		`sum by (pod) (rate(http_requests_total{"app.kubernetes.io/name"="",` + added + `}[2m]))`
	if q.Expression() != want {
		t.Errorf("the expression is\n%s\nwant\n%s", q.Expression(), want)
	}
	if q.span != 2*time.Minute {
		t.Errorf("it looks back %v", q.span)
	}
	if got := Keep(q).Names(); !slices.Equal(got, []string{"http_requests_total", startTime}) {
		t.Errorf("the names to ask for are %v", got)
	}
}

func TestKeptInterval(t *testing.T) {
	for expression, want := range map[string]time.Duration{
		"":                                 15 * time.Second,
		"sum by (pod) (x)":                 15 * time.Second,
		"sum by (pod) (rate(x[10s]))":      5 * time.Second,
		"sum by (pod) (rate(x[30s]))":      15 * time.Second,
		"max_over_time(rate(x[20s])[1m:])": 10 * time.Second,
	} {
		q, err := Compile(Definition{Name: "x", Expression: expression})
		if err != nil {
			t.Fatal(err)
		}
		if got := Keep(q).Interval(DefaultInterval); got != want {
			t.Errorf("%q needs a page every %v, want %v", expression, got, want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	const prefix = `the expression of metric "m" is wrong at `
	const byPod = `its result has no label "pod"; a metric of type Pods needs one value for each pod: write "by ` +
		`(pod)", as in sum by (pod) (...)`
	for _, tt := range []struct {
		expression string
		shape      Shape
		cause      Cause
		position   int
		text       string
	}{
		{"sum by (pod) (rate(x[1m])", PerPod, BadExpression, 25, "character 26: not valid PromQL: unclosed left " +
			"parenthesis"},
		{"sum by (pod) (\nrate(x[1m]) +)", PerPod, BadExpression, 28, "line 2, character 14: not valid PromQL: " +
			"unexpected \")\" in aggregation"},
		{"rate(x)", PerPod, BadExpression, 5, "character 6: not valid PromQL: expected type range vector in call " +
			"to function \"rate\", got instant vector"},
		{"nosuch(x)", PerPod, BadExpression, 0, "character 1: not valid PromQL: unknown function with name \"nosuch\""},
		{"x offset 5m", PerPod, BadExpression, 0, "character 1: offset is not supported: samples are kept only as long as " +
			"ranges need them"},
		{"rate(x[1m] offset 5m)", PerPod, BadExpression, 5, "character 6: " + noOffset},
		{"rate(x[1m] offset -5m)", PerPod, BadExpression, 5, "character 6: " + noOffset},
		{"max_over_time(x[1m:] offset 1m)", PerPod, BadExpression, 14, "character 15: " + noOffset},
		{"x @ 100", PerPod, BadExpression, 0, "character 1: @ is not supported: an expression is evaluated at the time of " +
			"the last sample"},
		{"x @ end()", PerPod, BadExpression, 0, "character 1: " + noAt},
		{"max_over_time(x[1m:] @ start())", PerPod, BadExpression, 14, "character 15: " + noAt},
		{"rate(x[1s])", PerPod, OverLimit, 5, "character 6: a range of 1s is too short: at least 10s are needed"},
		{"rate(x[11m])", PerPod, OverLimit, 5, "character 6: its ranges are longer than 10m0s in total"},
		{"max_over_time(rate(x[6m])[5m:])", PerPod, OverLimit, 19, "character 20: its ranges are longer than 10m0s " +
			"in total"},
		{"max_over_time(x[290y:])", PerPod, OverLimit, 14, "character 15: its ranges are longer than 10m0s in total"},
		{"max_over_time(x[5m:10ms])", PerPod, OverLimit, 14, "character 15: a subquery's step of 10ms is too " +
			"short: at least 1s are needed"},
		{"max_over_time(x[5s:1s])", PerPod, OverLimit, 14, "character 15: a range of 5s is too short: at least 10s " +
			"are needed"},
		{"rate(x[1m+1m])", PerPod, BadExpression, 7, "character 8: not valid PromQL: experimental duration " +
			"expression is not enabled"},
		{"{job=\"x\"}", PerPod, BadExpression, 0, "character 1: a selector has to name its metric"},
		{"{__name__=~\"x.*\"}", PerPod, BadExpression, 0, "character 1: a selector has to name its metric: " +
			"patterns for names are not supported"},
		{"sum(x)", PerPod, WrongShape, 0, "character 1: " + byPod},
		{"sum by (code) (x)", PerPod, WrongShape, 0, "character 1: " + byPod},
		{"sum without (pod) (x)", PerPod, WrongShape, 0, "character 1: " + byPod},
		{"x > 1 and sum by (pod) (sum(x))", PerPod, 0, 0, ""},
		{"1 + sum by (pod) (sum(x))", PerPod, WrongShape, 18, "character 19: " + byPod},
		{"x / on (code) y", PerPod, WrongShape, 0, "character 1: " + byPod},
		{"x / ignoring (pod) y", PerPod, WrongShape, 0, "character 1: " + byPod},
		{"x / on (code) group_left y", PerPod, 0, 0, ""},
		{"vector(1)", PerPod, WrongShape, 0, "character 1: " + byPod},
		{"time()", PerPod, WrongShape, 0, "character 1: it returns a scalar; a metric of type Pods needs one value " +
			"for each pod: write sum by (pod) (...)"},
		{"x[1m]", PerPod, WrongShape, 0, "character 1: it returns a range of samples: apply a function " +
			"such as rate(...) to it"},
		{"\"x\"", Single, WrongShape, 0, "character 1: it returns a string; a metric of type Pods needs one value " +
			"for each pod: write sum by (pod) (...)"},
		{"time()", Single, WrongShape, 0, "character 1: it selects no series, so its value does not depend on the pods"},
		{"sum by (pod) (x)", Single, WrongShape, 0, "character 1: it returns a value for each pod; metrics of " +
			"types Object and External need a single one: remove \"by (pod)\""},
		{
			"label_replace(label_replace(x, \"a\", \"$1$1\", \"b\", \"(.*)\"), \"a\", \"$1$1\", \"a\", \"(.*)\")",
			PerPod, OverLimit, 14,
			"character 15: label_replace within label_replace is not supported",
		},
		{"label_replace(x, \"a\", \"$1$1$1$1$1\", \"b\", \"(.*)\")", PerPod, OverLimit, 0, "character 1: " +
			"label_replace may refer to at most 4 labels"},
		{"label_join(x, \"a\", \"\", \"b\", \"b\", \"b\", \"b\", \"b\")", PerPod, OverLimit, 0, "character 1: " +
			"label_join may refer to at most 4 labels"},
		{strings.Repeat("x+", 20) + "x", PerPod, OverLimit, 40, "character 41: it has more than 20 selectors"},
		{strings.Repeat("-", 100) + "x", PerPod, 0, 0, ""},
		{strings.Repeat("-", 101) + "x", PerPod, OverLimit, 101, "character 102: its parts are nested more than 100 deep"},
		{
			strings.Repeat("(", 101) + "x" + strings.Repeat(")", 101), PerPod, OverLimit, 101,
			"character 102: its parts are nested more than 100 deep",
		},
		{"x" + strings.Repeat(" + 1", 101), PerPod, OverLimit, 0, "character 1: its parts are nested more than 100 deep"},
	} {
		_, err := Compile(Definition{Name: "m", Expression: tt.expression, Shape: tt.shape})
		if tt.cause == 0 {
			if err != nil {
				t.Errorf("%s does not compile: %v", tt.expression, err)
			}
			continue
		}
		got := (*Error)(nil)
		if !errors.As(err, &got) {
			t.Errorf("%s: got %v, want an error", tt.expression, err)
			continue
		}
		if diff := cmp.Diff(&Error{Cause: tt.cause, Position: tt.position, Text: prefix + tt.text}, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.expression, diff)
		}
	}
}

func TestCompileRefusesDefinitions(t *testing.T) {
	requirement := func(label string, o Operator, values ...string) []Requirement {
		return []Requirement{{label, o, values}}
	}
	for _, tt := range []struct {
		d     Definition
		cause Cause
		text  string
	}{
		{Definition{}, BadExpression, "the name of a metric must have 1 to 512 bytes"},
		{Definition{Name: "x", Window: 9 * time.Second}, OverLimit, `the window of metric "x" is 9s; it has to be ` +
			`between 10s and 10m0s`},
		{Definition{Name: "x", Window: 11 * time.Minute}, OverLimit, `the window of metric "x" is 11m0s; it has to ` +
			`be between 10s and 10m0s`},
		{Definition{Name: "x", Selector: requirement("a", In)}, BadExpression, `the selector's label "a" has no values`},
		{Definition{Name: "x", Selector: requirement("a", "Like", "b")}, BadExpression, `the selector's label "a" ` +
			`has the unknown operator "Like"`},
		{
			Definition{Name: "x", Selector: requirement("__name__", In, "y")},
			BadExpression,
			`a selector cannot have the label "__name__"`,
		},
		{
			Definition{Name: "x", Selector: requirement("quantile", In, "0.5", "0.9")},
			BadExpression,
			`the selector of metric "x" must name one quantile, such as quantile: "0.99"`,
		},
		{
			Definition{Name: "x", Selector: requirement("quantile", In, "99")},
			BadExpression,
			`the selector of metric "x" has the quantile "99", which is not a number from 0 to 1`,
		},
		{
			Definition{Name: "x", Expression: strings.Repeat(" ", 5000) + "x"},
			OverLimit,
			`the expression of metric "x" has 5001 bytes; at most 4096 are allowed`,
		},
	} {
		_, err := Compile(tt.d)
		if causeOf(err) != tt.cause || err.Error() != tt.text {
			t.Errorf("got %v, want %v: %s", err, tt.cause, tt.text)
		}
	}
}

func TestCauseNames(t *testing.T) {
	for c := BadExpression; c <= Canceled; c++ {
		if s := c.String(); s == "" || strings.HasPrefix(s, "Cause(") {
			t.Errorf("cause %d has no name", c)
		}
	}
	if s := Cause(200).String(); s != "Cause(200)" {
		t.Errorf("an unknown cause is called %s", s)
	}
}

// FuzzExpression checks that whatever compiles can be evaluated, and that what it says of the result
// holds.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		"sum by (pod) (rate(x_total[1m]))", "x", "sum(x)",
		"sum by (pod) (rate(x_total{a=~\"b|c\"}[1m])) / on (pod) y", "{\"a.b\"} + {__name__=\"inf\"}",
		"histogram_quantile(0.9, sum by (pod, le) (rate(x_bucket[1m])))", "max_over_time(rate(x[1m])[5m:1s])",
		"-x ^ 2 == bool 1", "topk(1, x)",
		"label_replace(x, \"pod\", \"$1\", \"a\", \"(.*)\")", "count_values(\"a\", x)", "absent(x)",
		"scalar(sum(x))", "x and on () vector(1)",
		"quantile_over_time(0.5, x[1m])", "x offset 1m", "sum by (pod) (\nx) # comment", "x @ 1",
		"sum without (a) (x)", "x unless y or {\"é\"=\"1\", x}",
	} {
		f.Add(s, "tier", "web", byte(0))
	}
	page := []byte("# TYPE x_total counter\nx_total{a=\"b\",tier=\"web\"} 1\nx{a=\"1\"} 2\nx{a=\"2\"} 3\ny " +
		"4\nx_bucket{le=\"1\"} 1\nx_bucket{le=\"+Inf\"} 2\n")
	f.Fuzz(func(t *testing.T, expression, label, val string, shape byte) {
		d := Definition{
			Name: "m", Expression: expression, Shape: Shape(shape % 2),
			Selector: []Requirement{{label, In, []string{val}}},
		}
		q, err := Compile(d)
		if err != nil {
			if causeOf(err) == 0 || err.Error() == "" {
				t.Fatalf("%q: the error has no cause: %v", expression, err)
			}
			return
		}
		if expression == "" {
			return
		}
		if _, err := promQL.ParseExpr(q.Expression()); err != nil {
			t.Fatalf("%q became %q, which is not valid: %v", expression, q.Expression(), err)
		}
		again, err := Compile(Definition{Name: "m", Expression: q.Expression(), Shape: d.Shape})
		if err == nil && again.Expression() != q.Expression() {
			t.Fatalf("%q became %q, and then %q", expression, q.Expression(), again.Expression())
		}
		s := New(Config{Timeout: 5 * time.Second, MaxSamples: 10000})
		k := Keep(q)
		for i := range 3 {
			if err := s.Record("u", k, Page{Namespace: "n", Pod: "a", At: at(float64(15 * i)), Body: page}); err != nil {
				t.Fatal(err)
			}
		}
		a := s.Evaluate(t.Context(), q, []Pod{{UID: "u", Name: "a"}}, at(31))
		for _, v := range a.Values {
			if !finite(v.Value) {
				t.Fatalf("%q has the value %v", expression, v.Value)
			}
		}
		if a.Err() == nil && len(a.Values) != 1 {
			t.Fatalf("%q has the values %v", expression, a.Values)
		}
		if err := a.Err(); err != nil && causeOf(err) == BadExpression {
			t.Fatalf("%q compiles, but: %v", expression, err)
		}
	})
}

// FuzzDefault checks that a default expression is valid for every name, label and type.
func FuzzDefault(f *testing.F) {
	for _, name := range []string{
		"x", "x_total", "x-per-second", "inf", "NaN", "sum", "a.b", "é", "by",
		"start", "on", "x\"y", "bool", "group_left", "offset", "1x", "x:y",
	} {
		f.Add(name, "a", "b", byte(0))
	}
	f.Fuzz(func(t *testing.T, name, label, val string, shape byte) {
		q, err := Compile(Definition{Name: name, Shape: Shape(shape % 2), Selector: []Requirement{{
			label, In,
			[]string{val},
		}}})
		if err != nil {
			return
		}
		for _, c := range q.candidates {
			for _, kind := range []string{"counter", "gauge", "histogram", "summary", "untyped"} {
				x, err := q.choose(c, kind)
				if err != nil {
					continue
				}
				text := x.expression(q.def.Shape, 30*time.Second)
				if _, err := promQL.ParseExpr(text); err != nil {
					t.Fatalf("the default expression of %q, %s, is not valid: %v", name, text, err)
				}
			}
		}
	})
}
