package app

import (
	"slices"
	"testing"
)

// The kubelet has no credentials for its probes: if the list of paths lacks them, each probe
// depends on the API server.
func TestClosedProbes(t *testing.T) {
	for _, tt := range []struct {
		args, want []string
	}{
		{nil, nil},
		{[]string{"--authorization-always-allow-paths=/livez,/readyz"}, nil},
		{[]string{"--authorization-always-allow-paths=livez", "--authorization-always-allow-paths=/readyz"}, nil},
		{[]string{"--authorization-always-allow-paths=/livez*,/ready*"}, nil},
		{[]string{"--authorization-always-allow-paths=*"}, nil},
		{[]string{"--authorization-always-allow-paths=/healthz"}, []string{"/livez", "/readyz"}},
		{[]string{"--authorization-always-allow-paths=/livez"}, []string{"/readyz"}},
		{[]string{"--authorization-always-allow-paths=/livez/*,/readyz"}, []string{"/livez"}},
		{[]string{"--authorization-always-allow-paths="}, []string{"/livez", "/readyz"}},
	} {
		o := parse(t, tt.args...)
		if got := o.closedProbes(); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.args, got, tt.want)
		}
	}
}
