package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClientConfigOfAPod checks that a pod without a token is not mistaken for a process outside of a cluster.
func TestClientConfigOfAPod(t *testing.T) {
	// These tests may themselves run in a pod with a token, of a CI system for example.
	_, err := os.Stat(filepath.Join(filepath.Dir(namespaceFile), "token"))
	hasToken := err == nil
	for name, tt := range map[string]struct{ host, want string }{
		"no pod": {"", "no API server is configured"},
		"pod":    {"10.96.0.1", "automountServiceAccountToken: true"},
	} {
		t.Setenv("KUBERNETES_SERVICE_HOST", tt.host)
		t.Setenv("KUBERNETES_SERVICE_PORT", "443")
		c, err := clientConfig("")
		if tt.host != "" && hasToken {
			if err != nil || c.Host != "https://10.96.0.1:443" {
				t.Errorf("%s with a token: %v (%v), want the API server of its cluster", name, c, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "give --kubeconfig") {
			t.Errorf("%s: %v, want %q and a remedy", name, err, tt.want)
		}
	}
}
