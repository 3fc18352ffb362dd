package app

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/component-base/featuregate"

	"metrics-server/pkg/server"
)

// Every argument list with which the incumbent starts, and some with which it does not.
func TestReadArguments(t *testing.T) {
	const types = "--kubelet-preferred-address-types="
	for _, tc := range []struct {
		args []string
		want []string
		odd  []string // a part of each line
	}{
		{nil, nil, nil},
		{[]string{"--v=2", "--kubelet-insecure-tls"}, []string{"--v=2", "--kubelet-insecure-tls"}, nil},
		{[]string{"-v2"}, []string{"--v=2"}, nil},
		{[]string{"-v=2", "-l", "a=b"}, []string{"--v=2", "--node-selector=a=b"}, nil},
		{[]string{"--metric-resolution", "15s"}, []string{"--metric-resolution=15s"}, nil},
		{[]string{"--node-selector", ""}, []string{"--node-selector="}, nil},
		{[]string{"--node-selector="}, []string{"--node-selector="}, nil},
		{[]string{"--node-selector=a in (b, c)"}, []string{"--node-selector=a in (b, c)"}, nil},
		{
			[]string{"--kubelet-insecure-tls=True"},
			[]string{"--kubelet-insecure-tls=true"},
			[]string{"--kubelet-insecure-tls=true"},
		},
		{[]string{"--kubelet-insecure-tls=t"}, []string{"--kubelet-insecure-tls=t"}, nil},
		{[]string{"--v=1", "--v=2"}, []string{"--v=1", "--v=2"}, nil},
		{[]string{"-h"}, []string{"--help"}, nil},

		// Blanks and quotes around an argument or a value.
		{[]string{"--v=2\n"}, []string{"--v=2"}, []string{"--v=2"}},
		{[]string{"--metric-resolution=15s "}, []string{"--metric-resolution=15s"}, []string{"=15s"}},
		{[]string{"--metric-resolution= 15s"}, []string{"--metric-resolution=15s"}, []string{"=15s"}},
		{[]string{`--metric-resolution="15s"`}, []string{"--metric-resolution=15s"}, []string{"=15s"}},
		{[]string{`--kubelet-insecure-tls="false"`}, []string{"--kubelet-insecure-tls=false"}, []string{"=false"}},
		{[]string{"--kubelet-insecure-tls "}, []string{"--kubelet-insecure-tls"}, []string{"tls"}},
		{[]string{"--metric-resolution", " 15s"}, []string{"--metric-resolution=15s"}, []string{"=15s"}},
		{[]string{"--node-selector= pool=web"}, []string{"--node-selector=pool=web"}, []string{"=pool=web"}},

		// A flag and its value in one argument, and one hyphen too few.
		{[]string{"--v 2"}, []string{"--v=2"}, []string{"--v=2"}},
		{[]string{"--metric-resolution = 15s"}, []string{"--metric-resolution=15s"}, []string{"=15s"}},
		{[]string{"-v 2"}, []string{"--v=2"}, []string{"--v=2"}},
		{[]string{"--kubelet-insecure-tls true"}, []string{"--kubelet-insecure-tls=true"}, []string{"=true"}},
		{[]string{"-kubelet-insecure-tls"}, []string{"--kubelet-insecure-tls"}, []string{"--kubelet-insecure-tls"}},
		{[]string{"-metric-resolution=15s"}, []string{"--metric-resolution=15s"}, []string{"=15s"}},

		// Lists.
		{[]string{types + "InternalIP,Hostname"}, []string{types + "InternalIP,Hostname"}, nil},
		{[]string{types + `"InternalIP","Hostname"`}, []string{types + `"InternalIP","Hostname"`}, nil},
		{
			[]string{types + "InternalIP, ExternalIP, Hostname"},
			[]string{types + "InternalIP,ExternalIP,Hostname"},
			[]string{types},
		},
		{
			[]string{types + "InternalIP,ExternalIP,Hostname "},
			[]string{types + "InternalIP,ExternalIP,Hostname"},
			[]string{types},
		},
		{[]string{types + "InternalIP,\tHostname\n"}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + "InternalIP,"}, []string{types + "InternalIP"}, []string{types}},
		{[]string{types + ",,InternalIP"}, []string{types + "InternalIP"}, []string{types}},
		{[]string{types + "[InternalIP,Hostname]"}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + `["InternalIP", "Hostname"]`}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + `"InternalIP,Hostname"`}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + `'InternalIP, Hostname'`}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + `'InternalIP','Hostname'`}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + "InternalIP Hostname"}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + "InternalIP;Hostname"}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + "internalip,HostName"}, []string{types + "InternalIP,Hostname"}, []string{types}},
		{[]string{types + "Foo"}, []string{types + "Foo"}, nil},
		{
			[]string{"--kubelet-preferred-address-types", "InternalIP, Hostname"},
			[]string{types + "InternalIP,Hostname"},
			[]string{types},
		},
		{[]string{types}, []string{types}, nil},
		{[]string{"--tls-cipher-suites="}, []string{"--tls-cipher-suites="}, nil},
		{[]string{"--tls-cipher-suites=A, B"}, []string{"--tls-cipher-suites=A,B"}, []string{"=A,B"}},
		{[]string{"--tls-curve-preferences=29, 23"}, []string{"--tls-curve-preferences=29,23"}, []string{"=29,23"}},
		{
			[]string{"--authorization-always-allow-paths=/healthz, /livez"},
			[]string{"--authorization-always-allow-paths=/healthz,/livez"},
			[]string{"=/healthz,/livez"},
		},
		{[]string{`--cors-allowed-origins="^https://a{1,2}$"`}, []string{`--cors-allowed-origins="^https://a{1,2}$"`}, nil},
		{
			[]string{"--cors-allowed-origins=//[a-z]$, //b$"},
			[]string{"--cors-allowed-origins=//[a-z]$,//b$"},
			[]string{"=//[a-z]$,//b$"},
		},

		// What the incumbent ignores.
		{[]string{"", "--v=2"}, []string{"--v=2"}, []string{"empty"}},
		{[]string{" \n"}, nil, []string{"empty"}},
		{[]string{"/metrics-server", "--v=2"}, []string{"--v=2"}, []string{"neither a flag nor a command"}},
		{[]string{"metrics-server", "--v=2", "serve"}, []string{"--v=2"}, []string{"neither", "neither"}},
		{[]string{"-"}, nil, []string{"neither"}},
		{[]string{"--v=2", "--", "--kubelet-insecure-tls"}, []string{"--v=2"}, []string{"follows --"}},
		{
			[]string{"--kubelet-insecure-tls", "false"},
			[]string{"--kubelet-insecure-tls"},
			[]string{"write --kubelet-insecure-tls=false"},
		},
		{[]string{"–kubelet-insecure-tls"}, nil, []string{"two hyphens"}},
		{[]string{" --v=2"}, nil, []string{"write --v=2"}},
		{[]string{"\t--v=2\n", "--v=1"}, []string{"--v=1"}, []string{"write --v=2"}},
		{[]string{"\u00a0--v=2"}, nil, []string{"write --v=2"}},
		{[]string{" --metric-resolution", "15s"}, nil, []string{"write --metric-resolution", "neither"}},
		{[]string{`"--metric-resolution=15s"`}, nil, []string{"write --metric-resolution=15s"}},
		{[]string{`'--kubelet-insecure-tls'`}, nil, []string{"write --kubelet-insecure-tls"}},
		{[]string{" --help", " --version", " -v"}, nil, []string{"write --help", "write --version", "neither"}},
		{[]string{" --no-such-flag=1"}, nil, []string{"two hyphens"}},
		{[]string{" --v=high"}, nil, []string{"two hyphens"}},

		// What it rejects is left for the parser to report.
		{[]string{"--no-such-flag=1"}, []string{"--no-such-flag=1"}, nil},
		{[]string{"--v=high"}, []string{"--v=high"}, nil},
		{[]string{"--metric-resolution"}, []string{"--metric-resolution"}, nil},
		{[]string{"-x"}, []string{"-x"}, nil},
	} {
		clean, odds := readArguments(serverFlagSet(NewOptions()), tc.args)
		if d := cmp.Diff(tc.want, clean); d != "" {
			t.Errorf("%q (-want +got):\n%s", tc.args, d)
		}
		ok := len(odds) == len(tc.odd)
		for i := range min(len(odds), len(tc.odd)) {
			ok = ok && strings.Contains(odds[i].readAs+odds[i].reason, tc.odd[i])
		}
		if !ok {
			t.Errorf("%q: odd arguments %q, want %q", tc.args, odds, tc.odd)
		}
	}
}

// The arguments are read as they were meant, and the command itself starts with them: the last
// argument makes it print its version.
func TestCommandStartsWithOddArguments(t *testing.T) {
	for _, args := range [][]string{
		{" --v=2"},
		{""},
		{"/metrics-server"},
		{"--metric-resolution=15s "},
		{"--kubelet-preferred-address-types=InternalIP, ExternalIP, Hostname"},
		{"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname "},
		{"--kubelet-insecure-tls", " --kubelet-preferred-address-types=InternalIP", " --v=2", "--metric-resolution=15s "},
		{" --help"},
		{"/metrics-server", "--kubelet-insecure-tls", "true"},
		{"serve", "--v", "2"},
	} {
		if out := printed(t, append(slices.Clone(args), "--version")...); !strings.HasPrefix(out, "v") {
			t.Errorf("%q: printed %q, want the version", args, out)
		}
	}
	o := parse(t, "--kubelet-preferred-address-types=InternalIP, Hostname", "/metrics-server", "--v=2 ",
		"--kubelet-port= 10255",
		" --kubelet-insecure-tls", " --v=9")
	got := []any{o.KubeletAddressTypes, int(o.Logging.Verbosity), o.KubeletPort, o.KubeletInsecureTLS}
	if d := cmp.Diff([]any{[]string{"InternalIP", "Hostname"}, 2, 10255, false}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Subcommands work after the name of the program, too, and a mistyped one is not treated as an
// argument to ignore.
func TestSubcommands(t *testing.T) {
	for _, args := range [][]string{
		{"doctor", "--help"},
		{"/metrics-server", "doctor", "--help"},
		{"", "metrics-server", "doctor", "--help"},
		{"help", "doctor"},
	} {
		if out := printed(t, args...); !strings.Contains(out, "metrics-server doctor [flags]") {
			t.Errorf("%q printed %q, want the doctor's help", args, out)
		}
	}
	for _, name := range []string{"doctr", "docter", "Doctor ", "doc", "completions"} {
		cmd := NewCommand(name)
		cmd.SilenceErrors = true
		err := cmd.Execute()
		if err == nil || !strings.Contains(err.Error(), "did you mean `metrics-server ") {
			t.Errorf("%q: error %v, want one that names the command", name, err)
		}
	}
}

// Empty lists, which templates write for "not set", mean the defaults.
func TestEmptyListsMeanDefaults(t *testing.T) {
	o, defaults := parse(t, "--kubelet-preferred-address-types=", "--tls-cipher-suites="), NewOptions()
	if d := cmp.Diff(defaults.KubeletAddressTypes, o.KubeletAddressTypes); d != "" {
		t.Errorf("address types (-want +got):\n%s", d)
	}
	if d := cmp.Diff(defaults.SecureServing.CipherSuites, o.SecureServing.CipherSuites); d != "" {
		t.Errorf("cipher suites (-want +got):\n%s", d)
	}
}

// A mistake is reported with what to write instead.
func TestFlagErrors(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--kubelet-insecure-tl", "did you mean --kubelet-insecure-tls?"},
		{"--kubelet_insecure_tls", "did you mean --kubelet-insecure-tls?"},
		{"--Kubelet-Insecure-TLS", "did you mean --kubelet-insecure-tls?"},
		{"--something-else", "see metrics-server --help"},
		{"--logtostderr", "Kubernetes 1.26 removed it"},
		{"--log_dir=/tmp", "Kubernetes 1.26 removed it"},
		{"--source=kubernetes.summary_api", "remove it"},
		{"--kubelet-insecure-tls=", "give true or false"},
		{"--metric-resolution=15", "a duration with a unit"},
		{"--kubelet-insecure-tls --v=2", "give true or false"},
	} {
		cmd := NewCommand(tc.arg)
		cmd.SilenceErrors = true
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", tc.arg, err, tc.want)
		}
	}
}

// Each flag of the generic server reaches its configuration. The values are those of b04.
func TestGenericFlagsAreApplied(t *testing.T) {
	o := parse(t, "--advertise-address=10.0.0.7", "--cors-allowed-origins=//example.com$",
		"--external-hostname=metrics.example.com",
		"--goaway-chance=0.01", "--livez-grace-period=5s", "--max-mutating-requests-inflight=100",
		"--max-requests-inflight=200",
		"--request-timeout=30s", "--shutdown-delay-duration=30s",
		"--strict-transport-security-directives=max-age=31536000, preload")
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	c := server.NewGenericConfig("v1")
	o.generic.applyTo(c)
	got := []any{
		c.PublicAddress.String(), c.CorsAllowedOriginList, c.ExternalAddress, c.GoawayChance, c.LivezGracePeriod.String(),
		c.MaxMutatingRequestsInFlight, c.MaxRequestsInFlight, c.RequestTimeout.String(), c.ShutdownDelayDuration.String(),
		c.HSTSDirectives,
	}
	want := []any{
		"10.0.0.7",
		[]string{"//example.com$"},
		"metrics.example.com", 0.01, "5s", 100, 200, "30s", "30s",
		[]string{"max-age=31536000", "preload"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	unset, plain := server.NewGenericConfig("v1"), server.NewGenericConfig("v1")
	parse(t, "--request-timeout=0").generic.applyTo(unset)
	if unset.RequestTimeout != plain.RequestTimeout || unset.ShutdownDelayDuration != plain.ShutdownDelayDuration {
		t.Errorf("without flags: request timeout %v and shutdown delay %v, want %v and %v",
			unset.RequestTimeout, unset.ShutdownDelayDuration, plain.RequestTimeout, plain.ShutdownDelayDuration)
	}
}

// Flags without effect are accepted, and their help says so.
func TestIdleFlags(t *testing.T) {
	for _, arg := range []string{
		"--emulated-version=1.36", "--emulated-version=kube=1.36", "--emulation-forward-compatible=false",
		"--emulation-forward-compatible",
		"--min-compatibility-version=1.36", "--min-request-timeout=1800", "--runtime-config-emulation-forward-compatible",
		"--shutdown-send-retry-after", "--shutdown-watch-termination-grace-period=10s",
		"--storage-initialization-timeout=60s",
	} {
		if err := parse(t, arg).Validate(); err != nil {
			t.Errorf("%s is refused: %v", arg, err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if usage := serverFlagSet(NewOptions()).Lookup(name).Usage; !strings.Contains(usage, "without effect") {
			t.Errorf("the help of --%s does not say that it has no effect: %s", name, usage)
		}
	}
}

// Feature gates that are known are set, the others are ignored and named, in any number and order.
func TestFeatureGates(t *testing.T) {
	gate := featuregate.NewFeatureGate()
	err := errors.Join(gate.Add(map[featuregate.Feature]featuregate.FeatureSpec{
		"Off":    {Default: false, PreRelease: featuregate.Alpha},
		"On":     {Default: true, PreRelease: featuregate.Beta},
		"Locked": {Default: true, LockToDefault: true, PreRelease: featuregate.GA},
	}))
	if err != nil {
		t.Fatal(err)
	}
	o := parse(t, "--feature-gates=Locked=false,Nonsense=true, Off=true", "--feature-gates=kube:On=false,Odd=maybe,",
		"--feature-gates=")
	ignored := strings.Join(o.generic.setGates(gate), "\n")
	for _, want := range []string{
		"Locked=false: the gate is locked to true", "Nonsense=true: this server has no such feature gate",
		"Odd=maybe: this server has no such feature gate",
	} {
		if !strings.Contains(ignored, want) {
			t.Errorf("no %q in\n%s", want, ignored)
		}
	}
	if !gate.Enabled("Off") || gate.Enabled("On") || !gate.Enabled("Locked") {
		t.Errorf("Off=%t On=%t Locked=%t, want true, false, true", gate.Enabled("Off"), gate.Enabled("On"),
			gate.Enabled("Locked"))
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}
