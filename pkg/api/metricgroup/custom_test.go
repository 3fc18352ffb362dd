package metricgroup_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	client "k8s.io/metrics/pkg/client/custom_metrics"

	"metrics-server/pkg/api/custom"
	"metrics-server/pkg/api/metricgroup"
	"metrics-server/pkg/kubeapi"
)

// fixed are the Values of both groups, with a few metrics, which record the requests.
type fixed struct{ asked []string }

func (f *fixed) Pods(ctx context.Context, namespace string, pods labels.Selector, metric string,
	selector labels.Selector,
) ([]custom.Value, error) {
	f.asked = append(f.asked, fmt.Sprintf("%s/pods/* %s of %s with %s", namespace, metric, pods, selector))
	if n := metricgroup.NotesOf(ctx); n != nil {
		n.Backend = "of " + metric
	}
	if metric == "none" {
		return nil, errors.New("pod web-1 has no family none: did you mean one?")
	}
	of := func(name string) corev1.ObjectReference {
		return corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: namespace, Name: name}
	}
	return []custom.Value{
		{Of: of("web-1"), Value: metricgroup.Value{Number: 1000.0 / 3, Time: at, Window: 30 * time.Second}},
		{Of: of("web-2"), Value: metricgroup.Value{Number: -1e15, Time: at}},
	}, nil
}

func (f *fixed) Object(_ context.Context, namespace string, of schema.GroupResource, name, metric string,
	selector labels.Selector,
) (custom.Value, error) {
	f.asked = append(f.asked, fmt.Sprintf("%s/%s/%s %s with %s", namespace, of, name, metric, selector))
	switch metric {
	case "none":
		return custom.Value{}, errors.New("nobody refers to none")
	case "slow":
		return custom.Value{}, apierrors.NewTimeoutError("it was not evaluated in time", 0)
	}
	return custom.Value{
		Of:    corev1.ObjectReference{Kind: "Thing", APIVersion: "x/v1", Namespace: namespace, Name: name},
		Value: metricgroup.Value{Number: 2.5, Time: at},
	}, nil
}

func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}, {Group: "apps", Version: "v1"}})
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Service"}, meta.RESTScopeNamespace)
	m.Add(schema.GroupVersionKind{Version: "v1", Kind: "Node"}, meta.RESTScopeRoot)
	m.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
	return m
}

// TestCustomClients sends the requests of the HPA controller, in both versions, as JSON and protobuf.
func TestCustomClients(t *testing.T) {
	for _, version := range custom.Group.Scheme.PrioritizedVersionsForGroup("custom.metrics.k8s.io") {
		for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
			t.Run(version.Version+" "+contentType, func(t *testing.T) {
				v := &fixed{}
				config := serve(t, v)
				config.ContentType = contentType
				c, err := client.NewForVersionForConfig(config, mapper(), version)
				if err != nil {
					t.Fatal(err)
				}
				web := labels.SelectorFromSet(labels.Set{"app": "web"})
				labelled := labels.SelectorFromSet(labels.Set{"code": "500"})
				in := c.NamespacedMetrics("shop")

				list, err := in.GetForObjects(schema.GroupKind{Kind: "Pod"}, web, "requests", labelled)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, m := range list.Items {
					window := int64(0)
					if m.WindowSeconds != nil {
						window = *m.WindowSeconds
					}
					selector := ""
					if m.Metric.Selector != nil {
						selector = metav1.FormatLabelSelector(m.Metric.Selector)
					}
					got = append(got, fmt.Sprint(m.DescribedObject.APIVersion, " ", m.DescribedObject.Kind, " ",
						m.DescribedObject.Namespace, "/", m.DescribedObject.Name, " ", m.Metric.Name, " ", selector, " ",
						m.Value.String(), " ", m.Timestamp.UTC().Format(time.RFC3339), " ", window))
				}
				if d := cmp.Diff([]string{
					"v1 Pod shop/web-1 requests code=500 333333m 2026-11-29T10:00:00Z 30",
					"v1 Pod shop/web-2 requests code=500 -1P 2026-11-29T10:00:00Z 0",
				}, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}

				one := func(kind schema.GroupKind, name string) *v1beta2.MetricValue {
					m, err := in.GetForObject(kind, name, "requests", labels.Everything())
					if err != nil {
						t.Fatal(err)
					}
					return m
				}
				if m := one(schema.GroupKind{Group: "apps", Kind: "Deployment"}, "web"); m.Value.String() != "2500m" ||
					m.DescribedObject.Name != "web" || m.Metric.Selector != nil {
					t.Errorf("got %+v, want 2500m of Deployment web without a selector", m)
				}
				one(schema.GroupKind{Kind: "Service"}, "web")
				root := c.RootScopedMetrics()
				if _, err := root.GetForObject(schema.GroupKind{Kind: "Node"}, "n", "requests", labelled); err != nil {
					t.Error(err)
				}
				if _, err := root.GetForObject(schema.GroupKind{Kind: "Namespace"}, "shop", "requests", labelled); err != nil {
					t.Error(err)
				}
				if d := cmp.Diff([]string{
					"shop/pods/* requests of app=web with code=500", "shop/deployments.apps/web requests with ",
					"shop/services/web requests with ", "/nodes/n requests with code=500",
					"shop/namespaces/shop requests with code=500",
				}, v.asked); d != "" {
					t.Errorf("asked (-want +got)\n%s", d)
				}

				_, err = in.GetForObjects(schema.GroupKind{Kind: "Pod"}, web, "none", labels.Everything())
				if !apierrors.IsNotFound(err) || err.Error() != "pod web-1 has no family none: did you mean one?" {
					t.Errorf("the error is %v", err)
				}
				_, err = in.GetForObject(schema.GroupKind{Kind: "Service"}, "web", "slow", labels.Everything())
				if !apierrors.IsTimeout(err) || !strings.Contains(err.Error(), "it was not evaluated in time") {
					t.Errorf("the error is %v, want a timeout", err)
				}
			})
		}
	}
}

// TestNotes checks that an answer has notes, also with an error, if and only if a client asks for them.
func TestNotes(t *testing.T) {
	config := serve(t, &fixed{})
	const root = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/a/"
	for path, want := range map[string]*kubeapi.Notes{
		root + "pods/*/requests":         {Backend: "of requests"},
		root + "pods/*/none":             {Backend: "of none"},
		root + "pods/*/requests?x":       nil,
		root + "services/*/requests":     {},
		root + "services/web/requests?x": nil,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if r.URL.RawQuery == "" {
			r.Header.Set(kubeapi.NotesHeader, "1")
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if d := cmp.Diff(want, kubeapi.DecodeNotes(resp.Header.Get(kubeapi.NotesHeader))); d != "" {
			t.Errorf("%s (-want +got)\n%s", path, d)
		}
	}
}

func TestCustomRequestsWithoutAnAnswer(t *testing.T) {
	config := serve(t, &fixed{})
	const root = "/apis/custom.metrics.k8s.io/v1beta2"
	const requests = root + "/namespaces/a/pods/*/requests"
	for name, tc := range map[string]struct {
		who, method, path string
		code              int
		says              string
	}{
		"no value":            {"", "GET", root + "/namespaces/a/services/web/none", 404, "nobody refers to none"},
		"all of another kind": {"", "GET", root + "/namespaces/a/services/*/requests", 404, "served for pods only"},
		"bad label selector":  {"", "GET", requests + "?labelSelector=%21%21", 400, "labelSelector"},
		"bad metric selector": {"", "GET", requests + "?metricLabelSelector=a%3D%3D%3D", 400, "metricLabelSelector"},
		"no metric":           {"", "GET", root + "/namespaces/a/pods/web", 404, ""},
		"too many parts":      {"", "GET", root + "/namespaces/a/pods/web/requests/more", 404, ""},
		"another version":     {"", "GET", "/apis/custom.metrics.k8s.io/v1/namespaces/a/pods/*/requests", 404, ""},
		"a write":             {"", "POST", root + "/namespaces/a/pods/*/requests", 405, ""},
		"no right":            {"nobody", "GET", root + "/namespaces/a/pods/*/requests", 403, "get pods/requests * in a"},
		"no right to a object": {
			"nobody", "GET", root + "/namespaces/a/services/web/requests", 403, "get services/requests web in a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := get(t, config, tc.who, tc.method, tc.path)
			if code != tc.code || !strings.Contains(body, tc.says) {
				t.Errorf("%d, want %d and %q: %s", code, tc.code, tc.says, body)
			}
		})
	}
}
