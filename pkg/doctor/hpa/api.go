package hpa

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	customv1beta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	"k8s.io/metrics/pkg/client/custom_metrics"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/podtarget"
)

// api sends requests to the API server.
type api struct {
	kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
	mapper   meta.RESTMapper
	versions custom_metrics.AvailableAPIsGetter
	choose   sync.Once
	chosen   string // see customVersion
	http     *http.Client
	host     url.URL
}

func newAPI(config *rest.Config) (*api, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // requests are sequential, except those for pods, which are limited
	config.Timeout = doctor.RequestTimeout
	config.WarningHandler = rest.NoWarnings{}
	fail := func(err error) (*api, error) { return nil, fmt.Errorf("make a client for the API server: %w", err) }
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fail(err)
	}
	a := &api{http: client}
	// The answer of a pod may lead elsewhere, where the user's credentials do not belong.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	typed, err := kubernetes.NewForConfigAndClient(config, client)
	if err != nil {
		return fail(err)
	}
	a.Interface = typed
	discovery := memory.NewMemCacheClient(typed.Discovery())
	a.mapper = restmapper.NewDeferredDiscoveryRESTMapper(discovery)
	a.versions = custom_metrics.NewAvailableAPIsGetter(discovery)
	if a.dynamic, err = dynamic.NewForConfigAndClient(config, client); err != nil {
		return fail(err)
	}
	if a.metadata, err = metadata.NewForConfigAndClient(config, client); err != nil {
		return fail(err)
	}
	host, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return fail(err)
	}
	a.host = *host
	return a, nil
}

// customVersion returns the version of custom.metrics.k8s.io that the controller requests. Both use the same library
// code to choose it. The first answer, or the lack of one, counts.
func (a *api) customVersion() string {
	a.choose.Do(func() {
		a.chosen = customv1beta2.SchemeGroupVersion.Version
		if version, err := a.versions.PreferredVersion(); err == nil { // otherwise the controller gets no answer either
			a.chosen = version.Version
		}
	})
	return a.chosen
}

// customRoot returns the path of that version.
func (a *api) customRoot() string {
	return "/apis/" + kubeapi.CustomMetricsGroup + "/" + a.customVersion()
}

// answer is what was answered to a request.
type answer struct {
	status      int
	contentType string
	body        []byte
	notes       *kubeapi.Notes // of the custom metrics server; nil if there are none
}

var errTooLarge = errors.New("the answer is larger than 8 MiB")

// do sends a GET request. An error means that there is no complete answer.
func (a *api) do(ctx context.Context, at string, query url.Values, header http.Header) (*answer, error) {
	u := a.host
	u.Path, u.RawQuery = strings.TrimSuffix(u.Path, "/")+at, query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header = header
	resp, err := a.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, podtarget.MaxPage+1))
	if err == nil && len(b) > podtarget.MaxPage {
		err = errTooLarge
	}
	return &answer{
		status: resp.StatusCode, contentType: resp.Header.Get("Content-Type"), body: b,
		notes: kubeapi.DecodeNotes(resp.Header.Get(kubeapi.NotesHeader)),
	}, err
}

const isJSON = "application/json"

// get reads the JSON object at a path. Failures that the API server reports are API errors.
func (a *api) get(ctx context.Context, at string, query url.Values, into any) error {
	got, err := a.do(ctx, at, query, http.Header{"Accept": {isJSON}})
	if err != nil {
		return err
	}
	return got.read(at, into)
}

// getMetric is get for a metric. It also returns what the custom metrics server says besides, if there is an error,
// too; nil if it did not answer.
func (a *api) getMetric(ctx context.Context, at string, query url.Values, into any) (*kubeapi.Notes, error) {
	got, err := a.do(ctx, at, query, http.Header{"Accept": {isJSON}, kubeapi.NotesHeader: {"1"}})
	if err != nil {
		return nil, err
	}
	return got.notes, got.read(at, into)
}

// read reads the JSON object of an answer.
func (g *answer) read(at string, into any) error {
	if g.status != http.StatusOK {
		return g.apiError()
	}
	if err := json.Unmarshal(g.body, into); err != nil {
		return fmt.Errorf("answer at %s: %w", at, err)
	}
	return nil
}

func (g *answer) apiError() error {
	if s := g.apiStatus(); s != nil {
		return &apierrors.StatusError{ErrStatus: *s}
	}
	text := strings.TrimSpace(string(g.body[:min(len(g.body), 200)]))
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(g.status), Reason: reasonOf(g.status),
		Message: fmt.Sprintf("%d %s: %s", g.status, http.StatusText(g.status), text),
	}}
}

// apiStatus returns the Status of an API server, nil if the answer is none.
func (g *answer) apiStatus() *metav1.Status {
	var s metav1.Status
	if err := json.Unmarshal(g.body, &s); err != nil || s.Kind != "Status" || s.APIVersion != "v1" {
		return nil
	}
	return &s
}

func reasonOf(status int) metav1.StatusReason {
	switch status {
	case http.StatusUnauthorized:
		return metav1.StatusReasonUnauthorized
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusNotFound:
		return metav1.StatusReasonNotFound
	case http.StatusServiceUnavailable:
		return metav1.StatusReasonServiceUnavailable
	}
	return metav1.StatusReasonUnknown
}

// proxyPath returns the path by which the API server forwards a request to a pod. The path of the page is from an
// annotation, which must not lead out of the pod.
func proxyPath(namespace, pod string, page *url.URL) string {
	name := pod + ":" + page.Port()
	if page.Scheme == "https" {
		name = "https:" + name
	}
	at := path.Clean("/" + page.Path)
	if strings.HasSuffix(page.Path, "/") && at != "/" {
		at += "/"
	}
	return "/api/v1/namespaces/" + namespace + "/pods/" + name + "/proxy" + at
}
