package kubelet

import (
	"strings"

	"metrics-server/pkg/sample"
)

// RemedyRuntime is the remedy for a container runtime that gives its kubelet no metrics.
const RemedyRuntime = "see the kubelet's log for cadvisor and cgroup; update the kubelet and the container runtime, " +
	"and let both use the same cgroup driver"

// Lacking names the required series that an answer lacks: those of the node, and CPU or memory of
// containers if they have the other of the two. It returns "" if nothing is lacking. An answer
// without containers may be that of a node on which nothing runs.
func Lacking(b *sample.Batch) string {
	const both = sample.CPU | sample.Memory
	// there returns given with both fields if a value was present but refused.
	there := func(given sample.Fields) sample.Fields {
		if given.Has(sample.Refused) {
			given |= both
		}
		return given
	}
	node := there(b.Node.Given)
	var given sample.Fields
	for i := range b.Containers {
		if given |= there(b.Containers[i].Given); given.Has(both) {
			break
		}
	}
	some := given&both != 0
	var lacking []string
	for _, series := range []struct {
		name  string
		lacks bool
	}{
		{"node_cpu_usage_seconds_total", !node.Has(sample.CPU)},
		{"node_memory_working_set_bytes", !node.Has(sample.Memory)},
		{"container_cpu_usage_seconds_total", some && !given.Has(sample.CPU)},
		{"container_memory_working_set_bytes", some && !given.Has(sample.Memory)},
	} {
		if series.lacks {
			lacking = append(lacking, series.name)
		}
	}
	return strings.Join(lacking, ", ")
}
