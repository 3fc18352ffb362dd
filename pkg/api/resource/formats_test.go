package resource

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/yaml"
	restclient "k8s.io/client-go/rest"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/metrics/pkg/client/clientset/versioned"
)

// Clients read the same values in every format.
func TestFormats(t *testing.T) {
	formats := []struct{ accept, contentType string }{
		{mediaJSON, mediaJSON},
		{"application/yaml", "application/yaml"},
		{runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf},
		{runtime.ContentTypeProtobuf + "," + mediaJSON, runtime.ContentTypeProtobuf},
		{mediaJSON + ";indent=1", mediaJSON},
		{"", mediaJSON},
		{"*/*", mediaJSON},
	}
	versions(t, func(t *testing.T, s *testServer, version string) {
		for path, want := range map[string]string{
			"/nodes": nodeList, "/pods": podList, "/namespaces/a/pods/web-1": web1,
		} {
			for _, f := range formats {
				code, contentType, body := s.do("GET", group+version+path, f.accept)
				if code != 200 || contentType != f.contentType {
					t.Errorf("%s as %q: code %d, content type %q, want %q", path, f.accept, code, contentType, f.contentType)
					continue
				}
				obj, _, err := Group.Codecs.UniversalDeserializer().Decode([]byte(body), nil, nil)
				if err != nil {
					t.Errorf("%s as %q: %v", path, f.accept, err)
					continue
				}
				got, err := json.Marshal(obj)
				if err != nil {
					t.Fatal(err)
				}
				want := strings.ReplaceAll(want, "VERSION", version)
				if diff := cmp.Diff(want, resourceVersions.ReplaceAllString(string(got), "")+"\n"); diff != "" {
					t.Errorf("%s as %q (-want +got):\n%s", path, f.accept, diff)
				}
			}
		}
		if code, _, body := s.do("GET", group+version+"/pods", "text/html"); code != 406 {
			t.Errorf("text/html: %d %s, want 406", code, body)
		}
	})
}

func TestYAML(t *testing.T) {
	s := newTestServer(t)
	got := regexp.MustCompile(`resourceVersion: "[0-9]+"`).ReplaceAllString(
		s.get(group+"v1/nodes", "application/yaml"), "resourceVersion: VERSION")
	want := `apiVersion: metrics.k8s.io/v1
items:
- metadata:
    creationTimestamp: "2026-08-01T12:00:00Z"
    labels:
      os: linux
      zone: east
    name: n1
    resourceVersion: VERSION
  timestamp: "2026-08-01T12:00:00Z"
  usage:
    cpu: 1234567890n
    memory: 6Gi
    swap: 4Ki
  window: 10s
kind: NodeMetricsList
metadata:
  resourceVersion: VERSION
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	tests := []struct {
		path string
		want string // rows
	}{
		{
			"/nodes", "n1|1234567890n|6Gi|10s|AGE|AGE|8ms|<none>\n" +
				"n2|<unknown>|<unknown>|<unknown>|<unknown>|<never>|10s|timeout: check the node",
		},
		{"/nodes?labelSelector=zone%3Deast", "n1|1234567890n|6Gi|10s|AGE|AGE|8ms|<none>"},
		{"/nodes/n1", "n1|1234567890n|6Gi|10s|AGE|AGE|8ms|<none>"},
		// 12345678n + 237700u and 104232Ki + 1Mi: quantities, as the incumbent's tables have them.
		{"/pods", "web-1|250045678n|105256Ki|15.034s|AGE\nweb-2|0|500Ki|15s|AGE\ndb|2|2Gi|15s|AGE"},
		{"/namespaces/a/pods/web-1", "web-1|250045678n|105256Ki|15.034s|AGE"},
		{"/namespaces/none/pods", ""},
	}
	age := duration.HumanDuration(time.Since(testTime.Std())) // in days
	versions(t, func(t *testing.T, s *testServer, version string) {
		for _, tt := range tests {
			for _, v := range []string{"v1", "v1beta1"} { // of Table
				body := s.get(group+version+tt.path, "application/json;as=Table;g=meta.k8s.io;v="+v)
				var table metav1.Table
				if err := json.Unmarshal([]byte(body), &table); err != nil {
					t.Fatal(err)
				}
				if table.Kind != "Table" || table.APIVersion != "meta.k8s.io/"+v {
					t.Errorf("%s: got a %s of %s", tt.path, table.Kind, table.APIVersion)
				}
				if !strings.Contains(body, `"rows":[`) {
					t.Errorf("%s: rows are no list: %s", tt.path, body)
				}
				var columns, shown, rows []string
				for _, c := range table.ColumnDefinitions {
					columns = append(columns, c.Name)
					if c.Priority == 0 {
						shown = append(shown, c.Name+" "+c.Type+" "+c.Format)
					}
				}
				// kubectl get without -o wide shows the same as with the incumbent.
				incumbent := []string{"Name string name", "cpu string quantity", "memory string quantity", "Window string duration"}
				if diff := cmp.Diff(incumbent, shown); diff != "" {
					t.Errorf("%s: columns that are shown (-want +got):\n%s", tt.path, diff)
				}
				for _, r := range table.Rows {
					cells := make([]string, len(r.Cells))
					for i := range r.Cells {
						cells[i] = r.Cells[i].(string)
					}
					rows = append(rows, strings.Join(cells, "|"))
				}
				want := []string{"Name", "cpu", "memory", "Window", "Age"}
				if strings.HasPrefix(tt.path, "/nodes") {
					want = append(want, "Scraped", "Duration", "Error")
				}
				if diff := cmp.Diff(want, columns); diff != "" {
					t.Errorf("%s: columns (-want +got):\n%s", tt.path, diff)
				}
				if diff := cmp.Diff(strings.ReplaceAll(tt.want, "AGE", age), strings.Join(rows, "\n")); diff != "" {
					t.Errorf("%s: rows (-want +got):\n%s", tt.path, diff)
				}
			}
		}
	})
}

// A node without usage has a row in a Table, so that it can be found, but is in no other list.
func TestTableOfANodeWithoutUsage(t *testing.T) {
	versions(t, func(t *testing.T, s *testServer, version string) {
		for include, want := range map[string]string{
			"Object": `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"n2",` +
				`"labels":{"os":"linux"}}}`,
			"None": "null",
		} {
			var table struct {
				Rows []struct{ Object json.RawMessage }
			}
			path := group + version + "/nodes?fieldSelector=metadata.name%3Dn2&includeObject=" + include
			if err := json.Unmarshal([]byte(s.get(path, "application/json;as=Table;g=meta.k8s.io;v=v1")), &table); err != nil {
				t.Fatal(err)
			}
			if len(table.Rows) != 1 || string(table.Rows[0].Object) != want {
				t.Errorf("includeObject=%s: got %s, want one row with %s", include, table.Rows, want)
			}
		}
		if body := s.get(group+version+"/nodes", mediaJSON); strings.Contains(body, "n2") {
			t.Errorf("a node without usage is listed: %s", body)
		}
	})
}

func TestAppendAge(t *testing.T) {
	now := testTime.Std()
	for want, at := range map[string]time.Time{
		"<unknown>": {},
		"0s":        now,
		"17s":       now.Add(-17999 * time.Millisecond),
		"119s":      now.Add(-119 * time.Second),
		"2m":        now.Add(-120 * time.Second),
		"3h20m":     now.Add(-200 * time.Minute),
		"<invalid>": now.Add(time.Minute), // as kubectl shows what is in the future
	} {
		var got string
		if err := json.Unmarshal(appendAge(nil, at, now), &got); err != nil || got != want {
			t.Errorf("age of %v: got %q, %v, want %q", now.Sub(at), got, err, want)
		}
	}
}

func TestTableIncludeObject(t *testing.T) {
	const metadata = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",` +
		`"metadata":{"name":"web-1","namespace":"a","creationTimestamp":"2026-08-01T11:59:55Z","labels":{"app":"web",` +
		`"tier":"front"}}}`
	versions(t, func(t *testing.T, s *testServer, version string) {
		for include, want := range map[string]string{
			"":         metadata,
			"Metadata": metadata,
			"Object":   strings.TrimSpace(strings.ReplaceAll(web1, "VERSION", version)),
			"None":     "null",
		} {
			path := group + version + "/namespaces/a/pods?fieldSelector=metadata.name%3Dweb-1&includeObject=" + include
			var table struct {
				Rows []struct{ Object json.RawMessage }
			}
			if err := json.Unmarshal([]byte(s.get(path, "application/json;as=Table;g=meta.k8s.io;v=v1")), &table); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, string(table.Rows[0].Object)); diff != "" {
				t.Errorf("includeObject=%s (-want +got):\n%s", include, diff)
			}
		}
		if code, _, body := s.do("GET", group+version+"/pods?includeObject=Everything",
			"application/json;as=Table;g=meta.k8s.io;v=v1"); code != 400 {
			t.Errorf("includeObject=Everything: %d %s, want 400", code, body)
		}
	})
}

func TestPartialObjectMetadata(t *testing.T) {
	const (
		one = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",` +
			`"metadata":{"name":"n1","creationTimestamp":"2026-08-01T12:00:00Z","labels":{"os":"linux","zone":"east"}}}` + "\n"
		list = `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{},"items":[` +
			`{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",` +
			`"metadata":{"name":"n1","creationTimestamp":"2026-08-01T12:00:00Z","labels":{"os":"linux","zone":"east"}}}]}` + "\n"
	)
	versions(t, func(t *testing.T, s *testServer, version string) {
		if diff := cmp.Diff(one, s.get(group+version+"/nodes/n1",
			"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")); diff != "" {
			t.Errorf("one (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(list, s.get(group+version+"/nodes",
			"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
		body := s.get(group+version+"/pods", runtime.ContentTypeProtobuf+";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
		var got metav1.PartialObjectMetadataList
		if _, _, err := Group.Codecs.UniversalDeserializer().Decode([]byte(body), nil, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Items) != 3 || got.Items[2].Name != "db" {
			t.Errorf("protobuf: got %v, want three pods", got.Items)
		}
	})
}

func TestDiscovery(t *testing.T) {
	s := newTestServer(t)
	wantGroup := `{"kind":"APIGroup","apiVersion":"v1","name":"metrics.k8s.io",` +
		`"versions":[{"groupVersion":"metrics.k8s.io/v1","version":"v1"},{"groupVersion":"metrics.k8s.io/v1beta1",` +
		`"version":"v1beta1"}],` +
		`"preferredVersion":{"groupVersion":"metrics.k8s.io/v1","version":"v1"}}` + "\n"
	if diff := cmp.Diff(wantGroup, s.get("/apis/metrics.k8s.io", mediaJSON)); diff != "" {
		t.Errorf("group (-want +got):\n%s", diff)
	}
	for _, version := range []string{"v1", "v1beta1"} {
		want := `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"metrics.k8s.io/` + version + `","resources":[` +
			`{"name":"nodes","singularName":"","namespaced":false,"kind":"NodeMetrics","verbs":["get","list","watch"]},` +
			`{"name":"pods","singularName":"","namespaced":true,"kind":"PodMetrics","verbs":["get","list","watch"]}]}` + "\n"
		if diff := cmp.Diff(want, s.get(group+version, mediaJSON)); diff != "" {
			t.Errorf("resources of %s (-want +got):\n%s", version, diff)
		}
	}

	// An empty group and version in a responseKind are those of the list around it.
	wantAggregated := `apiVersion: apidiscovery.k8s.io/v2
items:
- metadata:
    name: metrics.k8s.io
  versions:
`
	for _, version := range []string{"v1", "v1beta1"} {
		wantAggregated += strings.ReplaceAll(`  - freshness: Current
    resources:
    - resource: nodes
      responseKind:
        group: ""
        kind: NodeMetrics
        version: ""
      scope: Cluster
      singularResource: ""
      verbs:
      - get
      - list
      - watch
    - resource: pods
      responseKind:
        group: ""
        kind: PodMetrics
        version: ""
      scope: Namespaced
      singularResource: ""
      verbs:
      - get
      - list
      - watch
    version: VERSION
`, "VERSION", version)
	}
	wantAggregated += "kind: APIGroupDiscoveryList\nmetadata: {}\n"
	var got, want any
	decode := func(document string, into any) {
		if err := yaml.Unmarshal([]byte(document), into); err != nil {
			t.Fatal(err)
		}
	}
	decode(wantAggregated, &want)
	decode(s.get("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"), &got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("aggregated (-want +got):\n%s", diff)
	}
}

func TestOpenAPI(t *testing.T) {
	s := newTestServer(t)
	type model struct {
		Properties map[string]any
		GVK        []map[string]string `json:"x-kubernetes-group-version-kind"`
	}
	check := func(t *testing.T, models map[string]model, version, kind string, properties ...string) {
		t.Helper()
		name := "io.k8s.metrics.pkg.apis.metrics." + version + "." + kind
		got, ok := models[name]
		if !ok {
			t.Errorf("no model %s", name)
			return
		}
		for _, p := range properties {
			if got.Properties[p] == nil {
				t.Errorf("%s has no property %s", name, p)
			}
		}
		want := []map[string]string{{"group": "metrics.k8s.io", "version": version, "kind": kind}}
		if diff := cmp.Diff(want, got.GVK); diff != "" {
			t.Errorf("%s: kind (-want +got):\n%s", name, diff)
		}
	}
	checkAll := func(t *testing.T, models map[string]model, version string) {
		t.Helper()
		check(t, models, version, "NodeMetrics", "metadata", "timestamp", "window", "usage")
		check(t, models, version, "PodMetrics", "metadata", "timestamp", "window", "containers")
		check(t, models, version, "NodeMetricsList", "metadata", "items")
		check(t, models, version, "PodMetricsList", "metadata", "items")
	}

	var v2 struct {
		Info        struct{ Title string }
		Paths       map[string]any
		Definitions map[string]model
	}
	if err := json.Unmarshal([]byte(s.get("/openapi/v2", mediaJSON)), &v2); err != nil {
		t.Fatal(err)
	}
	if v2.Info.Title != "metrics-server" {
		t.Errorf("title %q", v2.Info.Title)
	}
	for _, version := range []string{"v1", "v1beta1"} {
		var v3 struct {
			Info       struct{ Title string }
			Paths      map[string]any
			Components struct{ Schemas map[string]model }
		}
		if err := json.Unmarshal([]byte(s.get("/openapi/v3/apis/metrics.k8s.io/"+version, mediaJSON)), &v3); err != nil {
			t.Fatal(err)
		}
		if v3.Info.Title != "metrics-server" {
			t.Errorf("title %q", v3.Info.Title)
		}
		checkAll(t, v2.Definitions, version)
		checkAll(t, v3.Components.Schemas, version)
		for _, path := range []string{
			"/nodes", "/nodes/{name}", "/pods", "/namespaces/{namespace}/pods",
			"/namespaces/{namespace}/pods/{name}",
		} {
			if path := group + version + path; v2.Paths[path] == nil || v3.Paths[path] == nil {
				t.Errorf("no path %s", path)
			}
		}
	}
}

// The clients of kubectl top and of the HorizontalPodAutoscaler can read what the storage built.
func TestClientset(t *testing.T) {
	// check compares what a client got with the expected JSON.
	check := func(t *testing.T, version schema.GroupVersion, text string, got runtime.Object, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
			return
		}
		b, err := runtime.Encode(Group.Codecs.LegacyCodec(version), got)
		if err != nil {
			t.Error(err)
			return
		}
		b = resourceVersions.ReplaceAll(b, nil)
		if diff := cmp.Diff(strings.ReplaceAll(text, "VERSION", version.Version), string(b)); diff != "" {
			t.Errorf("%s %T (-want +got):\n%s", version, got, diff)
		}
	}
	s := newTestServer(t)
	for _, contentType := range []string{mediaJSON, runtime.ContentTypeProtobuf} {
		client, err := versioned.NewForConfig(&restclient.Config{
			Host:          s.url,
			ContentConfig: restclient.ContentConfig{ContentType: contentType},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		all := metav1.ListOptions{Limit: 1} // a client must be content with the whole list
		one := metav1.GetOptions{}
		v1, v1beta1 := client.MetricsV1(), client.MetricsV1beta1()

		nodes, err := v1.NodeMetricses().List(ctx, all)
		check(t, metricsv1.SchemeGroupVersion, nodeList, nodes, err)
		pods, err := v1.PodMetricses("").List(ctx, all)
		check(t, metricsv1.SchemeGroupVersion, podList, pods, err)
		pod, err := v1.PodMetricses("a").Get(ctx, "web-1", one)
		check(t, metricsv1.SchemeGroupVersion, web1, pod, err)

		oldNodes, err := v1beta1.NodeMetricses().List(ctx, all)
		check(t, metricsv1beta1.SchemeGroupVersion, nodeList, oldNodes, err)
		oldPods, err := v1beta1.PodMetricses("").List(ctx, all)
		check(t, metricsv1beta1.SchemeGroupVersion, podList, oldPods, err)
		oldPod, err := v1beta1.PodMetricses("a").Get(ctx, "web-1", one)
		check(t, metricsv1beta1.SchemeGroupVersion, web1, oldPod, err)

		if _, err := v1.PodMetricses("a").Get(ctx, "none", one); !apierrors.IsNotFound(err) {
			t.Errorf("a pod that does not exist: got %v, want NotFound", err)
		}
	}
}
