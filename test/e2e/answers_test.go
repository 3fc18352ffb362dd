//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pathAnnotation says where a node's kubelet is asked.
const pathAnnotation = "metrics.k8s.io/resource-metrics-path"

// TestAnswersThatLack has a kubelet's answer lack what it lacks where the container runtime gives the kubelet too little: it is asked
// for a file in the node's log directory, in which its own answer is without that. Users are told what is missing, and what to do.
func TestAnswersThatLack(t *testing.T) {
	if !changesNodes(t) {
		t.Log("E2E_NODE=none: nothing is tested here")
		return
	}
	ns := namespace(t)
	nodes, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := nodes.Items[len(nodes.Items)-1].Name
	pod := podOf("there", workload("c"))
	pod.Spec.NodeName = node
	createPod(t, ns, pod)
	waitServed(t, ns, "there", "c")

	const file, right = "metrics-server-e2e.txt", "metrics-server-e2e:logs"
	answerWithout := func(prefix string) {
		var kept strings.Builder
		for line := range strings.Lines(mustKubectl(t, "get", "--raw", "/api/v1/nodes/"+node+"/proxy/metrics/resource")) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, prefix) {
				kept.WriteString(line)
			}
		}
		changeNode(t, "exec", node, "sh", "-c", `printf %s "$1" >"$2"`, "sh", kept.String(), "/var/log/"+file)
	}
	t.Cleanup(func() {
		mustKubectl(t, "annotate", "node", node, pathAnnotation+"-")
		mustKubectl(t, "delete", "clusterrolebinding,clusterrole", right)
		changeNode(t, "exec", node, "rm", "-f", "/var/log/"+file)
		noneFails(t)
		mended(t)
	})
	answerWithout("nothing")
	mustKubectl(t, "create", "clusterrole", right, "--verb=get", "--resource=nodes/log")
	mustKubectl(t, "create", "clusterrolebinding", right, "--clusterrole="+right, "--serviceaccount="+serverNamespace+":"+serverName)
	mustKubectl(t, "annotate", "node", node, pathAnnotation+"=/logs/"+file)
	noneFails(t)

	podIs := func(says ...string) error {
		out, err := kubectl("get", "pods.metrics.k8s.io", "-n", ns, "there")
		if err == nil {
			return fmt.Errorf("the pod is served: %s", out)
		}
		return has(out, says...)
	}
	lack := func(series string) []string {
		return []string{"lacks " + series, "see the kubelet's log for cadvisor and cgroup"}
	}
	const cpu, memory = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"
	for _, tc := range []struct {
		name, without string
		table         []string // what the table of nodes says
		told          bool     // as an Event and in the log, too
		pod           []string // why the pod is not served; nil: it is
		doctor        []string
		warning       bool // of the doctor, not a problem
	}{
		{
			name: "containers", without: "container_",
			table: []string{"<none>"}, // as far as it knows, nothing runs there
			pod:   []string{"no kubelet lists it", "list no running container (", "the container runtime there gives the kubelet no metrics"},
			doctor: []string{
				"lists no container that runs", "the container runtime gives the kubelet no metrics", "kubectl get pods -A --field-selector spec.nodeName=",
				"see the kubelet's log for cadvisor and cgroup",
			}, warning: true,
		},
		{name: "container-cpu", without: cpu, table: lack(cpu), pod: []string{"listed without CPU"}, doctor: lack(cpu)},
		{name: "container-memory", without: memory, table: lack(memory), pod: []string{"listed without memory"}, doctor: lack(memory)},
		{
			name: "node", without: "node_",
			table: append(lack("node_cpu_usage_seconds_total, node_memory_working_set_bytes"), "<unknown>"), doctor: lack("node_cpu_usage_seconds_total, node_memory_working_set_bytes"),
		},
		{
			name: "all", without: "", told: true,
			table:  []string{"answer has no usable sample", "the container runtime may give the kubelet no metrics"},
			doctor: []string{"no usable sample", "the container runtime may give the kubelet no metrics"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answerWithout(tc.without)
			eventually(t, "it is said what is missing, and what to do", func() error {
				if tc.told {
					return told(t, node, tc.table...)
				}
				errs := []error{has(nodeRow(t, node), tc.table...)}
				if tc.pod != nil {
					return errors.Join(append(errs, podIs(tc.pod...))...)
				}
				_, err := kubectl("get", "pods.metrics.k8s.io", "-n", ns, "there")
				out, found := kubectl("get", "nodes.metrics.k8s.io", node)
				if found == nil {
					errs = append(errs, fmt.Errorf("the node is served: %s", out))
				}
				return errors.Join(append(errs, err, has(out, append([]string{"has no usage: the last sample of the node was received "}, tc.table[:2]...)...))...)
			})
			for where, d := range map[string]diagnosis{"in the pod": doctorIn(t, serverPods(t)[0]), "at a terminal": doctor(t)} {
				says := append(tc.doctor, node)
				err := d.finds("nodes", says...)
				if tc.warning {
					err = d.warns("nodes", says...)
				}
				if err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
			for said := range strings.SplitSeq(strings.TrimPrefix(tc.doctor[0], "lacks "), ", ") {
				documented(t, said)
			}
		})
	}
	log, err := kubectl("logs", "-n", serverNamespace, "deploy/"+serverName)
	if err := errors.Join(err, has(log, "answers of a node begin to lack series", `series="`+cpu+`"`, "see the kubelet's log for cadvisor and cgroup")); err != nil {
		t.Error(err)
	}
}
