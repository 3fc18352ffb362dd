package appmetrics

import "testing"

// TestSumOfOtherElements checks that a sum is taken apart into sums by pod only if each of its elements is of a pod.
func TestSumOfOtherElements(t *testing.T) {
	for expression, want := range map[string]string{
		"sum(x or vector(0))":                          "=5",
		"sum(vector(3) or x)":                          "=8",
		"sum(x or on () vector(7))":                    "=5",
		"sum(none or vector(2))":                       "=2",
		"sum(rate(none[1m]) or vector(2))":             "=2",
		"sum(absent(none))":                            "=1",
		"sum(absent_over_time(none[1m])) + 0 * sum(x)": "=1",
		"sum(x or absent(none))":                       "=6",
		`sum(label_replace(x, "pod", "y", "", ""))`:    "=5",
		`sum(label_replace(x, "y", "z", "", ""))`:      "=5",
		`sum(label_join(x, "pod", "-", "pod", "pod"))`: "=5",
		`sum(count_values("pod", x))`:                  "=1",
		"sum(x * on (pod) group_left (z) x)":           "=25",
		"sum(hour() * 0 or x)":                         "=5",
	} {
		w := newWorld(t, Definition{Name: "m", Expression: expression, Shape: Single})
		w.page("a", 0, "x 5")
		w.page("a", 15, "x 5")
		w.want(w.answer(16, "a"), want)
	}
}

// TestSumsThatCannotBeFilledIn checks that a pod that is missing is not assumed to have the mean value of the others if
// the elements of a sum are not each of one pod.
func TestSumsThatCannotBeFilledIn(t *testing.T) {
	for _, expression := range []string{
		"sum(x or vector(0))", "sum(topk(1, x))", "sum(x / on () group_left sum(x))", "sum(x / scalar(sum(x)))",
	} {
		w := newWorld(t, Definition{Name: "m", Expression: expression, Shape: Single})
		for _, pod := range []string{"a", "b", "c", "d"} {
			w.page(pod, 0, "x 5")
		}
		a := w.answer(1, "a", "b", "c", "d", "e")
		if len(a.Values) > 0 || causeOf(a.Err()) != Incomplete {
			t.Errorf("%s: %v, %v; want that every pod is needed", expression, a.Values, a.Err())
		}
	}
}

// TestSumOfOtherElementsByObject checks the same for values of objects, of which a sum may be of labels made up from
// others.
func TestSumOfOtherElementsByObject(t *testing.T) {
	const sum = "sum by (exported_namespace, ingress) "
	for expression, want := range map[string]string{
		`(label_replace(hits, "ingress", "y", "", ""))`:              `{exported_namespace="a", ingress="y"} 10`,
		`(hits or label_replace(vector(0), "ingress", "y", "", ""))`: "",
	} {
		w := newWorld(t, groupedBy(sum+expression))
		for _, pod := range []string{"a", "b", "c", "d"} {
			w.page(pod, 0, `hits{namespace="a",ingress="x"} 2`)
		}
		a := w.answer(1, "a", "b", "c", "d", "e")
		if got := byLabels(a); got != want || want == "" && causeOf(a.Err()) != Incomplete {
			t.Errorf("%s: %q, %v; want %q", expression, got, a.Err(), want)
		}
	}
}

// TestOfOnePod checks which expressions have only elements that a single pod gives.
func TestOfOnePod(t *testing.T) {
	for expression, want := range map[string]bool{
		"x":                                    true,
		"(-rate(x[1m]))":                       true,
		"max_over_time(rate(x[1m])[5m:])":      true,
		"x > 1":                                true,
		"1 - x":                                true,
		"x or y":                               true,
		"x unless y":                           true,
		"x and on () vector(1)":                true,
		"sum by (pod, q) (x)":                  true,
		"sum without (q) (x)":                  true,
		"topk by (pod) (1, x)":                 true,
		"x / y":                                true,
		"x / on (pod, q) y":                    true,
		"x * on (pod) group_left (v) y":        true,
		"x * on (pod) group_right y":           true,
		"histogram_quantile(0.9, x)":           true,
		`label_replace(x, ("q"), "y", "", "")`: true,
		"time() - x":                           true,

		"x unless on (q) y":                    false,
		"x and on (q) y":                       false,
		"x and ignoring (pod) y":               false,
		"x or on (q) y":                        false,
		"x and sum by (q) (y)":                 false,
		"sum(x)":                               false,
		"sum without (pod) (x)":                false,
		"sum(sum by (pod) (x))":                false,
		"topk(1, x)":                           false,
		"bottomk by (q) (1, x)":                false,
		`count_values by (pod) ("pod", x)`:     false,
		"x or vector(0)":                       false,
		"vector(0) or x":                       false,
		"x or sum by (q) (x)":                  false,
		"absent(x)":                            false,
		"absent_over_time(x[1m])":              false,
		"vector(1)":                            false,
		"hour()":                               false,
		`label_replace(x, "pod", "y", "", "")`: false,
		`label_join(x, "pod", "-", "q")`:       false,
		"x / on (q) y":                         false,
		"x / ignoring (pod) y":                 false,
		"x / on () group_left y":               false,
		"x / on () group_left sum(x)":          false,
		"x / scalar(sum(x))":                   false,
		"clamp_max(x, scalar(sum(x)))":         false,
	} {
		e, err := promQL.ParseExpr(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := ofOnePod(e); got != want {
			t.Errorf("%s: %t, want %t", expression, got, want)
		}
	}
}

// TestScaleFree checks of which expressions pods may be left out, because their values hardly depend on how many pods
// there are.
func TestScaleFree(t *testing.T) {
	for expression, want := range map[string]bool{
		"x or on (q) y":                                      false,
		"x and on (q) y":                                     false,
		"x unless on (q) y":                                  false,
		"x and sum by (q) (y)":                               false,
		"avg(x unless on (q) y)":                             false,
		"avg(x)":                                             true,
		"min(x)":                                             true,
		"max without (pod) (x)":                              true,
		"quantile(0.9, rate(x[1m]))":                         true,
		"max(sum by (pod) (x))":                              true,
		"max(x or vector(0))":                                true,
		"max(avg by (q) (x))":                                true,
		"max(x / y)":                                         true,
		"max(x / scalar(avg(x)))":                            true,
		"scalar(avg(x))":                                     true,
		"x / y":                                              true,
		"sum(x) / sum(y)":                                    true,
		"sum by (q) (x) / sum by (q) (y)":                    true,
		"max(sum by (q) (x) / sum by (q) (y))":               true,
		"sum(x) / count(x)":                                  true,
		"count(x > 5) / count(x)":                            true,
		"avg(x) / max(y)":                                    true,
		"100 * sum(x) / sum(y)":                              true,
		"sum(x) / sum(y) * 100":                              true,
		"1 - sum(x) / sum(y)":                                true,
		"sum(x) / (sum(x) + sum(y))":                         true,
		"sum(x) / (sum(y) > 0)":                              true,
		"sum(x) / (sum(y) > 0) or vector(1)":                 true,
		"sum(x) / clamp_min(sum(y), 1)":                      true,
		"(sum(x) or vector(0)) / sum(y)":                     true,
		"sum(x or vector(0)) / sum(y)":                       true,
		"sum(sum by (q) (x)) / sum(y)":                       true,
		"-(sum(x) / sum(y))":                                 true,
		"sum(x) / sum(y) and on () sum(y) > 5":               true,
		"max_over_time((sum(x) / sum(y))[5m:])":              true,
		"histogram_quantile(0.9, sum by (le) (rate(x[1m])))": true,
		`label_replace(sum(x) / sum(y), "q", "y", "", "")`:   true,

		"x":                                false,
		"sum(x)":                           false,
		"count(x)":                         false,
		"stddev(x)":                        false,
		"topk(1, x)":                       false,
		"sum(x) / 5":                       false,
		"sum(x) / max(y)":                  false,
		"max(x) / sum(y)":                  false,
		"max(sum by (q) (x))":              false,
		"avg(count by (q) (x))":            false,
		"sum(avg by (q) (x))":              false,
		"max(x / on () group_left sum(x))": false,
		"max(x / scalar(count(x)))":        false,
		"sum(x) * sum(y)":                  false,
		"1 + sum(x)":                       false,
		"sum(x or vector(5)) / sum(y)":     false,
		"count(sum by (q) (x)) / sum(y)":   false,
		"sum(x) > bool sum(y)":             false,
		"sum(x) or avg(x)":                 false,
		"rate(sum(x)[1m:]) / sum(y)":       false,
		"sum(x) / sum(y) ^ 2":              false,
		"absent(x)":                        false,
	} {
		e, err := promQL.ParseExpr(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := isScaleFree(e); got != want {
			t.Errorf("%s: %t, want %t", expression, got, want)
		}
	}
}
