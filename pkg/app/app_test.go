package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/server"
)

// printed is what the command with args writes to its standard output, without space around it.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	cmd := NewCommand(args...)
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	if err := cmd.Execute(); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return strings.TrimSpace(out.String())
}

func TestHelpListsCommands(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
		not  string
	}{
		{[]string{"--help"}, []string{
			"metrics-server [flags]", "metrics-server COMMAND",
			"\n  completion     Generate", "\n  custom-metrics Serve", "\n  doctor         Find out",
		}, "\n  help "},
		{[]string{"completion"}, []string{"\n  bash ", "\n  fish ", "\n  powershell ", "\n  zsh "}, "--kubeconfig"},
		{[]string{"completion", "zsh", "--help"}, []string{"compinit", "metrics-server completion zsh"}, "--kubeconfig"},
		{
			[]string{"doctor", "--help"},
			[]string{"metrics-server doctor [flags]", "\n  hpa         Explain"},
			"\n  completion ",
		},
		{
			[]string{"doctor", "hpa", "--help"},
			[]string{"metrics-server doctor hpa [NAMESPACE/NAME] [flags]", "--namespace"},
			"kubelet-port",
		},
		{
			[]string{"custom-metrics", "--help"},
			[]string{"metrics-server custom-metrics [flags]", "--max-pods-per-metric"},
			"kubelet",
		},
	} {
		help := printed(t, tc.args...)
		for _, want := range tc.want {
			if !strings.Contains(help, want) {
				t.Errorf("%q: no %q in\n%s", tc.args, want, help)
			}
		}
		if strings.Contains(help, tc.not) {
			t.Errorf("%q: %q in\n%s", tc.args, tc.not, help)
		}
	}
}

func TestValuesAreCompleted(t *testing.T) {
	for _, tc := range []struct{ flag, want string }{
		{"-o", "text\njson\n:4"},
		{"--output", "text\njson\n:4"},
		{"--kubelets", "auto\ndirect\nproxy\n:4"},
	} {
		if got := printed(t, "__complete", "doctor", tc.flag, ""); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.flag, got, tc.want)
		}
	}
}

// The first example of --help is what deploy/ runs.
func TestExampleIsDeployed(t *testing.T) {
	for dir, text := range map[string]string{"base": example, "custom-metrics": customExample} {
		manifest, err := os.ReadFile("../../deploy/kustomize/" + dir + "/deployment.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var d appsv1.Deployment
		if err := yaml.UnmarshalStrict(manifest, &d); err != nil {
			t.Fatal(err)
		}
		text, _, _ = strings.Cut(text, "\n\n")
		_, text, _ = strings.Cut(text, "\n") // the comment
		words := strings.Fields(strings.ReplaceAll(text, "\\\n", ""))
		want := append([]string{"metrics-server"}, d.Spec.Template.Spec.Containers[0].Args...)
		if diff := cmp.Diff(want, words); diff != "" {
			t.Errorf("%s: (-deploy +example):\n%s", dir, diff)
		}
	}
}

// deploy/ and the chart collect the ClusterRoles with the label that errors tell users to set.
func TestScaleReaderLabelIsDeployed(t *testing.T) {
	for _, file := range []string{
		"kustomize/custom-metrics/rbac.yaml", "helm/metrics-server/templates/custom-metrics-rbac.yaml",
	} {
		manifest, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(manifest), kubeapi.ScaleReaderLabel+`: "true"`); got != 2 {
			t.Errorf("%s has the label %s %d times, want it on one ClusterRole and in the aggregationRule of another", file,
				kubeapi.ScaleReaderLabel, got)
		}
	}
}

// If a port cannot be bound, the error names it and the remedy, whichever server tries first.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for name, serve := range map[string]func(*Options) error{
		"generic":   func(o *Options) error { return o.configure(server.NewGenericConfig(""), nil) },
		"meanwhile": func(o *Options) error { _, err := o.serveMeanwhile(http.NotFoundHandler()); return err },
	} {
		err := serve(parse(t, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port)))
		if err == nil {
			t.Fatalf("%s: listens on a port that is taken", name)
		}
		for _, want := range []string{
			fmt.Sprintf("--secure-port %d: ", port), "address already in use",
			"--secure-port=4443",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in: %v", name, want, err)
			}
		}
	}
}

func TestServingError(t *testing.T) {
	doc, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	bind := func(errno syscall.Errno) error {
		return &net.OpError{
			Op: "listen", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4zero, Port: 443},
			Err: os.NewSyscallError("bind", errno),
		}
	}
	for _, tc := range []struct {
		err        error
		documented string
		remedy     string // "": none
	}{
		{bind(syscall.EADDRINUSE), "bind: address already in use", "--secure-port=4443"},
		{bind(syscall.EACCES), "bind: permission denied", "--secure-port=10250"},
		{&os.PathError{Op: "open", Path: "/tls.key", Err: syscall.EACCES}, "", ""},
		{errors.New("no"), "", ""},
	} {
		const head = "serve on --bind-address 0.0.0.0 --secure-port 443: "
		got := NewOptions().servingError(443, tc.err).Error()
		remedy, ok := strings.CutPrefix(got, head+tc.err.Error())
		if !ok || !strings.Contains(remedy, tc.remedy) || (tc.remedy == "") != (remedy == "") {
			t.Errorf("%q, want %q, the error and a remedy with %q", got, head, tc.remedy)
		}
		if !strings.Contains(string(doc), tc.documented) {
			t.Errorf("docs/troubleshooting.md does not have %q", tc.documented)
		}
	}
}
