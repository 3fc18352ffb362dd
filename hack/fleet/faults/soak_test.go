//go:build faults

package faults

import (
	"bytes"
	"testing"
	"time"

	"metrics-server/hack/fleet/measure"
)

// TestSoak is `make soak` for a minute, with every fault and with much churn.
func TestSoak(t *testing.T) {
	t.Parallel()
	var progress, report bytes.Buffer
	r, err := measure.Soak(t.Context(), measure.Options{
		Binary: program, Nodes: 50, Pods: 10, Containers: 2, Resolution: 5 * time.Second, For: 80 * time.Second, Churn: 40,
		Faulty: 25,
	}, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	if err := r.Write(&report); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s%s", progress.String(), report.String())
	if !r.OK() {
		t.Fail()
	}
	if want := measure.SoakKinds; len(r.Faults) != want {
		t.Errorf("%d kinds of faults, want all %d", len(r.Faults), want)
	}
}
