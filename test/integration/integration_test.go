//go:build integration

package integration

import (
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

// The whole way: fake kubelets, the binary, the aggregation layer of a real kube-apiserver, kubectl.
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
		rows int      // beside the heading; 0: not a table
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
		{[]string{"get", "nodes.metrics.k8s.io"}, []string{"NAME", "CPU", "MEMORY", "WINDOW", "AGE", f.nodes[0].name}, 3},
		{[]string{"get", "pods.metrics.k8s.io", "-A"}, []string{"NAMESPACE", "CPU", "MEMORY", "WINDOW", "AGE", one.Pod}, 15},
		{[]string{"get", "pods.v1beta1.metrics.k8s.io", "-A"}, []string{one.Pod}, 15},
		{[]string{"get", "--raw", "/apis/metrics.k8s.io/v1/nodes/" + f.nodes[0].name}, []string{`"kind":"NodeMetrics"`, `"apiVersion":"metrics.k8s.io/v1"`}, 0},
		{[]string{"get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/" + one.Namespace + "/pods/" + one.Pod}, []string{`"kind":"PodMetrics"`, `"apiVersion":"metrics.k8s.io/v1beta1"`}, 0},
		{[]string{"api-resources", "--api-group=metrics.k8s.io"}, []string{"NodeMetrics", "PodMetrics", "metrics.k8s.io/v1"}, 2},
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
	if out, err := cluster.kubectl("delete", "pods.metrics.k8s.io", "-n", one.Namespace, one.Pod); err == nil || !strings.Contains(out, "MethodNotAllowed") {
		t.Errorf("delete of metrics: %v\n%s", err, out)
	}

	// The aggregator's way is for those who may read, and nobody else.
	if out, err := cluster.kubectl("--as=system:serviceaccount:default:stranger", "top", "nodes"); err == nil || !strings.Contains(out, "Forbidden") {
		t.Errorf("a stranger's kubectl top: %v\n%s", err, out)
	}
	if out, err := cluster.kubectl("--as=system:serviceaccount:default:reader", "get", "pods.metrics.k8s.io", "-A"); err != nil {
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

// With one of three scrapes failing nothing disappears, and with a kubelet that hangs the others stay as fresh as they were.
func TestFailingKubelets(t *testing.T) {
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
			// A resolution of 1 s: on an idle machine the age is below 1.5 s. What would break this is
			// waiting for the kubelet that hangs.
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
					if got, want := q.ScaledValue(resource.Nano), int64(c.NanoCores); u.Name == c.Name && (err != nil || got < want-want/1000 || got > want+want/1000) {
						t.Fatalf("%s/%s %s is served with cpu %s, but uses %dn (%v)", c.Namespace, c.Pod, c.Name, u.Usage["cpu"], want, err)
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
		for _, want := range []string{"0 of 3 nodes", "401", "403", "connection refused", f.nodes[0].name, f.nodes[1].name, f.nodes[2].name} {
			if !strings.Contains(body, want) || code == http.StatusOK {
				return fmt.Errorf("%d %s", code, body)
			}
		}
		return nil
	})
	if err := s.ok("/livez"); err != nil {
		t.Errorf("liveness depends on kubelets: %v", err)
	}
	// One node that answers is enough for a start, after a while.
	f.nodes[0].kubelet.SetToken(f.token)
	s.ready(t)
}

func TestReadyWithoutNodes(t *testing.T) {
	s := startServer(t, newFleet(t, 0, 0))
	s.ready(t)
	if nodes := s.list(t, reader(t), nodesPath); len(nodes) != 0 {
		t.Errorf("nodes served: %v", nodes)
	}
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
	// A pod that runs, but of which no kubelet has said anything yet.
	f.addPod(t, "default", "silent", f.nodes[0].name)
	eventually(t, "the 404 of a pod without usage says why", func() error {
		code, body, err := s.get("/apis/metrics.k8s.io/v1/namespaces/default/pods/silent", tok)
		var status metav1.Status
		if err := errors.Join(err, json.Unmarshal([]byte(body), &status)); err != nil {
			return err
		}
		if code != http.StatusNotFound || !strings.Contains(status.Message, "silent") || !strings.Contains(status.Message, "kubelet") {
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
		says: kubelettest.NewNode(kubelettest.NodeConfig{Seed: hash(f.name), Pods: 2, Containers: 1, Boot: time.Now().Add(-30 * time.Minute), RequestTime: true}),
	}
	liar.kubelet = &kubelettest.Kubelet{Answer: liar.says.Append}
	var err error
	if liar.server, err = kubelettest.Serve(liar.kubelet, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(liar.server.Close)
	f.register(t, liar) // its pods are there already, on the honest node
	return f, f.nodes[0], liar
}

// A kubelet that speaks for another node's pods is not believed: the API server says whose they are.
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

// What fails is told on the Node, once with a count, and so is its end.
func TestNodeEvents(t *testing.T) {
	f := newFleet(t, 2, 1)
	s := startServer(t, f)
	s.ready(t)
	failTwice(t, f.nodes[0])
	if events := nodeEvents(t, f.nodes[1].name); len(events) != 0 {
		t.Errorf("events of a node that does not fail: %v", events)
	}
	out := kubectl(t, "describe", "node", f.nodes[0].name)
	for _, want := range []string{"MetricsScrapeFailing", "MetricsScrapeRecovered", "cannot scrape resource metrics", "500"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl describe node does not show %q:\n%s", want, out)
		}
	}
}

// failTwice has a node fail, recover, fail and recover until its events say so.
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

// Of the API server the server asks what deploy/ gives it the right to, all of that, and nothing else. The rights are
// read from the API server, to which deploy/ is applied; hack/manifests has them one by one.
func TestRights(t *testing.T) {
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	f, honest, _ := claimedTwice(t)
	s := startKeeping(t, f)
	s.ready(t)
	s.list(t, reader(t), podsPath) // asks who the reader is, and what it may read
	failTwice(t, honest)

	want := map[string]bool{}
	give := func(rules []rbacv1.PolicyRule) {
		for _, rule := range rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					want[verb+" "+resource] = true
				}
			}
		}
	}
	rbac := cluster.client.RbacV1()
	for _, name := range []string{"system:metrics-server", "system:auth-delegator"} {
		role, err := rbac.ClusterRoles().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		give(role.Rules)
	}
	for _, name := range [][2]string{
		{"kube-system", "extension-apiserver-authentication-reader"}, {"kube-system", servingSecret}, {"default", "metrics-server-events"},
	} {
		role, err := rbac.Roles(name[0]).Get(t.Context(), name[1], metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		give(role.Rules)
	}
	delete(want, "get nodes/metrics") // is asked of kubelets
	for _, streamed := range []string{"list nodes", "list pods", "list configmaps"} {
		delete(want, streamed) // is asked of older API servers, whose watches do not begin with what is there
	}

	eventually(t, "the rights that are used are those that are given", func() error {
		if diff := cmp.Diff(want, asked(t)); diff != "" {
			return fmt.Errorf("rights (-given +used):\n%s", diff)
		}
		return nil
	})
}

// asked returns what the servers, but not the doctors, of all tests so far have asked of the API server, as "VERB RESOURCE".
func asked(t *testing.T) map[string]bool {
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
			ObjectRef                   *struct{ Resource string }
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(event.UserAgent, "metrics-server-doctor/") {
			continue // which asks for more, with the same account
		}
		if event.ObjectRef != nil {
			all[event.Verb+" "+event.ObjectRef.Resource] = true
		} else {
			all[event.Verb+" "+event.RequestURI] = true
		}
	}
	return all
}

// On SIGTERM readiness goes first, requests are still answered, and the process ends with 0.
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
					// Readiness has gone: what clients that do not know yet ask for is answered.
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

// A manifest's typing errors are all reported at once.
func TestEveryBadFlagIsReported(t *testing.T) {
	p, err := cluster.run("metrics-server", cluster.binary, "--metric-resolution=0s", "--kubelet-port=0", "--kubelet-client-key=/nowhere")
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
	s := startServer(t, newFleet(t, 0, 0), "--logging-format=json")
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
