package appmetrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// groupedBy is a metric by namespace and ingress.
func groupedBy(expression string, selector ...Requirement) Definition {
	return Definition{
		Name: "requests", Expression: expression, Selector: selector, Shape: Grouped,
		By: []string{"exported_namespace", "ingress"},
	}
}

// byLabels returns the values of an answer by their labels.
func byLabels(a *Answer) string {
	values := map[string]float64{}
	for _, v := range a.Values {
		values[v.Labels.String()] = v.Value
	}
	lines := make([]string, 0, len(values))
	for _, l := range slices.Sorted(maps.Keys(values)) {
		lines = append(lines, fmt.Sprintf("%s %.4g", l, values[l]))
	}
	return strings.Join(lines, "; ")
}

// TestGrouped checks the values of objects, over several pods and with pods that are missing: a sum counts up to a
// fifth of them at the mean of the others.
func TestGrouped(t *testing.T) {
	requests := func(a, b int) []string {
		return []string{
			"# TYPE hits counter", fmt.Sprintf(`hits{namespace="a",ingress="x",host="h1"} %d`, a),
			fmt.Sprintf(`hits{namespace="a",ingress="x",host="h2"} %d`, a),
			fmt.Sprintf(`hits{namespace="b",ingress="x",host="h1"} %d`, b),
		}
	}
	const sum = `sum by (exported_namespace, ingress) (rate(hits[30s]))`
	for name, tt := range map[string]struct {
		definition Definition
		answer     int // how many of five pods
		want, err  string
	}{
		"all": {
			definition: groupedBy(sum), answer: 5,
			want: `{exported_namespace="a", ingress="x"} 100; {exported_namespace="b", ingress="x"} 5`,
		},
		"four of five": {
			definition: groupedBy(sum), answer: 4,
			want: `{exported_namespace="a", ingress="x"} 100; {exported_namespace="b", ingress="x"} 5`,
		},
		"three of five": {
			definition: groupedBy(sum), answer: 3, err: "more than a fifth of the pods have no value",
		},
		"a mean of four": {
			definition: groupedBy(strings.Replace(sum, "sum", "avg", 1)), answer: 4,
			want: `{exported_namespace="a", ingress="x"} 10; {exported_namespace="b", ingress="x"} 1`,
		},
		"a count of four": {
			definition: groupedBy(strings.Replace(sum, "sum", "count", 1)), answer: 4,
			err: "needs a value from every pod",
		},
		"with a selector": {
			definition: groupedBy(sum, Requirement{Label: "host", Operator: In, Values: []string{"h2"}}), answer: 5,
			want: `{exported_namespace="a", ingress="x"} 50`,
		},
		"labels of two functions": {
			definition: groupedBy(`sum by (exported_namespace, ingress) (label_replace(label_replace(rate(hits[30s]), ` +
				`"ingress", "$1$1", "ingress", "(.*)"), "exported_namespace", "n$1", "exported_namespace", "(.*)"))`),
			answer: 5, want: `{exported_namespace="na", ingress="xx"} 100; {exported_namespace="nb", ingress="xx"} 5`,
		},
		"nothing": {
			definition: groupedBy(`sum by (exported_namespace, ingress) (rate(hit[30s]))`), answer: 5,
			err: "the pod exposes no metric hit; did you mean hits?",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tt.definition)
			all := []string{"a", "b", "c", "d", "e"}
			for _, pod := range all[:tt.answer] {
				for _, s := range []int{0, 15, 30} {
					w.page(pod, float64(s), requests(1000+10*s, 50+s)...)
				}
			}
			a := w.answer(30, all...)
			if err := a.Err(); tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) ||
				tt.err == "" && err != nil {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if got := byLabels(a); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if len(a.Values) > 0 && (a.Filled != 5-tt.answer || !a.Values[0].Time.Equal(at(30))) {
				t.Errorf("%d filled, at %v", a.Filled, a.Values[0].Time)
			}
		})
	}
}

// TestGroupedIsLarge checks that a page with the series of all namespaces may have more than others.
func TestGroupedIsLarge(t *testing.T) {
	lines := []string{"# TYPE hits gauge"}
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf(`hits{namespace="n%d",ingress="x"} 1`, i))
	}
	w := newWorld(t, groupedBy(`sum by (exported_namespace, ingress) (hits)`))
	w.page("a", 0, lines...)
	if a := w.answer(0, "a"); len(a.Values) != 3000 {
		t.Errorf("%d values, %v", len(a.Values), a.Err())
	}
	w = newWorld(t, Definition{Name: "hits"})
	if err := w.try("a", 0, lines...); err == nil || !strings.Contains(err.Error(), "more than 1000 series") {
		t.Errorf("%v, want that a page of an autoscaler's metric is limited", err)
	}
}

// TestCompileGrouped checks which expressions cannot have a value for each object.
func TestCompileGrouped(t *testing.T) {
	for expression, want := range map[string]string{
		"sum(hits)":                             `its result has no label "exported_namespace"`,
		"sum by (exported_namespace) (hits)":    `its result has no label "ingress", which says to which object`,
		"hits[1m]":                              "it returns a matrix, and a value for each object is needed",
		"vector(1)":                             "its result has no label",
		"1":                                     "it returns a scalar",
		"sum by (exported_namespace,ingress) (": "not valid PromQL",
		`sum by (exported_namespace,ingress) ({__name__=~"h.*"})`: "patterns for names are not supported",
	} {
		_, err := Compile(groupedBy(expression))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", expression, err, want)
		}
	}
	if _, err := CompileRemote(groupedBy("sum(hits)"), "pod"); err == nil || !strings.Contains(err.Error(), "no label") {
		t.Errorf("%v, want that a backend needs the labels, too", err)
	}
}
