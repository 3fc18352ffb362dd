package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/konfig"
)

// overBase renders a kustomization over the base, as users write theirs for the manifest of
// kubernetes-sigs/metrics-server.
func overBase(t *testing.T, kustomization string) objects {
	t.Helper()
	return over(t, "base", &resourceServer, kustomization)
}

// over renders a kustomization over that of a server, a directory of deploy/kustomize.
func over(t *testing.T, resource string, server *server, kustomization string) objects {
	t.Helper()
	dir := withComponents(t, resource)
	file := filepath.Join(dir, konfig.DefaultKustomizationFileName())
	base, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(string(base), "components:\n") + kustomization
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest, err := render(dir)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return decodeServer(t, manifest, server)
}

// TestNamespaceTransformer checks that namespace: moves what it should and breaks nothing: all
// rights in fixed namespaces are cluster-wide, and whatever else is named is found where it is
// looked for.
func TestNamespaceTransformer(t *testing.T) {
	type right struct{ verb, resource, name string }
	for _, tt := range []struct {
		resource, namespace string
		server              *server
		rights              []right
	}{
		{"base", "kube-system", &resourceServer, []right{{"create", "events", ""}, {"patch", "events", ""}}},
		{"base", "monitoring", &resourceServer, []right{{"create", "events", ""}, {"patch", "events", ""}}},
		{"custom-metrics", "kube-system", &customServer, nil},
		{"custom-metrics", "monitoring", &customServer, nil},
	} {
		namespace := tt.namespace
		o := over(t, tt.resource, tt.server,
			"namespace: "+namespace+"\nlabels:\n- pairs: {app.kubernetes.io/part-of: cluster-basics}\n")
		if o.deployment.Namespace != namespace || o.service.Namespace != namespace || o.secret.Namespace != namespace {
			t.Errorf("%s: Deployment, Service and Secret are in %s, %s and %s", namespace, o.deployment.Namespace,
				o.service.Namespace, o.secret.Namespace)
		}
		for name, a := range o.apiServices {
			if s := a.Spec.Service; s.Namespace != namespace {
				t.Errorf("%s leads to %s/%s, want namespace %s", name, s.Namespace, s.Name, namespace)
			}
		}
		var bound []rbacv1.PolicyRule // by the bindings that mean the same wherever they are moved
		for _, b := range o.bindings {
			if s := b.subjects[0]; s.Namespace != namespace {
				t.Errorf("%s binds %s/%s, want namespace %s", b.name, s.Namespace, s.Name, namespace)
			}
			switch {
			case b.namespace == "":
				bound = append(bound, o.rules[b.role.Name]...)
			case b.role.Kind == "Role" && b.role.Name == o.secret.Name && o.rules[namespace+"/"+b.role.Name] == nil:
				t.Errorf("%s/%s binds a Role that is elsewhere", b.namespace, b.name)
			}
		}
		for _, want := range append(tt.rights,
			right{"get", "configmaps", "extension-apiserver-authentication"},
			right{"watch", "configmaps", "extension-apiserver-authentication"}) {
			if !slices.ContainsFunc(bound, func(r rbacv1.PolicyRule) bool {
				return slices.Contains(r.Resources, want.resource) && slices.Contains(r.Verbs, want.verb) &&
					(want.name == "" || slices.Contains(r.ResourceNames, want.name))
			}) {
				t.Errorf("%s in namespace %s: no binding gives the right to %s %s %s in every namespace", tt.resource,
					namespace, want.verb, want.resource, want.name)
			}
		}
	}
}

// TestIncumbentPatches renders what public kustomizations do to the manifest of
// kubernetes-sigs/metrics-server: patches by position and by name must hit here what they hit
// there.
func TestIncumbentPatches(t *testing.T) {
	const target = "patches:\n- target: {kind: Deployment, name: metrics-server}\n  patch: |-\n"
	args := func(o objects) []string { return o.deployment.Spec.Template.Spec.Containers[0].Args }
	for name, tt := range map[string]struct {
		kustomization string
		check         func(o objects) bool
	}{
		"an argument is appended": {
			target + "    - {op: add, path: /spec/template/spec/containers/0/args/-, value: --kubelet-insecure-tls}\n",
			func(o objects) bool {
				return slices.Contains(args(o), "--kubelet-insecure-tls") &&
					slices.Contains(args(o), "--serving-certificate-secret=metrics-server-serving")
			},
		},
		"the port is replaced by position": {
			target + "    - {op: replace, path: /spec/template/spec/containers/0/args/1, value: --secure-port=4443}\n    " +
				"- {op: replace, path: /spec/template/spec/containers/0/ports/0/containerPort, value: 4443}\n",
			func(o objects) bool {
				return slices.Contains(args(o), "--secure-port=4443") && !slices.Contains(args(o), "--secure-port=10250") &&
					o.deployment.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort == 4443
			},
		},
		"address types are replaced by position": {
			target + "    - {op: replace, path: /spec/template/spec/containers/0/args/2, value: " +
				"--kubelet-preferred-address-types=Hostname}\n",
			func(o objects) bool {
				return strings.Count(strings.Join(args(o), " "), "address-types") == 1 &&
					args(o)[2] == "--kubelet-preferred-address-types=Hostname"
			},
		},
		"arguments are removed and tested by position": {
			target + "    - {op: test, path: /spec/template/spec/containers/0/args/3, value: " +
				"--kubelet-use-node-status-port}\n    - {op: remove, path: /spec/template/spec/containers/0/args/3}\n    - " +
				"{op: replace, path: /spec/template/spec/containers/0/args/3, value: --metric-resolution=30s}\n",
			func(o objects) bool {
				return args(o)[3] == "--metric-resolution=30s" && !slices.Contains(args(o), "--kubelet-use-node-status-port")
			},
		},
		"requests, probes and volumes are replaced": {
			target + "    - {op: replace, path: /spec/template/spec/containers/0/resources/requests/memory, value: " +
				"300Mi}\n    - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/periodSeconds, value: " +
				"7}\n    - {op: replace, path: /spec/template/spec/containers/0/livenessProbe/failureThreshold, value: " +
				"9}\n    - {op: add, path: /spec/template/spec/volumes/0/emptyDir/medium, value: Memory}\n    - {op: " +
				"replace, path: /spec/template/spec/containers/0/volumeMounts/0/mountPath, value: /tmp}\n    - {op: add, " +
				"path: /spec/template/spec/hostNetwork, value: true}\n",
			func(o objects) bool {
				c := o.deployment.Spec.Template.Spec.Containers[0]
				return c.Resources.Requests.Memory().String() == "300Mi" && c.ReadinessProbe.PeriodSeconds == 7 &&
					c.LivenessProbe.FailureThreshold == 9
			},
		},
		"a rule is appended to the ClusterRole": {
			"patches:\n- target: {kind: ClusterRole, name: system:metrics-server}\n  patch: |-\n    - {op: add, path: " +
				"/rules/-, value: {apiGroups: [\"\"], resources: [nodes/stats], verbs: [get]}}\n",
			func(o objects) bool {
				rules := o.rules["system:metrics-server"]
				return slices.Contains(rules[len(rules)-1].Resources, "nodes/stats")
			},
		},
		"the binding to the authentication reader is patched by name": {
			"patches:\n- patch: |-\n    {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: " +
				"metrics-server-auth-reader, namespace: kube-system, annotations: {a: b}}}\n",
			func(o objects) bool {
				return slices.ContainsFunc(o.bindings, func(b binding) bool {
					return b.name == "metrics-server-auth-reader" &&
						b.namespace == "kube-system"
				})
			},
		},
		"the APIService is patched by name": {
			"patches:\n- patch: |-\n    {apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: " +
				"v1beta1.metrics.k8s.io}, spec: {insecureSkipTLSVerify: true}}\n",
			func(o objects) bool { return o.apiServices["v1beta1.metrics.k8s.io"].Spec.InsecureSkipTLSVerify },
		},
		"the whole list of arguments is replaced": {
			"patches:\n- patch: |-\n    {apiVersion: apps/v1, kind: Deployment, metadata: {name: metrics-server, " +
				"namespace: kube-system}, spec: {template: {spec: {containers: [{name: metrics-server, args: " +
				"[--cert-dir=/tmp, --secure-port=10250, --kubelet-insecure-tls]}]}}}}\n",
			// The server takes the Secret without the flag: TestServingSecret in pkg/app.
			func(o objects) bool { return len(args(o)) == 3 && o.secret.Name == "metrics-server-serving" },
		},
		"replicas": {
			"replicas:\n- {name: metrics-server, count: 2}\n",
			func(o objects) bool { return *o.deployment.Spec.Replicas == 2 },
		},
		"common labels, also of selectors": {
			"commonLabels: {team: infrastructure}\n",
			func(o objects) bool {
				return o.service.Spec.Selector["team"] == "infrastructure" &&
					o.deployment.Spec.Selector.MatchLabels["team"] == "infrastructure" &&
					o.deployment.Spec.Template.Labels["team"] == "infrastructure"
			},
		},
		"a prefix of names": {
			"namePrefix: old-\n",
			func(o objects) bool {
				return o.service.Name == "old-metrics-server" &&
					o.apiServices["v1beta1.metrics.k8s.io"].Spec.Service.Name == o.service.Name &&
					o.rules["kube-system/old-metrics-server-serving"][0].ResourceNames[0] == o.secret.Name &&
					o.deployment.Spec.Template.Spec.ServiceAccountName == "old-metrics-server"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if o := overBase(t, tt.kustomization); !tt.check(o) {
				t.Errorf("the patch does not do here what it does there: arguments %q, rules %v", args(o), o.rules)
			}
		})
	}
}
