//go:build integration

package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	metricsv1 "k8s.io/metrics/pkg/apis/metrics/v1"
	"k8s.io/metrics/pkg/client/clientset/versioned"
)

// kubectl and an informer watch through the aggregator. The informer has the pods that its server lists
// after pods have come and gone, and after its server was replaced by another.
func TestWatch(t *testing.T) {
	f := newFleet(t, 2, 3)
	first, second := startServer(t, f), startServer(t, f)
	first.ready(t)
	second.ready(t)
	first.aggregate(t, nil)

	for _, tc := range []struct {
		resource string
		want     int // objects
	}{{"pods.metrics.k8s.io", 6}, {"podmetrics.v1beta1.metrics.k8s.io", 6}, {"nodes.metrics.k8s.io", 2}} {
		// The error is that of the timeout, which is how kubectl ends.
		out, _ := cluster.kubectl("get", tc.resource, "-A", "--watch", "--output-watch-events", "--request-timeout=6s")
		added, modified := strings.Count(out, "ADDED "), strings.Count(out, "MODIFIED ")
		if added != tc.want || modified < tc.want {
			t.Errorf("kubectl get %s --watch: %d objects were added and %d modified, want %d, and at least as many:\n%s",
				tc.resource, added, modified, tc.want, out)
		}
	}

	clients, err := versioned.NewForConfig(cluster.admin)
	if err != nil {
		t.Fatal(err)
	}
	pods := clients.MetricsV1().PodMetricses("")
	copied := cache.NewStore(cache.MetaNamespaceKeyFunc)
	reflector := cache.NewReflector(cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: pods.Watch,
	}, clients), &metricsv1.PodMetrics{}, copied, 0)
	go reflector.RunWithContext(t.Context())
	same := func() error {
		list, err := pods.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		want := map[string]bool{}
		for _, p := range list.Items {
			want[p.Namespace+"/"+p.Name] = true
		}
		got := map[string]bool{}
		for _, k := range copied.ListKeys() {
			got[k] = true
		}
		if !maps.Equal(want, got) || len(got) == 0 {
			return fmt.Errorf("the informer has %q, the list %q",
				slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		return nil
	}
	eventually(t, "the informer has a copy", same)
	renewed := func() func() error {
		version := reflector.LastSyncResourceVersion()
		since := time.Now()
		return func() error {
			if now := reflector.LastSyncResourceVersion(); now == version {
				return fmt.Errorf("still at resourceVersion %s after %v", now, time.Since(since))
			}
			return nil
		}
	}
	eventually(t, "the copy is kept up to date", renewed())

	gone := f.nodes[0].says.Containers()[0]
	deletePod(gone.Namespace, gone.Pod)
	eventually(t, "the informer notices that a pod is gone", func() error {
		if slices.Contains(copied.ListKeys(), gone.Namespace+"/"+gone.Pod) {
			return fmt.Errorf("it has %s", gone.Pod)
		}
		return same()
	})

	second.lead(t)
	first.terminate(t)
	<-first.done
	if first.err != nil {
		t.Errorf("the first server ended with %v, want exit code 0", first.err)
	}
	eventually(t, "the informer follows to the other server", renewed())
	last := f.nodes[1].says.Containers()[0]
	deletePod(last.Namespace, last.Pod)
	eventually(t, "the informer has a copy of the other server", func() error {
		if slices.Contains(copied.ListKeys(), last.Namespace+"/"+last.Pod) {
			return fmt.Errorf("it has %s", last.Pod)
		}
		return same()
	})
}
