//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
)

// TestNeverPartial restarts one of two containers of some pods at various moments, so that some
// scrapes come just after a start. The kubelet then lists both, but one is too young to have a
// usage: the pod must not be served with the other one alone, which an autoscaler would take for
// the whole.
func TestNeverPartial(t *testing.T) {
	allNodesWell.join(t)
	const (
		pods   = 12
		apart  = 2 * time.Second // of the restarts: all of them take longer than the time between two scrapes
		follow = 25 * time.Second
	)
	ns := namespace(t)
	nodes, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &scrapes{node: nodes.Items[0].Name, namespace: ns, config: metricsReader(t, ns)}
	// On a busy machine, a kubelet may list a restarted container so late that no scrape finds it too young.
	young := map[string]int{}
	for round := 0; len(young) == 0 && round < 4; round++ {
		names := make([]string, pods)
		for i := range names {
			names[i] = fmt.Sprintf("two-%d-%d", round, i)
			pod := podOf(names[i], workload("restarted", "-listen=:8080"), workload("steady"))
			pod.Spec.NodeName = w.node
			createPod(t, ns, pod)
		}
		for _, name := range names {
			waitServed(t, ns, name, "restarted", "steady")
		}
		young = w.restartEach(t, names, apart, follow)
		t.Logf("not served while a container was too young: %v", young)
	}
	if len(young) == 0 {
		t.Error("no scrape met a young container: this proves nothing")
	}
}

// restartEach makes a container of each pod restart, one after another, and checks what is served of the pods until
// some time after the last. It returns how often each was not served because of its young container.
func (w *scrapes) restartEach(t *testing.T, pods []string, apart, follow time.Duration) (young map[string]int) {
	t.Helper()
	stop := w.watchKubelet(t)
	defer stop()
	young = map[string]int{}
	begun := time.Now()
	end := begun.Add(time.Duration(len(pods))*apart + follow)
	for exited := 0; time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if exited < len(pods) && time.Since(begun) > time.Duration(exited)*apart {
			if _, err := podHTTP(t.Context(), w.namespace, pods[exited], "/exit", nil); err != nil {
				t.Fatal(err)
			}
			exited++
		}
		before, err := w.last()
		if err != nil {
			t.Fatal(err)
		}
		list, err := cluster.metrics.MetricsV1().PodMetricses(w.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		after, err := w.last()
		if err != nil {
			t.Fatal(err)
		}
		if !before.Equal(after) {
			continue // it is not known what was served: the one before or the one after
		}
		served := map[string][]metricsv1.ContainerMetrics{}
		for _, p := range list.Items {
			served[p.Name] = p.Containers
		}
		for _, name := range pods[:exited] {
			listed := w.listedSince(name)
			if listed.IsZero() || before.Before(listed.Add(300*time.Millisecond)) {
				continue // what is served may be from before
			}
			switch containers := served[name]; len(containers) {
			case 0:
				young[name]++
			case 1:
				t.Errorf("%s is served with %s alone, scraped at %s, when the kubelet had listed both since %s",
					name, containers[0].Name, before.Format("05.000"), listed.Format("05.000"))
			}
		}
	}
	return young
}

// scrapes records when the server scraped a node, and since when its kubelet lists containers that
// have restarted.
type scrapes struct {
	node, namespace string
	config          *rest.Config // of the server itself

	mu     sync.Mutex
	listed map[string]time.Time // by pod
}

// last returns when the server last scraped the node's kubelet.
func (w *scrapes) last() (time.Time, error) {
	code, body, err := rawGet(w.config, "/metrics", nil)
	if err != nil {
		return time.Time{}, err
	}
	found := regexp.MustCompile(
		`(?m)^metrics_server_kubelet_last_request_time_seconds\{node="` + regexp.QuoteMeta(w.node) + `"\} (\S+)$`,
	).FindStringSubmatch(body)
	if found == nil {
		return time.Time{}, fmt.Errorf("/metrics: %d, has no time of the last request to %s", code, w.node)
	}
	seconds, err := strconv.ParseFloat(found[1], 64)
	return time.UnixMicro(int64(seconds * 1e6)), err
}

func (w *scrapes) listedSince(pod string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listed[pod]
}

// watchKubelet asks the kubelet, until stop, since when it lists containers with a later start than they have now. It
// lists a container that has restarted from the first time on that it is asked after it.
func (w *scrapes) watchKubelet(t *testing.T) (stop func()) {
	t.Helper()
	kubelet := cluster.client.CoreV1().RESTClient().Get().
		Resource("nodes").Name(w.node).SubResource("proxy").Suffix("metrics/resource")
	series := regexp.MustCompile(
		`(?m)^container_(cpu_usage_seconds_total|start_time_seconds)\{container="restarted",namespace="` +
			w.namespace + `",pod="([^"]*)"\} (\S+)`,
	)
	// starts returns the start of the containers, of those that have a CPU time.
	starts := func() (map[string]float64, error) {
		b, err := kubelet.DoRaw(t.Context())
		if err != nil {
			return nil, err
		}
		found := map[string]float64{}
		used := map[string]bool{}
		for _, m := range series.FindAllStringSubmatch(string(b), -1) {
			if m[1] == "cpu_usage_seconds_total" {
				used[m[2]] = true
				continue
			}
			if found[m[2]], err = strconv.ParseFloat(m[3], 64); err != nil {
				return nil, err
			}
		}
		maps.DeleteFunc(found, func(pod string, _ float64) bool { return !used[pod] })
		return found, nil
	}
	first, err := starts()
	if err != nil {
		t.Fatal(err)
	}
	w.listed = map[string]time.Time{}
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
			now, err := starts()
			if err != nil {
				t.Error(err)
				continue
			}
			w.mu.Lock()
			for pod := range first {
				if now[pod] <= first[pod]+1 {
					delete(w.listed, pod)
				} else if w.listed[pod].IsZero() {
					w.listed[pod] = time.Now()
				}
			}
			w.mu.Unlock()
		}
	})
	return func() {
		close(done)
		watching.Wait()
	}
}

// metricsReader returns a client configuration for the server itself, with the right to read its
// /metrics.
func metricsReader(t *testing.T, namespace string) *rest.Config {
	t.Helper()
	config := account(t, namespace, "monitor")
	config.Host, config.TLSClientConfig = forward(t), rest.TLSClientConfig{Insecure: true}
	bindings := cluster.client.RbacV1().ClusterRoleBindings()
	_, err := bindings.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:monitoring"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "monitor"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustKubectl(t, "delete", "clusterrolebinding", namespace) })
	eventually(t, "/metrics may be read", func() error {
		code, body, err := rawGet(config, "/metrics", nil)
		if err == nil && code != 200 {
			err = &answerError{code, body}
		}
		return err
	})
	return config
}
