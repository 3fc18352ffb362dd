package doctor

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"metrics-server/pkg/sharedtest"
)

func TestHealthy(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%t", direct), func(t *testing.T) {
			c := newCluster(t)
			c.config.Direct = direct
			r := c.run()
			for _, l := range r.Checks {
				if l.Status != OK && (direct || l.Status != Unknown || !strings.Contains(l.Message, "were not checked")) {
					t.Errorf("a healthy cluster has the finding %+v", l)
				}
			}
			if r.ExitCode() != 0 || len(r.Nodes) != 2 {
				t.Errorf("exit code %d, %d nodes", r.ExitCode(), len(r.Nodes))
			}
			for _, check := range []string{
				checkVersions, checkAPIService, checkService, checkPods, checkAggregation, checkAccess, checkNodes,
				checkServed, checkAutoscalers,
			} {
				if len(find(r, Line{Check: check, Status: OK})) == 0 {
					t.Errorf("no line about %s", check)
				}
			}
			if t.Failed() {
				t.Log(text(t, r))
			}
		})
	}
}

// The command that checks the rest names the server as it is installed: a chart's release may have
// any name and namespace.
func TestInstructionsForPod(t *testing.T) {
	c := newCluster(t)
	c.forbid(pathV1, pathReviews) // whose account it is, is of no interest here
	c.config.Namespace, c.config.Service = "monitoring", "usage"
	want := Line{
		Check: checkNodes, Status: Unknown, Message: "were not checked",
		Remedy: "kubectl -n monitoring exec service/usage -- /metrics-server doctor",
	}
	if r := c.run(); len(find(r, want)) != 1 {
		t.Error(text(t, r))
	}
}

// The documents do not use a label either that only one way of installing gives the pods.
func TestDocumentedSelectors(t *testing.T) {
	for _, file := range []string{
		"docs/troubleshooting.md", "docs/doctor.md", "deploy/kustomize/components/alerts/prometheusrule.yaml",
		"deploy/kustomize/components/custom-metrics-alerts/prometheusrule.yaml",
	} {
		b, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range selectors {
			if strings.Contains(string(b), "-l "+s) {
				t.Errorf("%s selects pods by %s", file, s)
			}
		}
	}
}

func TestCannotRun(t *testing.T) {
	t.Run("nobody there", func(t *testing.T) {
		c := newCluster(t)
		c.config.Rest = &rest.Config{Host: "http://127.0.0.1:1"}
		_, err := Run(t.Context(), c.config)
		if err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:1") ||
			!strings.Contains(err.Error(), "check that the API server runs") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("credentials", func(t *testing.T) {
		c := newCluster(t)
		c.refuse(versionPath, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
		for inPod, want := range map[bool]string{false: "renew them in the kubeconfig", true: "delete the pod"} {
			c.config.InPod = inPod
			_, err := Run(t.Context(), c.config)
			if err == nil || !strings.Contains(err.Error(), want) || !inPod && strings.Contains(err.Error(), "pod") {
				t.Errorf("in a pod: %t: error %v, want %q", inPod, err, want)
			}
		}
	})
	t.Run("credential plugin", func(t *testing.T) {
		c := newCluster(t)
		c.config.Rest = &rest.Config{Host: "https://127.0.0.1:1", ExecProvider: &clientcmdapi.ExecConfig{
			APIVersion: "client.authentication.k8s.io/v1", Command: "/no/such/plugin",
			InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		}}
		_, err := Run(t.Context(), c.config)
		if err == nil || !strings.Contains(err.Error(), "/no/such/plugin") ||
			!strings.HasSuffix(err.Error(), "log in again") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("certificate", func(t *testing.T) {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake
		s.StartTLS()
		defer s.Close()
		c := newCluster(t)
		c.config.Rest = &rest.Config{Host: s.URL}
		_, err := Run(t.Context(), c.config)
		if err == nil || !strings.Contains(err.Error(), "does not fit the kubeconfig") {
			t.Errorf("error %v", err)
		}
	})
}

// Everything that was not checked in time is unknown.
func TestTimeout(t *testing.T) {
	c := newCluster(t)
	ctx, pass := sharedtest.WithDeadline(t.Context())
	c.hangs[pathService] = pass
	r, err := Run(ctx, c.config)
	if err != nil {
		t.Fatal(err)
	}
	if r.ExitCode() != 0 || len(find(r, Line{Check: checkService, Status: Unknown, Remedy: RemedyDeadline})) == 0 {
		t.Errorf("exit code %d\n%s", r.ExitCode(), text(t, r))
	}
}

// TestHangingKubelets checks that many kubelets which hang leave time to the checks that follow.
func TestHangingKubelets(t *testing.T) {
	c := newCluster(t)
	c.flags.Timeout = RequestTimeout
	for i := range 5 * concurrency {
		name := fmt.Sprintf("hangs-%d", i)
		c.nodes = append(c.nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		c.hangs[proxyPath(name)] = func() {}
	}
	synctest.Test(t, func(t *testing.T) {
		// Without a network, so that the time of the bubble passes.
		ask := func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			c.ServeHTTP(w, r)
			if err := r.Context().Err(); err != nil {
				return nil, err
			}
			return w.Result(), nil
		}
		c.config.Rest = &rest.Config{Host: "http://api", Transport: roundTripper(ask)}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		r, err := Run(ctx, c.config)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []Line{
			{Check: checkNodes, Status: Unknown, Message: "the kubelet was not asked", Remedy: RemedyDeadline},
			{Check: checkAggregation, Status: OK, Message: "is served"},
			{Check: checkAutoscalers, Status: OK},
		} {
			if len(find(r, want)) != 1 {
				t.Errorf("no line like %+v in\n%s", want, text(t, r))
			}
		}
	})
}

// TestSlowAPIServer checks that a longer --timeout is not the only remedy for an API server that takes too long for one
// request: it does not change that limit.
func TestSlowAPIServer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer s.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: s.URL, Timeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	l := Unanswered(checkNodes, "nodes cannot be checked", err, "list nodes")
	if !strings.Contains(l.Cause, "took longer than 30s") || !strings.Contains(l.Remedy, "log and load") {
		t.Errorf("%+v of %v", l, err)
	}
}

// The JSON is a contract: testdata/report.json changes only by growing.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	r := &Report{Schema: 1, Status: OK, Version: "v1.0.0", Via: Direct}
	r.add(
		Line{Check: checkVersions, Status: OK, Message: "metrics-server v1.0.0"},
		Line{
			Check: checkNodes, Status: Problem, Message: "1 of 1 node: <refused>: n1", Cause: "connection refused",
			Remedy: "start it", Nodes: []string{"n1"},
		},
		Line{Check: checkAutoscalers, Status: Warning, Message: "m", Objects: []Object{Autoscaler("team", "web")}},
	)
	r.Nodes = []Node{{
		Name: "n1", Status: Problem, KubeletVersion: "v1.37.2", Addresses: []string{"10.0.0.1:10250"},
		Address: "10.0.0.1:10250", Containers: 2, NewestSample: &at,
		Certificate: &Certificate{
			Issuer: "CN=ca", Names: []string{"n1", "10.0.0.1"}, NotAfter: at, Trusted: true,
		}, Error: "refused",
	}}
	var b strings.Builder
	if err := WriteJSON(&b, r); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if r.ExitCode() != 1 {
		t.Errorf("exit code %d", r.ExitCode())
	}
}

func TestText(t *testing.T) {
	r := &Report{Status: OK}
	r.add(
		Line{Check: checkVersions, Status: OK, Message: "fine"},
		Line{Check: checkNodes, Status: Problem, Message: "two\nlines\x1b[31m", Cause: "c", Remedy: "r"},
	)
	want := "ok       versions     fine\n" +
		"problem  nodes        two lines [31m\n" +
		"                      cause: c\n" +
		"                      remedy: r\n" +
		"\n1 problem, 0 warnings, 0 unknown, 1 ok\n"
	if d := cmp.Diff(want, text(t, r)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
