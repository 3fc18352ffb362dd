package hpa

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod belongs to the target if that is one of its direct or indirect owners. If an owner cannot
// be read, the pod counts as belonging.
func TestOwners(t *testing.T) {
	const (
		replicaSets = "/apis/apps/v1/namespaces/default/replicasets/"
		deployments = "/apis/apps/v1/namespaces/default/deployments/"
	)
	owned := func(kind, name string) *metav1.PartialObjectMetadata {
		m := replicaSet("")
		m.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "not-the-controller"},
			{APIVersion: "example.com/v1", Kind: kind, Name: name, Controller: new(true)},
		}
		return m
	}
	for name, tc := range map[string]struct {
		change func(*fakeCluster)
		want   string // of each pod
	}{
		"two levels": {func(*fakeCluster) {}, ""},
		"one level": {func(c *fakeCluster) {
			c.hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1",
			}
			c.objects[replicaSets+"web-1/scale"] = c.objects[pathScale]
		}, ""},
		"three levels, and another version": {func(c *fakeCluster) {
			c.hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{
				APIVersion: "example.com/v1", Kind: "Widget", Name: "w",
			}
			c.objects["/apis/example.com/v1/namespaces/default/widgets/w/scale"] = &autoscalingv1.Scale{
				Spec: autoscalingv1.ScaleSpec{Replicas: 3}, Status: autoscalingv1.ScaleStatus{Replicas: 3, Selector: "app=web"},
			}
			c.objects[deployments+"web"] = owned("Widget", "w")
		}, ""},
		"another object of the kind": {func(c *fakeCluster) {
			c.objects[replicaSets+"web-1"] = replicaSet("other")
			c.objects[deployments+"other"] = replicaSet("")
		}, "Deployment other"},
		"a version that is not served": {func(c *fakeCluster) {
			for _, p := range c.pods {
				p.OwnerReferences[0].APIVersion = "apps/v1beta2"
			}
			c.objects[replicaSets+"web-1"] = replicaSet("other")
			c.objects[deployments+"other"] = replicaSet("")
		}, "Deployment other"},
		"an object of another group": {func(c *fakeCluster) {
			m := replicaSet("web")
			m.OwnerReferences[0].APIVersion = "example.com/v1"
			m.OwnerReferences[0].Kind = "Widget"
			c.objects[replicaSets+"web-1"] = m
			c.objects["/apis/example.com/v1/namespaces/default/widgets/web"] = replicaSet("")
		}, "Widget web"},
		"no right": {func(c *fakeCluster) {
			c.refuse(replicaSets+"web-1", 403, metav1.StatusReasonForbidden, "forbidden")
		}, ""},
		"unknown kind": {func(c *fakeCluster) { c.objects[replicaSets+"web-1"] = owned("Gadget", "g") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			tc.change(c)
			r := c.run()
			var got []string
			for _, p := range r.Autoscaler.Pods {
				got = append(got, p.Owner)
			}
			if d := cmp.Diff([]string{tc.want, tc.want, tc.want}, got); d != "" {
				t.Errorf("-want +got:\n%s\n%s", d, text(t, r))
			}
			reads := 0
			for _, request := range c.requests {
				if request == replicaSets+"web-1" {
					reads++
				}
			}
			if reads > 1 {
				t.Errorf("the owner of three pods is read %d times", reads)
			}
		})
	}
}
