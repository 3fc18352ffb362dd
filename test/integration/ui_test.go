//go:build integration

package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/sharedtest"
	uicluster "metrics-server/pkg/ui/cluster"
)

// TestUIReadsTheCluster checks that what the page shows is read from a real kube-apiserver, in protobuf and by watches,
// with the rights of the user.
func TestUIReadsTheCluster(t *testing.T) {
	f := newFleet(t, 2, 3)
	s := startServer(t, f, "--history=1h")
	s.ready(t)
	s.aggregate(t, nil)
	first := f.nodes[0].says.Containers()[0]
	hpas := cluster.client.AutoscalingV2().HorizontalPodAutoscalers(first.Namespace)
	if _, err := hpas.Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: f.name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web", APIVersion: "apps/v1"},
			MaxReplicas:    3,
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hpas.Delete(context.Background(), f.name, metav1.DeleteOptions{}) })

	read := func(c uicluster.Config) *uicluster.Cluster {
		of, err := uicluster.New(c)
		if err != nil {
			t.Fatal(err)
		}
		sharedtest.Start(t, t.Context(), of.Run)
		return of
	}
	inState := func(s *uicluster.Snapshot, want uicluster.State, names ...uicluster.SourceName) error {
		for _, of := range s.Sources {
			if slices.Contains(names, of.Name) && of.State != want {
				return fmt.Errorf("%s is %s: %s", of.Name, of.State, of.Error)
			}
		}
		return nil
	}
	podNamed := func(s *uicluster.Snapshot, name string) *uicluster.Pod {
		for _, p := range s.Pods {
			if p.Namespace == first.Namespace && p.Name == name {
				return p
			}
		}
		return nil
	}

	all := read(uicluster.Config{Rest: cluster.admin})
	eventually(t, "everything is watched", func() error {
		s := all.Snapshot()
		if err := inState(s, uicluster.Read, uicluster.History); err != nil {
			return err
		}
		return inState(s, uicluster.Watching,
			uicluster.Nodes, uicluster.Pods, uicluster.HPAs, uicluster.NodeMetrics, uicluster.PodMetrics)
	})
	eventually(t, "nodes and pods have usage", func() error {
		s := all.Snapshot()
		p := podNamed(s, first.Pod)
		if p == nil || p.Usage.Sampled.IsZero() || p.Usage.Used.CPU <= 0 || p.Usage.Used.Memory <= 0 {
			return fmt.Errorf("pod %s: %+v", first.Pod, p)
		}
		for _, n := range s.Nodes {
			if n.Name == f.nodes[0].name && n.Usage.Used.CPU > 0 && n.Pods == 3 && n.PodsMissing == 0 {
				return nil
			}
		}
		return fmt.Errorf("node %s is not among %d with usage", f.nodes[0].name, len(s.Nodes))
	})
	if i := slices.IndexFunc(all.Snapshot().HPAs, func(h *uicluster.HPA) bool { return h.Object.Name == f.name }); i < 0 {
		t.Error("the autoscaler is not read")
	}
	sampled := podNamed(all.Snapshot(), first.Pod).Usage.Sampled
	eventually(t, "usage goes on", func() error {
		if now := podNamed(all.Snapshot(), first.Pod).Usage.Sampled; !now.After(sampled) {
			return fmt.Errorf("still the sample of %v", now)
		}
		return nil
	})

	one := read(uicluster.Config{Rest: cluster.admin, Namespace: first.Namespace})
	eventually(t, "one namespace is watched", func() error {
		s := one.Snapshot()
		if p := podNamed(s, first.Pod); p == nil || p.Usage.Sampled.IsZero() || len(s.Nodes) > 0 {
			return fmt.Errorf("pod %s: %+v, %d nodes", first.Pod, p, len(s.Nodes))
		}
		return inState(s, uicluster.Watching, uicluster.Pods, uicluster.HPAs, uicluster.PodMetrics)
	})

	nobody := read(uicluster.Config{Rest: &rest.Config{
		Host: cluster.admin.Host, BearerToken: token(t, "default", "nobody"),
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}})
	eventually(t, "nobody is told of the missing rights", func() error {
		return inState(nobody.Snapshot(), uicluster.Denied,
			uicluster.Nodes, uicluster.Pods, uicluster.HPAs, uicluster.NodeMetrics, uicluster.PodMetrics, uicluster.History)
	})

	deletePod(first.Namespace, first.Pod)
	eventually(t, "a deleted pod is gone", func() error {
		if p := podNamed(all.Snapshot(), first.Pod); p != nil {
			return fmt.Errorf("it is %s", p.Status)
		}
		return nil
	})
}
