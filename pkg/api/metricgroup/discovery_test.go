package metricgroup_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"metrics-server/pkg/kubeapi"
)

// TestDiscovery checks that the groups are found in all ways, and that discovery names no metric.
func TestDiscovery(t *testing.T) {
	config := serve(t, &fixed{})
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := d.ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	aggregated := aggregatedDiscovery(t, config.Host)
	for group, want := range map[string]struct {
		versions   []string // the preferred one first
		kind, verb string
	}{
		"custom.metrics.k8s.io":   {[]string{"v1beta2", "v1beta1"}, "MetricValueList", "get"},
		"external.metrics.k8s.io": {[]string{"v1beta1"}, "ExternalMetricValueList", "list"},
	} {
		listed := metav1.APIGroup{}
		for _, g := range groups.Groups {
			if g.Name == group {
				listed = g
			}
		}
		code, body := get(t, config, "", "GET", "/apis/"+group)
		var one metav1.APIGroup
		if err := json.Unmarshal([]byte(body), &one); err != nil || code != http.StatusOK {
			t.Fatalf("%s: got %d %s (%v), want a group", group, code, body, err)
		}
		for _, g := range []metav1.APIGroup{listed, one} {
			var versions []string
			for _, v := range g.Versions {
				versions = append(versions, v.Version)
			}
			if diff := cmp.Diff(want.versions, versions); diff != "" || g.PreferredVersion.Version != want.versions[0] {
				t.Errorf("%s prefers %s of versions (-want +got)\n%s", group, g.PreferredVersion.Version, diff)
			}
		}
		if diff := cmp.Diff(want.versions, aggregated[group]); diff != "" {
			t.Errorf("%s: versions in aggregated discovery (-want +got)\n%s", group, diff)
		}
		for _, version := range want.versions {
			list, err := d.ServerResourcesForGroupVersion(group + "/" + version)
			if err != nil {
				t.Fatal(err)
			}
			if len(list.APIResources) != 1 || list.APIResources[0].Name != kubeapi.AnyResource ||
				list.APIResources[0].Kind != want.kind || list.APIResources[0].Verbs.String() != "["+want.verb+"]" {
				t.Errorf("%s/%s has resources %+v", group, version, list.APIResources)
			}
			// The group must not keep OpenAPI, which kubectl reads, from being served.
			code, body := get(t, config, "", "GET", "/openapi/v3/apis/"+group+"/"+version)
			var document struct {
				Paths map[string]json.RawMessage
			}
			if err := json.Unmarshal([]byte(body), &document); err != nil || code != http.StatusOK ||
				len(document.Paths) < 2 {
				t.Errorf("OpenAPI of %s/%s: %d %s %v", group, version, code, body, err)
			}
		}
	}
	if len(groups.Groups) != 2 || len(aggregated) != 2 {
		t.Errorf("groups %+v, in aggregated discovery %v", groups.Groups, aggregated)
	}
	if code, _ := get(t, config, "", "GET", "/openapi/v2"); code != http.StatusOK {
		t.Errorf("OpenAPI v2: %d", code)
	}
}

// aggregatedDiscovery returns the versions of each group in aggregated discovery.
func aggregatedDiscovery(t *testing.T, host string) map[string][]string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host+"/apis", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %d %s (%v), want 200", resp.StatusCode, b, err)
	}
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	versions := map[string][]string{}
	for _, g := range list.Items {
		for _, v := range g.Versions {
			versions[g.Name] = append(versions[g.Name], v.Version)
			if len(v.Resources) != 1 || v.Resources[0].Resource != kubeapi.AnyResource {
				t.Errorf("%s/%s has resources %+v", g.Name, v.Version, v.Resources)
			}
		}
	}
	return versions
}
