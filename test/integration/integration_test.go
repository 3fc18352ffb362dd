//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubelet/kubelettest"
)

const (
	nodesPath = "/apis/metrics.k8s.io/v1/nodes"
	podsPath  = "/apis/metrics.k8s.io/v1/pods"
)

// reader is a token that may read nodes' and pods' metrics, and no more.
func reader(t *testing.T) string {
	t.Helper()
	return bound(t, "reader", "system:aggregated-metrics-reader")
}

// monitor is a token that may read what a monitoring system reads of any component.
func monitor(t *testing.T) string {
	t.Helper()
	return bound(t, "monitor", "system:monitoring")
}

// bound is a token of a service account with one role of the cluster.
func bound(t *testing.T, name, role string) string {
	t.Helper()
	tok := token(t, "default", name)
	_, err := cluster.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: name}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// kubectl runs kubectl, which must succeed.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cluster.kubectl(args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Tests the whole path: fake kubelets, the binary, the aggregation layer of a real kube-apiserver, kubectl.
func TestKubectlThroughTheAggregator(t *testing.T) {
	f := newFleet(t, 3, 5)
	s := startServer(t, f)
	s.ready(t)
	s.aggregate(t, nil)

	containers := f.nodes[0].says.Containers()
	one := containers[0]
	for _, tc := range []struct {
		args []string
		want []string // in the output
		rows int      // without the heading; 0: not a table
	}{
		{[]string{"top", "nodes"}, []string{f.nodes[0].name, f.nodes[2].name, "CPU(cores)"}, 3},
		{[]string{"top", "node", f.nodes[1].name}, []string{f.nodes[1].name}, 1},
		{[]string{"top", "nodes", "--sort-by=cpu"}, []string{f.nodes[0].name}, 3},
		{[]string{"top", "nodes", "-l", "fleet=" + f.name}, []string{f.nodes[0].name}, 3},
		{[]string{"top", "pods", "-A"}, []string{one.Pod, one.Namespace}, 15},
		{[]string{"top", "pods", "-A", "--containers"}, []string{one.Pod, "c0", "c1"}, 30},
		{[]string{"top", "pods", "-A", "-l", "fleet=" + f.name, "--sort-by=memory"}, []string{one.Pod}, 15},
		{[]string{"top", "pods", "-A", "--field-selector=metadata.name=" + one.Pod}, []string{one.Pod}, 1},
		{[]string{"top", "pod", "-n", one.Namespace, one.Pod}, []string{one.Pod}, 1},
		{[]string{"get", "nodes.metrics.k8s.io"}, []string{"NAME", "CPU", "MEMORY", "WINDOW\n", f.nodes[0].name}, 3},
		{[]string{"get", "nodes.metrics.k8s.io", "-o", "wide"}, []string{"WINDOW", "AGE", "SCRAPED", "DURATION", "ERROR"}, 3},
		{[]string{"get", "pods.metrics.k8s.io", "-A"}, []string{"NAMESPACE", "CPU", "MEMORY", "WINDOW\n", one.Pod}, 15},
		{[]string{"get", "pods.metrics.k8s.io", "-A", "-o", "wide"}, []string{"WINDOW", "AGE\n", one.Pod}, 15},
		// The resources have no singular name, so kubectl uses the kind as one.
		{[]string{"get", "podmetrics", "-A"}, []string{"NAMESPACE", one.Pod}, 15},
		{[]string{"get", "PodMetrics", "-A"}, []string{"NAMESPACE", one.Pod}, 15},
		{[]string{"get", "nodemetrics"}, []string{"NAME", f.nodes[0].name}, 3},
		{[]string{"get", "NodeMetrics"}, []string{"NAME", f.nodes[0].name}, 3},
		{[]string{"get", "podmetrics.metrics.k8s.io", "-A"}, []string{one.Pod}, 15},
		{[]string{"get", "podmetrics.v1.metrics.k8s.io", "-A"}, []string{one.Pod}, 15},
		{[]string{"get", "podmetrics.v1beta1.metrics.k8s.io", "-A"}, []string{one.Pod}, 15},
		{
			[]string{"get", "podmetrics", "-n", one.Namespace, one.Pod, "-o", "json"},
			[]string{`"kind": "PodMetrics"`, `"name": "` + one.Pod + `"`},
			0,
		},
		{[]string{"get", "podmetrics/" + one.Pod, "-n", one.Namespace}, []string{one.Pod}, 1},
		{[]string{"describe", "podmetrics", "-n", one.Namespace, one.Pod}, []string{"Kind:", "PodMetrics", one.Pod}, 0},
		{[]string{"describe", "nodemetrics", f.nodes[0].name}, []string{"Kind:", "NodeMetrics", f.nodes[0].name}, 0},
		{[]string{"explain", "podmetrics"}, []string{"KIND:       PodMetrics", "containers"}, 0},
		{[]string{"explain", "podmetrics.containers", "--api-version=metrics.k8s.io/v1beta1"}, []string{"usage"}, 0},
		{[]string{"explain", "nodemetrics"}, []string{"KIND:       NodeMetrics", "window"}, 0},
		{[]string{"get", "pods", "-A"}, nil, 0}, // the core group's names are unchanged
		{[]string{"get", "pods.v1beta1.metrics.k8s.io", "-A"}, []string{one.Pod}, 15},
		{
			[]string{"get", "--raw", "/apis/metrics.k8s.io/v1/nodes/" + f.nodes[0].name},
			[]string{`"kind":"NodeMetrics"`, `"apiVersion":"metrics.k8s.io/v1"`},
			0,
		},
		{
			[]string{"get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/" + one.Namespace + "/pods/" + one.Pod},
			[]string{`"kind":"PodMetrics"`, `"apiVersion":"metrics.k8s.io/v1beta1"`},
			0,
		},
		{
			[]string{"api-resources", "--api-group=metrics.k8s.io"},
			[]string{"NodeMetrics", "PodMetrics", "metrics.k8s.io/v1"},
			2,
		},
		{[]string{"explain", "pods.containers", "--api-version=metrics.k8s.io/v1"}, []string{"usage"}, 0},
	} {
		out := kubectl(t, tc.args...)
		for _, want := range tc.want {
			if !strings.Contains(out, want) {
				t.Errorf("kubectl %q does not print %q:\n%s", tc.args, want, out)
			}
		}
		if rows := strings.Count(out, "\n") - 1; tc.rows > 0 && rows != tc.rows {
			t.Errorf("kubectl %q prints %d rows, want %d:\n%s", tc.args, rows, tc.rows, out)
		}
	}

	// Every number is true.
	tok := reader(t)
	pods := s.list(t, tok, podsPath)
	for _, n := range f.nodes {
		for _, c := range n.says.Containers() {
			i, ok := pods[c.Namespace+"/"+c.Pod]
			if !ok {
				t.Errorf("pod %s/%s is not served", c.Namespace, c.Pod)
				continue
			}
			at := slices.IndexFunc(i.Containers, func(u containerUsage) bool { return u.Name == c.Name })
			if at < 0 {
				t.Errorf("container %s of %s is not served", c.Name, c.Pod)
				continue
			}
			// The kubelet's timestamps are whole milliseconds and its counters exact.
			want := resource.NewScaledQuantity(int64(c.NanoCores), resource.Nano).String()
			if got := i.Containers[at].Usage["cpu"]; got != want {
				t.Errorf("CPU of %s in %s: %s, want %s", c.Name, c.Pod, got, want)
			}
		}
	}

	out, err := cluster.kubectl("top", "pod", "-n", one.Namespace, "nobody")
	if err == nil || !strings.Contains(out, `"nobody" not found`) {
		t.Errorf("top of an unknown pod: %v\n%s", err, out)
	}
	if out, err := cluster.kubectl("delete", "pods.metrics.k8s.io", "-n", one.Namespace, one.Pod); err == nil ||
		!strings.Contains(out, "MethodNotAllowed") {
		t.Errorf("delete of metrics: %v\n%s", err, out)
	}

	// Through the aggregator, only users with the right to read get an answer.
	if out, err := cluster.kubectl("--as=system:serviceaccount:default:stranger", "top", "nodes"); err == nil ||
		!strings.Contains(out, "Forbidden") {
		t.Errorf("a stranger's kubectl top: %v\n%s", err, out)
	}
	if out, err := cluster.kubectl(
		"--as=system:serviceaccount:default:reader", "get", "pods.metrics.k8s.io", "-A",
	); err != nil {
		t.Errorf("a reader's kubectl get: %v\n%s", err, out)
	}
}

func TestAccess(t *testing.T) {
	f := newFleet(t, 1, 1)
	s := startServer(t, f)
	s.ready(t)
	may, mayNot := reader(t), token(t, "default", "stranger")
	forged := []string{"X-Remote-User", "admin", "X-Remote-Group", "system:masters"}
	for _, tc := range []struct {
		path, token string
		header      []string
		want        int
	}{
		{"/livez", "", nil, 200},
		{"/readyz", "", nil, 200},
		{"/healthz", "", nil, 200},
		{podsPath, "", nil, 403},
		{podsPath, "", forged, 403},
		{podsPath, "not.a.token", nil, 401},
		{podsPath, mayNot, nil, 403},
		{podsPath, mayNot, forged, 403},
		{podsPath, may, nil, 200},
		{nodesPath, may, nil, 200},
		{"/metrics", "", nil, 403},
		{"/metrics", may, nil, 403},
		{"/debug/pprof/", may, nil, 403},
		{"/metrics", f.token, nil, 403},
	} {
		code, body, err := s.get(tc.path, tc.token, tc.header...)
		if err != nil || code != tc.want {
			t.Errorf("%s with token %.10q and %q: %d, want %d (%v)\n%s", tc.path, tc.token, tc.header, code, tc.want, err, body)
		}
	}
	for _, secret := range []string{may, mayNot, f.token} {
		if strings.Contains(s.output(), secret) {
			t.Error("a token is in the log")
		}
	}
}

func TestOwnMetrics(t *testing.T) {
	f := newFleet(t, 2, 1)
	s := startServer(t, f)
	s.ready(t)
	tok := reader(t)
	s.list(t, tok, podsPath)

	monitor := monitor(t)
	metrics := func() string {
		code, body, err := s.get("/metrics", monitor)
		if err != nil || code != http.StatusOK {
			t.Fatalf("/metrics: %d %v\n%s", code, err, body)
		}
		return body
	}
	all := metrics()
	node := f.nodes[1].name
	for _, want := range []string{
		"# TYPE metrics_server_api_metric_freshness_seconds histogram",
		"# TYPE metrics_server_kubelet_last_request_time_seconds gauge",
		`metrics_server_kubelet_last_request_time_seconds{node="` + node + `"} `,
		"# TYPE metrics_server_kubelet_request_duration_seconds histogram",
		`metrics_server_kubelet_request_duration_seconds_count{node="` + node + `"} `,
		"# TYPE metrics_server_kubelet_request_total counter",
		`metrics_server_kubelet_request_total{success="true"} `,
		"# TYPE metrics_server_manager_tick_duration_seconds histogram",
		"# TYPE metrics_server_storage_points gauge",
		`metrics_server_storage_points{type="node"} `,
		`metrics_server_storage_points{type="container"} `,
		`metrics_server_samples_refused_total{reason="not_a_number"} 0`,
		"# TYPE apiserver_request_total counter",
		"# TYPE process_resident_memory_bytes gauge",
		"# TYPE go_goroutines gauge",
		"go_gc_gogc_percent 20\n", // the start is over
	} {
		if !strings.Contains(all, want) {
			t.Errorf("/metrics does not have %q", want)
		}
	}
	if err := cluster.client.CoreV1().Nodes().Delete(t.Context(), node, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the series of a node that left are deleted", func() error {
		if strings.Contains(metrics(), node) {
			return errors.New("still there")
		}
		return nil
	})
}

// While every third scrape fails, nothing disappears. While a kubelet hangs, the other nodes stay
// as fresh as they were.
func TestFailingKubelets(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, 3)
	s := startServer(t, f)
	s.ready(t)
	tok := reader(t)
	total := len(s.list(t, tok, podsPath))
	if total != 12 {
		t.Fatalf("%d pods served, want 12", total)
	}

	var asked int
	f.nodes[0].kubelet.SetFault(func(w http.ResponseWriter, r *http.Request, answer []byte) {
		if asked++; asked%3 == 0 {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		kubelettest.Answer(w, r, answer)
	})
	f.nodes[1].kubelet.SetFault(kubelettest.Hang)
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if n := len(s.list(t, tok, podsPath)); n != total {
			t.Fatalf("%d pods served while kubelets fail, want %d", n, total)
		}
		nodes := s.list(t, tok, nodesPath)
		if len(nodes) != 4 {
			t.Fatalf("%d nodes served while kubelets fail, want 4", len(nodes))
		}
		for _, healthy := range f.nodes[2:] {
			// A resolution of 1 s: on an idle machine the age is below 1.5 s. The test fails if something
			// waits for the kubelet that hangs.
			if age := time.Since(nodes["/"+healthy.name].Timestamp.Time); age > 8*time.Second {
				t.Fatalf("the sample of %s, which is healthy, is %v old", healthy.name, age)
			}
		}
	}
	if lines := linesWith(s.output(), f.nodes[1].name); len(lines) != 1 || !strings.Contains(lines[0], "timeout") {
		t.Errorf("log lines of the kubelet that hangs: %q, want one that says timeout", lines)
	}
	f.nodes[1].kubelet.SetFault(nil)
	eventually(t, "the log says that the node recovered", func() error {
		if lines := linesWith(s.output(), f.nodes[1].name); len(lines) != 2 {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})
}

// TestClocks sets the clock of one node a minute ahead while the server runs, and back by a little. Only
// what is served of that node's moments may show it.
func TestClocks(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 3)
	var ahead atomic.Int64 // of the first node's clock
	f.nodes[0].kubelet.Answer = func(dst []byte, now time.Time) []byte {
		by := time.Duration(ahead.Load())
		return shift(f.nodes[0].says.Append(nil, now), by, dst)
	}
	s := startServer(t, f)
	s.ready(t)
	tok := reader(t)
	right := func(t *testing.T) {
		t.Helper()
		pods, nodes := s.list(t, tok, podsPath), s.list(t, tok, nodesPath)
		if len(pods) != 6 || len(nodes) != 2 {
			t.Fatalf("%d pods and %d nodes are served, want 6 and 2", len(pods), len(nodes))
		}
		for _, n := range f.nodes {
			for _, c := range n.says.Containers() {
				for _, u := range pods[c.Namespace+"/"+c.Pod].Containers {
					q, err := resource.ParseQuantity(u.Usage["cpu"])
					if got, want := q.ScaledValue(resource.Nano), int64(c.NanoCores); u.Name == c.Name &&
						(err != nil || got < want-want/1000 || got > want+want/1000) {
						t.Fatalf(
							"%s/%s %s is served with cpu %s, but uses %dn (%v)", c.Namespace, c.Pod, c.Name, u.Usage["cpu"], want,
							err,
						)
					}
				}
			}
		}
	}
	hold := func(what string, by, period time.Duration) {
		ahead.Store(int64(by))
		for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			right(t)
		}
		eventually(t, what, func() error {
			right(t)
			nodes := s.list(t, tok, nodesPath)
			for i, by := range []time.Duration{by, 0} {
				off := time.Until(nodes["/"+f.nodes[i].name].Timestamp.Time) - by
				if off < -8*time.Second || off > time.Second {
					return fmt.Errorf("the timestamp of node %d is %v off its clock", i, off)
				}
			}
			return nil
		})
	}
	hold("the node's own clock is served", 0, time.Second)
	hold("the clock that is ahead is served", time.Minute, 5*time.Second)
	// Samples older than those before are refused until the clock has come to where it was.
	hold("the clock that was set back is served", time.Minute-3*time.Second, 5*time.Second)
}

// For a kubelet whose counters jump, the last plausible usage is served: its Node says how many CPUs it has.
func TestUsageBeyondTheNodesCapacity(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, 2)
	n := f.nodes[0]
	node, err := cluster.client.CoreV1().Nodes().Get(t.Context(), n.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("16"), corev1.ResourceMemory: resource.MustParse("64Gi"),
	}
	if _, err := cluster.client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var jumps atomic.Bool // in the next answer
	n.kubelet.Answer = func(dst []byte, now time.Time) []byte {
		answer := n.says.Append(nil, now)
		if jumps.CompareAndSwap(true, false) {
			answer = cpuSeconds.ReplaceAllFunc(answer, func(row []byte) []byte {
				blank := bytes.LastIndexByte(row, ' ') + 1
				used, _ := strconv.ParseFloat(string(row[blank:]), 64)
				return fmt.Appendf(row[:blank:blank], "%f", used+500)
			})
		}
		return append(dst, answer...)
	}
	s := startServer(t, f)
	s.ready(t)
	tok, monitor := reader(t), monitor(t)
	cpu := func(served map[string]item) (sum int64) {
		for _, u := range served {
			for _, c := range append(u.Containers, containerUsage{Usage: u.Usage}) {
				q, err := resource.ParseQuantity(c.Usage["cpu"])
				if err == nil {
					sum += q.MilliValue()
				}
			}
		}
		return sum
	}
	refused := func() bool {
		const series = `metrics_server_samples_refused_total{reason="over_capacity"} `
		_, body, err := s.get("/metrics", monitor)
		return err == nil && strings.Contains(body, series) && !strings.Contains(body, series+"0")
	}
	if refused() {
		t.Error("samples are refused before a counter jumps")
	}
	jumps.Store(true)
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		nodes, pods := s.list(t, tok, nodesPath), s.list(t, tok, podsPath)
		if len(nodes) != 1 || len(pods) != 2 {
			t.Fatalf("%d nodes and %d pods are served, want 1 and 2", len(nodes), len(pods))
		}
		if got := cpu(nodes); got > int64(n.says.NanoCores()/1e6)*101/100 {
			t.Fatalf("the node is served with %d millicores", got)
		}
		if got := cpu(pods); got > int64(n.says.NanoCores()/1e6)*101/100 {
			t.Fatalf("the pods are served with %d millicores", got)
		}
	}
	if jumps.Load() || !refused() {
		t.Error("no sample was refused as over_capacity")
	}
}

var cpuSeconds = regexp.MustCompile(`(?m)^(node|container)_cpu_usage_seconds_total({[^}]*})? \S+`)

var timestampAtEnd = regexp.MustCompile(`(?m) (\d{13})$`)

// shift appends answer with all timestamps by a clock that is ahead.
func shift(answer []byte, by time.Duration, dst []byte) []byte {
	return append(dst, timestampAtEnd.ReplaceAllFunc(answer, func(ms []byte) []byte {
		t, _ := strconv.ParseInt(string(ms[1:]), 10, 64) // digits only
		return fmt.Appendf(nil, " %d", t+by.Milliseconds())
	})...)
}

func linesWith(text, word string) []string {
	var lines []string
	for l := range strings.Lines(text) {
		if strings.Contains(l, word) {
			lines = append(lines, l)
		}
	}
	return lines
}

func TestReadinessSaysWhy(t *testing.T) {
	f := newFleet(t, 3, 1)
	f.nodes[0].kubelet.SetToken("another")
	f.nodes[1].kubelet.SetFault(kubelettest.Status(http.StatusForbidden, "Forbidden"))
	f.nodes[2].server.Close()
	s := startServer(t, f)
	tok := monitor(t)
	eventually(t, "the check names the causes", func() error {
		code, body, err := s.get("/readyz/metric-storage-ready", tok)
		if err != nil {
			return err
		}
		for _, want := range []string{
			"0 of 3 nodes", "401", "403", "connection refused", f.nodes[0].name, f.nodes[1].name, f.nodes[2].name,
		} {
			if !strings.Contains(body, want) || code == http.StatusOK {
				return fmt.Errorf("%d %s", code, body)
			}
		}
		return nil
	})
	if err := s.ok("/livez"); err != nil {
		t.Errorf("liveness depends on kubelets: %v", err)
	}
	// For a start, one node that answers is enough after a while.
	f.nodes[0].kubelet.SetToken(f.token)
	s.ready(t)
}

// A server whose selector matches no node is ready once one joins, and remains so when that one leaves.
func TestReadyWithoutNodes(t *testing.T) {
	f := newFleet(t, 0, 0)
	s := startServer(t, f)
	mon := monitor(t)
	eventually(t, "before a node joins", func() error {
		code, body, err := s.get("/readyz/metric-storage-ready", mon)
		if err == nil && (code == http.StatusOK || !strings.Contains(body, "no node matches --node-selector=fleet="+f.name)) {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	n := f.newNode(t, 0, 1)
	s.ready(t)
	if err := cluster.client.CoreV1().Nodes().Delete(t.Context(), n.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	tok := reader(t)
	eventually(t, "the node leaves", func() error {
		if nodes := s.list(t, tok, nodesPath); len(nodes) != 0 {
			return fmt.Errorf("nodes served: %v", nodes)
		}
		return nil
	})
	hold(t, "after the node has left", 3*time.Second, func() error { return s.ok("/readyz") })
}

func TestObjectsThatLeave(t *testing.T) {
	f := newFleet(t, 2, 2)
	s := startServer(t, f)
	s.ready(t)
	tok := reader(t)
	gone := f.nodes[0].says.Containers()[0]
	deletePod(gone.Namespace, gone.Pod)
	eventually(t, "a deleted pod is gone", func() error {
		if _, there := s.list(t, tok, podsPath)[gone.Namespace+"/"+gone.Pod]; there {
			return errors.New("it is served")
		}
		return nil
	})
	if err := cluster.client.CoreV1().Nodes().Delete(t.Context(), f.nodes[1].name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deleted node and its pods are gone", func() error {
		if nodes, pods := s.list(t, tok, nodesPath), s.list(t, tok, podsPath); len(nodes) != 1 || len(pods) != 1 {
			return fmt.Errorf("%d nodes and %d pods are served", len(nodes), len(pods))
		}
		return nil
	})
	// A pod that runs, but that no kubelet has listed yet.
	f.addPod(t, "default", "silent", f.nodes[0].name)
	eventually(t, "the 404 of a pod without usage says why", func() error {
		code, body, err := s.get("/apis/metrics.k8s.io/v1/namespaces/default/pods/silent", tok)
		var status metav1.Status
		if err := errors.Join(err, json.Unmarshal([]byte(body), &status)); err != nil {
			return err
		}
		if code != http.StatusNotFound || !strings.Contains(status.Message, "silent") ||
			!strings.Contains(status.Message, "kubelet") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
}

// claimedTwice makes a node and the pods of it, and a kubelet on another node that speaks for them, too.
func claimedTwice(t *testing.T) (f *fleet, honest, liar *fakeNode) {
	t.Helper()
	f = newFleet(t, 1, 2)
	liar = &fakeNode{
		name: f.name + "-liar",
		// The same pods, with later starts and another usage.
		says: kubelettest.NewNode(
			kubelettest.NodeConfig{
				Seed:        hash(f.name),
				Pods:        2,
				Containers:  1,
				Boot:        time.Now().Add(-30 * time.Minute),
				RequestTime: true,
			},
		),
	}
	liar.kubelet = &kubelettest.Kubelet{Answer: liar.says.Append}
	var err error
	if liar.server, err = kubelettest.Serve(
		liar.kubelet, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(liar.server.Close)
	f.register(t, liar) // its pods are there already, on the honest node
	return f, f.nodes[0], liar
}

// A kubelet that reports another node's pods is not trusted: the API server says which node they run on.
func TestPodsClaimedByTwoNodes(t *testing.T) {
	f, honest, liar := claimedTwice(t)
	s := startServer(t, f)
	s.ready(t)
	tok := reader(t)
	eventually(t, "the pods are served as the honest node says", func() error {
		pods := s.list(t, tok, podsPath+"?fieldSelector=spec.nodeName="+honest.name)
		if len(pods) != 2 {
			return fmt.Errorf("%d pods of the honest node", len(pods))
		}
		if lies := s.list(t, tok, podsPath+"?fieldSelector=spec.nodeName="+liar.name); len(lies) != 0 {
			return fmt.Errorf("%d pods of the liar", len(lies))
		}
		return nil
	})
}

// A failing node gets one Event with a count, and another one when it recovers.
func TestNodeEvents(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 1)
	s := startServer(t, f)
	s.ready(t)
	failTwice(t, f.nodes[0])
	if events := nodeEvents(t, f.nodes[1].name); len(events) != 0 {
		t.Errorf("events of a node that does not fail: %v", events)
	}
	out := kubectl(t, "describe", "node", f.nodes[0].name)
	for _, want := range []string{
		"MetricsScrapeFailing", "MetricsScrapeRecovered", "cannot scrape resource metrics", "500",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl describe node does not show %q:\n%s", want, out)
		}
	}
}

// failTwice makes a node fail, recover, fail and recover until its events say so.
func failTwice(t *testing.T, n *fakeNode) {
	t.Helper()
	for round := range int32(2) {
		n.kubelet.SetFault(kubelettest.Status(http.StatusInternalServerError, "out of order"))
		for _, reason := range []string{"MetricsScrapeFailing", "MetricsScrapeRecovered"} {
			eventually(t, "the event "+reason, func() error {
				events := nodeEvents(t, n.name)
				if e := events[reason]; e.Count < round+1 && reason == "MetricsScrapeFailing" || e.Reason == "" {
					return fmt.Errorf("round %d: %v", round, events)
				}
				return nil
			})
			n.kubelet.SetFault(nil)
		}
	}
}

// nodeEvents returns the newest event about a node for each reason.
func nodeEvents(t *testing.T, node string) map[string]corev1.Event {
	t.Helper()
	list, err := cluster.client.CoreV1().Events(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Node,source=metrics-server,involvedObject.name=" + node,
	})
	if err != nil {
		t.Fatal(err)
	}
	newest := map[string]corev1.Event{}
	for _, e := range list.Items {
		if e.LastTimestamp.After(newest[e.Reason].LastTimestamp.Time) {
			newest[e.Reason] = e
		}
	}
	return newest
}

// The server uses all rights that deploy/ grants it at the API server, and needs no others. The rights are
// read from the API server, to which deploy/ is applied; hack/manifests has them one by one.
func TestRights(t *testing.T) {
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	f, honest, _ := claimedTwice(t)
	honest.kubelet.Authenticate = false // it would want the server's own token
	s := startKeeping(t, f, "--kubelet-service-account="+kubeletAccount)
	s.ready(t)
	s.list(t, reader(t), podsPath) // asks who the reader is, and what it may read
	failTwice(t, honest)

	want := granted(t, []string{"system:metrics-server", "system:auth-delegator"}, [][2]string{
		{"kube-system", "extension-apiserver-authentication-reader"},
		{"kube-system", servingSecret},
		{"kube-system", kubeletAccount},
	})
	delete(want, "get nodes/metrics")                                  // is for kubelets, if there are no tokens for them
	streamed := []string{"list nodes", "list pods", "list configmaps"} // asked only where watches do not begin with a list
	for _, right := range streamed {
		delete(want, right)
	}

	eventually(t, "the rights that are used are those that are given", func() error {
		used := asked(t, "metrics-server")
		for _, right := range append(streamed, "create selfsubjectaccessreviews", "get /version") {
			delete(used, right) // the last two are everybody's, and are used only when something is refused
		}
		if diff := cmp.Diff(want, used); diff != "" {
			return fmt.Errorf("rights (-given +used):\n%s", diff)
		}
		return nil
	})
}

// granted returns the rights of ClusterRoles and of Roles, each a namespace and a name, as "VERB RESOURCE".
func granted(t *testing.T, clusterRoles []string, roles [][2]string) map[string]bool {
	t.Helper()
	var rules []rbacv1.PolicyRule
	rbac := cluster.client.RbacV1()
	for _, name := range clusterRoles {
		role, err := rbac.ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, role.Rules...)
	}
	for _, name := range roles {
		role, err := rbac.Roles(name[0]).Get(t.Context(), name[1], metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, role.Rules...)
	}
	all := map[string]bool{}
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				all[verb+" "+resource] = true
			}
		}
	}
	return all
}

// asked returns what the servers with a service account of kube-system, but not the doctors, have asked of the API
// server in all tests so far, as "VERB RESOURCE".
func asked(t *testing.T, account string) map[string]bool {
	t.Helper()
	log, err := os.ReadFile(cluster.path("audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for line := range strings.Lines(string(log)) {
		if !strings.HasSuffix(line, "\n") {
			break // is being written
		}
		var event struct {
			Verb, RequestURI, UserAgent string
			User                        struct{ Username string }
			ObjectRef                   *struct{ Resource, Subresource string }
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event.User.Username != "system:serviceaccount:kube-system:"+account {
			continue
		}
		if strings.HasPrefix(event.UserAgent, "metrics-server-doctor/") {
			continue // which asks for more, with the same account
		}
		if ref := event.ObjectRef; ref != nil {
			all[strings.TrimSuffix(event.Verb+" "+ref.Resource+"/"+ref.Subresource, "/")] = true
		} else {
			all[event.Verb+" "+event.RequestURI] = true
		}
	}
	return all
}

// On SIGTERM readiness fails first, requests are still answered, and the process exits with 0.
func TestStop(t *testing.T) {
	f := newFleet(t, 1, 1)
	s := startServer(t, f)
	s.ready(t)
	tok := reader(t)
	s.terminate(t)
	unready := false
	for ended := false; !ended; {
		select {
		case <-s.done:
			ended = true
		default:
			if s.ok("/readyz") != nil {
				if !unready {
					// Readiness has ended: requests of clients that do not know that yet are still answered.
					if pods := s.list(t, tok, podsPath); len(pods) != 1 {
						t.Errorf("%d pods served while stopping, want 1", len(pods))
					}
				}
				unready = true
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if !unready {
		t.Error("/readyz never failed before the end")
	}
	if s.err != nil {
		t.Errorf("ended with %v, want exit code 0", s.err)
	}
}

// All typing errors of a manifest are reported at once.
func TestEveryBadFlagIsReported(t *testing.T) {
	p, err := cluster.run(
		"metrics-server", cluster.binary, "--metric-resolution=0s", "--kubelet-port=0",
		"--kubelet-client-key=/nowhere",
	)
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	out := p.output()
	for _, want := range []string{"--metric-resolution", "--kubelet-port", "belong together", "/nowhere"} {
		if !strings.Contains(out, want) {
			t.Errorf("no word of %s in\n%s", want, out)
		}
	}
	if p.err == nil {
		t.Error("exit code 0")
	}
}

func TestJSONLogs(t *testing.T) {
	s := startServer(t, newFleet(t, 1, 1), "--logging-format=json")
	s.ready(t)
	lines := 0
	for line := range strings.Lines(s.output()) {
		var l struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg == "" {
			t.Errorf("not a line of JSON with a message: %s", line)
		}
		lines++
	}
	if lines == 0 {
		t.Error("no logs")
	}
}
