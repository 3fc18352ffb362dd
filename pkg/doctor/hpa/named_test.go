package hpa

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

// namedCluster is a cluster whose HPA refers to a metric of an Ingress, which an administrator names: the pod of a
// gateway has it.
func namedCluster(t *testing.T) *fakeCluster {
	t.Helper()
	const edge, path = "/api/v1/namespaces/edge", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/" +
		"ingresses.networking.k8s.io/front/hits"
	c := newCluster(t)
	c.hpa.Spec.Metrics = []autoscalingv2.MetricSpec{objectMetric("hits", autoscalingv2.CrossVersionObjectReference{
		APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front",
	}, autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: new(resource.MustParse("10"))})}
	groups := c.objects["/apis"].(*metav1.APIGroupList)
	groups.Groups = append(groups.Groups, apiGroup("networking.k8s.io", "v1"))
	c.objects["/apis/networking.k8s.io/v1"] = resources("networking.k8s.io/v1",
		metav1.APIResource{Name: "ingresses", Kind: "Ingress", Namespaced: true})
	p := workPod("gateway", "gateway", map[string]string{"app": "gateway"})
	p.Namespace, p.Status.PodIP = "edge", "10.0.1.1"
	c.objects[edge+"/services/gateway"] = &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "gateway"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "gateway"}, Ports: []corev1.ServicePort{{Name: "stats", Port: 9090}},
		},
	}
	c.objects[edge+"/pods"] = &corev1.PodList{Items: []corev1.Pod{*p}}
	const stats = "# TYPE connections gauge\nconnections{namespace=\"default\",ingress=\"front\"} 10\n"
	c.objects[edge+"/pods/gateway:9090/proxy/stats"] = page{200, "text/plain; version=0.0.4", stats, false}
	c.objects[path] = values(map[string]string{"front": "10"})
	return c
}

// with gives the doctor an administrator's file.
func (c *fakeCluster) with(metric string) {
	c.t.Helper()
	c.file = filepath.Join(c.t.TempDir(), "config.yaml")
	if err := os.WriteFile(c.file, []byte("backends: [{name: main, url: http://a}]\nmetrics: ["+metric+"]"), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// TestNamed checks what is said of a metric that an administrator names, with the file that names it and without.
func TestNamed(t *testing.T) {
	const query = "resource: ingresses.networking.k8s.io, namespaceLabel: exported_namespace, nameLabel: ingress, " +
		"query: 'sum by (exported_namespace, ingress) (connections)'}"
	for name, tt := range map[string]struct {
		change func(*fakeCluster)
		says   []string
		want   *doctor.Line // nil: all is well
	}{
		"pods": {
			change: func(c *fakeCluster) {
				c.with("{name: hits, service: 'service/edge/gateway:stats', path: /stats, " + query)
			},
			says: []string{
				"named       in the administrator's file for ingresses.networking.k8s.io; the value is that of the series with " +
					`exported_namespace=NAMESPACE and ingress="front"`,
				"expression  sum by (exported_namespace, ingress) (connections) (from the administrator's file)",
				"families    gauge connections", "gateway: http://10.0.1.1:9090/stats",
			},
		},
		"a port that the pods do not declare": {
			change: func(c *fakeCluster) {
				c.with("{name: hits, service: 'service/edge/gateway:stats', path: /stats, " + query)
				s := c.objects["/api/v1/namespaces/edge/services/gateway"].(*corev1.Service)
				s.Spec.Ports[0].TargetPort = intstr.FromString("stats")
			},
			says: []string{"pod gateway has no TCP port named stats, which the targetPort of Service gateway asks for"},
			want: &doctor.Line{
				Check: checkPages, Status: doctor.Problem, Message: "has no TCP port named stats",
				Remedy: "correct the name, or use a number",
			},
		},
		"a port that does not exist": {
			change: func(c *fakeCluster) {
				c.with("{name: hits, service: 'service/edge/gateway:web', path: /stats, " + query)
			},
			want: &doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: `Service "gateway" has no TCP port web`,
				Remedy: "use one of its ports in the administrator's file",
			},
		},
		"a Service that does not exist": {
			change: func(c *fakeCluster) {
				c.with("{name: hits, service: 'service/edge/absent:stats', path: /stats, " + query)
			},
			want: &doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "Service edge/absent does not exist",
				Cause: "the administrator's file names it",
			},
		},
		"a Service without a selector": {
			change: func(c *fakeCluster) {
				c.objects["/api/v1/namespaces/edge/services/gateway"].(*corev1.Service).Spec.Selector = nil
				c.with("{name: hits, service: 'service/edge/gateway:stats', path: /stats, " + query)
			},
			want: &doctor.Line{
				Check: checkMetric, Status: doctor.Problem, Message: "Service edge/gateway has no pod selector",
				Remedy: "name a Service that has one in the administrator's file",
			},
		},
		"a backend": {
			change: func(c *fakeCluster) { c.with("{name: hits, backend: main, " + query) },
			says: []string{
				"named       in the administrator's file for ingresses", "backend     main",
				"(connections) (from the administrator's file)",
			},
		},
		"without the file": {
			change: func(c *fakeCluster) { c.notes = &kubeapi.Notes{Named: true} },
			says:   []string{"named       in the administrator's file (give a copy of that file with --config to see how)"},
		},
		"without the file and without a value": {
			change: func(c *fakeCluster) {
				c.notes = &kubeapi.Notes{Named: true, Backend: "main"}
				for path := range c.objects {
					if strings.HasSuffix(path, "/hits") {
						c.refuse(path, 404, metav1.StatusReasonNotFound, "metric hits of ingresses.networking.k8s.io front, named in "+
							`the administrator's file, has no value: no series has exported_namespace="default"`)
					}
				}
			},
			says: []string{"named       in the administrator's file (give a copy"},
			want: &doctor.Line{
				Check: checkServed, Status: doctor.Problem, Message: "no series has exported_namespace",
				Remedy: "do what the message says",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := namedCluster(t)
			tt.change(c)
			r := c.run()
			said := text(t, r)
			for _, want := range tt.says {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
			switch {
			case tt.want == nil && r.Status != doctor.OK:
				t.Errorf("not all is well:\n%s", said)
			case tt.want != nil && len(find(r, *tt.want)) != 1:
				t.Errorf("not one finding like %+v in\n%s", tt.want, said)
			}
		})
	}
}

// TestFileWithMistakes checks that a file that cannot be read ends the examination.
func TestFileWithMistakes(t *testing.T) {
	c := namedCluster(t)
	c.with("{}")
	for _, name := range []string{"web", ""} {
		config := Config{Rest: &rest.Config{Host: c.host}, Namespace: "default", Name: name, File: c.file}
		_, err := run(t.Context(), config, now)
		if err == nil || !strings.Contains(err.Error(), "metric number 1: it has no name") {
			t.Error(err)
		}
	}
}

// TestNamedOverview checks that the overview judges a metric by the file that names it, not by its default meaning.
func TestNamedOverview(t *testing.T) {
	c := namedCluster(t)
	c.hpa.Spec.Metrics[0].Object.Metric.Selector = &metav1.LabelSelector{
		MatchLabels: map[string]string{"quantile": "any"}, // a number is expected by default
	}
	overview := func() doctor.Status {
		t.Helper()
		r, err := Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}, File: c.file})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if got := overview(); got != doctor.Problem {
		t.Errorf("status %s without the file, want a problem with the selector", got)
	}
	c.with("{name: hits, service: 'service/edge/gateway:stats', resource: ingresses.networking.k8s.io, " +
		"namespaceLabel: exported_namespace, nameLabel: ingress, query: 'sum by (exported_namespace, ingress) (x)'}")
	if got := overview(); got != doctor.OK {
		t.Errorf("status %s with the file", got)
	}
}
