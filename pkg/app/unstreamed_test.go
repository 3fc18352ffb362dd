package app

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/server"
)

// A new CA of the front proxy is noticed although the API server never completes a streamed list.
func TestFrontProxyCAWithoutStreams(t *testing.T) {
	var (
		mu      sync.Mutex
		ca      = certificate(t)
		watched atomic.Bool
		changed = make(chan struct{})
	)
	object := func() map[string]any {
		mu.Lock()
		defer mu.Unlock()
		return map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{
				"namespace": "kube-system", "name": kubeapi.AuthenticationConfigMap, "resourceVersion": "7",
			},
			"data": map[string]string{kubeapi.FrontProxyCAKey: ca, "requestheader-username-headers": `["X-Remote-User"]`},
		}
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		write := func(v any) {
			_ = json.NewEncoder(w).Encode(v)
			w.(http.Flusher).Flush()
		}
		q := r.URL.Query()
		switch {
		case !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/kube-system/configmaps"):
			http.NotFound(w, r)
		case strings.HasSuffix(r.URL.Path, "/"+kubeapi.AuthenticationConfigMap):
			write(object())
		case q.Get("sendInitialEvents") == "true":
			write(map[string]any{"type": "ADDED", "object": object()})
			<-r.Context().Done()
		case q.Get("watch") != "":
			watched.Store(true)
			select {
			case <-changed:
				write(map[string]any{"type": "MODIFIED", "object": object()})
			case <-r.Context().Done():
			}
			<-r.Context().Done()
		default:
			write(map[string]any{
				"apiVersion": "v1", "kind": "ConfigMapList", "metadata": map[string]any{"resourceVersion": "7"},
				"items": []any{object()},
			})
		}
	}))
	defer api.Close()
	defer api.CloseClientConnections()
	kubeconfig := writeKubeconfig(t, api.URL)
	o := parse(t, "--cert-dir="+t.TempDir(), "--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o.SecureServing.Listener = l
	if err := o.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, nil); err != nil {
		t.Fatal(err)
	}
	generic := server.NewGenericConfig("")
	authentication, err := o.awaitAPIServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.configure(generic, authentication); err != nil {
		t.Fatal(err)
	}
	trusted := generic.Authentication.RequestHeaderConfig.CAContentProvider
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { trusted.(dynamiccertificates.ControllerRunner).Run(ctx, 1) })
	defer wg.Wait()
	defer cancel()

	eventually := func(what string, holds func() bool) {
		t.Helper()
		for range 1200 { // a minute
			if holds() {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatal(what)
	}
	eventually("the ConfigMap is not watched", watched.Load)
	mu.Lock()
	ca = certificate(t)
	mu.Unlock()
	close(changed)
	eventually("the new CA is not trusted", func() bool { return string(trusted.CurrentCABundleContent()) == ca })
}

// writeKubeconfig returns the path of a kubeconfig for the API server at url.
func writeKubeconfig(t *testing.T, url string) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["a"] = &clientcmdapi.Cluster{Server: url}
	c.Contexts["a"], c.CurrentContext = &clientcmdapi.Context{Cluster: "a"}, "a"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificate returns a new certificate as PEM.
func certificate(t *testing.T) string {
	t.Helper()
	pem, _, err := cert.GenerateSelfSignedCertKey("front-proxy", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem)
}
