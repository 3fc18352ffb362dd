package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

// The release of the tests. Its name and namespace differ from those of the installation by
// deploy/kustomize, next to which test/integration dry-runs testdata/golden.
const (
	release   = "test"
	namespace = "metrics"
	fullname  = release + "-metrics-server"
)

// defaultValues is the values file without values.
const defaultValues = "default"

// TestGolden compares what the chart renders to for each file in testdata/values with the file of
// the same name in testdata/golden.
func TestGolden(t *testing.T) {
	names := valuesFiles(t)
	defaults := rendered(t, defaultValues)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			manifest := rendered(t, name)
			got := manifest
			if name != defaultValues {
				got = changes(t, defaults, manifest)
			}
			golden := filepath.Join("testdata", "golden", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v: run go test . -update", err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("if this change is intended, run go test . -update (-want +got):\n%s", diff)
			}
			o := decode(t, manifest)
			checkReferences(t, o)
			if o.custom != nil {
				checkReferences(t, *o.custom)
			}
		})
	}
	golden, err := filepath.Glob("testdata/golden/*.yaml")
	if err != nil || len(golden) != len(names) {
		t.Errorf("%d golden files for %d values files (%v): delete the superfluous ones", len(golden), len(names), err)
	}
}

// changes returns the documents of a manifest that defaults does not have, after a comment with the
// objects of defaults that it lacks.
func changes(t *testing.T, defaults, manifest string) string {
	t.Helper()
	objects := func(manifest string) (names, texts []string) {
		for _, document := range documents(t, manifest) {
			var o metav1.PartialObjectMetadata
			if err := yaml.Unmarshal(document, &o); err != nil {
				t.Fatal(err)
			}
			if o.Kind != "" {
				names, texts = append(names, o.Kind+" "+o.Name), append(texts, strings.TrimSpace(string(document)))
			}
		}
		return names, texts
	}
	defaultNames, defaultTexts := objects(defaults)
	names, texts := objects(manifest)
	var b strings.Builder
	for _, name := range defaultNames {
		if !slices.Contains(names, name) {
			b.WriteString("# Without " + name + "\n")
		}
	}
	for _, text := range texts {
		if !slices.Contains(defaultTexts, text) {
			b.WriteString("---\n" + strings.TrimPrefix(text, "---\n") + "\n")
		}
	}
	return b.String()
}

// TestTLS checks how the API server verifies the server with each values file.
func TestTLS(t *testing.T) {
	ca, err := os.ReadFile("testdata/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	const mounted = "--tls-cert-file=/etc/metrics-server/tls/tls.crt"
	bundle := "apiService: {insecureSkipTLSVerify: false, caBundle: " + strconv.Quote(string(ca)) + "}\n"
	for _, tt := range []struct {
		values   string // of testdata/values, or the text of such a file
		insecure bool
		caBundle []byte
		arg      string // "" is neither a Secret of the server's nor a mounted one
		secret   string
	}{
		{"default", false, nil, "--serving-certificate-secret=" + fullname + "-serving", ""},
		{"tls-self-managed", false, nil, "--serving-certificate-secret=serving", ""},
		{"incumbent", true, nil, "", ""},
		{"api-service-insecure", true, nil, "", ""},
		// As certificates were brought before there was tls.type.
		{bundle + "args: [--tls-cert-file=/certs/tls.crt, --tls-private-key-file=/certs/tls.key]", false, ca, "", ""},
		{"rbac: {create: false}", true, nil, "", ""},
		{"tls-helm", false, ca, mounted, fullname},
		{"tls-cert-manager", false, nil, mounted, fullname},
		{"tls-cert-manager-issuer", true, nil, mounted, fullname},
		// What the chart of kubernetes-sigs/metrics-server names if the values do not.
		{
			"tls: {type: cert-manager, certManager: {addInjectorAnnotations: false, existingIssuer: {enabled: true}}}",
			true, nil, mounted, fullname,
		},
		{"tls-existing-secret", false, ca, mounted, "existing"},
		{
			bundle + "tls: {type: existingSecret, existingSecret: {name: existing, lookup: false}}",
			false, ca, mounted, "existing",
		},
		{"tls: {type: existingSecret}", false, ca, mounted, fullname},
	} {
		t.Run(tt.values, func(t *testing.T) {
			o := decode(t, rendered(t, tt.values))
			if len(o.apiServices) != 2 {
				t.Fatalf("%d APIServices, want 2", len(o.apiServices))
			}
			for _, a := range o.apiServices {
				if a.Spec.InsecureSkipTLSVerify != tt.insecure || !bytes.Equal(a.Spec.CABundle, tt.caBundle) {
					t.Errorf("%s: insecureSkipTLSVerify %t, caBundle %q; want %t, %q", a.Name, a.Spec.InsecureSkipTLSVerify,
						a.Spec.CABundle, tt.insecure, tt.caBundle)
				}
				got, want := a.Annotations["cert-manager.io/inject-ca-from"] != "", tt.values == "tls-cert-manager"
				if got != want {
					t.Errorf("%s: cert-manager injects its CA: %t, want %t", a.Name, got, want)
				}
			}
			arg, secret := "", ""
			pod := o.deployment.Spec.Template.Spec
			for _, a := range pod.Containers[0].Args {
				if strings.HasPrefix(a, "--serving-certificate-secret=") || a == mounted {
					arg = a
				}
			}
			for _, v := range pod.Volumes {
				if v.Name == "tls" {
					secret = v.Secret.SecretName
				}
			}
			if arg != tt.arg || secret != tt.secret {
				t.Errorf("argument %q and secret %q, want %q and %q", arg, secret, tt.arg, tt.secret)
			}
			if strings.HasPrefix(tt.arg, "--serving") &&
				(o.secret == nil || !strings.HasSuffix(tt.arg, "="+o.secret.Name) || len(o.secret.Data) > 0) {
				t.Errorf("%s, but the Secret is %+v: want that one, empty", tt.arg, o.secret)
			}
			checkServingRights(t, o, strings.TrimPrefix(tt.arg, "--serving-certificate-secret="),
				strings.HasPrefix(tt.arg, "--serving"))
		})
	}
}

// checkServingRights checks that the rights on Secrets and APIServices are there if the server manages its certificate,
// and not otherwise.
func checkServingRights(t *testing.T, o objects, secret string, managed bool) {
	t.Helper()
	var want, got []rbacv1.PolicyRule
	if managed {
		want = []rbacv1.PolicyRule{
			{
				APIGroups: []string{"apiregistration.k8s.io"}, Resources: []string{"apiservices"},
				ResourceNames: []string{"v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"}, Verbs: []string{"get", "patch"},
			},
			{
				APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secret},
				Verbs: []string{"get", "update"},
			},
		}
	}
	for _, rules := range [][]rbacv1.PolicyRule{o.clusterRules, o.rules} {
		for _, rule := range rules {
			if slices.Contains(rule.Resources, "secrets") || slices.Contains(rule.Resources, "apiservices") {
				got = append(got, rule)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}

// TestAnyNode checks that the selector of Linux nodes can be removed, as the chart's README says.
func TestAnyNode(t *testing.T) {
	for values, want := range map[string]map[string]string{
		"replicas: 1":                                          {"kubernetes.io/os": "linux"},
		"nodeSelector: {kubernetes.io/os: null}":               nil,
		"nodeSelector: {kubernetes.io/os: null, pool: system}": {"pool": "system"},
		"nodeSelector: {pool: system}":                         {"kubernetes.io/os": "linux", "pool": "system"},
	} {
		got := decode(t, rendered(t, values)).deployment.Spec.Template.Spec.NodeSelector
		if !maps.Equal(got, want) {
			t.Errorf("%s: node selector %v, want %v", values, got, want)
		}
	}
}

// TestKubeletAccount checks that kubelets are shown tokens of an account that may read their
// metrics and nothing else, and that the server may request tokens of that account and of no other,
// whichever values are given.
func TestKubeletAccount(t *testing.T) {
	others := []string{
		"nameOverride: usage", "rbac: {create: false}", "serviceAccount: {create: false}",
		"kubeletServiceAccount: {create: false, name: existing}", "apiService: {create: false}",
	}
	for _, name := range append(valuesFiles(t), others...) {
		o := decode(t, rendered(t, name))
		account, made, rbac := o.deployment.Name+"-kubelets", true, true
		switch name {
		case "every-value":
			account = "scraped"
		case "existing":
			account, made, rbac = "existing", false, false
		case "rbac: {create: false}":
			rbac = false
		case "kubeletServiceAccount: {create: false, name: existing}":
			account, made = "existing", false
		case "kubelet-service-account-none":
			account, made, rbac = "", false, false
		}
		if got := o.kubeletAccount(); got != account {
			t.Errorf("%s: account for kubelets %q, want %q", name, got, account)
		}
		if there := slices.Contains(o.names, "ServiceAccount "+namespace+"/"+account); there != made {
			t.Errorf("%s: account %q is made: %v, want %v", name, account, there, made)
		}
		var wantRules, wantClusterRules []rbacv1.PolicyRule
		if rbac {
			wantRules = []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"},
				ResourceNames: []string{account}, Verbs: []string{"create"},
			}}
			wantClusterRules = []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{"nodes/metrics"},
				Verbs: []string{"get"},
			}}
		}
		var rules []rbacv1.PolicyRule
		for _, r := range slices.Concat(o.rules, o.clusterRules) {
			if slices.ContainsFunc(r.Resources, func(resource string) bool {
				return strings.HasPrefix(resource,
					"serviceaccounts")
			}) {
				rules = append(rules, r)
			}
		}
		if diff := cmp.Diff(wantRules, rules); diff != "" {
			t.Errorf("%s: rights to tokens (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(wantClusterRules, o.kubeletRules); diff != "" {
			t.Errorf("%s: rights of the account (-want +got):\n%s", name, diff)
		}
	}
	// Two releases in two namespaces share nothing.
	first, _, err := render(load(t), nil, "metrics-server", "kube-system", nil)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := render(load(t), nil, "other", "monitoring", nil)
	if err != nil {
		t.Fatal(err)
	}
	names := decode(t, first).names
	for _, name := range decode(t, second).names {
		if slices.Contains(names, name) && !strings.HasPrefix(name, "APIService ") &&
			name != "ClusterRole system:metrics-server-aggregated-reader" {
			t.Errorf("both releases have %s", name)
		}
	}
}

// TestUpgradeKeepsCA checks that no release says anything of the CA and the Secret's data that the
// server fills in, not even that there are none: neither Helm 3, which patches what differs between
// two manifests, nor Helm 4, which applies what is in one, touches it then.
func TestUpgradeKeepsCA(t *testing.T) {
	filledIn := regexp.MustCompile(`(?m)^ *(caBundle|data|stringData):`)
	managed := 0
	for _, name := range valuesFiles(t) {
		manifest := rendered(t, name)
		if !strings.Contains(manifest, "--serving-certificate-secret=") {
			continue
		}
		managed++
		for _, document := range documents(t, manifest) {
			kind := regexp.MustCompile(`(?m)^kind: (APIService|Secret)$`)
			if found := filledIn.Find(document); kind.Match(document) && found != nil {
				t.Errorf("%s: %s is said of an object in which the server fills it in:\n%s", name, found, document)
			}
		}
	}
	if managed == 0 {
		t.Error("no values file has the server manage its certificate: this proves nothing")
	}
}

// TestUpgradeFromUnverified checks that an upgrade leaves verification off where it is, unless the
// values say otherwise: the pods that are there make their certificates for themselves, and a
// rollback must go on working. It never turns it off.
func TestUpgradeFromUnverified(t *testing.T) {
	for _, tt := range []struct {
		off    bool
		values string
		want   bool
	}{
		{true, `{}`, true},
		{true, `apiService: {insecureSkipTLSVerify: ""}`, true},
		{true, `apiService: {insecureSkipTLSVerify: false}`, false},
		{true, `apiService: {insecureSkipTLSVerify: "false"}`, false},
		{false, `{}`, false},
	} {
		manifest, _, err := render(load(t), parse(t, tt.values), release, namespace, newCluster(&apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: "v1beta1.metrics.k8s.io"},
			Spec:       apiregistrationv1.APIServiceSpec{InsecureSkipTLSVerify: tt.off},
		}))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range decode(t, manifest).apiServices {
			if want := tt.want && a.Name == "v1beta1.metrics.k8s.io"; a.Spec.InsecureSkipTLSVerify != want {
				t.Errorf("v1beta1 is unverified: %t, %s, then %s: %t, want %t", tt.off, tt.values, a.Name,
					a.Spec.InsecureSkipTLSVerify, want)
			}
		}
	}
}

// TestMadeCertificate checks the certificate that Helm makes if there is no release yet.
func TestMadeCertificate(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"no release yet": {"tls": map[string]any{"type": "helm", "helm": map[string]any{"certDurationDays": 30}}},
		"asked for": {"tls": map[string]any{
			"type": "helm",
			"helm": map[string]any{"certDurationDays": 30, "lookup": false},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var there []runtime.Object
			if name == "asked for" {
				there = append(there, secret(t, fullname))
			}
			manifest, _, err := render(load(t), values, release, namespace, newCluster(there...))
			if err != nil {
				t.Fatal(err)
			}
			o := decode(t, manifest)
			pair, err := tls.X509KeyPair(o.secret.Data["tls.crt"], o.secret.Data["tls.key"])
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(pair.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range o.apiServices {
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(a.Spec.CABundle)
				if _, err := cert.Verify(x509.VerifyOptions{
					Roots:   roots,
					DNSName: a.Spec.Service.Name + "." + a.Spec.Service.Namespace + ".svc",
				}); err != nil {
					t.Errorf("%s: as the API server verifies it: %v", a.Name, err)
				}
			}
			if days := cert.NotAfter.Sub(cert.NotBefore).Hours() / 24; days != 30 {
				t.Errorf("valid for %v days, want 30", days)
			}
		})
	}
}

// TestErrors checks which values are rejected, and that each error names the remedy.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		values string
		want   []string
	}{
		{`hostNetwork: {enabled: true}`, []string{
			"hostNetwork.enabled is true and containerPort is 10250",
			"set containerPort to a free one",
		}},
		{`hostNetwork: {enabled: true}` + "\n" + `containerPort: "10250"`, []string{"set containerPort to a free one"}},
		{
			`apiService: {insecureSkipTLSVerify: true, caBundle: "-----BEGIN CERTIFICATE-----"}`,
			[]string{"leave out one of them"},
		},
		{
			`{tls: {type: self-managed}, apiService: {insecureSkipTLSVerify: true}}`,
			[]string{"leave out apiService.insecureSkipTLSVerify"},
		},
		{
			`{tls: {type: self-managed}, apiService: {caBundle: "-----BEGIN CERTIFICATE-----"}}`,
			[]string{"leave out", "apiService.caBundle"},
		},
		{`{tls: {type: self-managed}, args: [--tls-cert-file=/a]}`, []string{"args have --tls-cert-file"}},
		{
			`tls: {type: cert-manager, certManager: {existingIssuer: {enabled: true, name: ""}}}`,
			[]string{"set tls.certManager.existingIssuer.name"},
		},
		{
			`podDisruptionBudget: {enabled: true, minAvailable: 1, maxUnavailable: 1}`,
			[]string{"minAvailable and maxUnavailable: set one of them"},
		},
		// By the schema.
		{`tls: {type: selfmanaged}`, []string{"at '/tls/type'", "'self-managed'", "'existingSecret'"}},
		{`tls: {selfManaged: {name: a}}`, []string{"at '/tls/selfManaged'", "additional properties 'name' not allowed"}},
		{`containerPort: 70000`, []string{"at '/containerPort'", "65,535"}},
		{`containerPort: https`, []string{"at '/containerPort'"}},
		{`replicas: two`, []string{"at '/replicas'"}},
		{`args: --kubelet-insecure-tls`, []string{`args is the text "--kubelet-insecure-tls"`, "write args: [--a, --b]"}},
		{`args: [[a]]`, []string{"at '/args/0'", "got array"}},
		{`args: {a: --v=2}`, []string{"at '/args'", "maxProperties"}},
		{
			`apiService: {insecureSkipTLSVerify: "maybe"}`,
			[]string{`apiService.insecureSkipTLSVerify is "maybe": want true or false`},
		},
		{`metrics: {enabled: 2}`, []string{`metrics.enabled is "2": want true or false`}},
		{`image: ""`, []string{"image.repository is empty", "leave image out"}},
		{`priorityClassName: true`, []string{"priorityClassName is true", "leave it out"}},
		{`hostNetwork: true`, []string{"hostNetwork is true", "set hostNetwork.enabled"}},
		{`rbac: false`, []string{"rbac is false", "set rbac.create"}},
		{`containerPort: "70000"`, []string{"port 70000", "from 1 to 65535"}},
		{`args: [--secure-port=https]`, []string{"args have --secure-port=https", "from 1 to 65535"}},
		{`args: [--secure-port, "0"]`, []string{"args have --secure-port=0"}},
		{
			`{containerPort: 4443, args: [--secure-port=8443]}`,
			[]string{"containerPort is 4443 and args have --secure-port=8443", "leave out one of them"},
		},
		{
			`{hostNetwork: {enabled: true}, containerPort: 10250, args: [--secure-port=10250]}`,
			[]string{"the kubelet's own port"},
		},
		{`customMetrics: {containerPort: "70000"}`, []string{"port 70000", "from 1 to 65535"}},
		{`customMetrics: {extraArgs: [--secure-port=https]}`, []string{"customMetrics.extraArgs have --secure-port=https"}},
		{
			`customMetrics: {containerPort: 4443, extraArgs: [--secure-port=8443]}`,
			[]string{
				"customMetrics.containerPort is 4443 and customMetrics.extraArgs have --secure-port=8443",
				"leave out one of them",
			},
		},
		{`apiService: {caBundle: LS0tLS1CRUdJTg==}`, []string{"at '/apiService/caBundle'", "BEGIN CERTIFICATE"}},
		{`podAnnotations: {example.com/scrape: [yes]}`, []string{"at '/podAnnotations/example.com~1scrape'", "got array"}},
		{`serviceMonitor: {interval: 30 seconds}`, []string{"at '/serviceMonitor/interval'"}},
		{`image: {pullPolicy: Sometimes}`, []string{"at '/image/pullPolicy'", "'IfNotPresent'"}},
		{`networkPolicy: {egressPorts: [https]}`, []string{"at '/networkPolicy/egressPorts/0'"}},
		{
			`customMetrics: {enabled: true, podDisruptionBudget: {enabled: true, minAvailable: 1, maxUnavailable: 1}}`,
			[]string{"customMetrics.podDisruptionBudget has minAvailable and maxUnavailable", "set one of them"},
		},
	} {
		t.Run(tt.values, func(t *testing.T) {
			values, err := loader.LoadValues(strings.NewReader(tt.values))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = render(load(t), values, release, namespace, nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
}

// TestReusedValues is `helm upgrade --reuse-values` of a release of the incumbent's chart: what the
// chart in its version does not know is not there, defaults of ours included.
func TestReusedValues(t *testing.T) {
	for _, without := range [][]string{nil, {"tls"}, {"tls", "dnsConfig", "revisionHistoryLimit", "tmpVolume"}} {
		c := load(t)
		c.Values = values(t, "incumbent")
		if c.Values["kubeletServiceAccount"] != nil {
			t.Fatal("the incumbent's chart has no kubeletServiceAccount")
		}
		for _, key := range without {
			delete(c.Values, key)
		}
		manifest, _, err := render(c, nil, release, namespace, newCluster())
		if err != nil {
			t.Fatalf("without %q: %v", without, err)
		}
		o := decode(t, manifest)
		if o.kubeletAccount() != fullname+"-kubelets" || !slices.Contains(o.names,
			"ServiceAccount "+namespace+"/"+o.kubeletAccount()) {
			t.Errorf("without %q: account for kubelets %q of %q, want one that is there", without, o.kubeletAccount(), o.names)
		}
		for _, a := range o.apiServices {
			if !a.Spec.InsecureSkipTLSVerify {
				t.Errorf("without %q: %s is verified, but the server's certificate is still one that it makes for itself",
					without, a.Name)
			}
		}
	}
}

// TestAlerts checks that the PrometheusRule of each server has every alert of deploy/prometheus, adapted to the
// release: to the job that the ServiceMonitor creates, to the release's namespace, and with commands that find its
// pods.
func TestAlerts(t *testing.T) {
	for _, release := range []string{release, "metrics-server", "metrics-server-prod", "custom-metrics-server"} {
		t.Run(release, func(t *testing.T) { checkAlerts(t, release) })
	}
}

func checkAlerts(t *testing.T, release string) {
	t.Helper()
	both := parse(t, `
metrics: {enabled: true}
serviceMonitor: {enabled: true}
prometheusRule: {enabled: true}
customMetrics: {enabled: true}
`)
	manifest, _, err := render(load(t), both, release, namespace, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := decode(t, manifest)
	for file, o := range map[string]*objects{"alerts.yaml": &o, "custom-metrics-alerts.yaml": o.custom} {
		source, err := os.ReadFile("../../deploy/prometheus/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, m := range regexp.MustCompile(`(?m)^  - alert: (.+)$`).FindAllSubmatch(source, -1) {
			want = append(want, string(m[1]))
		}
		if o.monitor == nil {
			t.Fatalf("%s: no ServiceMonitor", file)
		}
		for key, value := range o.monitor.Spec.Selector.MatchLabels {
			if o.service.Labels[key] != value {
				t.Errorf("the ServiceMonitor selects %s=%s, which Service %s does not have", key, value, o.service.Name)
			}
		}
		job := `job="` + o.service.Labels[o.monitor.Spec.JobLabel] + `"`
		jobs := regexp.MustCompile(`\bjob="[^"]*"`)
		ofAnother := regexp.MustCompile(`kube-system|k8s-app`)
		names := regexp.MustCompile(`(?:deployment/|grep )([-\w]+)`)
		for _, rule := range o.alerts {
			got = append(got, rule.Alert)
			text := rule.Expr.String() + rule.Annotations["summary"] + rule.Annotations["description"]
			if found := ofAnother.FindString(text); found != "" {
				t.Errorf("%s has %s, of another installation:\n%s", rule.Alert, found, text)
			}
			for _, m := range names.FindAllStringSubmatch(text, -1) {
				if m[1] != o.deployment.Name {
					t.Errorf("%s has %q, want the name of the Deployment, %s", rule.Alert, m[0], o.deployment.Name)
				}
			}
			for _, found := range jobs.FindAllString(text, -1) {
				if found != job {
					t.Errorf("%s is of %s, want %s, as the ServiceMonitor names it", rule.Alert, found, job)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
			t.Errorf("%s: alerts (-want +got):\n%s", file, diff)
		}
	}
	if job, other := o.service.Labels[o.monitor.Spec.JobLabel],
		o.custom.service.Labels[o.custom.monitor.Spec.JobLabel]; job == other {
		t.Errorf("both servers are of the job %s: the alerts of one would be about the other", job)
	}
}

// TestNames checks that a release of the usual name has the names of the incumbent's chart: an
// upgrade replaces its objects.
func TestNames(t *testing.T) {
	manifest, _, err := render(load(t), nil, "metrics-server", "kube-system", nil)
	if err != nil {
		t.Fatal(err)
	}
	o := decode(t, manifest)
	want := []string{
		"APIService v1.metrics.k8s.io",
		"APIService v1beta1.metrics.k8s.io",
		"ClusterRole system:metrics-server",
		"ClusterRole system:metrics-server-aggregated-reader",
		"ClusterRole system:metrics-server-kubelets",
		"ClusterRoleBinding metrics-server:system:auth-delegator",
		"ClusterRoleBinding system:metrics-server",
		"ClusterRoleBinding system:metrics-server-kubelets",
		"Deployment kube-system/metrics-server",
		"Role kube-system/metrics-server-kubelets",
		"Role kube-system/metrics-server-serving",
		"RoleBinding kube-system/metrics-server-auth-reader",
		"RoleBinding kube-system/metrics-server-kubelets",
		"RoleBinding kube-system/metrics-server-serving",
		"Secret kube-system/metrics-server-serving",
		"Service kube-system/metrics-server",
		"ServiceAccount kube-system/metrics-server",
		"ServiceAccount kube-system/metrics-server-kubelets",
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(o.names))); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	for i, name := range want {
		switch {
		case strings.HasSuffix(name, "-aggregated-reader"): // whichever release it is of, its rights are the same
			want[i] = strings.Replace(name, "metrics-server", "usage", 1)
		case !strings.HasPrefix(name, "APIService "):
			want[i] = strings.Replace(name, "metrics-server", "metrics-server-usage", 1)
		}
	}
	slices.Sort(want)
	overridden, _, err := render(load(t), parse(t, "nameOverride: usage"), "metrics-server", "kube-system", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(decode(t, overridden).names))); diff != "" {
		t.Errorf("objects with nameOverride (-want +got):\n%s", diff)
	}
	selector := map[string]string{
		"app.kubernetes.io/name":     "metrics-server",
		"app.kubernetes.io/instance": "metrics-server",
	}
	if diff := cmp.Diff(selector, o.deployment.Spec.Selector.MatchLabels); diff != "" {
		t.Errorf("selector, which cannot be changed (-want +got):\n%s", diff)
	}
}

// TestValues checks that every value is in the schema and in README.md, and is set in testdata/values to something else
// than its default.
func TestValues(t *testing.T) {
	c := load(t)
	defaults := leaves("", c.Values)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := bytes.Cut(readme, []byte("\n## Values\n"))
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| ((?:`[^`]+`,? ?)+) \\|").FindAllSubmatch(table, -1) {
		for _, key := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(row[1], -1) {
			documented = append(documented, string(key[1]))
		}
	}
	set := map[string][]any{
		"tls.helm.certDurationDays": {30}, "tls.helm.lookup": {false}, // by TestMadeCertificate
		"nameOverride": {"usage"}, "tls.existingSecret.lookup": {false}, // by TestNames and TestTLS
		"apiService.caBundle":             {"a CA"}, // by TestTLS
		"customMetrics.createAPIServices": {false},  // by TestCustomMetricsParts
	}
	for _, name := range valuesFiles(t) {
		for path, value := range leaves("", values(t, name)) {
			set[path] = append(set[path], value)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(defaults)) {
		if !inSchema(t, c.Schema, path) {
			t.Errorf("%s is not in values.schema.json", path)
		}
		if !slices.ContainsFunc(documented, func(key string) bool {
			return key == path || strings.HasPrefix(path, key+".")
		}) {
			t.Errorf("%s is not in README.md", path)
		}
		isDefault := func(v any) bool { return cmp.Equal(v, defaults[path]) }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(set)), func(p string) bool {
			return (p == path || strings.HasPrefix(p, path+".")) &&
				slices.ContainsFunc(set[p], func(v any) bool { return !isDefault(v) })
		}) {
			t.Errorf("%s: no file in testdata/values sets it to something else than its default", path)
		}
	}
	for path := range leaves("", values(t, "incumbent")) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(defaults)),
			func(p string) bool { return p == path || strings.HasPrefix(p, path+".") }) {
			t.Errorf("%s of the incumbent's chart is not in values.yaml", path)
		}
	}
	for _, key := range documented {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(defaults)),
			func(p string) bool { return p == key || strings.HasPrefix(p, key+".") }) {
			t.Errorf("README.md has %s, which is not in values.yaml", key)
		}
	}
}

// leaves returns all values except non-empty maps, by path.
func leaves(prefix string, values map[string]any) map[string]any {
	all := map[string]any{}
	for key, value := range values {
		if m, ok := value.(map[string]any); ok && len(m) > 0 {
			maps.Copy(all, leaves(prefix+key+".", m))
		} else {
			all[prefix+key] = value
		}
	}
	return all
}

// inSchema says whether a path has a schema of its own, or is inside of one that takes any object.
func inSchema(t *testing.T, text []byte, path string) bool {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	for key := range strings.SplitSeq(path, ".") {
		properties, ok := s["properties"].(map[string]any)
		if !ok {
			return s["$ref"] == "#/definitions/object" || s["$ref"] == "#/definitions/strings" || s["type"] == "object"
		}
		if s, ok = properties[key].(map[string]any); !ok {
			return false
		}
	}
	return true
}

func TestNotes(t *testing.T) {
	for name, want := range map[string]string{
		"default":                     "is installed as test-metrics-server in namespace metrics",
		"apiService: {create: false}": "apiService.create is false",
		"rbac: {pspEnabled: true}":    "rbac.pspEnabled has no effect",
		"custom-metrics":              "Custom metrics are served by deployment/test-metrics-server-custom-metrics",
		"customMetrics: {enabled: true, externalMetrics: {enabled: true}}": "kubectl get apiservice v1beta1.external.metrics",
		"incumbent": "image.repository is registry.k8s.io/metrics-server/metrics-server, which is the " +
			"image of another metrics server",
	} {
		_, notes, err := render(load(t), values(t, name), release, namespace, newCluster())
		if err != nil || !strings.Contains(notes, want) {
			t.Errorf("%s: the notes do not say %q (%v):\n%s", name, want, err, notes)
		}
	}
	for given, want := range map[string]string{
		`{repository: k8s.gcr.io/metrics-server/metrics-server, tag: v0.5.0}`: "the image of another metrics server",
		`{repository: docker.io/bitnami/metrics-server}`:                      "the image of another metrics server",
		`{repository: registry.example/rancher/mirrored-metrics-server}`:      "the image of another metrics server",
		`{tag: v0.7.2}`: "image.tag is v0.7.2, a version of kubernetes-sigs/metrics-server",
		`{tag: 0.7}`:    "image.tag is 0.7, a version of kubernetes-sigs/metrics-server",
		`{repository: registry.example/k8s.io/metrics-server, tag: v1.0.0}`: "",
	} {
		_, notes, err := render(load(t), parse(t, "image: "+given), release, namespace, nil)
		if said := strings.Contains(notes, "is another server") ||
			strings.Contains(notes, "another metrics server"); err != nil || said != (want != "") ||
			!strings.Contains(notes, want) {
			t.Errorf("image %s: the notes should say %q (%v):\n%s", given, want, err, notes)
		}
	}
	_, notes, err := render(load(t), map[string]any{"serviceMonitor": map[string]any{"enabled": true}}, release,
		namespace, nil)
	if err != nil || !strings.Contains(notes, "serviceMonitor.enabled needs metrics.enabled") {
		t.Errorf("the notes do not say that there is no ServiceMonitor (%v):\n%s", err, notes)
	}
	_, notes, err = render(load(t), map[string]any{"prometheusRule": map[string]any{"enabled": true}}, release,
		namespace, nil)
	if err != nil || !strings.Contains(notes, "The alerts expect the job name test") {
		t.Errorf("the notes do not say what job the alerts are of (%v):\n%s", err, notes)
	}
}

// TestUnknownValues checks that unknown values are accepted and named in the notes, and that the
// chart knows all values of each values file here, including the incumbent's.
func TestUnknownValues(t *testing.T) {
	const warning = "WARNING: the chart does not know these values"
	given, err := loader.LoadValues(strings.NewReader(`
hostnetwork: {enabled: true}
hostNetwork: {enable: true}
replicaCount: 2
tls: {certManager: {existingIssuer: {nmae: company}}}
global: {imageRegistry: registry.example}
nodeSelector: {any: key}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, notes, err := render(load(t), given, release, namespace, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(notes, warning)
	_, got, _ = strings.Cut(got, "\n")
	want := []string{"hostNetwork.enable", "hostnetwork", "replicaCount", "tls.certManager.existingIssuer.nmae"}
	if diff := cmp.Diff(want, strings.Fields(got)); diff != "" {
		t.Errorf("values that are warned of (-want +got):\n%s\nin:\n%s", diff, notes)
	}
	for _, name := range valuesFiles(t) {
		if _, notes, err := render(load(t), values(t, name), release, namespace, newCluster()); err != nil ||
			strings.Contains(notes, warning) {
			t.Errorf("%s: the notes warn of values that the chart knows (%v):\n%s", name, err, notes)
		}
	}
}

// lintErrors returns what `helm lint` says of the chart with these values, except for notes.
func lintErrors(values map[string]any) error {
	var errs []error
	for _, m := range lint.RunAll(dir, values, namespace).Messages {
		if m.Severity >= support.WarningSev {
			errs = append(errs, m)
		}
	}
	return errors.Join(errs...)
}

func TestLint(t *testing.T) {
	for _, name := range valuesFiles(t) {
		if err := lintErrors(values(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPackage checks that a package has the image and the version in it, and that the same chart gives the same bytes.
func TestPackage(t *testing.T) {
	var archives [][]byte
	for range 2 {
		file, err := pack(filepath.Join(t.TempDir(), "new"), "registry.example:5000/team/metrics-server:v1.2.3", "v1.2.3",
			"https://docs.example/v1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		c, err := loader.LoadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.Metadata.AppVersion != "v1.2.3" || c.Metadata.Version != "1.2.3" || len(c.Schema) == 0 ||
			filepath.Base(file) != "metrics-server-1.2.3.tgz" {
			t.Errorf("%s has appVersion %s, version %s and a schema of %d bytes", file, c.Metadata.AppVersion,
				c.Metadata.Version, len(c.Schema))
		}
		manifest, _, err := render(c, parse(t, "prometheusRule: {enabled: true}"), release, namespace, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range decode(t, manifest).alerts {
			const prefix = "https://docs.example/v1.2.3/docs/troubleshooting.md#"
			if runbook := rule.Annotations["runbook_url"]; !strings.HasPrefix(runbook, prefix) {
				t.Errorf("%s: runbook %s, want it below -docs", rule.Alert, runbook)
			}
		}
		const want = "registry.example:5000/team/metrics-server:v1.2.3"
		if got := decode(t, manifest).deployment.Spec.Template.Spec.Containers[0].Image; got != want {
			t.Errorf("image %s, want %s", got, want)
		}
		archive, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two packages of one chart differ")
	}
	if _, err := pack("", "name:tag", "v1.2.3", ""); err == nil {
		t.Error("no error without a directory to write to")
	}
	for _, image := range []string{"", "name", "registry.example:5000/name", "name:"} {
		if _, err := pack(t.TempDir(), image, "v1.2.3", ""); err == nil || !strings.Contains(err.Error(), "NAME:TAG") {
			t.Errorf("image %q: error %v, want one that says NAME:TAG", image, err)
		}
	}
}

// TestPackageVersion checks that only a release has its own chart version: the documents name the
// file of all other trees.
func TestPackageVersion(t *testing.T) {
	own := load(t).Metadata.Version
	for appVersion, want := range map[string]string{
		"v1.2.3":                            "1.2.3",
		"v1.2.3-rc.1":                       "1.2.3-rc.1",
		"v1.2.3-4-g0123456789ab":            own,
		"v1.2.3-rc.1-4-g0123456789ab-dirty": own,
		"v1.2.3-dirty":                      own,
		"v0.0.0-99-g0123456789ab":           own,
		"v0.0.0-unknown":                    own,
		"v1.2":                              own,
		"dev":                               own,
	} {
		file, err := pack(t.TempDir(), "name:tag", appVersion, "")
		if err != nil {
			t.Errorf("%s: %v", appVersion, err)
		} else if got := filepath.Base(file); got != "metrics-server-"+want+".tgz" {
			t.Errorf("%s: file %s, want version %s", appVersion, got, want)
		}
	}
}

// TestFiles checks that the files are copies of what they are made from, because tools that copy a chart may leave out
// symbolic links, and that a file that is missing all the same is an error.
func TestFiles(t *testing.T) {
	sources := map[string]string{
		"alerts.yaml":                "../../deploy/prometheus/alerts.yaml",
		"custom-metrics-alerts.yaml": "../../deploy/prometheus/custom-metrics-alerts.yaml",
		"schema.json":                filepath.Join(dir, "values.schema.json"),
	}
	entries, err := os.ReadDir(filepath.Join(dir, "files"))
	if err != nil || len(entries) != len(sources) {
		t.Errorf("%d files (%v), want %d", len(entries), err, len(sources))
	}
	for _, e := range entries {
		name := "files/" + e.Name()
		if !e.Type().IsRegular() {
			t.Errorf("%s is no regular file", name)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(sources[e.Name()])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date: run `make generate` (-want +got):\n%s", name, diff)
		}
		c := load(t)
		c.Files = slices.DeleteFunc(c.Files, func(f *common.File) bool { return f.Name == name })
		_, _, err = render(c, parse(t, "{prometheusRule: {enabled: true}, customMetrics: {enabled: true}}"), release,
			namespace, nil)
		if err == nil || !strings.Contains(err.Error(), "the chart has no "+name) {
			t.Errorf("without %s: %v, want an error that names it", name, err)
		}
	}
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// values reads a file in testdata/values, or the text of one.
func values(t *testing.T, name string) map[string]any {
	t.Helper()
	if strings.ContainsAny(name, ":") {
		return parse(t, name)
	}
	return readValues(t, filepath.Join("testdata", "values", name+".yaml"))
}

func readValues(t *testing.T, file string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no values files: %v", err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".yaml")
	}
	return files
}

// rendered is the manifest of a values file in a cluster that has the Secrets that some of them name.
func rendered(t *testing.T, name string) string {
	t.Helper()
	manifest, _, err := render(load(t), values(t, name), release, namespace,
		newCluster(secret(t, fullname), secret(t, "existing")))
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

// render returns the objects and the notes of a release. The templates look up objects in the cluster, if there is one.
func render(
	c *chart.Chart, values map[string]any, name, namespace string, cluster engine.ClientProvider,
) (manifest, notes string, err error) {
	release := common.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}
	v, err := util.ToRenderValues(c, values, release, nil)
	if err != nil {
		return "", "", err
	}
	var files map[string]string
	if cluster == nil {
		files, err = engine.Render(c, v)
	} else {
		files, err = engine.RenderWithClientProvider(c, v, cluster)
	}
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	for _, file := range slices.Sorted(maps.Keys(files)) {
		content := strings.TrimSpace(files[file])
		switch {
		case path.Base(file) == "NOTES.txt":
			notes = content + "\n"
		case content != "":
			fmt.Fprintf(&b, "---\n%s\n", strings.TrimPrefix(content, "---\n"))
		}
	}
	return b.String(), notes, nil
}

// secret has testdata's certificate and what stands for its key.
func secret(t *testing.T, name string) runtime.Object {
	t.Helper()
	ca, err := os.ReadFile("testdata/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Data:       map[string][]byte{"tls.crt": ca, "tls.key": []byte("a key")},
	}
}

// cluster is what the templates can look up.
type cluster struct{ client dynamic.Interface }

func newCluster(there ...runtime.Object) cluster {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(apiregistrationv1.AddToScheme(scheme))
	return cluster{fake.NewSimpleDynamicClient(scheme, there...)}
}

func (c cluster) GetClientFor(apiVersion, kind string) (client dynamic.NamespaceableResourceInterface,
	namespaced bool, err error,
) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	return c.client.Resource(gv.WithResource(strings.ToLower(kind) + "s")), kind != "APIService", err
}

// objects are those of one server.
type objects struct {
	custom       *objects // of the custom metrics server; nil if there is none
	names        []string // "KIND NAME" or "KIND NAMESPACE/NAME"
	deployment   *appsv1.Deployment
	service      *corev1.Service
	secret       *corev1.Secret
	apiServices  []*apiregistrationv1.APIService
	clusterRules []rbacv1.PolicyRule
	rules        []rbacv1.PolicyRule
	roles        []rbacv1.RoleRef
	subjects     []rbacv1.Subject
	kubeletRules []rbacv1.PolicyRule // of the role of the account for kubelets
	monitor      *monitoringv1.ServiceMonitor
	alerts       []monitoringv1.Rule
}

// kubeletAccount is the service account whose tokens kubelets are shown, "" if there is none.
func (o objects) kubeletAccount() (name string) {
	for _, a := range o.deployment.Spec.Template.Spec.Containers[0].Args {
		if rest, ok := strings.CutPrefix(a, "--kubelet-service-account="); ok {
			name = rest
		}
	}
	return name
}

func documents(t *testing.T, manifest string) [][]byte {
	t.Helper()
	var all [][]byte
	for reader := yaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(manifest))); ; {
		document := make([]byte, len(manifest))
		n, err := reader.Read(document)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document[:n])
	}
}

// eachObject reads a manifest as strictly as the API server does with --validate=strict: unknown fields and fields
// given twice are errors.
func eachObject(t *testing.T, manifest string, f func(object metav1.Object, kind string)) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiregistrationv1.AddToScheme,
		monitoringv1.AddToScheme, certmanagerv1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, document := range documents(t, manifest) {
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		f(object.(metav1.Object), kind.Kind)
	}
}

func decode(t *testing.T, manifest string) objects {
	t.Helper()
	var o objects
	eachObject(t, manifest, func(m metav1.Object, kind string) {
		o := &o
		if strings.HasSuffix(m.GetLabels()["app.kubernetes.io/name"], "-custom-metrics") {
			if o.custom == nil {
				o.custom = &objects{}
			}
			o = o.custom
		}
		o.names = append(o.names, kind+" "+strings.TrimPrefix(m.GetNamespace()+"/"+m.GetName(), "/"))
		if m.GetLabels()["app.kubernetes.io/managed-by"] != "Helm" {
			t.Errorf("%s %s does not have the chart's labels", kind, m.GetName())
		}
		switch object := m.(type) {
		case *appsv1.Deployment:
			o.deployment = object
		case *corev1.Service:
			o.service = object
		case *corev1.Secret:
			o.secret = object
		case *monitoringv1.ServiceMonitor:
			o.monitor = object
		case *monitoringv1.PrometheusRule:
			for _, group := range object.Spec.Groups {
				o.alerts = append(o.alerts, group.Rules...)
			}
		case *apiregistrationv1.APIService:
			o.apiServices = append(o.apiServices, object)
		case *rbacv1.ClusterRole:
			if strings.HasSuffix(object.Name, "-kubelets") {
				o.kubeletRules = object.Rules
			}
			o.clusterRules = append(o.clusterRules, object.Rules...)
		case *rbacv1.Role:
			o.rules = append(o.rules, object.Rules...)
		case *rbacv1.ClusterRoleBinding:
			o.roles, o.subjects = append(o.roles, object.RoleRef), append(o.subjects, object.Subjects...)
		case *rbacv1.RoleBinding:
			o.roles, o.subjects = append(o.roles, object.RoleRef), append(o.subjects, object.Subjects...)
		}
	})
	if o.deployment == nil || o.service == nil ||
		o.custom != nil && (o.custom.deployment == nil || o.custom.service == nil) {
		t.Fatal("no Deployment, or no Service")
	}
	return o
}

// checkReferences checks that every name in one object that means another one is right.
func checkReferences(t *testing.T, o objects) {
	t.Helper()
	pod := o.deployment.Spec.Template
	for name, selector := range map[string]map[string]string{
		"Service":    o.service.Spec.Selector,
		"Deployment": o.deployment.Spec.Selector.MatchLabels,
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
	for _, a := range o.apiServices {
		if a.Name != a.Spec.Version+"."+a.Spec.Group || a.Spec.Service.Name != o.service.Name ||
			a.Spec.Service.Namespace != o.service.Namespace || *a.Spec.Service.Port != o.service.Spec.Ports[0].Port {
			t.Errorf("APIService %s is of %s/%s by service %+v", a.Name, a.Spec.Group, a.Spec.Version, a.Spec.Service)
		}
	}
	for i, s := range o.subjects {
		want := pod.Spec.ServiceAccountName
		if o.roles[i].Name == "system:"+o.deployment.Name+"-kubelets" {
			want = o.kubeletAccount()
		}
		if s.Name != want || s.Namespace != o.deployment.Namespace {
			t.Errorf("%s is bound to %+v, want the service account %s", o.roles[i].Name, s, want)
		}
	}
	for _, r := range o.roles {
		if r.Name != "system:auth-delegator" && r.Name != "extension-apiserver-authentication-reader" &&
			!slices.ContainsFunc(o.names, func(n string) bool {
				return n == r.Kind+" "+r.Name || n == r.Kind+" "+namespace+"/"+r.Name
			}) {
			t.Errorf("%s %s is bound and not there", r.Kind, r.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("volume %s is mounted and not there", m.Name)
			}
		}
	}
}
