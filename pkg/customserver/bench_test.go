package customserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/api/custom"
	"metrics-server/pkg/apiserver"
	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/demand"
)

// servedMetric returns a handler like that of the server, without access control, which serves one metric of 50 pods.
func servedMetric(b *testing.B, definition appmetrics.Definition, lines func(page int) string) http.Handler {
	b.Helper()
	q, err := appmetrics.Compile(definition)
	if err != nil {
		b.Fatal(err)
	}
	store, kept := appmetrics.New(appmetrics.Config{Parallel: parallel}), appmetrics.Keep(q)
	w := &wanted{Want: ofPods(definition.Name, pods(50)), query: &compiled{Query: q}}
	for i, p := range w.Pods {
		for j := range 4 {
			at := time.Now().Add(time.Duration(j-4) * interval)
			err := store.Record(p.UID, kept, appmetrics.Page{Namespace: "shop", Pod: p.Name, At: at, Body: []byte(lines(j))})
			if err != nil {
				b.Fatal(err)
			}
		}
		w.places = append(w.places, place{pod: i, page: &page{series: p.UID}})
	}
	generic := NewGenericConfig("v1.2.3", false)
	generic.ExternalAddress = "127.0.0.1:443"
	generic.LoopbackClientConfig = &rest.Config{}
	generic.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	generic.Authentication.Authenticator = authenticator.RequestFunc(
		func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "somebody"}}, true, nil
		})
	serving, err := apiserver.New(apiserver.Config{
		Name: "custom-metrics", Generic: generic, Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(serving.Destroy)
	custom.Install(serving.GenericAPIServer, &values{
		find:      func(demand.Request) (*demand.Want, error) { return w.Want, nil },
		collected: func(demand.Request) *wanted { return w },
		store:     store,
	})
	return serving.Handler
}

// discarded is a ResponseWriter that keeps nothing but the status.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header             { return d.header }
func (d *discarded) Write(p []byte) (n int, _ error) { return len(p), nil }
func (d *discarded) WriteHeader(status int)          { d.status = status }

// BenchmarkAnswer answers the request of the HPA controller for a metric of 50 pods, without TLS and access control.
func BenchmarkAnswer(b *testing.B) {
	counter := func(page int) string {
		var t strings.Builder
		t.WriteString("# TYPE http_requests_total counter\n")
		for i := range 6 {
			fmt.Fprintf(&t, "http_requests_total{code=\"%d\",handler=\"/api/v1/items\"} %d\n", 200+i, 1e6+100*page)
		}
		return t.String()
	}
	gauge := func(int) string { return "# TYPE queue gauge\nqueue 7\n" }
	mean := func(page int) string {
		return fmt.Sprintf("# TYPE took histogram\ntook_bucket{le=\"+Inf\"} %[1]d\ntook_sum %[1]d\ntook_count %[1]d\n", page)
	}
	for _, bm := range []struct {
		name, metric string
		page         func(int) string
	}{
		{"counter with 6 series", "http_requests_total", counter},
		{"gauge", "queue", gauge},
		{"mean", "took", mean},
	} {
		b.Run(bm.name, func(b *testing.B) {
			h := servedMetric(b, appmetrics.Definition{Name: bm.metric}, bm.page)
			r := httptest.NewRequest(http.MethodGet, "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/"+
				bm.metric+"?labelSelector=app%3Dweb", http.NoBody)
			r.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
			b.ReportAllocs()
			for b.Loop() {
				w := &discarded{header: http.Header{}}
				if h.ServeHTTP(w, r.WithContext(b.Context())); w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
		})
	}
}
