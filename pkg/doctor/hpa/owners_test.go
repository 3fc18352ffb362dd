package hpa

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/doctor"
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
	widget := func(c *fakeCluster) {
		c.hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{
			APIVersion: "example.com/v1", Kind: "Widget", Name: "w",
		}
		c.objects["/apis/example.com/v1/namespaces/default/widgets/w/scale"] = &autoscalingv1.Scale{
			Spec: autoscalingv1.ScaleSpec{Replicas: 3}, Status: autoscalingv1.ScaleStatus{Replicas: 3, Selector: "app=web"},
		}
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
			widget(c)
			c.objects[deployments+"web"] = owned("Widget", "w")
		}, ""},
		"an owner that is not the controller": {func(c *fakeCluster) {
			widget(c)
			m := owned("Widget", "w")
			m.OwnerReferences[1].Controller = new(false)
			c.objects[deployments+"web"] = m
			c.pods[2].OwnerReferences = m.OwnerReferences
		}, ""},
		"a custom resource that owns nothing": {func(c *fakeCluster) {
			widget(c)
			c.objects[deployments+"web"] = replicaSet("")
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

// TestOverlapWithCustomResource checks that pods of other owners are found if the operator of a custom resource makes
// that resource the owner of its own pods.
func TestOverlapWithCustomResource(t *testing.T) {
	const apps = "/apis/apps/v1/namespaces/default/"
	for _, own := range []bool{false, true} {
		c := newCluster(t)
		c.hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{
			APIVersion: "example.com/v1", Kind: "Widget", Name: "w",
		}
		c.objects["/apis/example.com/v1/namespaces/default/widgets/w/scale"] = c.objects[pathScale]
		c.pods[2].OwnerReferences[0].Name = "web-2"
		web := replicaSet("")
		if own {
			web.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Widget", Name: "w"}}
		}
		c.objects[apps+"deployments/web"] = web
		c.objects[apps+"replicasets/web-2"], c.objects[apps+"deployments/other"] = replicaSet("other"), replicaSet("")
		r := c.run()
		found := len(find(r, doctor.Line{Check: checkPods, Status: doctor.Problem, Cause: "Deployment other"})) == 1
		if found != own {
			t.Errorf("own: %t\n%s", own, text(t, r))
		}
	}
}
