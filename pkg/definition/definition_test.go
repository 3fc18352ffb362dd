package definition

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/sample"
)

func TestCompile(t *testing.T) {
	const pods, object = autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType
	const external = autoscalingv2.ExternalMetricSourceType
	const at = "annotation metrics-server/queries, line 2"
	for _, tt := range []struct {
		of         autoscalingv2.MetricSourceType
		expression string
		want, err  string
	}{
		{of: pods},
		{of: pods, expression: "sum by (pod) (queue)", want: `sum by (pod) (queue{code="500"})`},
		{of: object, expression: "sum(queue)", want: `sum(queue{code="500"})`},
		{of: external, expression: "sum(queue)", want: `sum(queue{code="500"})`},
		{of: external, expression: "sum by (pod) (queue)", err: "types Object and External need a single one"},
		{of: pods, expression: "sum(queue)", err: `its result has no label "pod"`},
		{of: object, expression: "sum by (pod) (queue)", err: "it returns a value for each pod"},
	} {
		m := &demand.Metric{
			Name: "queue", Type: tt.of,
			Selector:   []metav1.LabelSelectorRequirement{{Key: "code", Operator: "In", Values: []string{"500"}}},
			Definition: demand.Definition{Expression: tt.expression, Window: time.Minute},
		}
		if tt.expression != "" {
			m.ExpressionAt = at
		}
		q, err := Compile(m)
		switch {
		case tt.err != "":
			if err == nil || !strings.HasPrefix(err.Error(), at+": ") || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s %q: got %v, want %s", tt.of, tt.expression, err, tt.err)
			}
		case err != nil || q.Expression() != tt.want || q.Name() != "queue":
			t.Errorf("%s %q: got %+v, %v", tt.of, tt.expression, q, err)
		}
	}
}

func TestCompileRemote(t *testing.T) {
	const pods, object = autoscalingv2.PodsMetricSourceType, autoscalingv2.ObjectMetricSourceType
	const external = autoscalingv2.ExternalMetricSourceType
	const at = "annotation metrics-server/queries, line 2"
	of := backend.Config{Name: "main", NamespaceLabel: "ns"}.WithDefaults()
	for _, tt := range []struct {
		of         autoscalingv2.MetricSourceType
		expression string
		want, err  string
	}{
		{of: pods, want: `sum by (pod) (queue{code="500",ns="shop"})`},
		{of: external, want: `sum(queue{code="500",ns="shop"})`},
		{of: object, err: `backend "main" does not say which series belong to an object`},
		{of: object, expression: "max(a) + sum(b)", want: `max(a{code="500",ns="shop"}) + sum(b{code="500",ns="shop"})`},
		{of: object, expression: "1", err: at + ": the expression selects no series"},
		{of: pods, expression: "sum(a)", err: at + `: the expression of metric "queue" is wrong at character 1`},
	} {
		m := &demand.Metric{
			Name: "queue", Type: tt.of,
			Selector:   []metav1.LabelSelectorRequirement{{Key: "code", Operator: "In", Values: []string{"500"}}},
			Definition: demand.Definition{Expression: tt.expression, Window: time.Minute},
		}
		if tt.expression != "" {
			m.ExpressionAt = at
		}
		e, err := CompileRemote(m, "shop", &of)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s %q: got %v, want %s", tt.of, tt.expression, err, tt.err)
			}
		case err != nil || e.String() != tt.want || e.Owner() != "shop":
			t.Errorf("%s %q: got %s of %q, %v, want %s of the namespace", tt.of, tt.expression, e, e.Owner(), err, tt.want)
		}
	}
}

// TestNamedShare checks that selectors of autoscalers do not use up the share of metrics that an administrator names.
func TestNamedShare(t *testing.T) {
	of := backend.Config{Name: "main"}.WithDefaults()
	n := &demand.Named{Name: "hits", Backend: "main", Expression: "sum by (a, b) (x)", NamespaceLabel: "a", NameLabel: "b"}
	m := &demand.Metric{Name: "hits", Type: autoscalingv2.ObjectMetricSourceType, Definition: n.Definition()}
	plain, err := CompileRemote(m, "shop", &of)
	if err != nil || plain.String() != n.Expression || plain.Owner() != "" {
		t.Errorf("got %s of %q, %v, want that no namespace pays for it", plain, plain.Owner(), err)
	}
	m.Selector = []metav1.LabelSelectorRequirement{{Key: "code", Operator: "In", Values: []string{"500"}}}
	narrow, err := CompileRemote(m, "shop", &of)
	if err != nil || narrow.String() != `sum by (a, b) (x{code="500"})` || narrow.Owner() != SelectorsOwner {
		t.Errorf("got %s of %q, %v, want a share of its own", narrow, narrow.Owner(), err)
	}
}

func TestGuard(t *testing.T) {
	_, err := guard(func() (int, error) { panic("simulated") })
	if err == nil || !strings.Contains(err.Error(), "simulated") {
		t.Error(err)
	}
	if n, err := guard(func() (int, error) { return 1, nil }); n != 1 || err != nil {
		t.Errorf("got %d, %v, want 1", n, err)
	}
}

// TestNamed checks that what the administrator's file says of a metric becomes its query.
func TestNamed(t *testing.T) {
	f, err := adminfile.Parse([]byte(`
backends: [{name: main, url: http://a}]
metrics:
- preset: ingress-nginx
  service: service/edge/nginx:metrics
  path: /stats
  missing: zero
- {preset: ingress-nginx, resource: services, backend: main}
`))
	if err != nil {
		t.Fatal(err)
	}
	all := Named(f)
	const scraped = "sum by (exported_namespace, ingress) (rate(nginx_ingress_controller_requests[1m]))"
	if d := cmp.Diff(demand.Named{
		Name: "requests_per_second", Resource: schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"},
		Namespace: "edge", Service: "nginx", ServicePort: "metrics", Ask: sample.Ask{Path: "/stats"}, Expression: scraped,
		NamespaceLabel: "exported_namespace", NameLabel: "ingress", MissingIsZero: true,
	}, all[0]); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	selector := []metav1.LabelSelectorRequirement{{Key: "status", Operator: "In", Values: []string{"503"}}}
	m := &demand.Metric{
		Name: "requests_per_second", Type: autoscalingv2.ObjectMetricSourceType, Definition: all[0].Definition(),
		Selector: selector,
	}
	q, err := Compile(m)
	if want := strings.Replace(scraped, "[1m]", `{status="503"}[1m]`, 1); err != nil || q.Expression() != want {
		t.Errorf("got %+v, %v", q, err)
	}
	m.Definition = all[1].Definition()
	config := backend.Config{Name: "main"}.WithDefaults()
	e, err := CompileRemote(m, "shop", &config)
	const remote = `sum by (exported_namespace, service) (rate(nginx_ingress_controller_requests{status="503"}[2m]))`
	if err != nil || e.String() != remote {
		t.Errorf("got %s, %v", e, err)
	}
}
