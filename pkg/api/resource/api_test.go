package resource

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/sample"
)

const (
	group     = "/apis/metrics.k8s.io/"
	mediaJSON = "application/json"
)

const web1 = `{"kind":"PodMetrics","apiVersion":"metrics.k8s.io/VERSION",` +
	`"metadata":{"name":"web-1","namespace":"a","creationTimestamp":"2026-08-01T11:59:55Z","labels":{"app":"web",` +
	`"tier":"front"}},` +
	`"timestamp":"2026-08-01T11:59:55Z","window":"15.034s",` +
	`"containers":[{"name":"app","usage":{"cpu":"12345678n","memory":"104232Ki","swap":"0"}},{"name":"proxy",` +
	`"usage":{"cpu":"237700u","memory":"1Mi"}}]}` + "\n"

const nodeList = `{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/VERSION","metadata":{},"items":[` +
	`{"metadata":{"name":"n1","creationTimestamp":"2026-08-01T12:00:00Z","labels":{"os":"linux","zone":"east"}},` +
	`"timestamp":"2026-08-01T12:00:00Z","window":"10s","usage":{"cpu":"1234567890n","memory":"6Gi","swap":"4Ki"}}]}` + "\n"

const podList = `{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/VERSION","metadata":{},"items":[` +
	`{"metadata":{"name":"web-1","namespace":"a","creationTimestamp":"2026-08-01T11:59:55Z","labels":{"app":"web",` +
	`"tier":"front"}},` +
	`"timestamp":"2026-08-01T11:59:55Z","window":"15.034s",` +
	`"containers":[{"name":"app","usage":{"cpu":"12345678n","memory":"104232Ki","swap":"0"}},{"name":"proxy",` +
	`"usage":{"cpu":"237700u","memory":"1Mi"}}]},` +
	`{"metadata":{"name":"web-2","namespace":"a","creationTimestamp":"2026-08-01T12:00:00Z","labels":{"app":"web"}},` +
	`"timestamp":"2026-08-01T12:00:00Z","window":"15s","containers":[{"name":"app","usage":{"cpu":"0",` +
	`"memory":"500Ki"}}]},` +
	`{"metadata":{"name":"db","namespace":"b","creationTimestamp":"2026-08-01T12:00:00Z"},` +
	`"timestamp":"2026-08-01T12:00:00Z","window":"15s","containers":[{"name":"db","usage":{"cpu":"2",` +
	`"memory":"2Gi"}}]}]}` + "\n"

// versions runs f for each version of the group.
func versions(t *testing.T, f func(t *testing.T, s *testServer, version string)) {
	for _, v := range []string{"v1", "v1beta1"} {
		t.Run(v, func(t *testing.T) { f(t, newTestServer(t), v) })
	}
}

func TestJSON(t *testing.T) {
	versions(t, func(t *testing.T, s *testServer, version string) {
		for path, want := range map[string]string{
			"/nodes":                   nodeList,
			"/pods":                    podList,
			"/namespaces/a/pods/web-1": web1,
		} {
			want = strings.ReplaceAll(want, "VERSION", version)
			for range 2 { // equal samples, equal bytes
				if diff := cmp.Diff(want, s.get(group+version+path, mediaJSON)); diff != "" {
					t.Errorf("GET %s (-want +got):\n%s", path, diff)
				}
			}
		}
	})
}

func TestSelect(t *testing.T) {
	s := newTestServer(t)
	tests := []struct {
		path, labels, fields string
		want                 string // namespace/name of the objects
		walks                bool   // whether the request may walk all objects
	}{
		{path: "/nodes", want: "/n1", walks: true},
		{path: "/nodes", labels: "zone=east", want: "/n1", walks: true},
		{path: "/nodes", labels: "zone!=east", want: "", walks: true},
		{path: "/nodes", fields: "metadata.name=n1", want: "/n1"},
		{path: "/nodes", fields: "metadata.name=n2", want: ""},
		{path: "/nodes", fields: "metadata.name=none", want: ""},
		{path: "/nodes", fields: "metadata.name!=n1", want: "", walks: true},
		{path: "/nodes", fields: "metadata.name==n1", labels: "zone=west", want: ""},

		{path: "/pods", want: "a/web-1 a/web-2 b/db", walks: true},
		{path: "/namespaces/a/pods", want: "a/web-1 a/web-2", walks: true},
		{path: "/namespaces/none/pods", want: ""},
		{path: "/pods", labels: "app=web,tier", want: "a/web-1", walks: true},
		{path: "/pods", labels: "app in (web,db),!tier", want: "a/web-2", walks: true},
		{path: "/pods", labels: "!app", want: "b/db", walks: true},
		{path: "/pods", fields: "metadata.name=db", want: "b/db", walks: true}, // the name may be in any namespace
		{path: "/pods", fields: "metadata.namespace=b", want: "b/db", walks: true},
		{path: "/pods", fields: "metadata.namespace!=b", want: "a/web-1 a/web-2", walks: true},
		{path: "/pods", fields: "metadata.namespace=b,metadata.name=db", want: "b/db"},
		{path: "/namespaces/a/pods", fields: "metadata.name=web-2", want: "a/web-2"},
		{path: "/namespaces/a/pods", fields: "metadata.name=web-2,metadata.name!=web-2", want: ""},
		{path: "/namespaces/a/pods", fields: "metadata.name=new", want: ""},
		{path: "/namespaces/a/pods", fields: "metadata.namespace=b", want: "", walks: true},
		{path: "/namespaces/a/pods", fields: "metadata.namespace=b,metadata.name=web-1", want: ""},
		{path: "/pods", fields: "metadata.namespace=", want: "", walks: true},
		{path: "/pods", fields: "spec.nodeName=n1", want: "a/web-1 b/db", walks: true},
		{path: "/pods", fields: "spec.nodeName==n2", want: "a/web-2", walks: true},
		{path: "/pods", fields: "spec.nodeName!=n1", want: "a/web-2", walks: true},
		{path: "/pods", fields: "spec.nodeName=n1", labels: "app", want: "a/web-1", walks: true},

		// A page is the whole list, which is newer than any version.
		{path: "/pods?limit=1", want: "a/web-1 a/web-2 b/db", walks: true},
		{path: "/pods?resourceVersion=0", want: "a/web-1 a/web-2 b/db", walks: true},
		{path: "/pods?resourceVersion=12&resourceVersionMatch=NotOlderThan", want: "a/web-1 a/web-2 b/db", walks: true},
	}
	for _, tt := range tests {
		for _, version := range []string{"v1", "v1beta1"} {
			query := url.Values{}
			if tt.labels != "" {
				query.Set("labelSelector", tt.labels)
			}
			if tt.fields != "" {
				query.Set("fieldSelector", tt.fields)
			}
			path := group + version + tt.path
			if len(query) != 0 {
				path += "?" + query.Encode()
			}
			s.nodes.walked.Store(0)
			s.pods.walked.Store(0)
			var list metav1.PartialObjectMetadataList
			if err := json.Unmarshal([]byte(s.getAll(path, mediaJSON)), &list); err != nil {
				t.Fatal(err)
			}
			got := make([]string, 0, len(list.Items))
			for _, o := range list.Items {
				got = append(got, o.Namespace+"/"+o.Name)
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%s: got %q, want %q", path, got, tt.want)
			}
			if walks := s.nodes.walked.Load()+s.pods.walked.Load() > 0; walks != tt.walks {
				t.Errorf("%s: went through the objects: %v, want %v", path, walks, tt.walks)
			}
			if want := (metav1.ListMeta{ResourceVersion: fmt.Sprint(s.clock.Last())}); list.ListMeta != want {
				t.Errorf("%s: metadata %+v, want %+v", path, list.ListMeta, want)
			}
		}
	}
}

// Labels and names are checked before any usage is read.
func TestSelectReadsOnlyWhatItWants(t *testing.T) {
	s := newTestServer(t)
	s.get(group+"v1/pods?labelSelector=tier%3Dfront", mediaJSON)
	if reads := s.usage.reads.Load(); reads != 1 {
		t.Errorf("one pod of four is selected by its label, but %d usages were read", reads)
	}
}

func TestErrors(t *testing.T) {
	notFound := func(resource, name, message string) metav1.Status {
		return metav1.Status{
			Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: message,
			Details: &metav1.StatusDetails{Name: name, Group: "metrics.k8s.io", Kind: resource},
		}
	}
	badRequest := func(message string) metav1.Status {
		return metav1.Status{Reason: metav1.StatusReasonBadRequest, Code: http.StatusBadRequest, Message: message}
	}
	// For a method that no storage has, the answer comes from the router.
	notAllowed := metav1.Status{
		Reason: metav1.StatusReasonMethodNotAllowed, Code: http.StatusMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource", Details: &metav1.StatusDetails{},
	}
	notANumber := badRequest(`resourceVersion "x" is not a number: use one from a list or an event of this resource, ` +
		`or leave it out`)
	tests := []struct {
		method, path string
		want         metav1.Status
	}{
		{"GET", "/nodes/none", notFound("nodes", "none", `nodes.metrics.k8s.io "none" not found`)},
		{"GET", "/nodes/n2", notFound("nodes", "n2",
			`nodes.metrics.k8s.io "n2" has no usage: its last answer was received 2m ago; the last scrape failed: timeout: `+
				`check the node`)},
		{"GET", "/namespaces/a/pods/none", notFound("pods", "none", `pods.metrics.k8s.io "none" not found`)},
		{"GET", "/namespaces/b/pods/web-1", notFound("pods", "web-1", `pods.metrics.k8s.io "web-1" not found`)},
		{"GET", "/namespaces/a/pods/new", notFound("pods", "new",
			`pods.metrics.k8s.io "new" has no usage: container "app" was first seen 3s ago and needs a second sample`)},

		{
			"GET", "/nodes?fieldSelector=spec.unschedulable%3Dtrue",
			badRequest(`field selector "spec.unschedulable" is not supported for nodes: use metadata.name`),
		},
		{
			"GET", "/nodes?fieldSelector=metadata.namespace%3Da",
			badRequest(`field selector "metadata.namespace" is not supported for nodes: use metadata.name`),
		},
		{
			"GET", "/pods?fieldSelector=status.phase%3DRunning",
			badRequest(`field selector "status.phase" is not supported for pods: use metadata.name, metadata.namespace, ` +
				`spec.nodeName`),
		},
		{"GET", "/pods?continue=abc&limit=500", metav1.Status{
			Reason: metav1.StatusReasonExpired, Code: http.StatusGone,
			Message: "this server did not issue the continue token, because it returns every list in one piece: " +
				"list again without it",
		}},

		{"GET", "/pods?watch=1&resourceVersion=x", notANumber},
		{"GET", "/nodes?resourceVersion=-1", badRequest(`resourceVersion "-1" is not a number: use one from a list or an ` +
			`event of this resource, or leave it out`)},
		{"GET", "/pods?resourceVersion=12&resourceVersionMatch=Exact", metav1.Status{
			Reason: metav1.StatusReasonExpired, Code: http.StatusGone,
			Message: "this server keeps no former versions of a list: list again without resourceVersionMatch=Exact",
		}},

		{"POST", "/nodes", notAllowed},
		{"DELETE", "/nodes", notAllowed},
		{"PUT", "/nodes/n1", notAllowed},
		{"PATCH", "/nodes/n1", notAllowed},
		{"DELETE", "/nodes/n1", notAllowed},
		{"POST", "/namespaces/a/pods", notAllowed},
		{"DELETE", "/namespaces/a/pods", notAllowed},
		{"PUT", "/namespaces/a/pods/web-1", notAllowed},
		{"PATCH", "/namespaces/a/pods/web-1", notAllowed},
		{"DELETE", "/namespaces/a/pods/web-1", notAllowed},
	}
	versions(t, func(t *testing.T, s *testServer, version string) {
		for _, tt := range tests {
			code, _, body := s.do(tt.method, group+version+tt.path, mediaJSON)
			var got metav1.Status
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Errorf("%s %s: got %d %q, want a Status: %v", tt.method, tt.path, code, body, err)
				continue
			}
			want := tt.want
			want.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
			want.Status = metav1.StatusFailure
			if diff := cmp.Diff(want, got); diff != "" || code != int(want.Code) {
				t.Errorf("%s %s: code %d, status (-want +got):\n%s", tt.method, tt.path, code, diff)
			}
		}
	})
}

// An answer without some series is not a failed scrape: the error names the series.
func TestErrorNamesLackingSeries(t *testing.T) {
	s := newTestServer(t)
	s.usage.scrapes["n2"] = sample.Scrape{Success: testTime.Std(), Lacks: "the answer lacks cpu: update the kubelet"}
	s.usage.why["n2"] = "its kubelet answers without it"
	_, _, body := s.do(http.MethodGet, group+"v1/nodes/n2", mediaJSON)
	if want := `\"n2\" has no usage: its kubelet answers without it; the answer lacks cpu: update the ` +
		`kubelet"`; !strings.Contains(body, want) {
		t.Errorf("got %s, want it to contain %s", body, want)
	}
}

// A usage may arrive between the lookup and the question why there is none.
func TestUsageArrivesDuringRequest(t *testing.T) {
	s := newTestServer(t)
	s.usage.why = nil
	_, _, body := s.do(http.MethodGet, group+"v1/namespaces/a/pods/new", mediaJSON)
	if want := `\"new\" has no usage: its first usage arrived during this request: retry`; !strings.Contains(body, want) {
		t.Errorf("got %s, want it to contain %s", body, want)
	}
}

// Whatever a kubelet claims, a quantity stays positive.
func TestHugeUsage(t *testing.T) {
	l := resourceList(&sample.Usage{CPU: math.MaxUint64, Memory: math.MaxUint64, Swap: math.MaxUint64, HasSwap: true})
	for name, q := range l {
		if q.Sign() <= 0 {
			t.Errorf("%s: %s, want a positive quantity", name, q.String())
		}
	}
}

// Every object served is one observation: its age in seconds.
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		u := c.usage.pods[podKey{"b", "db"}]
		u.Time = sample.TimeOf(time.Now().Add(-7 * time.Second))
		for k := range c.usage.pods {
			c.usage.pods[k] = u
		}
		s := c.podStorage(t)
		if _, err := s.List(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), "none", nil); err == nil {
			t.Fatal("got a pod that does not exist")
		}
		h := c.freshness(t)
		if h.GetSampleCount() != 3 || h.GetSampleSum() != 21 {
			t.Errorf("got %d observations, %v s together; want 3 of 7 s", h.GetSampleCount(), h.GetSampleSum())
		}
		if b := h.GetBucket(); len(b) != 20 || b[0].GetUpperBound() != 1 || math.Abs(b[1].GetUpperBound()-1.364) > 1e-9 {
			t.Errorf("got buckets %v, want 20 from 1 by a factor of 1.364", b)
		}
	})
}
