//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"

	"metrics-server/test/realcluster"
)

// TestKubectl sends the requests of users with every kubectl of E2E_KUBECTL.
func TestKubectl(t *testing.T) {
	allNodesWell.join(t)
	ns := namespace(t)
	createPod(t, ns, podOf("busy", workload("burner", "-cpu=60"), workload("idle")))
	createPod(t, ns, podOf("large", workload("large", "-memory=80")))
	waitServed(t, ns, "busy", "burner", "idle")
	waitServed(t, ns, "large", "large")
	nodes, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range cluster.kubectls {
		version, err := kubectlOf(program).Run("version", "--client")
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.Fields(version)[2], func(t *testing.T) {
			k := client{t, kubectlOf(program)}
			k.topNodes(len(nodes.Items), nodes.Items[0].Name)
			k.topPods(ns)
			k.get(ns, len(nodes.Items))
			k.watch(ns)
			k.describeAPI()
			k.errors(ns)
		})
	}
}

// client is one kubectl.
type client struct {
	t *testing.T
	realcluster.Kubectl
}

// run returns what kubectl prints when it succeeds.
func (k client) run(args ...string) string {
	k.t.Helper()
	out, err := k.Run(args...)
	if err != nil {
		k.t.Error(err)
	}
	return out
}

// watch checks that usages are printed as they change: that of some object appears twice.
func (k client) watch(ns string) {
	k.t.Helper()
	for _, resource := range []string{"pods.metrics.k8s.io", "podmetrics", "nodes.metrics.k8s.io"} {
		var out strings.Builder
		seen := map[string]bool{}
		err := k.Follow(40*time.Second, func(line string) (enough bool) {
			out.WriteString(line + "\n")
			name, _, _ := strings.Cut(line, " ")
			enough = seen[name] && name != "NAME"
			seen[name] = true
			return enough
		}, "get", resource, "-n", ns, "--watch")
		if err != nil {
			k.t.Errorf("kubectl get %s --watch shows no change: %v\n%s", resource, err, &out)
		}
	}
}

// table returns the rows of what kubectl prints, the first being the heading with these columns.
func (k client) table(columns string, args ...string) [][]string {
	k.t.Helper()
	out := k.run(args...)
	var rows [][]string
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Fields(line))
	}
	if len(rows) == 0 || strings.Join(rows[0], " ") != columns {
		k.t.Errorf("kubectl %q does not print the columns %s:\n%s", args, columns, out)
		return nil
	}
	return rows[1:]
}

// names checks that the first column of the rows has these names, in this order.
func (k client) names(rows [][]string, want ...string) {
	k.t.Helper()
	var got []string
	for _, r := range rows {
		got = append(got, r[0])
	}
	if !slices.Equal(got, want) {
		k.t.Errorf("rows of %q, want %q", got, want)
	}
}

// usages is like table, and also returns what the API served for the pods of a namespace meanwhile.
func (k client) usages(ns, columns string, args ...string) ([][]string, map[string]metricsv1.PodMetrics) {
	k.t.Helper()
	served := func() map[string]metricsv1.PodMetrics {
		list, err := cluster.metrics.MetricsV1().PodMetricses(ns).List(k.t.Context(), metav1.ListOptions{})
		if err != nil {
			k.t.Fatal(err)
		}
		pods := map[string]metricsv1.PodMetrics{}
		for _, p := range list.Items {
			pods[p.Name] = p
		}
		return pods
	}
	for range 10 {
		before := served()
		rows := k.table(columns, args...)
		if after := served(); apiequality.Semantic.DeepEqual(before, after) {
			return rows, after
		}
	}
	k.t.Fatalf("kubectl %q: what is served changes faster than one can ask for it", args)
	return nil, nil
}

// shows checks that the last two cells of a row are the sum of the containers' usage.
func (k client) shows(row []string, containers ...metricsv1.ContainerMetrics) {
	k.t.Helper()
	var cpu, memory resource.Quantity
	for _, c := range containers {
		cpu.Add(*c.Usage.Cpu())
		memory.Add(*c.Usage.Memory())
	}
	want := []string{fmt.Sprintf("%dm", cpu.MilliValue()), fmt.Sprintf("%dMi", memory.Value()>>20)}
	if got := row[len(row)-2:]; !slices.Equal(got, want) {
		k.t.Errorf("%q is shown, %s and %s are served", row, &cpu, &memory)
	}
}

func (k client) topNodes(n int, one string) {
	const heading = "NAME CPU(cores) CPU(%) MEMORY(bytes) MEMORY(%)"
	for _, args := range [][]string{
		nil,
		{"--sort-by=cpu"},
		{"--sort-by=memory"},
		{"-l", "kubernetes.io/os=linux"},
		{"--show-capacity"},
		{"--use-protocol-buffers=false"},
	} {
		rows := k.table(heading, append([]string{"top", "nodes"}, args...)...)
		if len(rows) != n {
			k.t.Errorf("top nodes %q: %d rows, want %d", args, len(rows), n)
			continue
		}
		if cpu, err := resource.ParseQuantity(rows[0][1]); err != nil || cpu.Sign() <= 0 ||
			!strings.HasSuffix(rows[0][2], "%") {
			k.t.Errorf("top nodes %q: %q", args, rows[0])
		}
	}
	k.names(k.table(heading, "top", "node", one), one)
	if out := k.run("top", "nodes", "--no-headers"); strings.Count(out, "\n") != n {
		k.t.Errorf("top nodes --no-headers:\n%s", out)
	}
}

func (k client) topPods(ns string) {
	const heading = "NAME CPU(cores) MEMORY(bytes)"
	rows, served := k.usages(ns, heading, "top", "pods", "-n", ns)
	k.names(rows, "busy", "large")
	for _, row := range rows {
		k.shows(row, served[row[0]].Containers...)
	}
	k.names(k.table(heading, "top", "pods", "-n", ns, "--sort-by=cpu"), "busy", "large")
	k.names(k.table(heading, "top", "pods", "-n", ns, "--sort-by=memory"), "large", "busy")
	k.names(k.table(heading, "top", "pods", "-n", ns, "-l", "app=large"), "large")
	k.names(k.table(heading, "top", "pods", "-n", ns, "-l", "app!=large"), "busy")
	k.names(k.table(heading, "top", "pods", "-n", ns, "--field-selector=metadata.name=busy"), "busy")
	k.names(k.table(heading, "top", "pod", "-n", ns, "busy"), "busy")

	rows, served = k.usages(ns, "POD NAME CPU(cores) MEMORY(bytes)", "top", "pods", "-n", ns, "--containers")
	k.names(rows, "busy", "busy", "large")
	for i, want := range []string{"burner", "idle", "large"}[:min(3, len(rows))] {
		containers := slices.DeleteFunc(
			slices.Clone(served[rows[i][0]].Containers),
			func(c metricsv1.ContainerMetrics) bool { return c.Name != want },
		)
		if len(containers) != 1 || rows[i][1] != want {
			k.t.Errorf("containers are %q", rows)
			continue
		}
		k.shows(rows[i], containers...)
	}

	rows = k.table(heading, "top", "pods", "-n", ns, "--sum")
	if len(rows) != 4 { // with a rule
		k.t.Errorf("top pods --sum: %q", rows)
	} else {
		sum := func(column int) (n int64) {
			for _, r := range rows[:2] {
				q := resource.MustParse(r[column])
				n += q.MilliValue()
			}
			return n
		}
		cpu, memory := resource.MustParse(rows[3][0]), resource.MustParse(rows[3][1])
		if d := cpu.MilliValue() - sum(1); d < -2 || d > 2 {
			k.t.Errorf("--sum of CPU: %q", rows)
		}
		if d := memory.MilliValue() - sum(2); d < -2<<20*1000 || d > 2<<20*1000 {
			k.t.Errorf("--sum of memory: %q", rows)
		}
	}

	all := k.table("NAMESPACE "+heading, "top", "pods", "-A")
	for _, want := range []string{ns + " busy", ns + " large", serverNamespace + " " + serverName} {
		if !slices.ContainsFunc(all, func(r []string) bool { return strings.HasPrefix(strings.Join(r, " "), want) }) {
			k.t.Errorf("top pods -A has no %s: %q", want, all)
		}
	}
	rows = k.table(
		"NAMESPACE POD NAME CPU(cores) MEMORY(bytes)", "top", "pods", "-A", "--containers", "-l", "app in (busy,large)",
	)
	if len(rows) != 3 {
		k.t.Errorf("top pods -A --containers -l: %q", rows)
	}
}

func (k client) get(ns string, nodes int) {
	if rows := k.table("NAME CPU MEMORY WINDOW", "get", "nodes.metrics.k8s.io"); len(rows) != nodes {
		k.t.Errorf("get nodes.metrics.k8s.io: %q", rows)
	}
	for _, resource := range []string{"pods.metrics.k8s.io", "pods.v1.metrics.k8s.io", "pods.v1beta1.metrics.k8s.io"} {
		k.names(k.table("NAME CPU MEMORY WINDOW", "get", resource, "-n", ns), "busy", "large")
	}
	rows := k.table(
		"NAMESPACE NAME CPU MEMORY WINDOW", "get", "pods.metrics.k8s.io", "-A",
		"--field-selector=metadata.name=busy,metadata.namespace="+ns,
	)
	k.names(rows, ns)
	if out := k.run(
		"get", "pods.metrics.k8s.io", "-n", ns, "busy", "-o",
		"jsonpath={.kind} {.metadata.labels.app} {.containers[*].name}",
	); out != "PodMetrics busy burner idle" {
		k.t.Errorf("get -o jsonpath: %s", out)
	}
}

func (k client) describeAPI() {
	rows := k.table("NAME SHORTNAMES APIVERSION NAMESPACED KIND", "api-resources", "--api-group=metrics.k8s.io")
	var got []string
	for _, r := range rows {
		got = append(got, strings.Join(r, " "))
	}
	want := []string{"nodes metrics.k8s.io/v1 false NodeMetrics", "pods metrics.k8s.io/v1 true PodMetrics"}
	if !slices.Equal(got, want) {
		k.t.Errorf("api-resources: %q, want %q", got, want)
	}
	versions := k.run("api-versions")
	for _, version := range []string{"v1", "v1beta1"} {
		if !strings.Contains(versions, "metrics.k8s.io/"+version+"\n") {
			k.t.Errorf("api-versions has no metrics.k8s.io/%s:\n%s", version, versions)
		}
		for what, want := range map[string]string{
			"pods": "PodMetrics", "nodes": "NodeMetrics", "pods.containers.usage": "usage",
		} {
			// Without a description of the fields, explain says <empty>.
			if out := k.run("explain", what, "--api-version=metrics.k8s.io/"+version); !strings.Contains(out, want) ||
				strings.Contains(out, "<empty>") {
				k.t.Errorf("explain %s of %s:\n%s", what, version, out)
			}
		}
	}
}

func (k client) errors(ns string) {
	for _, tc := range []struct{ args, want string }{
		{"top pod -n " + ns + " nobody", `"nobody" not found`},
		{"top node nobody", `"nobody" not found`},
		{"top nodes -l e2e=none", "metrics not available yet"}, // that is what it says of an empty list of nodes
		{"get pods.metrics.k8s.io -n " + ns + " nobody", `"nobody" not found`},
		{"delete pods.metrics.k8s.io -n " + ns + " busy", "MethodNotAllowed"},
	} {
		if out, err := k.Run(strings.Fields(tc.args)...); err == nil || !strings.Contains(out, tc.want) {
			k.t.Errorf("kubectl %s: %v, want %q", tc.args, err, tc.want)
		}
	}
	if out := k.run("top", "pods", "-n", ns, "-l", "app=none"); !strings.Contains(out, "No resources found") {
		k.t.Errorf("top pods of no pod:\n%s", out)
	}
}

// TestDiscovery checks that the aggregated discovery has both versions, v1 first.
func TestDiscovery(t *testing.T) {
	allNodesWell.join(t)
	if err := discovered(t.Context()); err != nil {
		t.Error(err)
	}
}
