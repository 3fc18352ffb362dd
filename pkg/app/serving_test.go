package app

import (
	"strings"
	"testing"
)

// TestClientConfigOfAPod checks that a pod without a token is not mistaken for a process outside of a cluster.
func TestClientConfigOfAPod(t *testing.T) {
	for name, tt := range map[string]struct{ host, want string }{
		"no pod":        {"", "no API server is configured"},
		"without token": {"10.96.0.1", "automountServiceAccountToken: true"},
	} {
		t.Setenv("KUBERNETES_SERVICE_HOST", tt.host)
		t.Setenv("KUBERNETES_SERVICE_PORT", "443")
		_, err := clientConfig("")
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "give --kubeconfig") {
			t.Errorf("%s: %v, want %q and a remedy", name, err, tt.want)
		}
	}
}
