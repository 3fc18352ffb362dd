package historyclient

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/history"
)

func TestFetch(t *testing.T) {
	const answer = `{"kind":"MetricsHistory","version":1,"instance":"a","points":2,` +
		`"series":[{"kind":"Node","name":"n1","first":1,"cpu":[0.5],"memory":[1e+09]}]}`
	const failure = `{"kind":"Status","apiVersion":"v1","status":"Failure",`
	for _, tt := range []struct {
		version string
		q       history.Query
		path    string
		code    int
		body    string
		none    bool
		err     string
	}{
		{
			"v1",
			history.Query{Nodes: true, Last: 2 * time.Hour},
			"/apis/metrics.k8s.io/v1/nodes?history=2h0m0s", 200, answer, false, "",
		},
		{
			"v1beta1",
			history.Query{Last: time.Hour, Step: 5 * time.Minute},
			"/apis/metrics.k8s.io/v1beta1/pods?history=1h0m0s&step=5m0s", 200, answer, false, "",
		},
		{
			"v1",
			history.Query{Namespace: "shop", Last: time.Hour},
			"/apis/metrics.k8s.io/v1/namespaces/shop/pods?history=1h0m0s", 200, answer, false, "",
		},
		{
			"v1",
			history.Query{Last: time.Hour},
			"/apis/metrics.k8s.io/v1/pods?history=1h0m0s", 404,
			failure + `"reason":"NotFound","code":404,"message":"no history is kept"}`,
			true, "no history is kept",
		},
		{
			"v1",
			history.Query{Last: time.Hour},
			"/apis/metrics.k8s.io/v1/pods?history=1h0m0s", 200,
			`{"kind":"PodMetricsList","items":[]}`, true, `it answered with a "PodMetricsList"`,
		},
		{
			"v1",
			history.Query{Last: time.Hour},
			"/apis/metrics.k8s.io/v1/pods?history=1h0m0s", 403,
			failure + `"reason":"Forbidden","code":403,"message":"you may not"}`,
			false, "read the history of metrics.k8s.io: you may not",
		},
		{
			"v1",
			history.Query{Last: time.Hour},
			"/apis/metrics.k8s.io/v1/pods?history=1h0m0s", 200,
			answer[:len(answer)-2], false, "unexpected EOF",
		},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.RequestURI(); got != tt.path {
				t.Errorf("asked for %s, want %s", got, tt.path)
			}
			if got := r.Header.Get("Accept"); got != "application/json" {
				t.Errorf("accepts %q, want JSON only", got)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(tt.code)
			_, _ = io.WriteString(w, tt.body)
		}))
		t.Cleanup(server.Close)
		client, err := kubernetes.NewForConfig(&rest.Config{
			Host:          server.URL,
			ContentConfig: rest.ContentConfig{AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json"},
		})
		if err != nil {
			t.Fatal(err)
		}
		a, err := Fetch(t.Context(), client.CoreV1().RESTClient(), tt.version, tt.q)
		if tt.err == "" {
			if err != nil || len(a.Series) != 1 || a.Series[0].CPU[0] != 0.5 || a.Series[0].First != 1 {
				t.Errorf("%s: %+v, %v", tt.path, a, err)
			}
			continue
		}
		var none *history.NoHistoryError
		if err == nil || !strings.Contains(err.Error(), tt.err) || errors.As(err, &none) != tt.none ||
			apierrors.IsForbidden(err) != (tt.code == 403) {
			t.Errorf("%s: %v, want %s", tt.path, err, tt.err)
		}
	}
}
