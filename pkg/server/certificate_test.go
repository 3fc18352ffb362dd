package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sharedtest"
)

// While the API server fails, the self-made certificate is served. When it works, clients are shown
// a certificate that the caBundle verifies, without a restart.
func TestServingCertificate(t *testing.T) {
	api := &certificateAPI{secret: corev1.Secret{
		TypeMeta:   metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "serving"},
	}}
	apiServer := httptest.NewServer(api)
	t.Cleanup(apiServer.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	authority := kubelettest.NewCA("nobody's")
	fallback, err := staticContent(authority.Server("fallback.test"))
	if err != nil {
		t.Fatal(err)
	}
	config := NewGenericConfig("v1.2.3")
	config.SecureServing = &genericapiserver.SecureServingInfo{Listener: listener, Cert: fallback}
	config.LoopbackClientConfig = &rest.Config{Host: "https://" + listener.Addr().String()}
	config.ShutdownDelayDuration = 0
	s, err := New(Config{
		Generic: config, Rest: &rest.Config{Host: apiServer.URL}, Resolution: 15 * time.Second, Timeout: time.Second,
		ServingSecret: types.NamespacedName{Namespace: "kube-system", Name: "serving"},
	})
	if err != nil {
		t.Fatal(err)
	}
	sharedtest.Start(t, t.Context(), s.Run)

	// presented returns whose certificate a client gets that trusts roots.
	presented := func(roots *x509.CertPool, name string) (string, error) {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name}}).DialContext(t.Context(), "tcp",
			listener.Addr().String())
		if err != nil {
			return "", err
		}
		defer c.Close()
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName, nil
	}
	eventually := func(what string, f func() error) {
		t.Helper()
		var err error
		for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
			if err = f(); err == nil {
				return
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	eventually("the API server fails, and the fallback is served", func() error {
		if api.asked() == 0 {
			return errors.New("nobody asked")
		}
		_, err := presented(authority.Pool(), "fallback.test")
		return err
	})
	api.recover()
	const name = "metrics-server.kube-system.svc"
	eventually("what is served is what the caBundle verifies", func() error {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(api.bundle()) {
			return errors.New("there is no caBundle")
		}
		got, err := presented(roots, name)
		if err == nil && got != name {
			err = fmt.Errorf("it is of %s", got)
		}
		return err
	})
}

// staticContent returns c in the form that the generic API server takes.
func staticContent(c *tls.Certificate) (dynamiccertificates.CertKeyContentProvider, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	return dynamiccertificates.NewStaticCertKeyContent("fallback",
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

// certificateAPI is an API server with a Secret and two APIServices, and nothing else. It fails until it recovers.
type certificateAPI struct {
	mu       sync.Mutex
	requests int // for what it has
	works    bool
	secret   corev1.Secret
	caBundle []byte
}

func (a *certificateAPI) recover() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.works = true
}

func (a *certificateAPI) asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests
}

func (a *certificateAPI) bundle() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.caBundle
}

// ServeHTTP implements http.Handler.
func (a *certificateAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	service, isService := strings.CutPrefix(r.URL.Path, "/apis/apiregistration.k8s.io/v1/apiservices/")
	isSecret := strings.HasSuffix(r.URL.Path, "/namespaces/kube-system/secrets/serving")
	if !isService && !isSecret {
		http.NotFound(w, r)
		return
	}
	a.requests++
	var err error
	switch {
	case !a.works:
		err = errors.New("out of order")
	case r.Method == http.MethodPut:
		err = decodeObject(r, &a.secret)
	case r.Method == http.MethodPatch:
		var patch struct{ Spec struct{ CABundle []byte } }
		err = json.NewDecoder(r.Body).Decode(&patch)
		a.caBundle = patch.Spec.CABundle
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var answer any = a.secret
	if isService {
		answer = map[string]any{
			"metadata": map[string]any{"name": service},
			"spec": map[string]any{
				"caBundle": a.caBundle,
				"service":  map[string]any{"namespace": "kube-system", "name": "metrics-server"},
			},
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// decodeObject reads an object in the format of the request.
func decodeObject(r *http.Request, into runtime.Object) error {
	info, ok := runtime.SerializerInfoForMediaType(clientgoscheme.Codecs.SupportedMediaTypes(),
		r.Header.Get("Content-Type"))
	if !ok {
		return fmt.Errorf("content type %q", r.Header.Get("Content-Type"))
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_, _, err = info.Serializer.Decode(b, nil, into)
	return err
}
