package adapter

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/custom_metrics"
	"k8s.io/metrics/pkg/apis/external_metrics"
	reference "sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/provider"

	"metrics-server/pkg/api/custom"
	"metrics-server/pkg/api/external"
	"metrics-server/pkg/api/metricgroup"
	"metrics-server/pkg/apiserver"
)

var at = time.Date(2026, 11, 29, 10, 0, 0, 700_000_000, time.UTC)

// window covers the values of all metrics but "level".
func window(metric string) time.Duration {
	if metric == "level" {
		return 0
	}
	return 30 * time.Second
}

// missing has what both servers say of the metric "missing".
const missing = "nobody refers to it"

// ours are the values as this project's API takes them.
type ours struct{}

func (ours) Pods(_ context.Context, namespace string, pods labels.Selector, metric string, _ labels.Selector) (
	[]custom.Value, error,
) {
	if metric == "missing" {
		return nil, errMissing
	}
	return []custom.Value{
		value(namespace, "Pod", pods.String(), metric), value(namespace, "Pod", "another", metric),
	}, nil
}

func (ours) Object(_ context.Context, namespace string, of schema.GroupResource, name, metric string,
	_ labels.Selector,
) (custom.Value, error) {
	if metric == "missing" {
		return custom.Value{}, errMissing
	}
	if of.Resource == "namespaces" {
		namespace = "" // a namespace is in none
	}
	return value(namespace, of.String(), name, metric), nil
}

func value(namespace, kind, name, metric string) custom.Value {
	return custom.Value{
		Of:    corev1.ObjectReference{Kind: kind, APIVersion: "v1", Namespace: namespace, Name: name},
		Value: metricgroup.Value{Number: 333.3333333, Time: at, Window: window(metric)},
	}
}

func (ours) External(_ context.Context, _, metric string, _ labels.Selector) (metricgroup.Value, error) {
	if metric == "missing" {
		return metricgroup.Value{}, errMissing
	}
	return metricgroup.Value{Number: 333.3333333, Time: at, Window: window(metric)}, nil
}

var errMissing = &missingError{}

type missingError struct{}

func (*missingError) Error() string { return missing }

// theirs are the same values as the library takes them.
type theirs struct{}

func (theirs) ListAllMetrics() []provider.CustomMetricInfo {
	return []provider.CustomMetricInfo{{GroupResource: schema.GroupResource{Resource: "pods"}, Metric: "rate"}}
}

func (theirs) GetMetricByName(_ context.Context, name types.NamespacedName, info provider.CustomMetricInfo,
	selector labels.Selector,
) (*custom_metrics.MetricValue, error) {
	if info.Metric == "missing" {
		return nil, notFound()
	}
	return object(name.Namespace, info.GroupResource.String(), name.Name, info.Metric, selector)
}

func (theirs) GetMetricBySelector(_ context.Context, namespace string, pods labels.Selector,
	info provider.CustomMetricInfo, selector labels.Selector,
) (*custom_metrics.MetricValueList, error) {
	if info.Metric == "missing" {
		return nil, notFound()
	}
	list := &custom_metrics.MetricValueList{}
	for _, name := range []string{pods.String(), "another"} {
		m, err := object(namespace, "Pod", name, info.Metric, selector)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, *m)
	}
	return list, nil
}

func (theirs) ListAllExternalMetrics() []provider.ExternalMetricInfo {
	return []provider.ExternalMetricInfo{{Metric: "rate"}}
}

func (theirs) GetExternalMetric(_ context.Context, _ string, selector labels.Selector,
	info provider.ExternalMetricInfo,
) (*external_metrics.ExternalMetricValueList, error) {
	if info.Metric == "missing" {
		return nil, notFound()
	}
	s, err := metav1.ParseToLabelSelector(selector.String())
	if err != nil {
		return nil, err
	}
	v := external_metrics.ExternalMetricValue{
		MetricName: info.Metric, MetricLabels: s.MatchLabels, Timestamp: metav1.NewTime(at),
		Value: *resource.NewMilliQuantity(333333, resource.DecimalSI),
	}
	if w := window(info.Metric); w > 0 {
		v.WindowSeconds = new(int64(w.Seconds()))
	}
	return &external_metrics.ExternalMetricValueList{Items: []external_metrics.ExternalMetricValue{v}}, nil
}

func object(namespace, kind, name, metric string, selector labels.Selector) (*custom_metrics.MetricValue, error) {
	m := &custom_metrics.MetricValue{
		DescribedObject: custom_metrics.ObjectReference{Kind: kind, APIVersion: "v1", Namespace: namespace, Name: name},
		Metric:          custom_metrics.MetricIdentifier{Name: metric},
		Timestamp:       metav1.NewTime(at),
		Value:           *resource.NewMilliQuantity(333333, resource.DecimalSI),
	}
	if w := window(metric); w > 0 {
		m.WindowSeconds = new(int64(w.Seconds()))
	}
	if !selector.Empty() {
		s, err := metav1.ParseToLabelSelector(selector.String())
		if err != nil {
			return nil, err
		}
		m.Metric.Selector = s
	}
	return m, nil
}

func notFound() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: missing,
	}}
}

// open allows everybody everything, on a server that listens nowhere.
func open(c *genericapiserver.Config) {
	c.ExternalAddress, c.LoopbackClientConfig = "127.0.0.1:443", &rest.Config{}
	c.Authentication.Authenticator = authenticator.RequestFunc(
		func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "test"}}, true, nil
		})
	c.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
}

// servers serves the same values with our API and with the library.
func servers(t *testing.T) (ourURL, theirURL string) {
	t.Helper()
	config := apiserver.NewGenericConfig("test", "v1", custom.Group, external.Group)
	open(config)
	s, err := config.Complete(nil).New("ours", genericapiserver.NewEmptyDelegate())
	if err != nil {
		t.Fatal(err)
	}
	custom.Install(s, ours{})
	external.Install(s, ours{})

	generic := genericapiserver.NewConfig(reference.Codecs)
	generic.SkipOpenAPIInstallation = true // it is without models
	open(generic)
	r := reference.Config{GenericConfig: generic}
	library, err := r.Complete(nil).New("theirs", theirs{}, theirs{})
	if err != nil {
		t.Fatal(err)
	}
	urls := [2]string{}
	for i, one := range []*genericapiserver.GenericAPIServer{s, library.GenericAPIServer} {
		t.Cleanup(one.Destroy)
		h := httptest.NewServer(one.PrepareRun().Handler)
		t.Cleanup(h.Close)
		urls[i] = h.URL
	}
	return urls[0], urls[1]
}

type answer struct {
	code              int
	contentType, body string
}

func get(t *testing.T, url, accept string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), string(b)}
}

// request is one whose answers are compared.
type request struct {
	path, accept string
	differs      string // why the answers must differ, if they must
}

const protobuf = "application/vnd.kubernetes.protobuf"

// compare compares whole answers.
func (r request) compare(t *testing.T, ourURL, theirURL, root string) {
	o, theirs := get(t, ourURL+root+r.path, r.accept), get(t, theirURL+root+r.path, r.accept)
	if r.differs == "" {
		if d := cmp.Diff(theirs, o, cmp.AllowUnexported(answer{})); d != "" {
			t.Errorf("(-the library +ours)\n%s", d)
		}
		return
	}
	if o == theirs {
		t.Errorf("the answers are the same, although %s", r.differs)
	}
	t.Logf("ours %d %s\ntheirs %d %s", o.code, o.body, theirs.code, theirs.body)
}

// TestExternalAnswers compares answers of external.metrics.k8s.io.
func TestExternalAnswers(t *testing.T) {
	ourURL, theirURL := servers(t)
	for name, r := range map[string]request{
		"a rate":             {path: "/namespaces/shop/rate"},
		"protobuf":           {path: "/namespaces/shop/rate", accept: protobuf},
		"YAML":               {path: "/namespaces/shop/rate", accept: "application/yaml"},
		"all types":          {path: "/namespaces/shop/rate", accept: "*/*"},
		"selector of series": {path: "/namespaces/shop/rate?labelSelector=queue%3Da%2Ctier+in+%28b%2Cc%29"},
		"level":              {path: "/namespaces/shop/level"},
		"upper case":         {path: "/namespaces/shop/queueDepth"},
		"missing":            {path: "/namespaces/shop/missing", differs: "ours has details"},
		"bad label selector": {
			path: "/namespaces/shop/rate?labelSelector=%21%21", differs: "the texts of 400",
		},
		"list of resources": {path: "", differs: "ours names no metrics"},
		"pretty print":      {path: "/namespaces/shop/rate?pretty=true"},
	} {
		t.Run(name, func(t *testing.T) { r.compare(t, ourURL, theirURL, "/apis/external.metrics.k8s.io/v1beta1") })
	}
}

// TestAnswers compares answers of custom.metrics.k8s.io in both versions.
func TestAnswers(t *testing.T) {
	ourURL, theirURL := servers(t)
	for _, version := range []string{"v1beta1", "v1beta2"} {
		for name, r := range map[string]request{
			"pods":                {path: "/namespaces/shop/pods/*/rate?labelSelector=web"},
			"pods, protobuf":      {path: "/namespaces/shop/pods/*/rate?labelSelector=web", accept: protobuf},
			"pods, YAML":          {path: "/namespaces/shop/pods/*/rate?labelSelector=web", accept: "application/yaml"},
			"pods, all types":     {path: "/namespaces/shop/pods/*/rate", accept: "*/*"},
			"selector of series":  {path: "/namespaces/shop/pods/*/rate?metricLabelSelector=code%3D500"},
			"level":               {path: "/namespaces/shop/pods/*/level"},
			"one pod":             {path: "/namespaces/shop/pods/web/rate"},
			"service":             {path: "/namespaces/shop/services/web/rate"},
			"deployment":          {path: "/namespaces/shop/deployments.apps/web/rate"},
			"node":                {path: "/nodes/web/rate"},
			"namespace":           {path: "/namespaces/shop/metrics/rate"},
			"node in a namespace": {path: "/namespaces/shop/nodes/web/rate"},
			"bad label selector": {
				path: "/namespaces/shop/pods/*/rate?labelSelector=%21%21", differs: "the library answers 500",
			},
			"missing":               {path: "/namespaces/shop/pods/*/missing", differs: "ours has details"},
			"several services":      {path: "/namespaces/shop/services/*/rate", differs: "ours serves several pods only"},
			"list of resources":     {path: "", differs: "ours names no metrics"},
			"no metric":             {path: "/namespaces/shop/pods", differs: "the texts of 404"},
			"not acceptable":        {path: "/namespaces/shop/pods/*/rate", accept: "text/html", differs: "the texts of 406"},
			"one pod, pretty print": {path: "/namespaces/shop/pods/web/rate?pretty=true"},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				r.compare(t, ourURL, theirURL, "/apis/custom.metrics.k8s.io/"+version)
			})
		}
	}
}
