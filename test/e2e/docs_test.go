//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/test/docs"
)

// prints has texts that the output of the documents' commands must contain, of which the first that fits counts. If a
// document shows a table itself, its heading is required, too.
var prints = []struct{ command, says string }{
	{"kubectl get apiservice v1beta1.custom", "kube-system/custom-metrics-server"},
	{"kubectl get apiservice v1.metrics", "v1beta1.metrics.k8s.io"},
	{"custom-columns", "all checks passed"},
	{"kubectl top nodes", "CPU(cores)"},
	{"kubectl top pods -A", "busy"},
	{"kubectl top pod ", "busy"},
	{"metrics-server doctor -o json", `"checks": [`},
	{"metrics-server doctor", "0 problems"},
	{"readyz?verbose", "readyz check passed"},
	{"kubectl get --raw /apis", `"kind":"PodMetrics"`},
	{"proxy/metrics/resource", "container_cpu_usage_seconds_total"},
	{"kubectl get namespace", "NamespaceDeletionDiscoveryFailure="},
	{":4430/metrics", "metrics_server_"},
	{":8443/metrics", "metrics_server_"},
	{"kubeletEndpoint.Port", "10250"},
	{"service metrics-server", "targetPort: https"},
	{"kubectl -n kube-system get pods", "1/1"},
}

// lasting has the commands that do not end by themselves, and what they print when the next command
// can be run.
var lasting = map[string]string{
	"kubectl -n kube-system port-forward": "Forwarding from",
	"bin/metrics-server":                  "Serving securely",
}

// reader runs the commands of the documents in order.
type reader struct {
	dir          string // stands for the repository's root, with bin and dist of its own
	env          []string
	placeholders *strings.Replacer
	namespace    string // of a pod, busy
	state        string // of hack/cluster's cluster
	insecure     bool   // kubelets have certificates of their own
	file         string // the document that is read
	end          func() // ends lasting commands at the end of the document
}

// TestDocs runs each command of the documents that needs a cluster (test/docs says which). The
// command must succeed, and its output must have the text in prints. For the tests that follow, the
// server is installed by Helm and then by the one-file manifest.
func TestDocs(t *testing.T) {
	all, err := docs.Commands("../..")
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	defer func() { r.end() }()

	done := map[string]bool{}
	all = slices.DeleteFunc(all, func(c docs.Command) bool {
		rule, _ := c.Rule()
		once := c.Text + c.Shows
		if ready(c) != "" || strings.HasPrefix(c.Text, "curl") {
			once += c.File // what lasts ends with its document
		}
		twice := done[once]
		done[once] = true
		return twice || rule.Way != docs.OnCluster
	})
	// Installing comes first, because all others need it.
	slices.SortStableFunc(all, func(a, b docs.Command) int { return cmp.Compare(order(a), order(b)) })
	for i, c := range all {
		switch before := order(all[max(i-1, 0)]); {
		case before < byHelm && order(c) == byHelm:
			r.must(t, "kubectl delete -f dist/components.yaml")
		case before == byHelm && order(c) > byHelm:
			r.must(t, "helm uninstall metrics-server -n kube-system --wait")
		}
		t.Run(fmt.Sprint(c.File, ":", c.Line), func(t *testing.T) { r.read(t, c) })
	}
}

const (
	byMake = iota
	byHelm
	byManifest
	installed
)

// order is the order in which a command is run, regardless of its place in the documents.
func order(c docs.Command) int {
	switch {
	case strings.HasPrefix(c.Text, "make manifests"), strings.HasPrefix(c.Text, "make chart"):
		return byMake
	case strings.HasPrefix(c.Text, "helm "):
		return byHelm
	case strings.HasPrefix(c.Text, "kubectl apply -f dist/"):
		return byManifest
	default:
		return installed
	}
}

// newReader creates the objects that commands need, and chooses values for their placeholders.
func newReader(t *testing.T) *reader {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{dir: t.TempDir(), end: func() {}}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	links := map[string]string{
		"bin/metrics-server": cmp.Or(os.Getenv("E2E_BINARY"), "../../bin/metrics-server"),
		"bin/helm":           cmp.Or(os.Getenv("E2E_HELM"), "helm"),
		"bin/kubectl":        cluster.kubectls[0],
	}
	for _, e := range entries {
		if !slices.Contains([]string{".git", "bin", "dist"}, e.Name()) {
			links[e.Name()] = filepath.Join(root, e.Name())
		}
	}
	if err := os.Mkdir(filepath.Join(r.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range links {
		if strings.HasPrefix(name, "bin/") {
			if target, err = exec.LookPath(target); err == nil {
				target, err = filepath.Abs(target)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target, filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	server, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(t.Context(), serverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	container := server.Spec.Template.Spec.Containers[0]
	r.insecure = slices.Contains(container.Args, "--kubelet-insecure-tls")
	kubeconfig, err := filepath.Abs(os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	r.state = filepath.Dir(kubeconfig)
	r.env = append(
		os.Environ(), "MAKEFLAGS=", "IMAGE="+container.Image, "KUBECONFIG="+kubeconfig, "KUBECACHEDIR="+cluster.cache,
		"PPROF_TMPDIR="+cluster.cache, "HELM_CACHE_HOME="+cluster.cache, "HELM_CONFIG_HOME="+cluster.cache,
		"HELM_DATA_HOME="+cluster.cache, "PATH="+filepath.Join(r.dir, "bin")+":"+os.Getenv("PATH"),
	)

	nodes, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := nodes.Items[0].Name
	clusterFlags := fmt.Sprintf("-nodes %d -state %s", len(nodes.Items), r.state)
	r.env = append(r.env, "CLUSTERFLAGS="+clusterFlags) // or `make cluster` would make another one, and leave it
	ns := namespace(t)
	r.namespace = ns
	createPod(t, ns, podOf("busy", workload("burner", "-cpu=60")))

	version := filepath.Base(filepath.Dir(cluster.kubectls[0])) // where hack/cluster built it
	pairs := []string{
		"IMAGE=REGISTRY/metrics-server:TAG", "IMAGE=" + container.Image,
		"IMAGE=...", "IMAGE=" + container.Image,
		"NAMESPACE/pods/POD", ns + "/pods/busy",
		"/NODE/", "/" + node + "/",
		"pod NAME", "pod busy -n " + ns,
		"node NAME", "node " + node,
		"namespace NAME", "namespace " + namespaceBeingDeleted(t),
		"exec NAME COMMAND...", "exec " + node + " hostname",
		"-nodes 3", clusterFlags,
		"8443", freePort(t),
		"4430", freePort(t),
		"/debug/pprof/profile", "/debug/pprof/profile?seconds=1",
		"$HOME/.kube/config", kubeconfig,
		"~/.cache/metrics-server-dev/cluster/kubeconfig", kubeconfig,
		"~/.cache/metrics-server-dev/" + version + "/kubectl", cluster.kubectls[0],
		" metrics-server-1.0.0.tgz", " dist/metrics-server-1.0.0.tgz",
		// Its roll-out takes as long as all others together.
		"overlays/high-availability", "overlays/high-availability --dry-run=server",
	}
	if r.insecure {
		pairs = append(pairs, "dist/components.yaml", "dist/components-insecure-kubelet-tls.yaml")
	}
	r.placeholders = strings.NewReplacer(pairs...)

	const file = "../testdata/servicemonitors.yaml"
	t.Cleanup(func() {
		mustKubectl(t, "delete", "-f", file)
		mustKubectl(t, "delete", "namespace", "monitoring", "--wait=false")
		mustKubectl(t, "delete", "clusterrole,clusterrolebinding", "metrics-reader")
	})
	mustKubectl(t, "apply", "-f", file)
	mustKubectl(t, "create", "namespace", "monitoring")
	mustKubectl(t, "create", "serviceaccount", "prometheus-k8s", "-n", "monitoring")
	return r
}

// namespaceBeingDeleted returns a namespace that is being deleted for as long as the test runs.
func namespaceBeingDeleted(t *testing.T) string {
	t.Helper()
	name := namespace(t)
	object := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"metrics.k8s.io/e2e"}}}
	if _, err := cluster.client.CoreV1().ConfigMaps(name).Create(
		t.Context(), &object, metav1.CreateOptions{},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mustKubectl(t, "patch", "configmap", "-n", name, "held", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
	if err := cluster.client.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// ready returns what a lasting command prints when the next command can be run.
func ready(c docs.Command) string {
	for words, ready := range lasting {
		if strings.HasPrefix(c.Text, words) {
			return ready
		}
	}
	return ""
}

var (
	ofOwnCluster = regexp.MustCompile(`go run \. |make cluster|~/\.cache/metrics-server-dev`)
	action       = regexp.MustCompile(`go run \. (node \w+|\w+)`)
	heading      = regexp.MustCompile(`^[A-Z]+( +[A-Z()%]+)+$`)
)

// read runs a command of the documents.
func (r *reader) read(t *testing.T, c docs.Command) {
	t.Log(c.Text)
	if os.Getenv("E2E_NODE") == "none" && ofOwnCluster.MatchString(c.Text) {
		t.Log("E2E_NODE=none: it is of a cluster of hack/cluster, which this is none of")
		return
	}
	if c.File != r.file {
		r.end()
		r.file, r.end = c.File, func() {}
	}
	if ready := ready(c); ready != "" {
		r.start(t, c, ready)
		return
	}
	addAgain := func() {}
	if strings.HasPrefix(c.Text, "kubectl delete apiservice") {
		addAgain = rememberAPIServices(t)
	}
	out, err := r.run(r.typed(c))
	if err != nil {
		t.Fatal(err)
	}
	if out == "" && !strings.HasPrefix(c.Text, "export ") {
		t.Error("it prints nothing")
	}
	for _, s := range prints {
		if strings.Contains(c.Text, s.command) && !strings.HasSuffix(c.Text, "--help") {
			if !strings.Contains(out, s.says) {
				t.Errorf("it does not say %q, but\n%s", s.says, out)
			}
			break
		}
	}
	shown, _, _ := strings.Cut(c.Shows, "\n")
	first, _, _ := strings.Cut(out, "\n")
	if heading.MatchString(shown) && !slices.Equal(strings.Fields(shown), strings.Fields(first)) {
		t.Errorf("it prints the heading\n%s\nand not, as the document shows,\n%s", first, shown)
	}

	// Changes that would disturb later commands are undone, and what later commands need is waited
	// for.
	addAgain()
	switch {
	case order(c) == byManifest:
		mended(t)
		waitServed(t, r.namespace, "busy", "burner")
	case order(c) == byHelm, strings.HasPrefix(c.Text, "kubectl delete apiservice"):
		mended(t)
	case strings.HasPrefix(c.Text, "kubectl apply -f deploy/"):
		r.must(t, strings.Replace(c.Text, " apply ", " delete ", 1))
	}
}

// typed returns a command as a reader types it: placeholders are replaced, and hack/cluster gets
// the directory of its cluster.
func (r *reader) typed(c docs.Command) string {
	text := r.placeholders.Replace(c.Text)
	if action.MatchString(text) {
		text = action.ReplaceAllString(text, "go run . $1 -state "+r.state)
		if !strings.Contains(text, "cd ") {
			text = "cd hack/cluster && " + text
		}
	}
	if order(c) == byHelm && r.insecure {
		text += " --set 'args={--kubelet-insecure-tls}'"
	}
	shell := make([]string, 0, len(c.Shell)+1)
	for _, s := range c.Shell {
		shell = append(shell, r.placeholders.Replace(s))
	}
	return strings.Join(append(shell, text), "\n")
}

func (r *reader) command(ctx context.Context, text string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = r.dir, r.env
	return cmd
}

func (r *reader) run(text string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 5*patience) // the first time it may have to be compiled
	defer stop()
	out, err := r.command(ctx, text).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", text, err, out)
	}
	return string(out), err
}

// must runs a command that is in no document.
func (r *reader) must(t *testing.T, text string) {
	t.Helper()
	if _, err := r.run(r.placeholders.Replace(text)); err != nil {
		t.Fatal(err)
	}
}

// start runs a command until its document ends.
func (r *reader) start(t *testing.T, c docs.Command, ready string) {
	var out output
	cmd := r.command(context.Background(), "exec "+strings.TrimSuffix(r.typed(c), "&"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before := r.end
	r.end = func() {
		_ = cmd.Process.Kill() // it may have ended, which the command that needs it will notice
		_ = cmd.Wait()
		before()
	}
	eventually(t, "it says "+ready, func() error {
		if text := out.String(); !strings.Contains(text, ready) {
			return errors.New(text)
		}
		return nil
	})
}

// output returns what a command has printed so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
