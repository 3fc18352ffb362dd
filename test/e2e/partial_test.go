//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestNeverPartial restarts one of two containers just before its node is scraped. The kubelet then lists both, but
// one is too young to have a usage: the pod must not be served with the other one alone, which an
// autoscaler would take for the whole.
func TestNeverPartial(t *testing.T) {
	t.Parallel()
	const resolution = 15 * time.Second // as in deploy/
	ns := namespace(t)
	createPod(t, ns, podOf("two", workload("restarted", "-listen=:8080"), workload("steady")))
	waitServed(t, ns, "two", "restarted", "steady")
	pod, _ := running(t, ns, "two")
	w := &scrapes{node: pod.Spec.NodeName, config: metricsReader(t, ns)}

	hits := 0
	for attempt := 1; attempt <= 4 && hits == 0; attempt++ {
		waitServed(t, ns, "two", "restarted", "steady")
		last, err := w.last()
		if err != nil {
			t.Fatal(err)
		}
		next := last.Add(resolution)
		for time.Until(next) < 4*time.Second {
			next = next.Add(resolution)
		}
		time.Sleep(time.Until(next.Add(-3 * time.Second)))
		// The kubelet lists a container that has restarted from the first time on that it is asked after it.
		stop := w.watchKubelet(t, ns, "two", "restarted")
		if _, err := podHTTP(t.Context(), ns, "two", "/exit", nil); err != nil {
			t.Fatal(err)
		}
		exited := time.Now()
		for time.Since(exited) < 25*time.Second {
			before, err := w.last()
			if err != nil {
				t.Fatal(err)
			}
			err = servedWith(t, ns, "two", "restarted", "steady")
			after, err2 := w.last()
			if err2 != nil {
				t.Fatal(err2)
			}
			listed := w.listedSince()
			if !before.Equal(after) || listed.IsZero() || before.Before(listed.Add(300*time.Millisecond)) {
				continue // what was served may be from before
			}
			if apierrors.IsNotFound(err) {
				hits++
			} else if err != nil {
				stop()
				t.Fatalf("scraped at %s, when the kubelet had listed both since %s: %v",
					before.Format("05.000"), listed.Format("05.000"), err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		stop()
		t.Logf("attempt %d: %d answers while one container was too young", attempt, hits)
	}
	if hits == 0 {
		t.Error("no scrape met a young container: this proves nothing")
	}
}

// scrapes knows when the server scraped a node, and since when its kubelet lists a container that has restarted.
type scrapes struct {
	node   string
	config *rest.Config // of the server itself

	mu     sync.Mutex
	listed time.Time
}

// last returns when the server last asked the node's kubelet.
func (w *scrapes) last() (time.Time, error) {
	code, body, err := rawGet(w.config, "/metrics", nil)
	if err != nil {
		return time.Time{}, err
	}
	found := regexp.MustCompile(`(?m)^metrics_server_kubelet_last_request_time_seconds\{node="` + regexp.QuoteMeta(w.node) + `"\} (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		return time.Time{}, fmt.Errorf("/metrics: %d, has no time of the last request to %s", code, w.node)
	}
	seconds, err := strconv.ParseFloat(found[1], 64)
	return time.UnixMicro(int64(seconds * 1e6)), err
}

func (w *scrapes) listedSince() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listed
}

// watchKubelet asks the kubelet, until stop, since when it lists a container with a later start than it has now.
func (w *scrapes) watchKubelet(t *testing.T, namespace, pod, container string) (stop func()) {
	t.Helper()
	start := func() (float64, error) {
		b, err := cluster.client.CoreV1().RESTClient().Get().Resource("nodes").Name(w.node).SubResource("proxy").Suffix("metrics/resource").DoRaw(t.Context())
		if err != nil {
			return 0, err
		}
		labels := fmt.Sprintf(`{container=%q,namespace=%q,pod=%q} `, container, namespace, pod)
		if !strings.Contains(string(b), "container_cpu_usage_seconds_total"+labels) {
			return 0, nil
		}
		_, rest, ok := strings.Cut(string(b), "container_start_time_seconds"+labels)
		if !ok {
			return 0, errors.New("the kubelet lists no start time")
		}
		return strconv.ParseFloat(strings.Fields(rest)[0], 64)
	}
	first, err := start()
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.listed = time.Time{}
	w.mu.Unlock()
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
			s, err := start()
			now := time.Now()
			w.mu.Lock()
			switch {
			case err != nil:
				t.Error(err)
			case s <= first+1:
				w.listed = time.Time{}
			case w.listed.IsZero():
				w.listed = now
			}
			w.mu.Unlock()
		}
	})
	return func() {
		close(done)
		watching.Wait()
	}
}

// metricsReader is a client's configuration for the server itself, with the right to read its /metrics.
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
