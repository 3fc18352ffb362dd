package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/konfig"
)

// TestExampleServiceMonitor checks that the ServiceMonitor in examples/ finds the Service of the base, and verifies the
// server by the Secret and the name that the server uses.
func TestExampleServiceMonitor(t *testing.T) {
	manifest, err := os.ReadFile("../../examples/prometheus/servicemonitor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(monitoringv1.AddToScheme(scheme))
	object, _, err := serializer.NewCodecFactory(scheme,
		serializer.EnableStrict).UniversalDeserializer().Decode(manifest, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	monitor := object.(*monitoringv1.ServiceMonitor)
	o := decode(t, renderAll(t)["kustomize/base"])

	if monitor.Namespace != o.service.Namespace {
		t.Errorf("namespace %q, want that of the Service, %q", monitor.Namespace, o.service.Namespace)
	}
	if got := o.service.Labels[monitor.Spec.JobLabel]; got != "metrics-server" {
		t.Errorf("the job is called %q, but alerts and dashboard ask for metrics-server", got)
	}
	selector := monitor.Spec.Selector.MatchLabels
	for key, value := range selector {
		if o.service.Labels[key] != value {
			t.Errorf("selects %s=%s, which the Service does not have", key, value)
		}
	}
	if len(selector) == 0 || len(monitor.Spec.Endpoints) != 1 {
		t.Fatalf("%+v, want one endpoint of services that are selected", monitor.Spec)
	}
	e := monitor.Spec.Endpoints[0]
	if e.Port != o.service.Spec.Ports[0].Name || e.Scheme == nil || !strings.EqualFold(e.Scheme.String(), "https") {
		t.Errorf("endpoint %+v, want HTTPS at the Service's port", e)
	}
	if e.TLSConfig == nil || e.TLSConfig.CA.Secret == nil || e.TLSConfig.ServerName == nil {
		t.Fatalf("%+v, want a CA from a Secret and the server's name", e.TLSConfig)
	}
	got := []string{e.TLSConfig.CA.Secret.Name, e.TLSConfig.CA.Secret.Key, *e.TLSConfig.ServerName}
	if diff := cmp.Diff([]string{o.secret.Name, "ca.crt", o.service.Name + "." + o.service.Namespace + ".svc"},
		got); diff != "" {
		t.Errorf("Secret, key and server name (-want +got):\n%s", diff)
	}
}

// TestExampleBackends renders the kustomization in examples/backends, and checks that the server finds the file with
// backends, under a name that does not change with its content.
func TestExampleBackends(t *testing.T) {
	const dir = "../../examples/backends"
	manifest, err := render(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(dir + "/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	checkBackends(t, manifest, map[string]string{"backends.yaml": string(want)})
}

// TestMoving renders the kustomization of docs/moving.md, and checks that no other one is applied there: it would take
// --config away from the server.
func TestMoving(t *testing.T) {
	doc, err := os.ReadFile("../../docs/moving.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(doc), "\n   ```yaml\n   apiVersion: kustomize.config.k8s.io/v1beta1\n")
	kustomization, _, ends := strings.Cut(rest, "   ```\n")
	if !found || !ends {
		t.Fatal("docs/moving.md has no kustomization")
	}
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := filepath.Rel(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"backends.yaml": "default: prometheus\n",
		"config.yaml":   "rules: []\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kustomization = strings.ReplaceAll(kustomization, "- metrics-server/", "- "+filepath.ToSlash(checkout)+"/")
	if err := os.WriteFile(filepath.Join(dir, konfig.DefaultKustomizationFileName()), []byte(kustomization),
		0o600); err != nil {
		t.Fatal(err)
	}
	manifest, err := render(dir)
	if err != nil {
		t.Fatalf("%v in\n%s", err, kustomization)
	}
	checkBackends(t, manifest, files)

	applied := regexp.MustCompile("kubectl apply .*").FindAllString(string(doc), -1)
	if len(applied) < 2 {
		t.Errorf("it applies %q, want the kustomization without and with APIServices", applied)
	}
	for _, command := range applied {
		if !strings.HasPrefix(command, "kubectl apply -k .") {
			t.Errorf("%q applies something other than the kustomization", command)
		}
	}
}

// checkBackends checks that the server finds a ConfigMap with data, and the file for --config in it, and that users
// need only fill in their image.
func checkBackends(t *testing.T, manifest []byte, data map[string]string) {
	t.Helper()
	var err error
	var config corev1.ConfigMap
	var deployment appsv1.Deployment
	for document := range strings.SplitSeq(string(manifest), "\n---\n") {
		switch {
		case strings.Contains(document, "\nkind: ConfigMap\n"):
			err = yaml.Unmarshal([]byte(document), &config)
		case strings.Contains(document, "\nkind: Deployment\n"):
			err = yaml.Unmarshal([]byte(document), &deployment)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(data, config.Data); diff != "" {
		t.Errorf("ConfigMap (-want +got):\n%s", diff)
	}
	pod := deployment.Spec.Template.Spec
	i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil && v.ConfigMap.Name == config.Name && config.Namespace == deployment.Namespace
	})
	if i < 0 {
		t.Fatalf("no volume has the ConfigMap %s/%s: %+v", config.Namespace, config.Name, pod.Volumes)
	}
	server := pod.Containers[0]
	if server.Image != "REGISTRY/metrics-server:TAG" {
		t.Errorf("image %s, want placeholders for the user's image", server.Image)
	}
	if !slices.ContainsFunc(server.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.Name == pod.Volumes[i].Name && m.SubPath == "" &&
			slices.Contains(server.Args, "--config="+m.MountPath+"/backends.yaml")
	}) {
		t.Errorf("mounts %+v, arguments %q", server.VolumeMounts, server.Args)
	}
}
