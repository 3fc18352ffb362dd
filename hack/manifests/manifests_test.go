package manifests

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"sigs.k8s.io/kustomize/api/filters/imagetag"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	// deploy is relative to this module's directory, where its tests run.
	deploy = "../../deploy"

	// The image of the tests, in place of that of deploy/kustomize.
	testName, testTag = "registry.example:5000/team/metrics-server", "v1.2.3"
	testImage         = testName + ":" + testTag
)

// TestDeploy checks what every installation must have, in every kustomization of deploy/.
func TestDeploy(t *testing.T) {
	for name, manifest := range renderAll(t) {
		t.Run(name, func(t *testing.T) {
			server := serverOf(path.Base(name))
			o := decodeServer(t, manifest, server)
			checkReferences(t, o)
			checkDeployment(t, o, strings.HasSuffix(name, "/host-network"))
			rules := map[string][]string{}
			for role, all := range o.rules {
				rules[role] = nil
				for _, rule := range all {
					rules[role] = append(rules[role], textOf(rule))
				}
			}
			if diff := cmp.Diff(server.rules, rules); diff != "" {
				t.Errorf("roles (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(server.aggregated, o.aggregated, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("labels that a ClusterRole collects others by (-want +got):\n%s", diff)
			}

			if got := o.deployment.Spec.Template.Spec.Containers[0].Image; got != testImage {
				t.Errorf("image %s, want %s", got, testImage)
			}
			if diff := cmp.Diff(server.apiServices, slices.Sorted(maps.Keys(o.apiServices))); diff != "" {
				t.Errorf("APIServices (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBase checks what else the default installation has: nothing that an administrator has to
// know first.
func TestBase(t *testing.T) {
	o := decode(t, renderAll(t)["kustomize/base"])

	wantArgs := []string{
		"--cert-dir=/tmp",
		"--secure-port=10250",
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"--kubelet-use-node-status-port",
		"--metric-resolution=15s",
		"--serving-certificate-secret=metrics-server-serving",
		"--kubelet-service-account=metrics-server-kubelets",
	}
	if diff := cmp.Diff(wantArgs, o.deployment.Spec.Template.Spec.Containers[0].Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
	for _, role := range []string{"admin", "edit", "view"} {
		labels := o.labels["ClusterRole system:aggregated-metrics-reader"]
		if labels["rbac.authorization.k8s.io/aggregate-to-"+role] != "true" {
			t.Errorf("system:aggregated-metrics-reader is not aggregated to %s", role)
		}
	}

	checkFilledIn(t, o)

	v1, v1beta1 := o.apiServices["v1.metrics.k8s.io"].Spec, o.apiServices["v1beta1.metrics.k8s.io"].Spec
	if v1beta1.VersionPriority != 100 || v1beta1.GroupPriorityMinimum != 100 {
		t.Errorf("v1beta1 has priorities %d and %d, want the 100 and 100 it has always had", v1beta1.GroupPriorityMinimum,
			v1beta1.VersionPriority)
	}
	if v1.VersionPriority <= v1beta1.VersionPriority {
		t.Errorf("v1 has versionPriority %d: a client that asks for no version would get v1beta1", v1.VersionPriority)
	}
	if v1.GroupPriorityMinimum != v1beta1.GroupPriorityMinimum {
		t.Errorf("groupPriorityMinimum %d for v1 and %d for v1beta1, of one group", v1.GroupPriorityMinimum,
			v1beta1.GroupPriorityMinimum)
	}
}

// TestCustomMetrics checks what the installation of the custom metrics server has besides.
func TestCustomMetrics(t *testing.T) {
	all := renderAll(t)
	o := decodeServer(t, all["kustomize/custom-metrics"], &customServer)

	wantArgs := []string{
		"custom-metrics",
		"--cert-dir=/tmp",
		"--secure-port=10250",
		"--serving-certificate-secret=custom-metrics-server-serving",
	}
	if diff := cmp.Diff(wantArgs, o.deployment.Spec.Template.Spec.Containers[0].Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
	checkFilledIn(t, o)

	// Labels decide which ClusterRoles get the rules of others: an additional label gives somebody a right.
	const aggregate = "rbac.authorization.k8s.io/aggregate-to-"
	wantLabels := map[string]map[string]string{
		"system:custom-metrics-server":        {},
		"system:custom-metrics-server-scales": {},
		"system:custom-metrics-server-workload-scales": {
			scaleReaderLabel: "true",
		},
		"system:aggregated-custom-metrics-reader": {
			aggregate + "admin": "true", aggregate + "edit": "true", aggregate + "view": "true",
		},
	}
	labels := map[string]map[string]string{}
	for object, of := range o.labels {
		if name, ok := strings.CutPrefix(object, "ClusterRole "); ok {
			labels[name] = maps.Clone(of)
			delete(labels[name], "k8s-app")
		}
	}
	if diff := cmp.Diff(wantLabels, labels); diff != "" {
		t.Errorf("labels of ClusterRoles (-want +got):\n%s", diff)
	}

	v1beta1 := o.apiServices["v1beta1.custom.metrics.k8s.io"].Spec
	v1beta2 := o.apiServices["v1beta2.custom.metrics.k8s.io"].Spec
	priorities := []int32{
		v1beta1.GroupPriorityMinimum, v1beta1.VersionPriority, v1beta2.GroupPriorityMinimum, v1beta2.VersionPriority,
	}
	if diff := cmp.Diff([]int32{100, 100, 100, 200}, priorities); diff != "" {
		t.Errorf("priorities, by which v1beta2 is preferred (-want +got):\n%s", diff)
	}

	// Except for what the two servers do differently, their pods are alike.
	want := decode(t, all["kustomize/base"]).deployment
	want.Name, want.Labels = customServer.name, map[string]string{"k8s-app": customServer.name}
	want.Spec.Selector.MatchLabels, want.Spec.Template.Labels = want.Labels, want.Labels
	pod := &want.Spec.Template.Spec
	pod.ServiceAccountName = customServer.name
	pod.Containers[0].Name = customServer.name
	pod.Containers[0].Args = wantArgs
	pod.Containers[0].ReadinessProbe.InitialDelaySeconds = 5
	pod.Containers[0].Resources.Requests[corev1.ResourceMemory] = resource.MustParse(customServer.memory)
	pod.Containers[0].Resources.Limits = corev1.ResourceList{
		corev1.ResourceMemory: resource.MustParse(customServer.memoryLimit),
	}
	if diff := cmp.Diff(want, o.deployment); diff != "" {
		t.Errorf("Deployment (-want +got):\n%s", diff)
	}

	// Both servers can be installed, whichever comes first.
	for object := range decode(t, all["kustomize/base"]).labels {
		if o.labels[object] != nil {
			t.Errorf("%s is of both installations: removing one takes it from the other", object)
		}
	}
}

// checkFilledIn checks that a manifest sets no field that the server writes: applying it again would overwrite it.
func checkFilledIn(t *testing.T, o objects) {
	t.Helper()
	for name, a := range o.apiServices {
		if a.Spec.InsecureSkipTLSVerify || a.Spec.CABundle != nil {
			t.Errorf("APIService %s: insecureSkipTLSVerify %v and caBundle %q, want neither: the server writes the caBundle",
				name, a.Spec.InsecureSkipTLSVerify, a.Spec.CABundle)
		}
	}
	if s := o.secret; s == nil || s.Name != o.server.name+"-serving" || s.Namespace != o.deployment.Namespace ||
		s.Data != nil || s.StringData != nil || s.Immutable != nil {
		t.Errorf("secret %+v, want %s-serving beside the server, without data", s, o.server.name)
	}
}

// TestNetworkPolicy checks that the policies allow exactly the traffic that the servers need.
// Nothing here enforces it.
func TestNetworkPolicy(t *testing.T) {
	o := decode(t, renderAll(t)["kustomize/components/network-policy"])
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	dns := networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{
			{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "kube-system"}},
				PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
			},
			{IPBlock: &networkingv1.IPBlock{CIDR: "169.254.20.10/32"}},
		},
		Ports: []networkingv1.NetworkPolicyPort{
			policyPort(udp, intstr.FromInt32(53)), policyPort(tcp, intstr.FromInt32(53)),
		},
	}
	checkPolicy(t, o, "network-policy", []networkingv1.NetworkPolicyEgressRule{
		{Ports: []networkingv1.NetworkPolicyPort{
			policyPort(tcp, intstr.FromInt32(10250)), policyPort(tcp, intstr.FromInt32(443)),
			policyPort(tcp, intstr.FromInt32(6443)),
		}},
		dns,
	})

	o = decodeServer(t, renderAll(t)["kustomize/components/custom-metrics-network-policy"], &customServer)
	checkPolicy(t, o, "custom-metrics-network-policy", []networkingv1.NetworkPolicyEgressRule{
		{
			To:    []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}},
			Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp}},
		},
		{Ports: []networkingv1.NetworkPolicyPort{
			policyPort(tcp, intstr.FromInt32(443)), policyPort(tcp, intstr.FromInt32(6443)),
		}},
		dns,
	})
}

func policyPort(protocol corev1.Protocol, port intstr.IntOrString) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port}
}

// checkPolicy checks the policy of a component: it allows incoming traffic to the server's port,
// and the outgoing traffic in egress.
func checkPolicy(t *testing.T, o objects, component string, egress []networkingv1.NetworkPolicyEgressRule) {
	t.Helper()
	if o.policy == nil {
		t.Fatalf("%s has no NetworkPolicy", component)
	}
	if o.policy.Namespace != o.deployment.Namespace {
		t.Errorf("the policy is of namespace %q, the pods are of %q", o.policy.Namespace, o.deployment.Namespace)
	}
	want := networkingv1.NetworkPolicySpec{
		PodSelector: *o.deployment.Spec.Selector,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{
			Ports: []networkingv1.NetworkPolicyPort{policyPort(corev1.ProtocolTCP,
				intstr.FromString(o.deployment.Spec.Template.Spec.Containers[0].Ports[0].Name))},
		}},
		Egress: egress,
	}
	if diff := cmp.Diff(want, o.policy.Spec); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}

	// The file is also applied alone, to an existing installation.
	file, err := os.ReadFile(filepath.Join(deploy, "kustomize/components", component, "networkpolicy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var alone networkingv1.NetworkPolicy
	if err := yaml.Unmarshal(file, &alone); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*o.policy, alone); diff != "" {
		t.Errorf("the file is not what the component renders to (-component +file):\n%s", diff)
	}
}

// TestChanges checks that each component changes only its purpose in its server's Deployment.
func TestChanges(t *testing.T) {
	all := renderAll(t)
	for name, change := range map[string]func(spec *appsv1.DeploymentSpec, pod *corev1.PodSpec, server *corev1.Container){
		"insecure-kubelet-tls": func(_ *appsv1.DeploymentSpec, _ *corev1.PodSpec, server *corev1.Container) {
			server.Args = append(server.Args, "--kubelet-insecure-tls")
		},
		"verified-kubelets": func(_ *appsv1.DeploymentSpec, pod *corev1.PodSpec, server *corev1.Container) {
			server.Args = append(server.Args, "--kubelet-certificate-authority=/etc/kubelet-ca/ca.crt")
			server.VolumeMounts = append(server.VolumeMounts,
				corev1.VolumeMount{Name: "kubelet-ca", MountPath: "/etc/kubelet-ca", ReadOnly: true})
			pod.Volumes = append(pod.Volumes, corev1.Volume{
				Name: "kubelet-ca",
				VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "metrics-server-kubelet-ca"},
				}},
			})
		},
		"host-network": func(_ *appsv1.DeploymentSpec, pod *corev1.PodSpec, server *corev1.Container) {
			pod.HostNetwork, pod.DNSPolicy = true, corev1.DNSDefault
			server.Args[slices.Index(server.Args, "--secure-port=10250")] = "--secure-port=4443"
			server.Ports[0].ContainerPort = 4443
		},
		"high-availability":                spreadTwo,
		"network-policy":                   unchanged,
		"service-monitor":                  unchanged,
		"alerts":                           unchanged,
		"custom-metrics-high-availability": spreadTwo,
		"custom-metrics-external": func(_ *appsv1.DeploymentSpec, _ *corev1.PodSpec, server *corev1.Container) {
			server.Args = append(server.Args, "--external-metrics")
		},
		"custom-metrics-backends":        mountBackends,
		"custom-metrics-network-policy":  unchanged,
		"custom-metrics-service-monitor": unchanged,
		"custom-metrics-alerts":          unchanged,
	} {
		t.Run(name, func(t *testing.T) {
			server, installation := serverOf(name), "kustomize/base"
			if strings.HasPrefix(name, "custom-metrics-") {
				installation = "kustomize/custom-metrics"
			}
			want := decodeServer(t, all[installation], server).deployment
			change(&want.Spec, &want.Spec.Template.Spec, &want.Spec.Template.Spec.Containers[0])
			if diff := cmp.Diff(want, decodeServer(t, all["kustomize/components/"+name], server).deployment); diff != "" {
				t.Errorf("Deployment (-want +got):\n%s", diff)
			}
			if overlay := all["kustomize/overlays/"+name]; overlay != nil &&
				!bytes.Equal(overlay, all["kustomize/components/"+name]) {
				t.Errorf("the overlay is not the component on top of %s", installation)
			}
		})
	}
}

func unchanged(*appsv1.DeploymentSpec, *corev1.PodSpec, *corev1.Container) {}

// mountBackends is what the file with backends and its credentials need.
func mountBackends(_ *appsv1.DeploymentSpec, pod *corev1.PodSpec, server *corev1.Container) {
	const name, credentials = "custom-metrics-backends", "backends-credentials"
	server.Args = append(server.Args, "--config=/etc/backends/backends.yaml")
	server.VolumeMounts = append(server.VolumeMounts,
		corev1.VolumeMount{Name: "backends", MountPath: "/etc/backends", ReadOnly: true},
		corev1.VolumeMount{Name: credentials, MountPath: "/etc/" + credentials, ReadOnly: true})
	optional := true
	pod.Volumes = append(pod.Volumes,
		corev1.Volume{Name: "backends", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: name},
		}}},
		corev1.Volume{Name: credentials, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: name, Optional: &optional,
		}}})
}

// spreadTwo is what high availability changes: two replicas on two nodes.
func spreadTwo(spec *appsv1.DeploymentSpec, pod *corev1.PodSpec, _ *corev1.Container) {
	two, none, one := int32(2), intstr.FromInt32(0), intstr.FromInt32(1)
	spec.Replicas = &two
	// A cluster of two nodes has no third one for a surge pod.
	spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &none, MaxUnavailable: &one}
	pod.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey:   corev1.LabelHostname,
			LabelSelector: spec.Selector,
		}},
	}}
}

// TestCombined checks that components can be combined in any order.
func TestCombined(t *testing.T) {
	all := renderAll(t)
	names := []string{
		"insecure-kubelet-tls", "verified-kubelets", "host-network", "high-availability", "network-policy",
		"service-monitor",
	}
	for range names {
		names = append(names[1:], names[0])
		manifest, err := render(withComponents(t, "base", names...))
		if err != nil {
			t.Fatal(err)
		}
		o := decode(t, manifest)
		checkReferences(t, o)
		if o.policy == nil || o.monitor == nil || o.budget == nil {
			t.Errorf("%q: an object is missing", names)
		}
		args := slices.Sorted(slices.Values(o.deployment.Spec.Template.Spec.Containers[0].Args))
		want := slices.Sorted(slices.Values(append(decode(t,
			all["kustomize/components/host-network"]).deployment.Spec.Template.Spec.Containers[0].Args,
			"--kubelet-insecure-tls", "--kubelet-certificate-authority=/etc/kubelet-ca/ca.crt")))
		if diff := cmp.Diff(want, args); diff != "" {
			t.Errorf("%q: args (-want +got):\n%s", names, diff)
		}
		if pod := o.deployment.Spec.Template.Spec; len(pod.Volumes) != 2 || !pod.HostNetwork || pod.Affinity == nil ||
			*o.deployment.Spec.Replicas != 2 {
			t.Errorf("%q: a change of the pod is missing: %+v", names, o.deployment.Spec)
		}
	}
}

// TestCustomMetricsCombined checks that all components for the custom metrics server can be combined.
func TestCustomMetricsCombined(t *testing.T) {
	manifest, err := render(withComponents(t, "custom-metrics", "custom-metrics-service-monitor",
		"custom-metrics-high-availability", "custom-metrics-alerts", "custom-metrics-network-policy",
		"custom-metrics-backends", "custom-metrics-external"))
	if err != nil {
		t.Fatal(err)
	}
	o := decodeServer(t, manifest, serverOf("custom-metrics-external"))
	checkReferences(t, o)
	if o.policy == nil || o.monitor == nil || o.budget == nil || *o.deployment.Spec.Replicas != 2 ||
		len(o.deployment.Spec.Template.Spec.Volumes) != 3 {
		t.Errorf("an object is missing, or there are not two replicas: %+v", o.deployment.Spec)
	}
}

// TestHighAvailability checks that a drain may take as many replicas as a roll-out, one of two, and any that is not
// ready: otherwise, nodes with a replica could not be drained while no replica is ready.
func TestHighAvailability(t *testing.T) {
	for overlay, server := range map[string]*server{
		"high-availability": &resourceServer, "custom-metrics-high-availability": &customServer,
	} {
		o := decodeServer(t, renderAll(t)["kustomize/overlays/"+overlay], server)
		if o.budget == nil {
			t.Fatalf("%s: no PodDisruptionBudget", overlay)
		}
		want := policyv1.PodDisruptionBudgetSpec{
			MinAvailable: new(intstr.FromInt32(1)), Selector: o.deployment.Spec.Selector,
			UnhealthyPodEvictionPolicy: new(policyv1.AlwaysAllow),
		}
		if diff := cmp.Diff(want, o.budget.Spec); diff != "" || o.budget.Namespace != o.deployment.Namespace {
			t.Errorf("%s: budget in namespace %q (-want +got):\n%s", overlay, o.budget.Namespace, diff)
		}
	}
}

func TestServiceMonitor(t *testing.T) {
	for component, server := range map[string]*server{
		"service-monitor": &resourceServer, "custom-metrics-service-monitor": &customServer,
	} {
		o := decodeServer(t, renderAll(t)["kustomize/components/"+component], server)
		if o.monitor == nil {
			t.Fatalf("%s: no ServiceMonitor", component)
		}
		// Alerts and dashboard expect the server's name as the job.
		if o.monitor.Namespace != o.service.Namespace || o.service.Labels[o.monitor.Spec.JobLabel] != server.name {
			t.Errorf("%s: namespace %q and job label %q, want those of the Service", component, o.monitor.Namespace,
				o.monitor.Spec.JobLabel)
		}
		for key, value := range o.monitor.Spec.Selector.MatchLabels {
			if o.service.Labels[key] != value {
				t.Errorf("%s selects %s=%s, which the Service does not have", component, key, value)
			}
		}
		if len(o.monitor.Spec.Selector.MatchLabels) == 0 || len(o.monitor.Spec.Endpoints) != 1 {
			t.Fatalf("%s: %+v, want one endpoint of services that are selected", component, o.monitor.Spec)
		}
		if e := o.monitor.Spec.Endpoints[0]; e.Port != o.service.Spec.Ports[0].Name || e.Path != "/metrics" ||
			e.Scheme == nil || !strings.EqualFold(e.Scheme.String(), "https") {
			t.Errorf("%s: endpoint %+v, want HTTPS /metrics at the Service's port", component, e)
		}
	}
}

// TestOlderShape keeps the older manifest, which must continue to work, as it is.
func TestOlderShape(t *testing.T) {
	manifest, err := os.ReadFile(filepath.Join(deploy, "testdata", "older-shape.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o := decode(t, manifest)
	checkReferences(t, o)
	wantArgs := []string{
		"--cert-dir=/tmp",
		"--secure-port=4430",
		"--kubelet-preferred-address-types=InternalDNS,InternalIP,ExternalDNS,ExternalIP,Hostname",
		"--kubelet-use-node-status-port",
		"--metric-resolution=15s",
		"--kubelet-insecure-tls",
	}
	if diff := cmp.Diff(wantArgs, o.deployment.Spec.Template.Spec.Containers[0].Args); diff != "" {
		t.Errorf("args (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"v1beta1.metrics.k8s.io"}, slices.Sorted(maps.Keys(o.apiServices))); diff != "" {
		t.Errorf("APIServices (-want +got):\n%s", diff)
	}
}

// TestRelease compares the files that render.sh writes with what the tests check.
func TestRelease(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if out, err := exec.CommandContext(t.Context(), "./render.sh", dir, testImage).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := renderAll(t)
	for file, kustomization := range map[string]string{
		"components.yaml":                       "kustomize/base",
		"components-insecure-kubelet-tls.yaml":  "kustomize/overlays/insecure-kubelet-tls",
		"high-availability.yaml":                "kustomize/overlays/high-availability",
		"custom-metrics.yaml":                   "kustomize/custom-metrics",
		"custom-metrics-high-availability.yaml": "kustomize/overlays/custom-metrics-high-availability",
		"custom-metrics-external.yaml":          "kustomize/overlays/custom-metrics-external",
	} {
		manifest, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(all[kustomization]), string(manifest)); diff != "" {
			t.Errorf("%s is not %s (-want +got):\n%s", file, kustomization, diff)
		}
	}
	for _, image := range []string{"", "name", "registry.example:5000/name", "name:"} {
		out, err := exec.CommandContext(t.Context(), "./render.sh", dir, image).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "NAME:TAG") {
			t.Errorf("image %q: %v and output %q, want NAME:TAG in it", image, err, out)
		}
	}
}

// kubeletAccount is the service account whose tokens kubelets are shown.
const kubeletAccount = "metrics-server-kubelets"

// server is what an installation has that differs between the two servers of this repository.
type server struct {
	name        string   // of its objects, and the value of their label k8s-app
	apiServices []string // in order
	roles       []string // that are bound in every shape
	memory      string   // requested
	memoryLimit string   // "" if there is none
	// rules are all permissions that are granted. TestRights and TestCustomMetricsRights in test/integration check that
	// each is used.
	rules map[string][]string // as texts of rules, by the ClusterRole's name, or the Role's namespace and name
	// aggregated are the labels by which a ClusterRole collects the rules of others.
	aggregated map[string][]metav1.LabelSelector
}

// textOf returns everything that a rule says: its verbs, API groups (none for the core group), resources and names.
func textOf(r rbacv1.PolicyRule) string {
	list := func(all []string) string { return strings.Join(all, ",") }
	text := list(r.Verbs) + " " + list(append(r.NonResourceURLs, r.APIGroups...)) + "/" + list(r.Resources)
	text = strings.Replace(text, " /", " ", 1)
	if len(r.ResourceNames) > 0 {
		text += ": " + list(r.ResourceNames)
	}
	return text
}

var resourceServer = server{
	name:        "metrics-server",
	apiServices: []string{"v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"},
	roles: []string{
		"ClusterRole system:auth-delegator",
		"ClusterRole system:metrics-server",
		"kube-system Role extension-apiserver-authentication-reader",
	},
	memory: "200Mi",
	rules: map[string][]string{
		"system:aggregated-metrics-reader": {"get,list,watch metrics.k8s.io/nodes,pods"},
		"system:metrics-server": {
			"get nodes/metrics",
			"list,watch nodes",
			"get,list,watch pods",
			"get,patch apiregistration.k8s.io/apiservices: v1.metrics.k8s.io,v1beta1.metrics.k8s.io",
			"create,patch events",
			"get,list,watch configmaps: extension-apiserver-authentication",
		},
		// The credentials that kubelets are shown permit only this.
		"system:metrics-server-kubelets":      {"get nodes/metrics"},
		"kube-system/metrics-server-kubelets": {"create serviceaccounts/token: " + kubeletAccount},
		"kube-system/metrics-server-serving":  {"get,update secrets: metrics-server-serving"},
	},
}

// scaleReaderLabel is kubeapi.ScaleReaderLabel, which the server's errors tell users to set.
const scaleReaderLabel = "metrics-server/aggregate-to-custom-metrics"

var customServer = server{
	name:        "custom-metrics-server",
	apiServices: []string{"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"},
	roles: []string{
		"ClusterRole system:auth-delegator",
		"ClusterRole system:custom-metrics-server",
		"ClusterRole system:custom-metrics-server-scales",
	},
	memory:      "100Mi",
	memoryLimit: "1536Mi",
	rules: map[string][]string{
		"system:aggregated-custom-metrics-reader": {"get,list custom.metrics.k8s.io/*"},
		"system:custom-metrics-server": {
			"list,watch autoscaling/horizontalpodautoscalers",
			"list,watch pods,services",
			"get,patch apiregistration.k8s.io/apiservices: v1beta1.custom.metrics.k8s.io,v1beta2.custom.metrics.k8s.io",
			"get,list,watch configmaps: extension-apiserver-authentication",
		},
		"system:custom-metrics-server-scales": nil, // the API server fills them in
		"system:custom-metrics-server-workload-scales": {
			"get apps/deployments/scale,replicasets/scale,statefulsets/scale",
			"get replicationcontrollers/scale",
		},
		"kube-system/custom-metrics-server-serving": {"get,update secrets: custom-metrics-server-serving"},
	},
	aggregated: map[string][]metav1.LabelSelector{
		"system:custom-metrics-server-scales": {{MatchLabels: map[string]string{scaleReaderLabel: "true"}}},
	},
}

// serverOf returns what an installation has of which server, by the name of its kustomization.
func serverOf(name string) *server {
	switch {
	case name == "custom-metrics-external":
		return externalServer()
	case strings.HasPrefix(name, "custom-metrics"):
		return &customServer
	}
	return &resourceServer
}

// externalServer is customServer with external metrics.
func externalServer() *server {
	s := customServer
	const name = "system:custom-metrics-server-external"
	s.apiServices = slices.Insert(slices.Clone(s.apiServices), 1, "v1beta1.external.metrics.k8s.io")
	s.roles = slices.Insert(slices.Clone(s.roles), 2, "ClusterRole "+name)
	s.rules = maps.Clone(s.rules)
	s.rules["system:aggregated-external-metrics-reader"] = []string{"get,list external.metrics.k8s.io/*"}
	s.rules[name] = []string{"get,patch apiregistration.k8s.io/apiservices: v1beta1.external.metrics.k8s.io"}
	return &s
}

// objects is one installation, by kind.
type objects struct {
	server      *server
	accounts    map[string]*corev1.ServiceAccount
	deployment  *appsv1.Deployment
	service     *corev1.Service
	secret      *corev1.Secret // nil in older shapes
	policy      *networkingv1.NetworkPolicy
	budget      *policyv1.PodDisruptionBudget
	monitor     *monitoringv1.ServiceMonitor
	apiServices map[string]*apiregistrationv1.APIService
	rules       map[string][]rbacv1.PolicyRule // by the ClusterRole's name, or the Role's namespace and name
	aggregated  map[string][]metav1.LabelSelector
	bindings    []binding
	labels      map[string]map[string]string // by "KIND NAME"
}

type binding struct {
	name, namespace string
	role            rbacv1.RoleRef
	subjects        []rbacv1.Subject
}

// checkReferences checks that every name in one object that means another one is right: a wrong one fails
// only in the cluster, and late.
func checkReferences(t *testing.T, o objects) {
	t.Helper()
	pod := o.deployment.Spec.Template
	if _, ok := o.labels["ServiceAccount "+pod.Spec.ServiceAccountName]; !ok {
		t.Errorf("the pod's service account %q is not there", pod.Spec.ServiceAccountName)
	}
	kubelets := o.accounts[kubeletAccount] // nil in older shapes
	if named := slices.Contains(pod.Spec.Containers[0].Args,
		"--kubelet-service-account="+kubeletAccount); named != (kubelets != nil) {
		t.Errorf("the arguments name the account for kubelets: %v, it is there: %v", named, kubelets != nil)
	}
	if kubelets != nil && (kubelets.Namespace != o.deployment.Namespace ||
		kubelets.AutomountServiceAccountToken == nil || *kubelets.AutomountServiceAccountToken) {
		t.Errorf("account for kubelets %+v, want one beside the server that no pod gets a token of", kubelets)
	}
	for _, b := range o.bindings {
		want := pod.Spec.ServiceAccountName
		if b.role.Name == "system:metrics-server-kubelets" {
			want = kubeletAccount
		}
		if len(b.subjects) != 1 {
			t.Errorf("%s binds %d subjects, want one", b.name, len(b.subjects))
		}
		for _, s := range b.subjects {
			if s.Kind != "ServiceAccount" || s.Name != want || s.Namespace != o.deployment.Namespace {
				t.Errorf("%s binds %s %s/%s, want the service account %s", b.name, s.Kind, s.Namespace, s.Name, want)
			}
		}
	}
	var roles []string
	for _, b := range o.bindings {
		roles = append(roles, strings.TrimSpace(b.namespace+" "+b.role.Kind+" "+b.role.Name))
	}
	slices.Sort(roles)
	wantRoles := slices.Clone(o.server.roles)
	if kubelets != nil {
		wantRoles = append(wantRoles, "ClusterRole system:metrics-server-kubelets",
			"kube-system Role metrics-server-kubelets")
	}
	if o.secret != nil {
		wantRoles = append(wantRoles, "kube-system Role "+o.secret.Name)
	}
	slices.Sort(wantRoles)
	if diff := cmp.Diff(wantRoles, roles); diff != "" {
		t.Errorf("bound roles (-want +got):\n%s", diff)
	}

	for name, selector := range map[string]map[string]string{
		"Service": o.service.Spec.Selector, "Deployment": o.deployment.Spec.Selector.MatchLabels,
	} {
		if len(selector) == 0 {
			t.Errorf("the %s selects every pod", name)
		}
		for key, value := range selector {
			if pod.Labels[key] != value {
				t.Errorf("the %s selects %s=%s, which the pod does not have", name, key, value)
			}
		}
	}
	for name, a := range o.apiServices {
		if a.Name != a.Spec.Version+"."+a.Spec.Group {
			t.Errorf("APIService %s is of %s/%s", name, a.Spec.Group, a.Spec.Version)
		}
		if s := a.Spec.Service; s == nil || s.Name != o.service.Name || s.Namespace != o.service.Namespace {
			t.Errorf("APIService %s is of service %+v, want %s/%s", name, s, o.service.Namespace, o.service.Name)
		}
	}

	container := pod.Spec.Containers[0]
	if len(container.Ports) != 1 {
		t.Fatalf("%d container ports, want 1", len(container.Ports))
	}
	port := container.Ports[0]
	if got := o.service.Spec.Ports; len(got) != 1 || got[0].Port != 443 || got[0].TargetPort.String() != port.Name {
		t.Errorf("service ports %+v, want 443 to the container's port %s", got, port.Name)
	}
	if want := "--secure-port=" + strconv.Itoa(int(port.ContainerPort)); !slices.Contains(container.Args, want) {
		t.Errorf("args %q do not have %s, the container's port", container.Args, want)
	}
	for _, p := range []struct {
		path  string
		probe *corev1.Probe
	}{{"/livez", container.LivenessProbe}, {"/readyz", container.ReadinessProbe}} {
		if p.probe == nil || p.probe.HTTPGet == nil {
			t.Errorf("no HTTP probe for %s", p.path)
			continue
		}
		if g := p.probe.HTTPGet; g.Path != p.path || g.Port.String() != port.Name || g.Scheme != corev1.URISchemeHTTPS {
			t.Errorf("probe %+v, want HTTPS %s on port %s", g, p.path, port.Name)
		}
	}
	for _, m := range container.VolumeMounts {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("volume %s is mounted and not there", m.Name)
		}
	}
}

// checkDeployment checks the pod's security: it passes the restricted Pod Security Standard, except
// that the host's network is allowed if that is the purpose of the kustomization.
func checkDeployment(t *testing.T, o objects, hostNetwork bool) {
	t.Helper()
	yes, no, uid := true, false, int64(1000)
	pod := o.deployment.Spec.Template.Spec
	want := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   &yes,
		RunAsNonRoot:             &yes,
		RunAsUser:                &uid,
	}
	if diff := cmp.Diff(want, pod.Containers[0].SecurityContext); diff != "" {
		t.Errorf("security context (-want +got):\n%s", diff)
	}
	if p := pod.SecurityContext; p == nil || p.SeccompProfile == nil ||
		p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod security context %+v, want the runtime's default seccomp profile", p)
	}
	if pod.HostNetwork != hostNetwork || pod.HostPID || pod.HostIPC ||
		slices.ContainsFunc(pod.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }) {
		t.Error("the pod is on the host's network, in its namespaces, or at its ports")
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Errorf("%d containers and %d init containers, want the server alone", len(pod.Containers), len(pod.InitContainers))
	}
	for _, v := range pod.Volumes {
		// The one Secret is for the administrator's credentials of backends.
		if v.EmptyDir == nil && v.ConfigMap == nil && (v.Secret == nil || v.Name != "backends-credentials") {
			t.Errorf("volume %s is neither an emptyDir nor a config map", v.Name)
		}
	}
	if pod.PriorityClassName != "system-cluster-critical" {
		t.Errorf("priority class %q, want system-cluster-critical", pod.PriorityClassName)
	}
	if pod.NodeSelector["kubernetes.io/os"] != "linux" {
		t.Errorf("node selector %v, want linux", pod.NodeSelector)
	}
	requests := pod.Containers[0].Resources.Requests
	if requests.Cpu().String() != "100m" || requests.Memory().String() != o.server.memory {
		t.Errorf("requests %v, want 100m and %s", requests, o.server.memory)
	}
	replicas := int32(1)
	if r := o.deployment.Spec.Replicas; r != nil {
		replicas = *r
	}
	if r := o.deployment.Spec.Strategy.RollingUpdate; r == nil || r.MaxUnavailable.IntVal >= replicas ||
		r.MaxUnavailable.StrVal != "" {
		t.Errorf("rolling update %+v of %d replicas: want one to stay, or a roll-out leaves a gap", r, replicas)
	}
}

// renderAll renders every kustomization below deploy/, by its path there. A component is rendered upon the installation
// that it is for.
func renderAll(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(deploy, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != konfig.DefaultKustomizationFileName() {
			return err
		}
		dir := filepath.Dir(path)
		if strings.Contains(filepath.ToSlash(dir), "/components/") {
			resource := "base"
			if strings.HasPrefix(filepath.Base(dir), "custom-metrics") {
				resource = "custom-metrics"
			}
			dir = withComponents(t, resource, filepath.Base(dir))
		}
		manifest, err := render(dir)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(deploy, filepath.Dir(path))
		all[filepath.ToSlash(name)] = manifest
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// render returns the objects of a kustomization, as `kubectl kustomize` does, with testImage as the server's image.
func render(dir string) ([]byte, error) {
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // objects come before those that refer to them
	objects, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	if err := objects.ApplyFilter(imagetag.Filter{
		ImageTag: types.Image{Name: "localhost/metrics-server", NewName: testName, NewTag: testTag},
		FsSlice:  types.FsSlice{{Path: "spec/template/spec/containers[]/image"}},
	}); err != nil {
		return nil, err
	}
	return objects.AsYaml()
}

// withComponents returns a kustomization of an installation, the base or custom-metrics, and components, as a user
// would write it.
func withComponents(t *testing.T, resource string, components ...string) string {
	t.Helper()
	dir := t.TempDir()
	from := func(path string) string {
		abs, err := filepath.Abs(filepath.Join(deploy, "kustomize", path))
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(dir, abs)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.ToSlash(rel)
	}
	kustomization := "resources:\n- " + from(resource) + "\ncomponents:\n"
	for _, c := range components {
		kustomization += "- " + from(filepath.Join("components", c)) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, konfig.DefaultKustomizationFileName()), []byte(kustomization),
		0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// decode reads a manifest of the resource server.
func decode(t *testing.T, manifest []byte) objects {
	t.Helper()
	return decodeServer(t, manifest, &resourceServer)
}

// decodeServer reads a manifest as strictly as the API server does with --validate=strict: unknown fields and
// fields given twice are errors.
func decodeServer(t *testing.T, manifest []byte, server *server) objects {
	t.Helper()
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(apiregistrationv1.AddToScheme(scheme))
	utilruntime.Must(monitoringv1.AddToScheme(scheme))
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()

	o := objects{
		server:      server,
		aggregated:  map[string][]metav1.LabelSelector{},
		accounts:    map[string]*corev1.ServiceAccount{},
		apiServices: map[string]*apiregistrationv1.APIService{},
		rules:       map[string][]rbacv1.PolicyRule{},
		labels:      map[string]map[string]string{},
	}
	for documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(manifest))); ; {
		document := make([]byte, len(manifest))
		n, err := documents.Read(document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder.Decode(document[:n], nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document[:n])
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			t.Fatal(err)
		}
		o.labels[kind.Kind+" "+accessor.GetName()] = accessor.GetLabels()
		if accessor.GetLabels()["k8s-app"] != server.name {
			t.Errorf("%s %s has no label k8s-app=%s", kind.Kind, accessor.GetName(), server.name)
		}
		switch object := object.(type) {
		case *corev1.ServiceAccount:
			o.accounts[object.Name] = object
		case *appsv1.Deployment:
			o.deployment = object
		case *corev1.Service:
			o.service = object
		case *corev1.Secret:
			o.secret = object
		case *networkingv1.NetworkPolicy:
			o.policy = object
		case *policyv1.PodDisruptionBudget:
			o.budget = object
		case *monitoringv1.PrometheusRule: // hack/observability reads the rules
		case *monitoringv1.ServiceMonitor:
			o.monitor = object
		case *apiregistrationv1.APIService:
			o.apiServices[object.Name] = object
		case *rbacv1.ClusterRole:
			o.rules[object.Name] = object.Rules
			if object.AggregationRule != nil {
				o.aggregated[object.Name] = object.AggregationRule.ClusterRoleSelectors
			}
		case *rbacv1.Role:
			o.rules[object.Namespace+"/"+object.Name] = object.Rules
		case *rbacv1.ClusterRoleBinding:
			o.bindings = append(o.bindings, binding{object.Name, "", object.RoleRef, object.Subjects})
		case *rbacv1.RoleBinding:
			o.bindings = append(o.bindings, binding{object.Name, object.Namespace, object.RoleRef, object.Subjects})
		default:
			t.Errorf("no test knows what a %s is for", kind)
		}
	}
	if o.deployment == nil || o.service == nil {
		t.Fatal("no Deployment, or no Service")
	}
	return o
}
