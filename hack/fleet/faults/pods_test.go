//go:build faults

package faults

import (
	"bytes"
	"strings"
	"testing"

	"metrics-server/hack/fleet/measure"
	"metrics-server/hack/fleet/network"
	"metrics-server/hack/fleet/pods"
)

// podFaults has the answer for HPAs all of whose pods have a fault; "" if there are values.
var podFaults = map[string]string{
	"hang":           "the answer is not complete in time",
	"reset":          "the connection was closed before the answer was complete",
	"half":           "the connection was closed before the answer was complete",
	"500":            "it answers 500 Internal Server Error",
	"redirect":       "redirects are not followed",
	"garbage":        "its page is not in an exposition format",
	"login page":     `content type \"text/html\"`,
	"huge":           "the page has more than 8 MiB",
	"huge, declared": "the page has more than 8 MiB",
	"slow":           "the answer is not complete in time",
	pods.WrongType:   "correct the # TYPE line",
	pods.NotANumber:  "NaN",
	pods.Restarts:    "",
}

// TestPodFaults makes pods fail and lie in every way, in a separate network.
func TestPodFaults(t *testing.T) {
	if !network.Inside() {
		t.Parallel()
		code, err := network.Run("-test.run=^TestPodFaults$", "-test.v", "-test.count=1")
		if err != nil {
			t.Fatal(err)
		}
		if code != 0 {
			t.Fatalf("the test in the network ended with code %d: see above", code)
		}
		return
	}
	if err := network.SetUp(); err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	r, err := measure.PodFaults(t.Context(), program, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	t.Logf("%s%d values in %d answers, age p99 %v before and %v during the faults", progress.String(),
		r.Verdict.Numbers, r.Verdict.Lists, r.AgeBefore, r.AgeDuring)
	if v := r.Verdict; !v.OK() || v.Numbers < 1000 {
		t.Errorf("%d wrong and %d missing of %d values: %s", v.Wrong, v.Missing, v.Numbers, strings.Join(v.Examples, "\n"))
	}
	if r.AgeDuring > r.AgeBefore+late {
		t.Errorf("values of healthy pods are %v old at p99 while others fail, and %v before", r.AgeDuring, r.AgeBefore)
	}
	for _, f := range pods.Faults {
		want, known := podFaults[f.Name]
		switch got := r.Errors[f.Name]; {
		case !known:
			t.Errorf("%s: give it a row", f.Name)
		case want == "" && got != "":
			t.Errorf("%s: %s, want values", f.Name, got)
		case !strings.Contains(got, want):
			t.Errorf("%s: the answer is %q, want %q in it", f.Name, got, want)
		}
	}
	if leaks := r.Leaks(); len(leaks) > 0 {
		t.Errorf("leaks: %s", strings.Join(leaks, "; "))
	}
}
