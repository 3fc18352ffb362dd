package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The image of the Deployments that TestCustomMetrics compares.
const customImage = "localhost/metrics-server:dev"

// byName reads the objects of a manifest, by "KIND NAMESPACE/NAME".
func byName(t *testing.T, manifest string) map[string]metav1.Object {
	t.Helper()
	all := map[string]metav1.Object{}
	eachObject(t, manifest, func(m metav1.Object, kind string) {
		all[kind+" "+m.GetNamespace()+"/"+m.GetName()] = m
	})
	return all
}

// TestCustomMetrics compares what customMetrics.enabled adds to a release with deploy/kustomize/custom-metrics, whose
// rules and references hack/manifests checks: the objects are the same except for names and labels, and for the
// defaults that the chart and the kustomizations spell differently.
func TestCustomMetrics(t *testing.T) {
	const name = "metrics-server-custom-metrics"
	files, err := filepath.Glob("../../deploy/kustomize/custom-metrics/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("files %q (%v)", files, err)
	}
	var kustomization strings.Builder
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		kustomization.WriteString("---\n" + string(text))
	}
	want := byName(t, strings.NewReplacer(
		"system:aggregated-custom-metrics-reader", "system:"+name+"-aggregated-reader", "custom-metrics-server", name,
		"image: metrics-server\n", "image: "+customImage+"\n",
	).Replace(kustomization.String()))

	enabled := parse(t, "{image: {tag: dev}, customMetrics: {enabled: true}}")
	manifest, _, err := render(load(t), enabled, "metrics-server", "kube-system", nil)
	if err != nil {
		t.Fatal(err)
	}
	without, _, err := render(load(t), parse(t, "image: {tag: dev}"), "metrics-server", "kube-system", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := byName(t, manifest)
	for object, before := range byName(t, without) {
		if diff := cmp.Diff(before, got[object]); diff != "" {
			t.Errorf("the switch changes %s (-want +got):\n%s", object, diff)
		}
		delete(got, object)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Fatalf("objects (-kustomize +chart):\n%s", diff)
	}

	selector := map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "metrics-server"}
	one := int32(1)
	for object, want := range want {
		got := got[object]
		removeNames(want)
		removeNames(got)
		switch want := want.(type) {
		case *corev1.Service:
			want.Spec.Selector = selector
		case *appsv1.Deployment:
			want.Spec.Replicas = &one
			want.Spec.Selector.MatchLabels, want.Spec.Template.Labels = selector, selector
			pod := &want.Spec.Template.Spec
			pod.Containers[0].Name = "custom-metrics-server"
			pod.Containers[0].SecurityContext.SeccompProfile, pod.SecurityContext = pod.SecurityContext.SeccompProfile, nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-kustomize +chart):\n%s", object, diff)
		}
	}
}

// removeNames removes the labels that the chart and the kustomizations write differently.
func removeNames(o metav1.Object) {
	labels := o.GetLabels()
	maps.DeleteFunc(labels, func(key, _ string) bool {
		return key == "helm.sh/chart" || key == "k8s-app" || strings.HasPrefix(key, "app.kubernetes.io/")
	})
	if len(labels) == 0 {
		labels = nil
	}
	o.SetLabels(labels)
}

// TestExternalMetrics compares what customMetrics.externalMetrics.enabled adds with the kustomize component, which
// hack/manifests checks.
func TestExternalMetrics(t *testing.T) {
	const name = "metrics-server-custom-metrics"
	var component strings.Builder
	for _, file := range []string{"apiservice", "rbac"} {
		text, err := os.ReadFile("../../deploy/kustomize/components/custom-metrics-external/" + file + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		component.WriteString("---\n" + string(text))
	}
	want := byName(t, strings.NewReplacer("system:aggregated-external-metrics-reader",
		"system:"+name+"-external-aggregated-reader", "custom-metrics-server", name).Replace(component.String()))
	objects := func(values string) map[string]metav1.Object {
		manifest, _, err := render(load(t), parse(t, values), "metrics-server", "kube-system", nil)
		if err != nil {
			t.Fatal(err)
		}
		return byName(t, manifest)
	}
	got := objects("customMetrics: {enabled: true, externalMetrics: {enabled: true}}")
	for object, before := range objects("customMetrics: {enabled: true}") {
		if d, ok := before.(*appsv1.Deployment); ok && d.Name == name {
			c := &d.Spec.Template.Spec.Containers[0]
			c.Args = append(c.Args, "--external-metrics")
		}
		if diff := cmp.Diff(before, got[object]); diff != "" {
			t.Errorf("the switch changes %s (-want +got):\n%s", object, diff)
		}
		delete(got, object)
	}
	for _, all := range []map[string]metav1.Object{want, got} {
		for _, o := range all {
			removeNames(o)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects (-kustomize +chart):\n%s", diff)
	}
	if diff := cmp.Diff(objects("{}"), objects("customMetrics: {externalMetrics: {enabled: true}}")); diff != "" {
		t.Errorf("without customMetrics.enabled, the switch changes (-want +got):\n%s", diff)
	}
}

// TestCustomMetricsValues checks that values that are not for one server alone apply to the custom
// metrics server too.
func TestCustomMetricsValues(t *testing.T) {
	manifest, _, err := render(load(t), parse(t, `
image: {repository: registry.example/metrics-server, tag: v1.2.3, pullPolicy: Always}
imagePullSecrets: [{name: registry}]
commonLabels: {team: a}
podLabels: {tier: b}
podAnnotations: {c: d}
deploymentAnnotations: {e: f}
podSecurityContext: {fsGroup: 7}
securityContext: {runAsUser: 8}
priorityClassName: high
revisionHistoryLimit: 3
hostUsers: false
nodeSelector: {pool: system}
tolerations: [{key: control, operator: Exists}]
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [z]}]}]
schedulerName: mine
tmpVolume: {emptyDir: {medium: Memory}}
apiService: {annotations: {g: h}}
updateStrategy: {}
customMetrics: {enabled: true}
`), release, namespace, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := decode(t, manifest)
	shared := func(d *appsv1.Deployment) []any {
		pod := d.Spec.Template
		podLabels := maps.Clone(pod.Labels)
		delete(podLabels, "app.kubernetes.io/name")
		c := pod.Spec.Containers[0]
		return []any{
			d.Labels["team"], d.Annotations, d.Spec.RevisionHistoryLimit, d.Spec.Strategy, podLabels, pod.Annotations,
			pod.Spec.ImagePullSecrets, pod.Spec.PriorityClassName, pod.Spec.SchedulerName, pod.Spec.SecurityContext,
			pod.Spec.HostUsers, pod.Spec.NodeSelector, pod.Spec.Tolerations, pod.Spec.Affinity, pod.Spec.Volumes,
			c.Image, c.ImagePullPolicy, c.SecurityContext, c.VolumeMounts,
		}
	}
	if diff := cmp.Diff(shared(o.deployment), shared(o.custom.deployment)); diff != "" {
		t.Errorf("Deployment (-resource server +custom metrics server):\n%s", diff)
	}
	for _, a := range o.custom.apiServices {
		if diff := cmp.Diff(map[string]string{"g": "h"}, a.Annotations); diff != "" {
			t.Errorf("annotations of %s (-want +got):\n%s", a.Name, diff)
		}
	}
}

// TestCustomMetricsApart checks that no selector of one server takes in pods of the other, whose labels differ in one.
func TestCustomMetricsApart(t *testing.T) {
	manifest, _, err := render(load(t), parse(t, `
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector: {matchLabels: {app.kubernetes.io/name: metrics-server}}
customMetrics: {enabled: true}
`), release, namespace, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := decode(t, manifest)
	matches := func(selector, labels map[string]string) bool {
		for key, value := range selector {
			if labels[key] != value {
				return false
			}
		}
		return true
	}
	for name, selector := range map[string]map[string]string{
		"Service": o.service.Spec.Selector, "Deployment": o.deployment.Spec.Selector.MatchLabels,
	} {
		if matches(selector, o.custom.deployment.Spec.Template.Labels) {
			t.Errorf("the %s of the resource server selects the pods of the custom metrics server", name)
		}
	}
	for name, selector := range map[string]map[string]string{
		"Service": o.custom.service.Spec.Selector, "Deployment": o.custom.deployment.Spec.Selector.MatchLabels,
	} {
		if matches(selector, o.deployment.Spec.Template.Labels) {
			t.Errorf("the %s of the custom metrics server selects the pods of the resource server", name)
		}
	}
	if a := o.custom.deployment.Spec.Template.Spec.Affinity; a != nil {
		t.Errorf("affinity %+v: what spreads the replicas of the resource server keeps the other one off their nodes", a)
	}
}

// TestCustomMetricsOperations compares the objects by which the custom metrics server is operated with the kustomize
// components, which hack/manifests checks.
func TestCustomMetricsOperations(t *testing.T) {
	const name = "metrics-server-custom-metrics"
	manifest, _, err := render(load(t), parse(t, `
metrics: {enabled: true}
serviceMonitor: {enabled: true}
customMetrics:
  enabled: true
  replicas: 2
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}
  podDisruptionBudget: {enabled: true, minAvailable: 1, unhealthyPodEvictionPolicy: AlwaysAllow}
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector: {matchLabels: {app.kubernetes.io/name: metrics-server-custom-metrics}}
  networkPolicy: {enabled: true}
affinity: {nodeAffinity: {}}
`), "metrics-server", "kube-system", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := byName(t, manifest)
	for _, component := range []string{
		"high-availability/poddisruptionbudget", "network-policy/networkpolicy", "service-monitor/servicemonitor",
	} {
		text, err := os.ReadFile("../../deploy/kustomize/components/custom-metrics-" + component + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		for object, want := range byName(t, strings.ReplaceAll(string(text), "custom-metrics-server", name)) {
			selector := map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "metrics-server"}
			switch want := want.(type) {
			case *policyv1.PodDisruptionBudget:
				want.Spec.Selector.MatchLabels = selector
			case *networkingv1.NetworkPolicy:
				want.Spec.PodSelector.MatchLabels = selector
			case *monitoringv1.ServiceMonitor:
				// Anybody may read /metrics, so that Prometheus need not show a token.
				timeout := monitoringv1.Duration("10s")
				want.Spec.JobLabel, want.Spec.Selector.MatchLabels = "app.kubernetes.io/name", selector
				want.Spec.NamespaceSelector.MatchNames = []string{"kube-system"}
				want.Spec.Endpoints[0].ScrapeTimeout = timeout
				//nolint:staticcheck // the field that is meant instead takes the token of a Secret only
				want.Spec.Endpoints[0].BearerTokenFile = ""
			}
			got := got[object]
			if got == nil {
				t.Errorf("the chart has no %s", object)
				continue
			}
			want.SetLabels(got.GetLabels())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-kustomize +chart):\n%s", object, diff)
			}
		}
	}
	spec := got["Deployment kube-system/"+name].(*appsv1.Deployment).Spec
	if *spec.Replicas != 2 || spec.Strategy.RollingUpdate.MaxSurge.IntVal != 0 ||
		spec.Strategy.RollingUpdate.MaxUnavailable.IntVal != 1 {
		t.Errorf("%d replicas, updated by %+v", *spec.Replicas, spec.Strategy.RollingUpdate)
	}
	terms := spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if len(terms) != 1 || spec.Template.Labels["app.kubernetes.io/name"] !=
		terms[0].LabelSelector.MatchLabels["app.kubernetes.io/name"] {
		t.Errorf("anti-affinity %+v, want one to the server's own pods", terms)
	}
	const open = "--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics"
	if args := spec.Template.Spec.Containers[0].Args; !slices.Contains(args, open) {
		t.Errorf("args %q do not let Prometheus read /metrics", args)
	}
}

// TestCustomMetricsPort checks that the container's port is the one on which the server listens. The last
// --secure-port counts.
func TestCustomMetricsPort(t *testing.T) {
	for values, want := range map[string]int32{
		`{}`:                                   10250,
		`{containerPort: 10251}`:               10251,
		`{extraArgs: [--secure-port=4443]}`:    4443,
		`{extraArgs: [--secure-port, "4443"]}`: 4443,
		`{containerPort: 4443, extraArgs: [--secure-port=4443]}`: 4443,
	} {
		given := with(parse(t, "customMetrics: "+values), "customMetrics.enabled", true)
		manifest, _, err := render(load(t), given, release, namespace, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := decode(t, manifest).custom.deployment.Spec.Template.Spec.Containers[0]
		argument := "--secure-port=" + strconv.Itoa(int(want))
		if got := c.Ports[0].ContainerPort; got != want || !slices.Contains(c.Args, argument) {
			t.Errorf("%s: port %d and arguments %q, want %d in both", values, got, c.Args, want)
		}
	}
}

// TestCustomMetricsParts checks what rbac.create and apiService.create leave out, and long names.
func TestCustomMetricsParts(t *testing.T) {
	long := strings.Repeat("n", 63)
	for values, want := range map[string]struct {
		name        string
		apiServices int
		roles       bool
	}{
		`{customMetrics: {enabled: true}}`:                              {fullname + "-custom-metrics", 2, true},
		`{customMetrics: {enabled: true}, rbac: {create: false}}`:       {fullname + "-custom-metrics", 2, false},
		`{customMetrics: {enabled: true}, apiService: {create: false}}`: {fullname + "-custom-metrics", 0, true},
		`{customMetrics: {enabled: true, externalMetrics: {enabled: true}}, apiService: {create: false}}`: {
			fullname + "-custom-metrics", 0, true,
		},
		`{customMetrics: {enabled: true, externalMetrics: {enabled: true}, createAPIServices: false}}`: {
			fullname + "-custom-metrics", 0, true,
		},
		`{customMetrics: {enabled: true}, nameOverride: ` + long + `, fullnameOverride: ` + long + `}`: {
			long[:48] + "-custom-metrics", 2, true,
		},
	} {
		manifest, _, err := render(load(t), parse(t, values), release, namespace, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := decode(t, manifest).custom
		var rules []rbacv1.PolicyRule
		rules = append(append(rules, o.clusterRules...), o.rules...)
		if o.service.Name != want.name || len(o.apiServices) != want.apiServices || (len(rules) > 0) != want.roles ||
			(len(o.roles) > 0) != want.roles {
			t.Errorf("%s: Service %s, %d APIServices, %d rules and %d bindings, want %+v", values, o.service.Name,
				len(o.apiServices), len(rules), len(o.roles), want)
		}
		if label := o.deployment.Spec.Template.Labels["app.kubernetes.io/name"]; len(label) > 63 || len(o.service.Name) > 63 {
			t.Errorf("%s: label %s and Service %s have at most 63 characters", values, label, o.service.Name)
		}
	}
}
