//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
)

// One of the two replicas of the server is deleted while the load rises. The autoscaler scales up
// as usual, and never lacks its metric. Both replicas, including the new one, give the same
// answers.
func customReplicas(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createMetered(t, ns, nil)
	createCustomHPA(t, ns, nil, podsMetric("packets-per-second", "1k"))
	waitActive(t, ns)

	servers := customServers(t)
	if len(servers) != 2 {
		t.Fatalf("%d servers are ready, want 2", len(servers))
	}
	tell(t, ns, 1, rate("packets_total", "2500"))
	err := cluster.client.CoreV1().Pods(serverNamespace).Delete(t.Context(), servers[0], metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	active := func() error { return hpaCondition(getHPA(t, ns, "web"), corev1.ConditionTrue) }
	scaled, replaced := time.Duration(0), time.Duration(0)
	begun := time.Now()
	for ; scaled == 0 || replaced == 0; time.Sleep(250 * time.Millisecond) {
		after := time.Since(begun)
		if err := active(); err != nil {
			t.Fatalf("%v after a replica was deleted: %v", after, err)
		}
		if scaled == 0 && replicasAre(t, ns, "web", 3, 3)() == nil {
			scaled = after
		}
		ready := customServers(t)
		if replaced == 0 && len(ready) == 2 && !slices.Contains(ready, servers[0]) {
			replaced = after
		}
		if after > patience {
			t.Fatalf("scaled up after %v, replica replaced after %v; 0s: not within %v", scaled, replaced, after)
		}
	}
	t.Logf("%v until there were 3 replicas, and %v until there was a new server", scaled, replaced)

	var direct []*rest.Config
	for _, server := range customServers(t) {
		past := rest.CopyConfig(cluster.config)
		past.Host = forwardTo(t, "pod/"+server, ":10250")
		past.CAData, past.CAFile, past.Insecure = nil, "", true
		direct = append(direct, past)
	}
	eventually(t, "both replicas say the same", func() error {
		if err := active(); err != nil {
			t.Fatal(err)
		}
		first, err := packetsBy(direct[0], ns)
		second, err2 := packetsBy(direct[1], ns)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		same := func(a, b float64) bool { return math.Abs(a-b) <= 0.01*2500 }
		if len(first) != 3 || !maps.EqualFunc(first, second, same) {
			return fmt.Errorf("%v and %v", first, second)
		}
		return nil
	})
	events, err := cluster.client.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.kind=HorizontalPodAutoscaler",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.LastTimestamp.After(begun) {
			t.Errorf("the autoscaler warns: %s: %s", e.Reason, e.Message)
		}
	}
}

// customServers returns the pods of the server that are ready and are not being deleted.
func customServers(t *testing.T) []string {
	t.Helper()
	pods, err := cluster.client.CoreV1().Pods(serverNamespace).List(t.Context(), metav1.ListOptions{
		LabelSelector: "k8s-app=" + customName,
	})
	if err != nil {
		t.Fatal(err)
	}
	var ready []string
	for i := range pods.Items {
		p := &pods.Items[i]
		isReady := func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}
		if p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, isReady) {
			ready = append(ready, p.Name)
		}
	}
	return ready
}

// packetsBy asks one replica for the packets per second of each pod of the web server.
func packetsBy(server *rest.Config, namespace string) (map[string]float64, error) {
	path := "/apis/custom.metrics.k8s.io/v1beta2/namespaces/" + namespace +
		"/pods/*/packets-per-second?labelSelector=app%3Dweb"
	code, body, err := rawGet(server, path, nil)
	if err != nil {
		return nil, err
	}
	if code != 200 {
		return nil, &answerError{code, body}
	}
	var list custommetrics.MetricValueList
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, v := range list.Items {
		values[v.DescribedObject.Name] = v.Value.AsApproximateFloat64()
	}
	return values, nil
}
