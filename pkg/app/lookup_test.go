package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/server"
)

// Once the API server has served the authentication configuration, its failures cannot abort the start, because it is
// not asked again. A request that hangs ends with the process.
func TestAuthenticationIsLookedUpOnce(t *testing.T) {
	const (
		hangs    = 0
		tolerate = "--authentication-tolerate-lookup-failure"
	)
	for _, tc := range []struct {
		name      string
		tolerated bool
		codes     []int    // of the answers, in their order
		headers   []string // of user names, that are believed
		stopped   bool
	}{
		{name: "it answers", codes: []int{200}, headers: []string{"X-User"}},
		{name: "it fails, then answers", codes: []int{500, 200}, headers: []string{"X-User"}},
		{name: "it hangs until the process ends", codes: []int{hangs}, stopped: true},
		{name: "it fails, then hangs until the process ends", codes: []int{500, hangs}, stopped: true},
		{name: "it answers, and a failure is tolerated", tolerated: true, codes: []int{200}, headers: []string{"X-User"}},
		{name: "it denies, which is tolerated", tolerated: true, codes: []int{403}},
		{name: "it fails, which is tolerated", tolerated: true, codes: []int{500}},
		{name: "there is none, which is tolerated", tolerated: true, codes: []int{404}},
		{
			name: "it hangs until the process ends, and a failure is tolerated", tolerated: true, codes: []int{hangs},
			stopped: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var asked atomic.Int32
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/"+kubeapi.AuthenticationConfigMap) {
					t.Errorf("unexpected request for %s", r.URL)
				}
				n := int(asked.Add(1))
				if n > len(tc.codes) {
					t.Errorf("request %d of the authentication configuration, want %d", n, len(tc.codes))
					http.Error(w, "no", http.StatusInternalServerError)
					return
				}
				code := tc.codes[n-1]
				if code == hangs {
					cancel()
					<-r.Context().Done()
					return
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(code)
				_ = json.NewEncoder(w).Encode(corev1.ConfigMap{
					TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
					Data: map[string]string{
						kubeapi.FrontProxyCAKey: certificate(t), "requestheader-username-headers": `["X-User"]`,
					},
				})
			}))
			defer api.Close()
			o := parse(t, "--cert-dir="+t.TempDir(), "--kubeconfig="+writeKubeconfig(t, api.URL), "--bind-address=127.0.0.1",
				fmt.Sprintf("--secure-port=%d", freePort(t)), fmt.Sprintf("%s=%t", tolerate, tc.tolerated))
			generic := server.NewGenericConfig("")
			p, err := o.prepare(ctx, generic)
			if err != nil || (p == nil) != tc.stopped {
				t.Fatalf("prepared %v (%v), want it to be stopped: %v", p, err, tc.stopped)
			}
			if p == nil {
				return
			}
			defer generic.SecureServing.Listener.Close()
			var headers []string
			if c := generic.Authentication.RequestHeaderConfig; c != nil {
				headers = c.UsernameHeaders.Value()
			}
			if fmt.Sprint(headers) != fmt.Sprint(tc.headers) {
				t.Errorf("headers %q, want %q", headers, tc.headers)
			}
		})
	}
}

// freePort returns a port that no program used a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
