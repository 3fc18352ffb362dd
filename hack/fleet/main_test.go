package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSizes(t *testing.T) {
	got, err := parseSizes("100x70,1000x30")
	if d := cmp.Diff([]size{{100, 70}, {1000, 30}}, got, cmp.AllowUnexported(size{})); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []string{"", "100", "100x", "x30", "100x30x2", "0x30", "-1x3", "1x3,", "1x3 ", "1048576x1"} {
		if got, err := parseSizes(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}
