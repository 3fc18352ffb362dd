package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// Helm logs each value that has another type than its default, which is what these tests are about.
func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Verbose() {
		log.SetOutput(io.Discard)
	}
	os.Exit(m.Run())
}

// TestSpellings tries every value of values.yaml in every spelling that its type has in values
// files, as Terraform, --set and --set-string write them, and compares the release with that of the
// plain spelling.
func TestSpellings(t *testing.T) {
	// With these, most values have an effect. The types of certificates follow.
	everything := parse(t, `
metrics: {enabled: true}
serviceMonitor: {enabled: true}
prometheusRule: {enabled: true}
networkPolicy: {enabled: true}
addonResizer: {enabled: true}
podDisruptionBudget: {enabled: true}
customMetrics: {enabled: true}
`)
	spellings := map[string][]spelling{
		"boolean": {
			{true, []any{"true", "True", "TRUE", 1, "1", " true ", "yes", "On"}},
			{false, []any{"false", "False", "FALSE", 0, "0", "", nil, " false", "No", "off", []any{}, map[string]any{}}},
		},
		"optionalBoolean": {{true, []any{"true", 1}}, {false, []any{"false", 0}}, {unset, []any{"", nil}}},
		"text": {
			{"7", []any{7, 7.0, " 7 "}},
			{"0.7", []any{0.7}},
			{"20240101", []any{20240101.0}},
			{"", []any{nil, false, " ", []any{}, map[string]any{}}},
		},
		"quantity": {{"7", []any{7, 7.0, " 7"}}, {"", []any{nil, false, " ", []any{}}}},
		"duration": {{"30s", []any{" 30s "}}, {"", []any{nil, false, []any{}}}},
		"pem":      {{"", []any{nil, false, " ", []any{}}}},
		"count":    {{3, []any{"3", 3.0, " 3"}}, {"", []any{nil, " ", []any{}, map[string]any{}}}},
		"port":     {{8443, []any{"8443", 8443.0}}, {"", []any{nil, []any{}}}},
		"ports": {
			{[]any{8443}, []any{[]any{"8443"}, []any{8443.0}}},
			{unset, []any{"", nil, []any{}, map[string]any{}}},
		},
		"budget": {{3, []any{"3", 3.0}}, {"30%", []any{" 30% "}}, {unset, []any{"", nil, []any{}}}},
		"strings": {
			{
				map[string]any{"a": "true", "b": "1", "c": "20240101"},
				[]any{map[string]any{"a": true, "b": 1, "c": 20240101.0, "d": nil}},
			},
			{map[string]any{}, []any{"", nil, false, []any{}, " "}},
		},
		"objects": {{[]any{}, []any{"", nil, false, map[string]any{}, []any{nil}}}},
		// Helm merges {} with the default, so that it means nothing.
		"object": {{"", []any{nil, false, []any{}, " "}}, {unset, []any{map[string]any{}}}},
		"args": {
			{[]any{"--v=2", "--a=1"}, []any{
				[]any{" --v=2", "--a=1 "}, []any{"--v=2", "", nil, " ", "--a=1"}, []any{`"--v=2"`, `' --a=1'`, `""`},
			}},
			{[]any{}, []any{"", nil, false, map[string]any{}, []any{""}}},
		},
		"group": {{unset, []any{"", nil, []any{}, map[string]any{}}}},
	}
	for name, definition := range map[string]string{
		"pullPolicy": "Never", "serviceType": "NodePort", "evictionPolicy": "AlwaysAllow", "tlsType": "metrics-server",
	} {
		spellings[name] = []spelling{{definition, nil}, {"", []any{nil, false}}}
	}
	spellings["updateStrategy"] = spellings["object"]

	c := load(t)
	var root schemaNode
	if err := json.Unmarshal(c.Schema, &root); err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	root.types("", types)
	for path := range leaves("", c.Values) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(types)), func(p string) bool {
			return types[p] != "group" && (p == path || strings.HasPrefix(path, p+"."))
		}) {
			t.Errorf("%s has no type in values.schema.json", path)
		}
	}
	delete(types, "image") // without it there is nothing to run: TestErrors
	for _, path := range slices.Sorted(maps.Keys(types)) {
		if spellings[types[path]] == nil {
			t.Errorf("%s has type %q, whose spellings no test knows", path, types[path])
		}
		for _, s := range spellings[types[path]] {
			values := func(value any) map[string]any {
				all := maps.Clone(everything)
				if types[path] == "group" {
					delete(all, path)
				}
				switch {
				case strings.HasPrefix(path, "tls.existingSecret"):
					all = with(all, "tls.type", "existingSecret")
				case strings.HasPrefix(path, "tls.certManager"), path == "tls.clusterDomain":
					all = with(all, "tls.type", "cert-manager")
				}
				return with(all, path, value)
			}
			want, wantErr := released(t, values(s.plain))
			for _, other := range s.others {
				got, err := released(t, values(other))
				if (err == nil) != (wantErr == nil) {
					t.Errorf("%s: %#v: %v, but %#v: %v", path, other, err, s.plain, wantErr)
				} else if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %#v is not as %#v (-want +got):\n%s", path, other, s.plain, diff)
				}
			}
		}
	}
}

// unset stands for a value that is not given at all.
var unset = struct{}{}

type spelling struct {
	plain  any
	others []any
}

type schemaNode struct {
	Ref        string                `json:"$ref"`
	Default    any                   `json:"default"`
	Properties map[string]schemaNode `json:"properties"`
}

// types collects the definition of each value by its path; groups of values are of the type "group".
func (n schemaNode) types(prefix string, all map[string]string) {
	for key, child := range n.Properties {
		if child.Properties != nil {
			all[prefix+key] = "group"
			child.types(prefix+key+".", all)
		} else {
			all[prefix+key] = strings.TrimPrefix(child.Ref, "#/definitions/")
		}
	}
}

// with returns values with one more, or without it if it is unset.
func with(values map[string]any, path string, value any) map[string]any {
	if value == unset {
		return values
	}
	keys := strings.Split(path, ".")
	for _, key := range slices.Backward(keys) {
		value = map[string]any{key: value}
	}
	return loader.MergeMaps(values, value.(map[string]any))
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	v, err := loader.LoadValues(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// source is the chart, read once: there are hundreds of releases here.
var source = sync.OnceValues(func() (*chart.Chart, error) { return loader.LoadDir(dir) })

// released is all that a release is: its objects and its notes.
func released(t *testing.T, values map[string]any) (string, error) {
	t.Helper()
	c, err := source()
	if err != nil {
		t.Fatal(err)
	}
	manifest, notes, err := render(c, values, release, namespace, newCluster(secret(t, fullname), secret(t, "existing")))
	return manifest + notes, err
}

// TestSchemaDefaults checks that what a value is if it is not set, by the schema, is what values.yaml has.
func TestSchemaDefaults(t *testing.T) {
	c := load(t)
	var root schemaNode
	if err := json.Unmarshal(c.Schema, &root); err != nil {
		t.Fatal(err)
	}
	var check func(n schemaNode, values map[string]any, prefix string)
	check = func(n schemaNode, values map[string]any, prefix string) {
		for key, child := range n.Properties {
			if child.Properties != nil {
				check(child, values[key].(map[string]any), prefix+key+".")
			} else if got := fmt.Sprint(values[key]); child.Default != nil && fmt.Sprint(child.Default) != got {
				t.Errorf("%s%s: the schema's default is %v, values.yaml has %s", prefix, key, child.Default, got)
			} else if child.Default == nil && strings.HasSuffix(child.Ref, "/boolean") && values[key] != false {
				t.Errorf("%s%s is true in values.yaml, and has no default in the schema", prefix, key)
			}
		}
	}
	check(root, c.Values, "")
}

// TestTemplatesNormalise checks that each template normalises the values before it reads them.
func TestTemplatesNormalise(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dir, "templates", "*"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d templates (%v)", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(file) != "_helpers.tpl" && !strings.HasPrefix(string(text),
			`{{- include "metrics-server.normalise" . }}`+"\n") {
			t.Errorf("%s does not begin with metrics-server.normalise", filepath.Base(file))
		}
	}
}

// TestIncumbentValues renders values files in the shapes that public configurations of the
// incumbent's chart have, beside a plain spelling of what they mean.
func TestIncumbentValues(t *testing.T) {
	for _, tt := range []struct{ name, given, means string }{
		{
			"Terraform's yamlencode of text variables",
			`{metrics: {enabled: "true"}, serviceMonitor: {enabled: "true"}, apiService: {insecureSkipTLSVerify: "false"}}`,
			`{metrics: {enabled: true}, serviceMonitor: {enabled: true}, apiService: {insecureSkipTLSVerify: false}}`,
		},
		{
			"text that says false is false",
			`{metrics: {enabled: "false"}, rbac: {create: "false"}, apiService: {insecureSkipTLSVerify: "false"}}`,
			`{metrics: {enabled: false}, rbac: {create: false}, apiService: {insecureSkipTLSVerify: false}}`,
		},
		{
			"verification off, as text", `apiService: {insecureSkipTLSVerify: "true"}`,
			`apiService: {insecureSkipTLSVerify: true}`,
		},
		{
			"creation, as text",
			`{rbac: {create: "true"}, serviceAccount: {create: "true", name: ""}, apiService: {create: "true"}}`,
			`{}`,
		},
		{
			"host network, as text", `{hostNetwork: {enabled: "true"}, containerPort: 4443}`,
			`{hostNetwork: {enabled: true}, containerPort: 4443}`,
		},
		{
			"the resizer, as text", `addonResizer: {enabled: "true", nanny: {minClusterSize: "10", cpu: 5}}`,
			`addonResizer: {enabled: true, nanny: {minClusterSize: 10, cpu: "5"}}`,
		},
		{
			"numbers as text", `{replicas: "2", containerPort: "4443", revisionHistoryLimit: "3", service: {port: "8443"}}`,
			`{replicas: 2, containerPort: 4443, revisionHistoryLimit: 3, service: {port: 8443}}`,
		},
		{
			"a number for a tag", `image: {repository: registry.example/mirror/metrics-server, tag: 0.7}`,
			`image: {repository: registry.example/mirror/metrics-server, tag: "0.7"}`,
		},
		{"a date for a tag", `image: {tag: 20240101}`, `image: {tag: "20240101"}`},
		{"no replicas", `replicas: ""`, `replicas: 1`},
		{"no pull policy", `image: {pullPolicy: ""}`, `image: {pullPolicy: null}`},
		{"an empty switch", `{metrics: {enabled: ""}, serviceMonitor: {enabled: }}`, `{}`},
		{"no user namespaces", `hostUsers: ""`, `{}`},
		{
			"no history limit, one budget",
			`{revisionHistoryLimit: "", podDisruptionBudget: {enabled: true, minAvailable: 1, maxUnavailable: ""}}`,
			`podDisruptionBudget: {enabled: true, minAvailable: 1}`,
		},
		{
			"the other budget", `podDisruptionBudget: {enabled: true, minAvailable: "", maxUnavailable: 1}`,
			`podDisruptionBudget: {enabled: true, maxUnavailable: 1}`,
		},
		{
			"a budget as text", `podDisruptionBudget: {enabled: "true", minAvailable: "1", maxUnavailable: }`,
			`podDisruptionBudget: {enabled: true, minAvailable: 1}`,
		},
		{
			"everything empty text",
			`{affinity: "", priorityClassName: "", tolerations: "", nodeSelector: "", resources: "", podAnnotations: "",
					extraVolumes: ""}`,
			`{affinity: {}, priorityClassName: "", tolerations: [], nodeSelector: {}, resources: null,
					podAnnotations: {}, extraVolumes: []}`,
		},
		{"an empty map for a list", `{tolerations: {}, imagePullSecrets: {}, args: {}, topologySpreadConstraints: {}}`, `{}`},
		{
			"a list for an empty map",
			`{nodeSelector: [], affinity: [], podLabels: [], service: {annotations: []}, updateStrategy: []}`,
			`{}`,
		},
		{
			"falsy everywhere", `{priorityClassName: false, resources: false, livenessProbe: false, tolerations: false}`,
			`{priorityClassName: "", resources: null, livenessProbe: null}`,
		},
		{
			"Terraform's null",
			`{fullnameOverride: null, nodeSelector: null, resources: null, updateStrategy: null, hostUsers: null,
				podDisruptionBudget: null}`,
			`resources: ""`,
		},
		{
			"--set with blanks after commas",
			`args: ["--kubelet-insecure-tls", " --kubelet-preferred-address-types=InternalIP", " --v=2",
					"--metric-resolution=15s "]`,
			`args: [--kubelet-insecure-tls, --kubelet-preferred-address-types=InternalIP, --v=2, --metric-resolution=15s]`,
		},
		{
			"an argument that a template left empty", `args: [--kubelet-insecure-tls, "", null]`,
			`args: [--kubelet-insecure-tls]`,
		},
		{
			"labels and annotations that are no text",
			`{podLabels: {tier: 1, managed: true},
					podAnnotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: true}, nodeSelector: {pool: 2, spot: false}}`,
			`{podLabels: {tier: "1", managed: "true"},
					podAnnotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "true"}, nodeSelector: {pool: "2",
					spot: "false"}}`,
		},
		{
			"an umbrella chart's globals",
			`{global: {imageRegistry: registry.example, cattle: {systemProjectId: p}}, enabled: true, replicas: 2}`,
			`{enabled: true, replicas: 2}`,
		},
		{
			"a port in args only", `args: [--secure-port=4443, --kubelet-preferred-address-types=InternalIP]`,
			`{containerPort: 4443, args: [--secure-port=4443, --kubelet-preferred-address-types=InternalIP]}`,
		},
		{
			"a port in two arguments", `args: ["--secure-port", "4443"]`,
			`{containerPort: 4443, args: ["--secure-port", "4443"]}`,
		},
		{
			"a port in the default arguments",
			`defaultArgs: [--cert-dir=/tmp, --secure-port=8443, --kubelet-use-node-status-port]`,
			`{containerPort: 8443, defaultArgs: [--cert-dir=/tmp, --secure-port=8443, --kubelet-use-node-status-port]}`,
		},
		{
			"a port in quotes, as --set 'args={...}' leaves them", `args: ['"--secure-port=4443"']`,
			`{containerPort: 4443, args: [--secure-port=4443]}`,
		},
		{
			"a port with its value in quotes", `args: ['--secure-port="4443"']`,
			`{containerPort: 4443, args: ['--secure-port="4443"']}`,
		},
		{"a port after a blank", `args: [--secure-port 4443]`, `{containerPort: 4443, args: [--secure-port 4443]}`},
		{"a port with one hyphen", `args: [-secure-port=4443]`, `{containerPort: 4443, args: [-secure-port=4443]}`},
		{"a port with an underscore", `args: [--secure_port=4443]`, `{containerPort: 4443, args: [--secure_port=4443]}`},
		{
			"a certificate in quotes", `args: ['"--tls-cert-file=/tls/tls.crt"', -tls-private-key-file=/tls/tls.key]`,
			`{tls: {type: metrics-server}, args: [--tls-cert-file=/tls/tls.crt, -tls-private-key-file=/tls/tls.key]}`,
		},
		{
			"a certificate with an underscore", `args: [--tls_cert_file=/tls/tls.crt]`,
			`{tls: {type: metrics-server}, args: [--tls_cert_file=/tls/tls.crt]}`,
		},
		{
			"a budget of 0 beside the other one", `podDisruptionBudget: {enabled: true, minAvailable: 0, maxUnavailable: 1}`,
			`podDisruptionBudget: {enabled: true, maxUnavailable: 1}`,
		},
		{
			"the other budget of 0", `podDisruptionBudget: {enabled: true, minAvailable: "50%", maxUnavailable: "0"}`,
			`podDisruptionBudget: {enabled: true, minAvailable: "50%"}`,
		},
		{
			"two budgets of 0", `podDisruptionBudget: {enabled: true, minAvailable: 0, maxUnavailable: 0}`,
			`podDisruptionBudget: {enabled: true}`,
		},
		{
			"the last port", `{defaultArgs: [--secure-port=8443], args: [" --secure-port=4443 "]}`,
			`{containerPort: 4443, defaultArgs: [--secure-port=8443], args: [--secure-port=4443]}`,
		},
		{
			"a port for the host's network in args", `{hostNetwork: {enabled: true}, args: [--secure-port=4443]}`,
			`{hostNetwork: {enabled: true}, containerPort: 4443, args: [--secure-port=4443]}`,
		},
		{
			"certificates by cert-manager, as text",
			`{tls: {type: cert-manager, clusterDomain: "", certManager: {addInjectorAnnotations: "true",
					existingIssuer: {enabled: "true", kind: ClusterIssuer, name: company}}},
					apiService: {insecureSkipTLSVerify: "false"}}`,
			`{tls: {type: cert-manager, certManager: {existingIssuer: {enabled: true, kind: ClusterIssuer,
					name: company}}}, apiService: {insecureSkipTLSVerify: false}}`,
		},
		{
			"certificates by a Secret, as text",
			`{tls: {type: existingSecret, existingSecret: {lookup: "false", name: existing}},
					apiService: {insecureSkipTLSVerify: "true"}}`,
			`{tls: {type: existingSecret, existingSecret: {lookup: false, name: existing}},
					apiService: {insecureSkipTLSVerify: true}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			given := parse(t, tt.given)
			got, err := released(t, given)
			if err != nil {
				t.Fatal(err)
			}
			want, err := released(t, parse(t, tt.means))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			manifests, _, found := strings.Cut(got, "metrics-server dev is installed")
			if !found {
				t.Fatalf("the release has no notes:\n%s", got)
			}
			o := decode(t, manifests)
			container := o.deployment.Spec.Template.Spec.Containers[0]
			if port := fmt.Sprintf("--secure-port=%d", container.Ports[0].ContainerPort); container.Args[0] != port {
				t.Errorf("the first argument is %s, the port %s", container.Args[0], port)
			}
		})
	}
}

// TestForeignValues checks that values of other charts of this server are refused by name, with
// what to use instead, unless they say nothing.
func TestForeignValues(t *testing.T) {
	for _, tt := range []struct{ values, want string }{
		{`namespaceOverride: monitoring`, "namespaceOverride is not supported: install the release in that namespace, " +
			"by --namespace (now metrics)"},
		{`image: {registry: registry.example}`, "image.registry is another chart's value: put the registry in front " +
			"of image.repository"},
		{`image: {digest: "sha256:0"}`, "image.digest is another chart's value: append the digest to image.tag"},
		{`image: {pullSecrets: [company]}`, "use imagePullSecrets"},
		{`containerPorts: {https: 4443}`, "use containerPort"},
		{`service: {ports: {https: 443}}`, "use service.port"},
		{`extraArgs: [--kubelet-insecure-tls]`, "extraArgs is another chart's value: use args"},
		{`extraArgs: {kubelet-insecure-tls: true}`, "use args"},
		{`command: [/metrics-server]`, "give its flags in args"},
		{`containerSecurityContext: {enabled: true}`, "use securityContext"},
		{
			`podSecurityContext: {enabled: true, fsGroup: 1001}`,
			"podSecurityContext.enabled is another chart's value: leave it out",
		},
		{`livenessProbe: {enabled: true}`, "livenessProbe: null"},
		{`pdb: {create: true}`, "use podDisruptionBudget"},
		{`resourcesPreset: nano`, "use resources"},
		{`podAntiAffinityPreset: soft`, "use affinity"},
		{`extraEnvVars: [{name: a, value: b}]`, "extraEnvVars has no equivalent here"},
		{`extraContainers: [{name: a}]`, "extraContainers has no equivalent here"},
	} {
		if _, err := released(t, parse(t, tt.values)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: want an error that says %q, got %v", tt.values, tt.want, err)
		}
	}
	nothing := `{namespaceOverride: metrics, image: {registry: "", digest: "", pullSecrets: []}, extraArgs: {},
			command: [], pdb: {create: false, minAvailable: ""},
		extraEnvVars: [], extraContainers: [], initContainers: {}, nodeAffinityPreset: {type: "", key: "", values: []}}`
	got, err := released(t, parse(t, nothing))
	if err != nil {
		t.Fatal(err)
	}
	want, err := released(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := strings.Cut(got, "\nWARNING"); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("empty values of another chart change something (-want +got):\n%s", cmp.Diff(want, got))
	}
}
