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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	client "k8s.io/metrics/pkg/client/external_metrics"

	"metrics-server/pkg/api/metricgroup"
)

func (f *fixed) External(_ context.Context, namespace, metric string, selector labels.Selector,
) (metricgroup.Value, error) {
	f.asked = append(f.asked, fmt.Sprintf("%s %s with %s", namespace, metric, selector))
	if metric == "none" {
		return metricgroup.Value{}, errors.New(`Service "redis" does not exist: create it or correct the reference`)
	}
	v := metricgroup.Value{Number: 1000.0 / 3, Time: at}
	if metric == "rate" {
		v.Window = 30 * time.Second
	}
	return v, nil
}

// TestExternalClient sends the requests of the HPA controller, as JSON and protobuf.
func TestExternalClient(t *testing.T) {
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		t.Run(contentType, func(t *testing.T) {
			v := &fixed{}
			config := serve(t, v)
			config.ContentType = contentType
			c, err := client.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			in := c.NamespacedMetrics("shop")
			ask := func(metric, selector string) string {
				s, err := labels.Parse(selector)
				if err != nil {
					t.Fatal(err)
				}
				list, err := in.List(metric, s)
				if err != nil || len(list.Items) != 1 {
					t.Fatalf("%s: got %+v, %v, want one item", metric, list, err)
				}
				m, window := list.Items[0], int64(0)
				if m.WindowSeconds != nil {
					window = *m.WindowSeconds
				}
				return fmt.Sprint(m.MetricName, " ", labels.Set(m.MetricLabels), " ", m.Value.String(), " ",
					m.Timestamp.UTC().Format(time.RFC3339), " ", window)
			}
			got := []string{ask("queueDepth", "queue=q,tier in (a,b)"), ask("rate", "")}
			if d := cmp.Diff([]string{
				"queuedepth queue=q 333333m 2026-11-29T10:00:00Z 0", "rate  333333m 2026-11-29T10:00:00Z 30",
			}, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if d := cmp.Diff([]string{
				"shop queuedepth with queue=q,tier in (a,b)", "shop rate with ",
			}, v.asked); d != "" {
				t.Errorf("asked (-want +got)\n%s", d)
			}
			_, err = in.List("none", labels.Everything())
			if !apierrors.IsNotFound(err) ||
				err.Error() != `Service "redis" does not exist: create it or correct the reference` {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestExternalRequests(t *testing.T) {
	config := serve(t, &fixed{})
	const root = "/apis/external.metrics.k8s.io/v1beta1"
	const queue = root + "/namespaces/a/queue"
	for name, tc := range map[string]struct {
		who, method, path string
		code              int
		says              string
	}{
		"a value":        {"", "GET", queue, 200, `"metricName":"queue","metricLabels":{},"timestamp":"2026-11-29T10:00`},
		"upper case":     {"", "GET", root + "/namespaces/a/queueDepth", 200, `"metricName":"queueDepth"`},
		"no value":       {"", "GET", root + "/namespaces/a/none", 404, `Service \"redis\" does not exist`},
		"bad selector":   {"", "GET", queue + "?labelSelector=%21%21", 400, "labelSelector"},
		"a comparison":   {"", "GET", queue + "?labelSelector=a%3E1", 400, "labelSelector"},
		"no namespace":   {"", "GET", root + "/queue", 404, ""},
		"too many parts": {"", "GET", queue + "/more", 404, ""},
		"a watch":        {"", "GET", queue + "?watch=true", 404, ""},
		"a version":      {"", "GET", "/apis/external.metrics.k8s.io/v1/namespaces/a/queue", 404, ""},
		"a write":        {"", "POST", queue, 405, ""},
		"no right":       {"nobody", "GET", queue, 403, "list queue/  in a"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := get(t, config, tc.who, tc.method, tc.path)
			if code != tc.code || !strings.Contains(body, tc.says) {
				t.Errorf("%d, want %d and %q: %s", code, tc.code, tc.says, body)
			}
		})
	}
}

// TestNoTables checks that kubectl, which prefers Tables, gets the object.
func TestNoTables(t *testing.T) {
	config := serve(t, &fixed{})
	for _, path := range []string{
		"/apis/external.metrics.k8s.io/v1beta1/namespaces/a/queue",
		"/apis/custom.metrics.k8s.io/v1beta2/namespaces/a/pods/*/requests",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "application/json" {
			t.Errorf("%s: got %d %s, want 200 and JSON", path, resp.StatusCode, got)
		}
	}
}
