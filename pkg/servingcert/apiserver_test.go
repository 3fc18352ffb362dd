package servingcert

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubeapi"
)

const (
	v1      = "v1.metrics.k8s.io"
	v1beta1 = "v1beta1.metrics.k8s.io"
	host    = "metrics-server.kube-system.svc"
)

// fakeAPI is an API server with one Secret and some APIServices, as an http.RoundTripper.
type fakeAPI struct {
	// before is called at each request, and gives the code of its failure, or 0. It may block.
	before func(verb, resource string) int
	// wrote is called after each change, under lock.
	wrote func()

	mu       sync.Mutex
	version  int
	secret   *corev1.Secret // nil: there's none
	services map[string]*apiService
	denied   string         // name of the APIService that must not be read; "": none
	requests map[string]int // by "VERB RESOURCE"
}

// newAPI has an empty Secret and two APIServices that lead here, as the manifests make them.
func newAPI() *fakeAPI {
	a := &fakeAPI{
		secret: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: "kube-system", Name: "serving",
			ResourceVersion: "0",
		}},
		services: map[string]*apiService{},
		requests: map[string]int{},
		before:   func(string, string) int { return 0 },
		wrote:    func() {},
	}
	for _, name := range []string{v1, v1beta1} {
		a.services[name] = leadsTo(name, "kube-system", "metrics-server")
	}
	return a
}

func leadsTo(name, namespace, service string) *apiService {
	s := &apiService{}
	s.Metadata.Name, s.Metadata.ResourceVersion = name, "0"
	s.Spec.Service = &struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}{namespace, service}
	return s
}

// client returns a client of a.
func (a *fakeAPI) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: "http://api.test", Transport: a, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// change changes the contents of a from outside, as another client would.
func (a *fakeAPI) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	a.version++
	version := strconv.Itoa(a.version)
	if a.secret != nil {
		a.secret.ResourceVersion = version
	}
	for _, s := range a.services {
		s.Metadata.ResourceVersion = version
	}
}

// data returns a copy of the Secret's.
func (a *fakeAPI) data() map[string][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.secret.Data)
}

// service returns a copy of an APIService.
func (a *fakeAPI) service(name string) apiService {
	a.mu.Lock()
	defer a.mu.Unlock()
	return *a.services[name]
}

// bundle returns the caBundle of an APIService.
func (a *fakeAPI) bundle(name string) []byte { return a.service(name).Spec.CABundle }

// asked returns how many requests there were of a kind.
func (a *fakeAPI) asked() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.requests)
}

// RoundTrip implements http.RoundTripper.
func (a *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	verb := map[string]string{http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch"}[r.Method]
	name, service := strings.CutPrefix(r.URL.Path, kubeapi.APIServicePath(""))
	resource := "secrets"
	if service {
		resource = "apiservices"
	}
	a.mu.Lock()
	before := a.before
	a.mu.Unlock()
	code := before(verb, resource)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests[verb+" "+resource]++
	var answer any
	switch {
	case code != 0:
	case service && name == a.denied:
		code = http.StatusForbidden
	case service && a.services[name] == nil, !service &&
		(a.secret == nil || r.URL.Path != "/api/v1/namespaces/kube-system/secrets/serving"):
		code = http.StatusNotFound
	case service:
		answer, code = a.services[name], http.StatusOK
		if verb == "patch" {
			code = a.patch(a.services[name], r)
		}
	default:
		answer, code = a.secret, http.StatusOK
		if verb == "update" {
			answer, code = a.update(r)
		}
	}
	if code != http.StatusOK {
		answer = metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Message: "refused", Code: int32(code), Reason: map[int]metav1.StatusReason{
				403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 409: metav1.StatusReasonConflict,
				422: metav1.StatusReasonInvalid, 500: metav1.StatusReasonInternalError,
			}[code],
		}
	} else if verb != "get" {
		a.wrote()
	}
	body, err := json.Marshal(answer)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, err
}

func (a *fakeAPI) update(r *http.Request) (*corev1.Secret, int) {
	s := &corev1.Secret{}
	if err := json.NewDecoder(r.Body).Decode(s); err != nil {
		return nil, http.StatusBadRequest
	}
	if s.ResourceVersion != a.secret.ResourceVersion {
		return nil, http.StatusConflict
	}
	a.version++
	s.ResourceVersion = strconv.Itoa(a.version)
	a.secret = s
	return s, http.StatusOK
}

// patch applies a merge patch. Like the API server, it rejects a caBundle on an APIService that is
// not verified.
func (a *fakeAPI) patch(s *apiService, r *http.Request) int {
	var p struct {
		Metadata struct{ ResourceVersion string }
		Spec     map[string]json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		return http.StatusBadRequest
	}
	if p.Metadata.ResourceVersion != s.Metadata.ResourceVersion {
		return http.StatusConflict
	}
	next := s.Spec
	for field, value := range p.Spec {
		switch {
		case field == "caBundle" && json.Unmarshal(value, &next.CABundle) == nil:
		default:
			return http.StatusBadRequest
		}
	}
	if next.InsecureSkipTLSVerify && len(next.CABundle) > 0 {
		return http.StatusUnprocessableEntity
	}
	a.version++
	s.Spec, s.Metadata.ResourceVersion = next, strconv.Itoa(a.version)
	return http.StatusOK
}

// keyNames are those of data, sorted.
func keyNames(data map[string][]byte) []string { return slices.Sorted(maps.Keys(data)) }
