package doctor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestServedIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"node without metrics": {
			nodes: []string{"n3"}, broken: func(c *fakeCluster) { c.addNode("n3") },
			want: Line{
				Check: checkServed, Status: Problem, Message: "2 of 3 nodes have metrics", Cause: "no samples",
				Remedy: "/apis/metrics.k8s.io/v1beta1/nodes/NODE",
			},
		},
		"young node without metrics": {
			broken: func(c *fakeCluster) {
				c.addNode("n3")
				c.nodes[2].CreationTimestamp = metav1.Now()
			},
			want: Line{
				Check: checkServed, Status: OK, Message: "2 of 3 nodes have metrics (1 added less than 2m0s ago), median age",
			},
		},
		"stale": {nodes: []string{"n1"}, broken: func(c *fakeCluster) {
			first := c.objects[pathNodeUsage].(map[string]any)["items"].([]any)[0].(map[string]any)
			first["timestamp"] = metav1.NewTime(time.Now().Add(-10 * time.Minute))
		}, want: Line{
			Check: checkServed, Status: Warning, Message: " oldest 10m", Cause: "no new sample of n1",
			Remedy: "server's log",
		}},
		"pods without metrics": {
			broken: func(c *fakeCluster) { c.objects[pathPodUsage] = map[string]any{"items": nil} },
			want: Line{
				Check: checkServed, Status: Warning,
				Message: "0 of 2 running pods have metrics (1 started less than 2m0s ago); without metrics: default/web",
				Cause:   "with all its containers or not at all", Remedy: "/pods/POD",
			},
		},
		"a pod without metrics that cannot be read": {
			broken: func(c *fakeCluster) {
				c.objects[pathPodUsage] = map[string]any{"items": nil}
				c.forbid(pathWeb)
			},
			want: Line{Check: checkServed, Status: Warning, Message: "without metrics: default/web"},
		},
	})
}

// TestPodsThatNeedNoMetrics checks that a pod is not expected to have metrics if its containers do not run, although
// its phase is Running, and that no autoscaler is said to lack them.
func TestPodsThatNeedNoMetrics(t *testing.T) {
	initializing := podStatus()
	initializing.Status.InitContainerStatuses = []corev1.ContainerStatus{{State: ran(time.Minute)}}
	const none, started = "0 of 0 running pods", "0 of 1 running pods have metrics (1 started less than 2m0s ago)"
	for name, tc := range map[string]struct {
		pod  *corev1.Pod // nil if it was deleted meanwhile
		want string
	}{
		"crashes": {
			podStatus(crashed(), crashed()), none + " have metrics; not running, for example between two crashes: default/web",
		},
		"one container crashes, and another one has just started": {podStatus(crashed(), ran(time.Minute)), started},
		"one container was restarted":                             {podStatus(ran(time.Hour), ran(time.Minute)), started},
		"a sidecar has just started":                              {initializing, started},
		"one container crashes":                                   {podStatus(crashed(), ran(time.Hour)), ""},
		"nothing is known of its containers":                      {podStatus(), ""},
		"deleted":                                                 {nil, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			noPodMetrics(c)
			c.objects[pathPodUsage] = map[string]any{"items": nil}
			list := c.objects[pathAllPods].(*metav1.PartialObjectMetadataList)
			list.Items = list.Items[:1]
			if c.objects[pathWeb] = tc.pod; tc.pod == nil {
				delete(c.objects, pathWeb)
			}
			r := c.run()
			served, scalers := Line{Check: checkServed, Status: OK, Message: tc.want}, Line{
				Check: checkAutoscalers, Status: Warning, Cause: "metrics-server is not at fault",
			}
			if tc.want == "" {
				served.Status, scalers.Status, scalers.Cause = Problem, Problem, "no metrics of running pods"
				served.Message = "0 of 1 running pods have metrics; without metrics: default/web"
			}
			for _, want := range []Line{served, scalers} {
				if len(find(r, want)) != 1 {
					t.Errorf("no line like %+v in\n%s", want, text(t, r))
				}
			}
		})
	}
	// Pods of a lost node are being deleted for as long as the node stays away.
	c := newCluster(t)
	list := c.objects[pathAllPods].(*metav1.PartialObjectMetadataList)
	list.Items[0].Name, list.Items[0].DeletionTimestamp = "lost", new(metav1.Now())
	c.objects["/api/v1/namespaces/default/pods/lost"] = c.objects[pathWeb]
	if r := c.run(); len(find(r, Line{Check: checkServed, Status: OK, Message: "0 of 1 running pods"})) != 1 {
		t.Error(text(t, r))
	}
}

func TestAutoscalerIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"HPA: no API": {
			broken: autoscalerFails("the HPA was unable to compute the replica count: " +
				"failed to get cpu utilization: unable to " +
				"get metrics for resource cpu: unable to fetch metrics from resource metrics API: " +
				"the server is currently unable to handle the request (get pods.metrics.k8s.io)"),
			want: Line{
				Check: checkAutoscalers, Status: Problem,
				Message: "1 of 2 HorizontalPodAutoscalers cannot scale: the resource metrics API does not answer: default/web",
				Cause:   "cannot forward the request", Remedy: "apiservice",
			},
		},
		"HPA: no metrics": {
			broken: func(c *fakeCluster) {
				noPodMetrics(c)
				c.objects[pathPodUsage] = map[string]any{"items": nil}
			},
			want: Line{
				Check: checkAutoscalers, Status: Problem, Message: "its pods have no metrics",
				Cause: "no metrics of running pods in its namespace", Remedy: "served and nodes",
			},
		},
		"HPA: no running pods": {
			broken: func(c *fakeCluster) {
				noPodMetrics(c)
				list := c.objects[pathAllPods].(*metav1.PartialObjectMetadataList)
				other := list.Items[0]
				other.Namespace = "other"
				list.Items = append(list.Items, other)
				c.objects["/api/v1/namespaces/other/pods/web"] = c.objects[pathWeb]
			},
			want: Line{
				Check: checkAutoscalers, Status: Warning, Message: "its pods have no metrics",
				Cause: "metrics-server is not at fault", Remedy: "pods run",
			},
		},
		"HPA: no metrics, and pods cannot be listed": {
			broken: func(c *fakeCluster) {
				noPodMetrics(c)
				c.forbid(pathAllPods)
			},
			want: Line{
				Check: checkAutoscalers, Status: Warning, Message: "its pods have no metrics",
				Cause: "none of its pods runs, or the server has no metrics of them", Remedy: "served",
			},
		},
		"HPA: no request": {
			broken: autoscalerFails("failed to get cpu utilization: missing request for cpu in container c of Pod web"),
			want: Line{
				Check: checkAutoscalers, Status: Warning, Message: "has no request",
				Cause: "metrics-server is not at fault", Remedy: "set requests",
			},
		},
		"HPA: no request of the pod": {
			broken: autoscalerFails("failed to get cpu utilization: missing pod-level request for cpu in Pod web"),
			want:   Line{Check: checkAutoscalers, Status: Warning, Message: "has no request", Remedy: "set requests"},
		},
		"HPA: no such container": {
			broken: autoscalerFails("failed to get cpu utilization: container ap not found in Pod web"),
			want: Line{
				Check: checkAutoscalers, Status: Warning, Message: "lacks the container", Remedy: "correct the name",
			},
		},
		"HPA: the controller has no right": {
			broken: autoscalerFails("unable to get metrics for resource cpu: unable to fetch metrics from resource metrics " +
				"API: pods.metrics.k8s.io is forbidden: User \"system:serviceaccount:kube-system:horizontal-pod-autoscaler\" " +
				"cannot list resource \"pods\" in API group \"metrics.k8s.io\" in the namespace \"default\""),
			want: Line{
				Check: checkAutoscalers, Status: Problem, Message: "may not read the resource metrics",
				Cause: "list pods.metrics.k8s.io", Remedy: "system:controller:horizontal-pod-autoscaler",
			},
		},
		"HPA: the front proxy is anonymous": {
			broken: autoscalerFails("unable to get metrics for resource cpu: unable to fetch metrics from resource metrics " +
				"API: pods.metrics.k8s.io is forbidden: User \"system:anonymous\" cannot list resource \"pods\""),
			want: Line{
				Check: checkAutoscalers, Status: Problem, Message: "does not answer", Cause: "cannot forward",
				Remedy: "aggregation",
			},
		},
	})
}

// noPodMetrics adds an autoscaler whose pods have no metrics, and one that works.
func noPodMetrics(c *fakeCluster) {
	autoscalerFails("failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from " +
		"resource metrics API")(c)
}

// autoscalerFails adds an autoscaler that fails with the message, and one that works.
func autoscalerFails(message string) func(*fakeCluster) {
	return func(c *fakeCluster) {
		c.objects[pathScalers] = &autoscalingv2.HorizontalPodAutoscalerList{Items: []autoscalingv2.HorizontalPodAutoscaler{
			scaler("web", "FailedGetResourceMetric", message), scaler("fine", "", ""),
		}}
	}
}

// Lines name all autoscalers and the pods that they are about, although their messages name only some.
func TestLinesNameObjects(t *testing.T) {
	c := newCluster(t)
	list := &autoscalingv2.HorizontalPodAutoscalerList{}
	var want []Object
	for _, name := range []string{"e", "d", "c", "b", "a"} {
		list.Items = append(list.Items, scaler(name, "FailedGetResourceMetric", "missing request for cpu"))
		want = slices.Insert(want, 0, Autoscaler("default", name))
	}
	c.objects[pathScalers] = list
	scalers, pods := 0, 0
	for _, l := range c.run().Checks {
		switch {
		case l.Check == checkAutoscalers:
			scalers++
			if diff := cmp.Diff(want, l.Objects); diff != "" {
				t.Errorf("%s, -want +got:\n%s", l.Message, diff)
			}
		case strings.Contains(l.Message, " is ready on node "):
			pods++
			if len(l.Objects) != 1 || l.Objects[0].Kind != "Pod" || !strings.Contains(l.Message, l.Objects[0].Name) {
				t.Errorf("%s: %v", l.Message, l.Objects)
			}
		case len(l.Objects) > 0:
			t.Errorf("%s: %v", l.Message, l.Objects)
		}
	}
	if scalers != 1 || pods == 0 {
		t.Errorf("%d lines about autoscalers and %d about pods", scalers, pods)
	}
}

func TestDecodeItems(t *testing.T) {
	for _, tc := range []struct {
		json string
		want []string
		ok   bool
	}{
		{`{"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}],"kind":"L"}`, []string{"a", "b"}, true},
		{`{"kind":"L","metadata":{"items":[1]},"items":[]}`, nil, true},
		{`{"items":null}`, nil, true},
		{`{}`, nil, true},
		{`[]`, nil, false},
		{`{"items":{}}`, nil, false},
		{`{"items":[{"metadata":{"name":"a"}}`, []string{"a"}, false},
		{`{"items":[{"metadata":1}]}`, nil, false},
		{``, nil, false},
	} {
		var got []string
		err := decodeItems(strings.NewReader(tc.json), func(u usage) { got = append(got, u.Metadata.Name) })
		if (err == nil) != tc.ok || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, %v, want %v", tc.json, got, err, tc.want)
		}
	}
}
