package near

import (
	"slices"
	"strings"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"abc", "abd", 1},
		{"abc", "ac", 1},
		{"kitten", "sitting", 3},
		{"http_request_total", "http_requests_total", 1},
		{"ab", "ba", 2},
	} {
		if got := Distance(tc.a, tc.b); got != tc.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"http_requests_total", "queries", "a"}
	for s, want := range map[string]string{
		"http_request_total": "http_requests_total", "query": "", "querie": "queries", "b": "", "": "", "quries": "queries",
		strings.Repeat("x", 1000): "",
	} {
		if got := Nearest(s, words); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// TestNearestSkips checks that names whose length rules them out are not compared: that would take a second.
func TestNearestSkips(t *testing.T) {
	names := slices.Repeat([]string{strings.Repeat("a", 200)}, 2_000)
	names = append(names, strings.Repeat("a", 250)+"b")
	name := strings.Repeat("a", 250)
	if n := testing.AllocsPerRun(1, func() {
		if got := Nearest(name, names); got != names[2_000] {
			t.Errorf("got %q", got)
		}
	}); n > 1 {
		t.Errorf("%v distances are computed, want one", n)
	}
}
