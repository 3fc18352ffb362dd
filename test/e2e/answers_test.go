//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// pathAnnotation says at which path a node's kubelet is scraped.
const pathAnnotation = "metrics.k8s.io/resource-metrics-path"

// TestAnswersWithoutSomeSeries makes a kubelet's answer lack the series that it lacks when the container
// runtime provides too little: the server scrapes a file in the log directory of a node of its own
// that has the kubelet's answer without them. Users are told what is missing, and what to do.
func TestAnswersWithoutSomeSeries(t *testing.T) {
	if !changesNodes(t) {
		t.Log("E2E_NODE=none: nothing is tested here")
		return
	}
	added := addsNode(t)
	amidFailingNodes.join(t)
	ns := namespace(t)
	node := addNode(t)
	added()
	t.Cleanup(func() { changeNode(t, "delete", node) })
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
		const write = `printf %s "$1" >"$2.next" && mv "$2.next" "$2"`
		changeNode(t, "exec", node, "sh", "-c", write, "sh", kept.String(), "/var/log/"+file)
	}
	t.Cleanup(func() {
		mustKubectl(t, "annotate", "node", node, pathAnnotation+"-")
		mustKubectl(t, "delete", "clusterrolebinding,clusterrole", right)
		scraped(t, node)
	})
	answerWithout("nothing")
	mustKubectl(t, "create", "clusterrole", right, "--verb=get", "--resource=nodes/log")
	mustKubectl(
		t, "create", "clusterrolebinding", right, "--clusterrole="+right,
		"--serviceaccount="+serverNamespace+":metrics-server-kubelets",
	)
	mustKubectl(t, "annotate", "node", node, pathAnnotation+"=/logs/"+file)
	scraped(t, node)

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
		reported      bool     // as an Event and in the log, too
		pod           []string // why the pod is not served; nil: it is served
		doctor        []string
		warning       bool // of the doctor, not a problem
	}{
		{
			name: "containers", without: "container_",
			table: []string{"<none>"}, // as far as the server knows, nothing runs there
			pod: []string{
				"no kubelet lists it", "list no running container (",
				"the container runtime there gives the kubelet no metrics",
			},
			doctor: []string{
				"lists no running container", "the container runtime gives the kubelet no metrics",
				"kubectl get pods -A --field-selector spec.nodeName=",
				"see the kubelet's log for cadvisor and cgroup",
			}, warning: true,
		},
		{name: "container-cpu", without: cpu, table: lack(cpu), pod: []string{"listed without CPU"}, doctor: lack(cpu)},
		{
			name: "container-memory", without: memory, table: lack(memory), pod: []string{"listed without memory"},
			doctor: lack(memory),
		},
		{
			name: "node", without: "node_",
			table:  append(lack("node_cpu_usage_seconds_total, node_memory_working_set_bytes"), "<unknown>"),
			doctor: lack("node_cpu_usage_seconds_total, node_memory_working_set_bytes"),
		},
		{
			name: "all", without: "", reported: true,
			table:  []string{"answer has no usable sample", "the container runtime may give the kubelet no metrics"},
			doctor: []string{"no usable sample", "the container runtime may give the kubelet no metrics"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eventually(t, "it is said what is missing, and what to do", func() error {
				answerWithout(tc.without) // again and again: a usage needs two samples, with different timestamps
				if tc.reported {
					return scrapeFailureShown(node, tc.table...)
				}
				row, missing := nodeRow(node)
				errs := []error{missing, has(row, tc.table...)}
				if tc.pod != nil {
					return errors.Join(append(errs, podIs(tc.pod...))...)
				}
				_, err := kubectl("get", "pods.metrics.k8s.io", "-n", ns, "there")
				out, found := kubectl("get", "nodes.metrics.k8s.io", node)
				if found == nil {
					errs = append(errs, fmt.Errorf("the node is served: %s", out))
				}
				return errors.Join(
					append(
						errs, err,
						has(out, append([]string{"has no usage: the last sample of the node was received "}, tc.table[:2]...)...),
					)...)
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
	if err := errors.Join(
		err,
		has(log, "Answers of a node lack series", `series="`+cpu+`"`, "see the kubelet's log for cadvisor and cgroup"),
	); err != nil {
		t.Error(err)
	}
}
