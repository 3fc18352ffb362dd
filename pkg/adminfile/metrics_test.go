package adminfile

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMetrics(t *testing.T) {
	got, err := Parse([]byte(`
backends: [{name: main, url: http://a}]
metrics:
- name: queue-length
  resource: gateways.example.com
  service: service/edge/gateway:metrics
  path: /stats
  scheme: https
  query: sum by (ns, gw) (queue_length)
  namespaceLabel: ns
  nameLabel: gw
  missing: zero
- preset: ingress-nginx
  service: service/ingress-nginx/ingress-nginx-controller-metrics:10254
- preset: ingress-nginx
  name: hits
  resource: services
  backend: main
  namespaceLabel: namespace
  nameLabel: exported_service
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Metric{
		{
			Name: "queue-length", Resource: "gateways.example.com", Service: "service/edge/gateway:metrics", Path: "/stats",
			Scheme: "https", Query: "sum by (ns, gw) (queue_length)", NamespaceLabel: "ns", NameLabel: "gw", Missing: "zero",
		},
		{
			Name: "requests_per_second", Preset: "ingress-nginx", Resource: "ingresses.networking.k8s.io",
			Service:        "service/ingress-nginx/ingress-nginx-controller-metrics:10254",
			Query:          "sum by (exported_namespace, ingress) (rate(nginx_ingress_controller_requests[1m]))",
			NamespaceLabel: "exported_namespace", NameLabel: "ingress", Missing: "error",
		},
		{
			Name: "hits", Preset: "ingress-nginx", Resource: "services", Backend: "main",
			Query:          "sum by (namespace, exported_service) (rate(nginx_ingress_controller_requests[2m]))",
			NamespaceLabel: "namespace", NameLabel: "exported_service", Missing: "error",
		},
	}
	if d := cmp.Diff(want, got.Metrics); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestPresets checks that each preset is complete and can be used without any other field.
func TestPresets(t *testing.T) {
	for _, name := range presetNames() {
		for _, p := range presets[name] {
			for _, source := range []string{"service: service/a/b:1", "backend: main"} {
				text := "backends: [{name: main, url: http://a}]\nmetrics: [{preset: " + name + ", resource: " + p.Resource +
					", " + source + "}]"
				if _, err := Parse([]byte(text)); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			}
		}
	}
}

// TestMistakesInMetrics checks that every mistake is reported, each in a line of its own.
func TestMistakesInMetrics(t *testing.T) {
	const good = "resource: a.example.com, service: service/a/b:1, query: 'sum by (n, o) (x)', namespaceLabel: n, " +
		"nameLabel: o"
	for name, tt := range map[string]struct {
		metric string
		want   []string // of each mistake, one part
	}{
		"nothing": {"{}", []string{
			"line 2: metric number 1: it has no name", "it has no resource", "it has neither service nor backend",
			"it has no namespaceLabel", "it has no nameLabel", "it has no query",
		}},
		"a name":                          {"{name: a/b, " + good + "}", []string{`metric "a/b": the name is not valid`}},
		"a name that begins with a digit": {"{name: 5xx_rate, " + good + "}", []string{"the first one a letter or _"}},
		"a name that ends with a hyphen":  {"{name: rate-, " + good + "}", []string{"the last one a letter, a digit or _"}},
		"twice": {"{name: a, " + good + "}, {name: a, " + good + "}", []string{
			"two metrics of a.example.com have this name: rename one",
		}},
		"a kind": {"{name: a, " + strings.Replace(good, "a.example.com", "Ingress", 1) + "}", []string{
			`"Ingress" is not a resource: write the plural`,
		}},
		"no group": {"{name: a, " + strings.Replace(good, "a.example.com", "services2", 1) + "}", []string{
			`the resource "services2" has no group: did you mean "services"?`,
		}},
		"pods": {"{name: a, " + strings.Replace(good, "a.example.com", "pods", 1) + "}", []string{
			"metrics of pods cannot be named here",
		}},
		"a Service": {"{name: a, " + strings.Replace(good, "service/a/b:1", "service/b:1", 1) + "}", []string{
			`"service/b:1" is not a Service: write service/NAMESPACE/NAME:PORT`,
		}},
		"two sources": {"{name: a, backend: main, path: /x, " + good + "}", []string{
			"it has both service and backend", "path and scheme are for scraped pods",
		}},
		"no backend": {"{name: a, backend: mai, " + strings.Replace(good, "service: service/a/b:1, ", "", 1) + "}", []string{
			`there is no backend "mai": did you mean "main"?`,
		}},
		"a path and a scheme": {"{name: a, path: x, scheme: ftp, missing: never, " + good + "}", []string{
			`"x" is not a path`, `"ftp" is not a scheme`, `missing is "never": use error or zero`,
		}},
		"labels": {"{name: a, " + strings.Replace(good, "nameLabel: o", "nameLabel: o-o", 1) + "}", []string{
			`nameLabel: "o-o" is not the name of a label`,
		}},
		"one label": {"{name: a, " + strings.Replace(good, "nameLabel: o", "nameLabel: n", 1) + "}", []string{
			"namespaceLabel and nameLabel are the same",
		}},
		"a query": {"{name: a, " + strings.Replace(good, "(n, o)", "(n)", 1) + "}", []string{
			`its result has no label "o", which says to which object a value belongs: write sum by (n, o) (...)`,
		}},
		"a preset": {"{preset: ingres-nginx, service: service/a/b:1}", []string{
			`metric number 1: there is no preset "ingres-nginx": did you mean "ingress-nginx"?`,
		}},
		"no preset": {"{preset: apache, service: service/a/b:1}", []string{"use envoy-gateway or ingress-nginx"}},
		"a resource of no preset": {"{preset: ingress-nginx, resource: pods, service: service/a/b:1}", []string{
			"the preset ingress-nginx has no metric of pods: use ingresses.networking.k8s.io or services",
		}},
		"a field": {"{nam: a, name: a, " + good + "}", []string{`line 2: the field "nam" is unknown: did you mean "name"?`}},
		"a type":  {"a", []string{"line 2: `a` is not a map"}},
		"too many": {strings.Join(slices.Repeat([]string{"{name: a, " + good + "}"}, MaxMetrics+1), ", "), append(
			[]string{"metrics: there are 21: at most 20 are allowed"},
			slices.Repeat([]string{"two metrics of"}, MaxMetrics)...)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte("backends: [{name: main, url: http://a}]\nmetrics: [" + tt.metric + "]"))
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if i < len(lines) && !strings.Contains(lines[i], want) {
					t.Errorf("%q lacks %q", lines[i], want)
				}
			}
		})
	}
}
