package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	cliflag "k8s.io/component-base/cli/flag"
)

// doctor runs the command against url and returns its exit code and what it wrote.
func runDoctor(t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c",`+
		`"cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c"}}]}`, url)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := []string{"doctor"}
	if len(args) > 0 && args[0] == "hpa" {
		command, args = append(command, "hpa"), args[1:]
	}
	cmd := newCommand(&code, slices.Concat(command, []string{"--kubeconfig=" + kubeconfig}, args))
	cmd.SilenceErrors = true
	var out, errs strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	if err := cmd.Execute(); err != nil {
		errs.WriteString(err.Error())
	}
	return code, out.String(), errs.String()
}

func TestDoctorExitCodes(t *testing.T) {
	// One API server has no metrics-server, the other denies all requests.
	answer := func(code int, reason string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.URL.Path == "/version" {
				fmt.Fprint(w, `{"gitVersion":"v1.37.2"}`)
				return
			}
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","code":%d,"reason":%q,`+
				`"message":"nodes/proxy"}`, code, reason)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	empty, closed := answer(404, "NotFound"), answer(403, "Forbidden")
	for _, tc := range []struct {
		url            string
		args           []string
		code           int
		stdout, stderr string // contained
	}{
		{closed, nil, 0, "unknown  apiservice", ""},
		{empty, nil, 1, "problem  apiservice", ""},
		{empty, []string{"--output=json"}, 1, `"status": "problem"`, ""},
		{"http://127.0.0.1:1", nil, 2, "", "error: ask the API server http://127.0.0.1:1"},
		{empty, []string{"--kubeconfig=/nowhere"}, 2, "", "/nowhere"},
		{empty, []string{"--context=other"}, 2, "", `"other"`},
		{empty, []string{"--no-such-flag"}, 2, "", "unknown flag: --no-such-flag"},
		{empty, []string{"stray"}, 2, "", "stray"},
		{empty, []string{"--output=yaml", "--kubelets=never", "--timeout=0", "--kubelet-port=0"}, 2, "", "--output: "},
		{empty, []string{"--output=yaml", "--kubelets=never", "--timeout=0", "--kubelet-port=0"}, 2, "", "--kubelets: "},
		{empty, []string{"--output=yaml", "--kubelets=never", "--timeout=0", "--kubelet-port=0"}, 2, "", "--timeout: "},
		{empty, []string{"--output=yaml", "--kubelets=never", "--timeout=0", "--kubelet-port=0"}, 2, "", "--kubelet-port: "},
	} {
		code, stdout, stderr := runDoctor(t, tc.url, tc.args...)
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) ||
			(tc.stdout == "") != (stdout == "") {
			t.Errorf("%q: exit code %d, want %d; it wrote\n%s\nand\n%s", tc.args, code, tc.code, stdout, stderr)
		}
	}
	if _, stdout, _ := runDoctor(t, empty, "-o", "json"); !json.Valid([]byte(stdout)) {
		t.Errorf("not JSON: %s", stdout)
	}
}

// The doctor asks kubelets as the server's arguments say, unless its own flags say otherwise.
func TestDoctorTakesTheServersFlags(t *testing.T) {
	for _, tc := range []struct {
		given, running []string
		want           []any // insecure, CA, port, addresses, selector, secure port
	}{
		{nil, nil, []any{
			false, "", 10250,
			[]string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"},
			"",
			443,
		}},
		{
			nil,
			[]string{
				"--kubelet-insecure-tls", "--kubelet-port=1", "--kubelet-preferred-address-types=A,B",
				"--node-selector=a in (b)", "--secure-port=4443", "--flag-of-another-release=x", "-v=2",
			},
			[]any{true, "", 1, []string{"A", "B"}, "a in (b)", 4443},
		},
		{
			[]string{
				"--kubelet-certificate-authority=ca", "--kubelet-port=2", "--kubelet-preferred-address-types=C,D", "-l",
				"x=y",
			},
			[]string{"--kubelet-insecure-tls", "--kubelet-port=1", "--kubelet-preferred-address-types=A,B", "--node-selector=z"},
			[]any{false, "ca", 2, []string{"C", "D"}, "x=y", 443},
		},
	} {
		d := &doctorOptions{server: NewOptions()}
		cmd := new(cobra.Command)
		groups := d.flags()
		for _, fs := range groups.FlagSets {
			cmd.Flags().AddFlagSet(fs)
		}
		if err := cmd.Flags().Parse(tc.given); err != nil {
			t.Fatal(err)
		}
		o, err := d.serverOptions(cmd, tc.running)
		if err != nil {
			t.Fatal(err)
		}
		got := []any{
			o.KubeletInsecureTLS, o.KubeletCAFile, o.KubeletPort, o.KubeletAddressTypes, o.NodeSelector,
			o.SecureServing.BindPort,
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%q, server %q (-want +got):\n%s", tc.given, tc.running, diff)
		}
	}
	d := &doctorOptions{server: NewOptions()}
	if _, err := d.serverOptions(new(cobra.Command), []string{"--kubelet-port=x"}); err == nil {
		t.Error("a flag that cannot be parsed is passed over")
	}
}

func TestKubeletFlagNames(t *testing.T) {
	var groups cliflag.NamedFlagSets
	NewOptions().kubeletFlags(&groups)
	var names []string
	flag := regexp.MustCompile(`(?m)^ +(?:-., )?--([a-z-]+)`)
	for _, m := range flag.FindAllStringSubmatch(groups.FlagSets["kubelet client"].FlagUsages(), -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	if diff := cmp.Diff(slices.Sorted(slices.Values(kubeletFlagNames)), names); diff != "" {
		t.Errorf("kubeletFlagNames are not the flags of kubeletFlags (-names +flags):\n%s", diff)
	}
}

func TestDoctorHelp(t *testing.T) {
	help := printed(t, "doctor", "--help")
	for _, want := range []string{
		"metrics-server doctor [flags]", "Exit code: 0", "--kubelets string",
		"--kubelet-insecure-tls",
	} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in\n%s", want, help)
		}
	}
	if strings.Contains(help, "--secure-port") {
		t.Error("the doctor serves nothing")
	}
}
