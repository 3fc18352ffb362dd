package demand

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// hpaFor returns an HPA with a metric of type Pods for a Deployment.
func hpaFor(namespace, name, deployment string) *autoscalingv2.HorizontalPodAutoscaler {
	h := testHPA(name, metrics(podsMetric("a")))
	h.Namespace, h.Spec.ScaleTargetRef.Name = namespace, deployment
	return h
}

// TestSyncedDespiteEdits checks that somebody who refers to another target ten times a second does not keep a server
// that has restarted unready, and that it waits for what was there at its start nevertheless.
func TestSyncedDespiteEdits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, hpaFor("busy", "x", "t0"), hpaFor("shop", "web", "web"), pod("web-1", "web"))
		if err := c.Synced(); err != nil {
			t.Errorf("without edits: %v", err)
		}
		c = startWith(t, nil, map[string]any{"deployments/web": slowly(6 * time.Second)}, hpaFor("busy", "x", "t0"),
			hpaFor("shop", "web", "web"), pod("web-1", "web"))
		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("busy")
		edit := func(i int) {
			name := fmt.Sprintf("t%d", i)
			c.setScale("deployments/"+name, hanging)
			if _, err := hpas.Update(t.Context(), hpaFor("busy", "x", name), metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for i := range 40 {
			edit(i)
			if err := c.Synced(); err == nil || !strings.Contains(err.Error(), "being read") {
				t.Fatalf("before Deployment web was read: %v", err)
			}
			time.Sleep(time.Second / 10)
		}
		for i := range 30 {
			edit(40 + i)
			time.Sleep(time.Second / 10)
		}
		edit(100)
		if err := c.Synced(); err != nil {
			t.Errorf("two seconds after Deployment web was read: %v", err)
		}
	})
}

// TestSyncedWithoutAutoscalers checks that a server with nothing to do is ready.
func TestSyncedWithoutAutoscalers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := start(t, nil, pod("web-1", "web")).Synced(); err != nil {
			t.Error(err)
		}
	})
}

// TestSyncedWithHangingTargets checks that targets that cannot be read delay readiness by a minute at most.
func TestSyncedWithHangingTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scales := map[string]any{"deployments/web": "app=web"}
		objects := []runtime.Object{hpaFor("shop", "web", "web"), pod("web-1", "web")}
		for i := range 300 {
			name := fmt.Sprintf("t%d", i)
			scales["deployments/"+name] = hanging
			objects = append(objects, hpaFor("bad", name, name))
		}
		c := startWith(t, nil, scales, objects...)
		time.Sleep(targetGrace / 2)
		if err := c.Synced(); err == nil {
			t.Error("synced while targets are being read")
		}
		time.Sleep(targetGrace / 2)
		if err := c.Synced(); err != nil {
			t.Error(err)
		}
	})
}
