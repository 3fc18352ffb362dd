package binary

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMetrics(t *testing.T) {
	got, err := parseMetrics([]byte("# HELP a b\n# TYPE a counter\na 1\na{b=\"c d\",e=\"f\"} 2.5e+06\n\n"))
	if d := cmp.Diff(map[string]float64{"a": 1, `a{b="c d",e="f"}`: 2.5e6}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, bad := range []string{"a", "a b"} {
		if got, err := parseMetrics([]byte(bad)); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}
