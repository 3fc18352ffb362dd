package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sharedtest"
)

func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	o := NewOptions()
	clean, _ := readArguments(serverFlagSet(NewOptions()), args)
	if err := serverFlagSet(o).Parse(clean); err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	o.defaultEmptyLists()
	return o
}

func TestDefaultsAreValid(t *testing.T) {
	if err := parse(t).Validate(); err != nil {
		t.Error(err)
	}
}

// The arguments of public manifests, with every flag of the incumbent that they use.
func TestFlagsOfTheIncumbent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{
			"--cert-dir=/tmp", "--secure-port=4430",
			"--kubelet-preferred-address-types=InternalDNS,InternalIP,ExternalDNS,ExternalIP,Hostname",
			"--kubelet-use-node-status-port", "--metric-resolution=15s", "--kubelet-insecure-tls",
		},
		{"--kubelet-port=10255", "--deprecated-kubelet-completely-insecure"},
		{"--kubelet-certificate-authority=" + file, "--kubelet-client-certificate=" + file, "--kubelet-client-key=" + file},
		{"--kubelet-certificate-authority-text=x", "--kubelet-request-timeout=5s"},
		{"--node-selector=pool=web"},
		{"-l", "pool!=web"},
		{"--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file},
		{
			"--authentication-skip-lookup", "--authentication-tolerate-lookup-failure",
			"--authentication-token-webhook-cache-ttl=10s",
		},
		{"--authorization-always-allow-paths=/healthz,/readyz,/livez", "--authorization-webhook-cache-authorized-ttl=5s"},
		{
			"--client-ca-file=" + file, "--requestheader-client-ca-file=" + file, "--requestheader-allowed-names=a",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		},
		{
			"--tls-cert-file=" + file, "--tls-private-key-file=" + file, "--tls-min-version=VersionTLS12",
			"--tls-cipher-suites=TLS_AES_128_GCM_SHA256", "--http2-max-streams-per-connection=100", "--bind-address=127.0.0.1",
		},
		{"--audit-log-path=-", "--audit-policy-file=" + file},
		{"--profiling=false", "--contention-profiling=false"},
		{"--logging-format=json", "-v=2", "--log-flush-frequency=5s"},
		{"--vmodule=x=1"},
		{"--metric-window=15s"},
		{"--metric-window=10m"},
		{"--metric-resolution=20m"}, // the default window has no bound
		{"--version"},
	} {
		if err := parse(t, args...).Validate(); err != nil {
			t.Errorf("%q is refused: %v", args, err)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "kube-system")
	dir := t.TempDir()
	for _, tc := range []struct {
		args []string
		want []string // each in a message of its own
	}{
		{[]string{"--metric-resolution=999ms"}, []string{"--metric-resolution: 999ms is too short"}},
		{[]string{"--metric-resolution=-1s"}, []string{"--metric-resolution: -1s is too short"}},
		{[]string{"--kubelet-request-timeout=-1s"}, []string{"--kubelet-request-timeout: -1s is negative"}},
		{[]string{"--history=25h"}, []string{"--history: 25h0m0s: give whole minutes, at most 24h0m0s"}},
		{[]string{"--history=90s"}, []string{"--history: 1m30s: give whole minutes"}},
		{[]string{"--history=-1h"}, []string{"--history: -1h0m0s: give whole minutes"}},
		{[]string{"--history=1s"}, []string{"--history: 1s: give whole minutes"}},
		{[]string{"--kubelet-port=0"}, []string{"--kubelet-port: 0 is not a port"}},
		{[]string{"--kubelet-port=65536"}, []string{"--kubelet-port: 65536 is not a port"}},
		{[]string{"--secure-port=0"}, []string{"--secure-port: 0 would serve nothing"}},
		{[]string{"--max-requests-inflight=-1"}, []string{"--max-requests-inflight can not be negative"}},
		{[]string{"--goaway-chance=0.5"}, []string{"--goaway-chance can not be"}},
		{
			[]string{"--strict-transport-security-directives=always"},
			[]string{"--strict-transport-security-directives invalid"},
		},
		{[]string{"--cors-allowed-origins=.*"}, []string{"--cors-allowed-origins has an invalid"}},
		{[]string{"--node-selector=a in"}, []string{"--node-selector: "}},
		{
			[]string{"--kubelet-client-key=/nowhere/key"},
			[]string{
				"--kubelet-client-certificate and --kubelet-client-key belong together",
				"--kubelet-client-key: stat /nowhere/key",
			},
		},
		{
			[]string{"--kubelet-certificate-authority=" + dir},
			[]string{"--kubelet-certificate-authority: \"" + dir + "\" is a directory"},
		},
		{
			[]string{"--kubelet-insecure-tls", "--kubelet-certificate-authority-text=x"},
			[]string{"--kubelet-certificate-authority-text and --kubelet-insecure-tls exclude"},
		},
		{
			[]string{"--kubelet-insecure-tls", "--deprecated-kubelet-completely-insecure"},
			[]string{"--deprecated-kubelet-completely-insecure and --kubelet-insecure-tls exclude"},
		},
		{
			[]string{"--serving-certificate-secret=a", "--tls-cert-file=/nowhere/cert"},
			[]string{"--serving-certificate-secret and --tls-cert-file exclude"},
		},
		{
			[]string{"--serving-certificate-secret=a", "--tls-private-key-file=/nowhere/key"},
			[]string{"--serving-certificate-secret and --tls-private-key-file exclude"},
		},
		{
			[]string{"--kubelet-service-account=A/b"},
			[]string{`--kubelet-service-account: "A/b" is not the name of a ServiceAccount`},
		},
		{
			[]string{"--serving-certificate-secret=A/b"},
			[]string{`--serving-certificate-secret: "A/b" is not the name of a Secret`},
		},
		{
			[]string{"--metric-window=14s"},
			[]string{"--metric-window: 14s is shorter than --metric-resolution, 15s", "give at least 15s"},
		},
		{[]string{"--metric-resolution=1m", "--metric-window=30s"}, []string{"give at least 1m0s, or leave the flag out"}},
		{[]string{"--metric-window=-1m"}, []string{"--metric-window: -1m0s is shorter"}},
		{[]string{"--metric-window=10m1s"}, []string{"--metric-window: 10m1s is too long", "give at most 10m0s"}},
		{[]string{"--kubeconfig=/nowhere"}, []string{"--kubeconfig: stat /nowhere"}},
		{[]string{"--logging-format=xml"}, []string{`logging flags: format: Invalid value: "xml"`}},
		{ // everything at once
			[]string{
				"--metric-resolution=0", "--kubelet-port=-1", "--node-selector=!!", "--kubelet-client-certificate=" + dir,
				"--tls-min-version=9", "--tls-cipher-suites=x", "--audit-log-path=-", "--audit-log-mode=never",
			},
			[]string{
				"--metric-resolution", "--kubelet-port", "--node-selector", "belong together", "is a directory",
				"--tls-min-version", "--tls-cipher-suites", "never",
			},
		},
	} {
		err := parse(t, tc.args...).Validate()
		if err == nil {
			t.Errorf("%q: accepted", tc.args)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		for _, want := range tc.want {
			n := 0
			for _, l := range lines {
				if strings.Contains(l, want) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%q: %d lines with %q in\n%v", tc.args, n, want, err)
			}
		}
	}
}

func TestServingSecret(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "monitoring")
	o := parse(t, "--serving-certificate-secret=a")
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	if got, optional, err := o.servingSecret(); err != nil || optional || got.String() != "monitoring/a" {
		t.Errorf("%v, optional %v (%v), want monitoring/a, not optional", got, optional, err)
	}
	// The arguments of another server's manifest do not mention the Secret.
	if got, optional, err := parse(t, "--secure-port=10250").servingSecret(); err != nil || !optional ||
		got.String() != "monitoring/metrics-server-serving" {
		t.Errorf("without the flag: %v, optional %v (%v), want monitoring/metrics-server-serving if it is there", got,
			optional, err)
	}
	for _, args := range [][]string{{"--serving-certificate-secret="}, {"--tls-cert-file=a", "--tls-private-key-file=b"}} {
		if got, optional, err := parse(t, args...).servingSecret(); err != nil || optional || got.Name != "" {
			t.Errorf("%q: %v, optional %v (%v), want none", args, got, optional, err)
		}
	}
	t.Setenv("POD_NAMESPACE", "")
	file := filepath.Join(t.TempDir(), "namespace")
	if _, err := namespace(file); err == nil || !strings.Contains(err.Error(), "set POD_NAMESPACE") {
		t.Errorf("nowhere: error %v, want one that says what to set", err)
	}
	if err := os.WriteFile(file, []byte("kube-system\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := namespace(file); err != nil || got != "kube-system" {
		t.Errorf("in a pod: %q (%v)", got, err)
	}
	// These tests may themselves run in a pod, of a CI system for example.
	want := ""
	if _, err := namespace(namespaceFile); err == nil {
		want = "metrics-server-serving"
	}
	if got, _, err := parse(t).servingSecret(); err != nil || got.Name != want {
		t.Errorf("without the flag: Secret %q (%v), want %q", got.Name, err, want)
	}
}

func TestKubeletAccount(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "monitoring")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "/"},
		{[]string{"--kubelet-service-account=a"}, "monitoring/a"},
		{[]string{"--kubelet-service-account=a", "--kubelet-insecure-tls"}, "monitoring/a"},
		// A client certificate cannot be replayed, and over plain HTTP no credentials are sent at all.
		{[]string{"--kubelet-service-account=a", "--kubelet-client-certificate=c", "--kubelet-client-key=k"}, "/"},
		{[]string{"--kubelet-service-account=a", "--deprecated-kubelet-completely-insecure"}, "/"},
	} {
		if got, err := parse(t, tc.args...).kubeletAccount(); err != nil || got.String() != tc.want {
			t.Errorf("%q: %v (%v), want %s", tc.args, got, err, tc.want)
		}
	}
	t.Setenv("POD_NAMESPACE", "")
	err := parse(t, "--kubelet-service-account=a").Validate()
	if _, known := namespace(namespaceFile); known != nil && (err == nil || !strings.Contains(err.Error(),
		"--kubelet-service-account: the server's own namespace is unknown")) {
		t.Errorf("outside of a pod: %v, want what to set", err)
	}
}

func TestRequestTimeout(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want time.Duration
	}{
		{nil, 10 * time.Second},
		{[]string{"--metric-resolution=60s"}, 10 * time.Second},
		{[]string{"--metric-resolution=10s"}, 7 * time.Second},
		{[]string{"--metric-resolution=1s"}, 700 * time.Millisecond},
		{[]string{"--metric-resolution=1s", "--kubelet-request-timeout=3s"}, 3 * time.Second},
	} {
		if got := parse(t, tc.args...).requestTimeout(); got != tc.want {
			t.Errorf("%q: %v, want %v", tc.args, got, tc.want)
		}
	}
}

func TestKubeletConfigTakesEveryFlag(t *testing.T) {
	o := parse(t, "--kubelet-insecure-tls", "--kubelet-use-node-status-port", "--kubelet-port=1",
		"--kubelet-preferred-address-types=A,B",
		"--kubelet-certificate-authority=ca", "--kubelet-certificate-authority-text=text",
		"--kubelet-client-certificate=cert",
		"--kubelet-client-key=key", "--deprecated-kubelet-completely-insecure", "--kubelet-request-compression")
	c := o.kubeletConfig(nil)
	got := []any{
		c.Insecure, c.PlainHTTP, c.UseNodeStatusPort, c.Port, c.AddressTypes, c.CAFile, string(c.CAData),
		c.ClientCertFile, c.ClientKeyFile, c.Compress,
	}
	want := []any{true, true, true, 1, []string{"A", "B"}, "ca", "text", "cert", "key", true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// docs/flags.md is what --help prints, for each command. To update it: go test ./pkg/app -run TestFlagsDoc -update
func TestFlagsDoc(t *testing.T) {
	const file = "../../docs/flags.md"
	section := func(heading, help string) string { return "\n## " + heading + "\n\n```text\n" + help + "\n```\n" }
	doc := "# Flags\n\n`make generate` writes this page from what `--help` prints for each command.\n" +
		section("metrics-server", printed(t, "--help")) +
		section("metrics-server custom-metrics", printed(t, "custom-metrics", "--help")) +
		section("metrics-server doctor", printed(t, "doctor", "--help")) +
		section("metrics-server doctor hpa", printed(t, "doctor", "hpa", "--help")) +
		section("metrics-server ui", printed(t, "ui", "--help"))
	sharedtest.CompareWithFile(t, file, doc)
}

func TestVersion(t *testing.T) {
	if out := printed(t, "--version"); !strings.HasPrefix(out, "v") || strings.Contains(out, "\n") {
		t.Errorf("--version printed %q, want one line with a version", out)
	}
}

// The command reports all errors, and none hides another.
func TestCommandReportsEverything(t *testing.T) {
	cmd := NewCommand("--logging-format=xml", "--metric-resolution=0s")
	cmd.SilenceErrors = true
	err := cmd.Execute()
	if err == nil || !strings.Contains(err.Error(), "xml") || !strings.Contains(err.Error(), "--metric-resolution") {
		t.Errorf("error %v, want both flags in it", err)
	}
}

// TLS 1.2 clients are offered only suites with forward secrecy and authenticated encryption, among
// them those that HTTP/2 requires. A flag in the manifest replaces the default.
func TestCipherSuites(t *testing.T) {
	for _, name := range parse(t).SecureServing.CipherSuites {
		if !strings.HasPrefix(name, "TLS_ECDHE_") || !strings.Contains(name, "_GCM_") &&
			!strings.Contains(name, "_CHACHA20_") {
			t.Errorf("%s is offered", name)
		}
	}
	for _, need := range []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"} {
		if !slices.Contains(parse(t).SecureServing.CipherSuites, need) {
			t.Errorf("%s, which HTTP/2 needs, is not offered", need)
		}
	}
	want := []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}
	if d := cmp.Diff(want, parse(t, "--tls-cipher-suites="+want[0]).SecureServing.CipherSuites); d != "" {
		t.Errorf("the flag (-want +got):\n%s", d)
	}
}
