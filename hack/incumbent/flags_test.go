// Package incumbent compares this server with the one that it replaces.
package incumbent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

// program is this repository's metrics-server, and kubeconfig an empty file: a server that accepts
// its flags tries to read it, and ends.
var program, kubeconfig string

const accepted = "invalid configuration: no configuration has been provided"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "flags")
	if err == nil {
		program, kubeconfig = filepath.Join(dir, "metrics-server"), filepath.Join(dir, "kubeconfig")
		build := exec.CommandContext(context.Background(), "go", "build", "-o", program, "./cmd/metrics-server")
		build.Dir, build.Stderr = "../..", os.Stderr
		err = errors.Join(build.Run(), os.WriteFile(kubeconfig, nil, 0o600))
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// start returns what this server writes when it is started with args, and whether it accepts them.
func start(t *testing.T, args ...string) (output string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program,
		append([]string{"--kubeconfig=" + kubeconfig}, args...)...).CombinedOutput()
	if err == nil {
		t.Errorf("%q: it ended without an error:\n%s", args, out)
	}
	return string(out), strings.Contains(string(out), accepted)
}

// incumbent returns the incumbent's command.
func incumbent() *cobra.Command { return app.NewMetricsServerCommand(make(chan struct{})) }

// Every flag of the incumbent is accepted with its default value and with another one.
func TestEveryFlagIsAccepted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// For flags whose type does not determine the values, and for flags that need another one.
	changed := map[string][]string{
		"advertise-address":                    {"10.0.0.7"},
		"audit-log-batch-throttle-qps":         {"1.5"},
		"audit-log-format":                     {"legacy"},
		"audit-log-mode":                       {"batch"},
		"audit-log-version":                    {"audit.k8s.io/v1"},
		"audit-policy-file":                    {file, "--audit-log-path=-"},
		"audit-webhook-batch-throttle-qps":     {"1.5"},
		"audit-webhook-mode":                   {"blocking"},
		"audit-webhook-version":                {"audit.k8s.io/v1"},
		"bind-address":                         {"127.0.0.1"},
		"cors-allowed-origins":                 {"//example.com$"},
		"emulated-version":                     {"1.36"},
		"feature-gates":                        {"APIResponseCompression=false"},
		"goaway-chance":                        {"0.01"},
		"kubeconfig":                           {kubeconfig},
		"kubelet-certificate-authority":        {file},
		"kubelet-client-certificate":           {file, "--kubelet-client-key=" + file},
		"kubelet-client-key":                   {file, "--kubelet-client-certificate=" + file},
		"log-json-info-buffer-size":            {"1Ki", "--feature-gates=LoggingAlphaOptions=true", "--logging-format=json"},
		"log-json-split-stream":                {"true", "--feature-gates=LoggingAlphaOptions=true", "--logging-format=json"},
		"log-text-info-buffer-size":            {"1Ki", "--feature-gates=LoggingAlphaOptions=true"},
		"log-text-split-stream":                {"true", "--feature-gates=LoggingAlphaOptions=true"},
		"logging-format":                       {"json"},
		"min-compatibility-version":            {"1.36"},
		"node-selector":                        {"pool=web,zone!=b"},
		"secure-port":                          {"4443"},
		"strict-transport-security-directives": {"max-age=31536000"},
		"tls-cipher-suites":                    {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
		"tls-curve-preferences":                {"29,23"},
		"tls-min-version":                      {"VersionTLS13"},
		"tls-sni-cert-key":                     {file + "," + file},
		"vmodule":                              {"server=2"},
		"kubelet-preferred-address-types":      {"InternalIP,Hostname"},
		"audit-log-truncate-enabled":           {"true", "--audit-log-path=-"},
		"audit-webhook-truncate-enabled":       {"true"},
		"requestheader-uid-headers":            {"X-Remote-Uid"},
	}
	n := 0
	incumbent().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Name == "version" { // they print and end
			return
		}
		n++
		t.Run(f.Name, func(t *testing.T) {
			other := changed[f.Name]
			if other == nil {
				other = []string{otherValue(t, f)}
			}
			if err := incumbent().ParseFlags([]string{"--" + f.Name + "=" + other[0]}); err != nil {
				t.Fatalf("the test gives a value that the incumbent rejects: %v", err)
			}
			check := func(args ...string) {
				if output, ok := start(t, args...); !ok {
					t.Errorf("%q: this server does not accept it:\n%s", args, output)
				}
			}
			check(append([]string{"--" + f.Name + "=" + other[0]}, other[1:]...)...)
			byDefault := "--" + f.Name + "=" + strings.Trim(f.DefValue, "[]")
			if f.DefValue == "<nil>" {
				byDefault = "--" + f.Name + "="
			}
			// Some have a default that cannot be written, and without this one nothing can be started.
			if incumbent().ParseFlags([]string{byDefault}) == nil && f.Name != "kubeconfig" {
				check(byDefault)
			}
		})
	})
	if n < 100 {
		t.Errorf("the incumbent has only %d flags", n)
	}
}

// otherValue returns a value of f that is not its default.
func otherValue(t *testing.T, f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return strconv.FormatBool(f.DefValue != "true")
	case "int", "int64", "Level":
		n, err := strconv.Atoi(f.DefValue)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.Itoa(n + 1)
	case "duration":
		d, err := time.ParseDuration(f.DefValue)
		if err != nil {
			t.Fatal(err)
		}
		return (d + time.Second).String()
	case "string":
		return "/nowhere"
	case "stringSlice":
		return "a,b"
	}
	t.Fatalf("the test knows no value of type %s", f.Value.Type())
	return ""
}

// This server starts with every argument with which the incumbent starts.
func TestOddArgumentsAreAccepted(t *testing.T) {
	const types = "--kubelet-preferred-address-types="
	for _, args := range [][]string{
		{" --v=2"},
		{"\t--v=2"},
		{""},
		{" "},
		{"/metrics-server"},
		{"metrics-server"},
		{"/metrics-server", "--v=2"},
		{"serve"},
		{"-"},
		{"--", "--no-such-flag"},
		{" --no-such-flag"},
		{" --v=high"},
		{" --help"},
		{" --version"},
		{"--kubelet-certificate-authority=" + kubeconfig, " --kubelet-insecure-tls"},
		{`"--metric-resolution=1ms"`},
		{"--kubelet-insecure-tls", "true"},
		{"--kubelet-insecure-tls=True"},
		{"--kubelet-insecure-tls=T"},
		{"--v=1", "--v=2"},
		{"-v", "2"},
		{"–kubelet-insecure-tls"},
		{types + "InternalIP, ExternalIP, Hostname"},
		{types + "InternalIP,ExternalIP,Hostname "},
		{types + "InternalIP,\tHostname"},
		{types + "InternalIP,"},
		{types + "[InternalIP,Hostname]"},
		{types + `"InternalIP,Hostname"`},
		{types + `'InternalIP'`},
		{types + "InternalIP Hostname"},
		{types + "internalIP"},
		{types + "Foo"},
		{types},
		{"--tls-cipher-suites="},
		{"--kubelet-client-key="},
		{"--kubelet-port=0", "--kubelet-use-node-status-port"},
		{"--request-timeout=0"},
		{"--node-selector= pool=web"},
		{"--node-selector=pool in (a, b)"},
		{"--bind-address= 0.0.0.0"},
		{"--http2-max-streams-per-connection=0x10"},
		{"--feature-gates="},
		{"--cors-allowed-origins="},
		{"--cors-allowed-origins= //example.com$"},
		{"--advertise-address="},
		{"--emulation-forward-compatible"},
		{"--enable-priority-and-fairness"},
		{"--authorization-always-allow-paths=/healthz, /livez"},
	} {
		if err := incumbent().ParseFlags(args); err != nil {
			t.Errorf("%q: the incumbent does not take it: %v", args, err)
		}
		if output, ok := start(t, args...); !ok {
			t.Errorf("%q: this server does not accept it:\n%s", args, output)
		}
	}
}

// Every feature gate of logging can be set, alone and together with others of its stage.
func TestFeatureGatesAreAccepted(t *testing.T) {
	for _, gates := range []string{
		"ContextualLogging=false", "ContextualLogging=true", "LoggingAlphaOptions=true", "LoggingBetaOptions=false",
		"AllAlpha=true", "AllBeta=false", "AllBeta=true",
	} {
		if output, ok := start(t, "--feature-gates="+gates); !ok {
			t.Errorf("%s: this server does not accept it:\n%.2000s", gates, output)
		}
	}
}

// Each argument that is not taken literally is logged, once.
func TestOddArgumentsAreLogged(t *testing.T) {
	for arg, want := range map[string]string{
		" --v=2": `"Warning: An argument is ignored" argument=" --v=2" ` +
			`reason="flags begin with two hyphens, not with a blank or a quotation mark: write --v=2"`,
		"--metric-resolution=15s ": `argument="--metric-resolution=15s " readAs="--metric-resolution=15s"`,
		"":                         `"Warning: An argument is ignored" argument="" reason="it is empty"`,
		"/metrics-server":          `argument="/metrics-server" reason="it is neither a flag nor a command"`,
		"--storage-initialization-timeout=60s": `"Warning: A flag has no effect" ` +
			`flag="--storage-initialization-timeout" reason="there is no storage"`,
		"--feature-gates=Nonsense=true": `"Warning: A feature gate is ignored" ` +
			`gate="Nonsense=true: this server has no such feature gate"`,
		"--kubelet-preferred-address-types=": `"Warning: A flag has an empty list, so its default is used" ` +
			`flag="--kubelet-preferred-address-types"`,
	} {
		if output, ok := start(t, arg); !ok || strings.Count(output, want) != 1 {
			t.Errorf("%q: accepted %t, want one line with %s in\n%s", arg, ok, want, output)
		}
	}
}
