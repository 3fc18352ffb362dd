package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestAnswerIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"no node CPU": {
			nodes: []string{"n2"}, broken: says(at(0, answer+"node_memory_working_set_bytes 1 %[1]d\n")),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "lacks node_cpu_usage_seconds_total", Cause: "cgroups",
				Remedy: "cadvisor",
			},
		},
		"no container CPU": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+
				"container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n")),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "lacks container_cpu_usage_seconds_total", Cause: "runtime",
				Remedy: "cadvisor",
			},
		},
		"no containers": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer)),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "lists no running container", Cause: "runtime gives",
				Remedy: "kubectl get pods",
			},
		},
		"no samples": {
			nodes: []string{"n2"}, broken: says("up 1\n"),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "no usable sample", Cause: "no usable sample",
				Remedy: "something other than a kubelet",
			},
		},
		"kubelet error": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer+"resource_scrape_error 1\n")),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "the kubelet cannot collect its metrics",
				Cause: "resource_scrape_error", Remedy: "kubelet's log",
			},
		},
		"refused samples": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer+"node_swap_usage_bytes -1 %[1]d\n")),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "unusable samples: n2 (negative: 1)", Cause: "make no sense",
				Remedy: "kubectl get --raw",
			},
		},
		"samples that stand still": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer) + at(-5*time.Minute, answer)),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "repeats old samples beside new ones: n2 (n/p/c)",
				Cause: "has stopped sampling", Remedy: "restart the kubelet",
			},
		},
		"a node's samples that stand still": {
			nodes: []string{"n2"}, broken: says(at(-5*time.Minute, nodeAnswer) + at(0, answer)),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "repeats old samples beside new ones: n2 (the node itself)",
				Cause: "has stopped sampling", Remedy: "restart the kubelet",
			},
		},
		"clock ahead": {
			nodes: []string{"n2"}, broken: says(at(10*time.Minute, nodeAnswer+answer)),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "ahead of the API server's clock", Cause: "clock is wrong",
				Remedy: "NTP",
			},
		},
		"zeros that the pod contradicts": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer+
				"container_cpu_usage_seconds_total{container=\"z\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n"+
				"container_memory_working_set_bytes{container=\"z\",namespace=\"n\",pod=\"p\"} 0 %[1]d\n"+
				"pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 2e+08 %[1]d\n")),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "unusable samples: n2 (contradicted: 1)",
				Cause: "reports zero for containers whose pod uses", Remedy: "restart the container runtime",
			},
		},
		"clock behind": {
			nodes: []string{"n2"}, broken: says(at(-10*time.Minute, nodeAnswer+answer)),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "newest sample is old", Cause: "clock is behind",
				Remedy: "NTP",
			},
		},
		"own clock": {
			broken: func(c *fakeCluster) { c.skew = time.Hour },
			want: Line{
				Check: checkClock, Status: Warning, Message: "ahead of the local clock",
				Cause: "wrong", Remedy: "NTP",
			},
		},
		"two kinds of refused samples": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer+"node_swap_usage_bytes -1 %[1]d\n"+
				"container_cpu_usage_seconds_total{container=\"d\",namespace=\"n\",pod=\"q\"} 5 %[1]d\n"+
				"container_memory_working_set_bytes{container=\"d\",namespace=\"n\",pod=\"q\"} 0 %[1]d\n"+
				"pod_memory_working_set_bytes{namespace=\"n\",pod=\"q\"} 200000000 %[1]d\n")),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "unusable samples: n2 (contradicted: 1)",
				Cause: "reports zero for containers whose pod uses", Remedy: "restart the container runtime",
			},
		},
		"more memory than the node has": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) {
				c.nodes[1].Status.Capacity = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Ki")}
				says(at(0, strings.ReplaceAll(nodeAnswer, "working_set_bytes 1", "working_set_bytes 2048")+answer))(c)
			},
			want: Line{
				Check: checkNodes, Status: Warning, Message: "more memory than the node has: n2 (2048 bytes of 1024)",
				Cause: "status.capacity", Remedy: "restart the kubelet",
			},
		},
		"own clock ahead": {
			broken: func(c *fakeCluster) { c.skew = -3 * time.Hour },
			want: Line{
				Check: checkClock, Status: Warning, Message: "behind the local clock",
				Cause: "wrong", Remedy: "NTP",
			},
		},
		"clock hours ahead": {
			nodes: []string{"n2"}, broken: says(at(3*time.Hour, nodeAnswer+answer)),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "all samples are refused because of the node's clock",
				Cause: "the node's clock is 3h0m0s ahead", Remedy: "synchronize the clocks (NTP) of this node",
			},
		},
		"clock hours behind": {
			nodes: []string{"n2"}, broken: says(at(-3*time.Hour, nodeAnswer+answer)),
			want: Line{
				Check: checkNodes, Status: Problem, Message: "all samples are refused because of the node's clock",
				Cause: "the node's clock is 3h0m0s behind", Remedy: "synchronize the clocks (NTP) of this node",
			},
		},
		"clock of 1970": {
			nodes: []string{"n2"}, broken: says(fmt.Sprintf(nodeAnswer+answer, 1000)),
			want: Line{Check: checkNodes, Status: Problem, Cause: " days behind", Remedy: "NTP"},
		},
		"clock of a container only": {
			nodes: []string{"n2"}, broken: says(at(0, nodeAnswer+answer) + at(2*time.Hour,
				`container_memory_working_set_bytes{container="d",namespace="n",pod="q"} 1 %d`+"\n")),
			want: Line{
				Check: checkNodes, Status: Warning, Message: "n2 (timestamp_ahead: 1; the node's clock is 2h0m0s ahead)",
				Cause: "more than an hour from the server's time", Remedy: "NTP",
			},
		},
		"no nodes": {
			broken: func(c *fakeCluster) { c.nodes = nil },
			want: Line{
				Check: checkNodes, Status: Warning, Message: "no nodes", Cause: "--node-selector", Remedy: "--show-labels",
			},
		},
		"old kubelet": {
			nodes: []string{"n2"}, broken: func(c *fakeCluster) { c.nodes[1].Status.NodeInfo.KubeletVersion = "v1.18.20" },
			want: Line{
				Check: checkVersions, Status: Warning, Message: "v1.18.20 (1), v1.37.2 (1)", Cause: "older than 1.19",
				Remedy: "update",
			},
		},

		"old virtual kubelet": {
			broken: func(c *fakeCluster) { c.nodes[1].Status.NodeInfo.KubeletVersion = "v1.15.2-vk-1.9.0" },
			want:   Line{Check: checkVersions, Status: OK, Message: "v1.15.2-vk-1.9.0 (1), v1.37.2 (1)"},
		},
	})
}

// says sets the answer of the kubelet of n2.
func says(answer string) func(*fakeCluster) {
	return func(c *fakeCluster) { c.objects[proxyPath("n2")] = func() []byte { return []byte(answer) } }
}

// Parts of a kubelet's answer, without timestamps: of a container and of the node.
const answer = "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1 " +
	"%[1]d\ncontainer_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n"

const nodeAnswer = "node_cpu_usage_seconds_total 1 %[1]d\nnode_memory_working_set_bytes 1 %[1]d\n"

// at fills in the timestamp of an answer: d from now.
func at(d time.Duration, s string) string { return fmt.Sprintf(s, time.Now().Add(d).UnixMilli()) }
