package history

import (
	"cmp"
	"strings"

	"metrics-server/pkg/sample"
)

// Key names a series: a node or a namespace, which have no Namespace, or a workload.
type Key struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Kinds of the series that are not workloads.
const (
	KindNode      = "Node"
	KindNamespace = "Namespace"
)

func (k Key) isNode() bool { return k.Namespace == "" && k.Kind == KindNode }

func (k Key) compare(o Key) int {
	return cmp.Or(
		strings.Compare(k.Namespace, o.Namespace), strings.Compare(k.Kind, o.Kind), strings.Compare(k.Name, o.Name))
}

// WorkloadOf returns the workload that a pod belongs to. That is its controller, with three
// exceptions for controllers that are replaced all the time, or that are not about the pod:
//
//   - A ReplicaSet whose name ends in the pod's pod-template-hash is that of a Deployment, which is the
//     workload.
//   - A Job whose name ends in a CronJob's minute is that of the CronJob.
//   - Static pods, whose controller is their node, have the node's name at the end of theirs. Those that
//     have the same name without it are one workload of kind Pod.
//
// A pod without a controller is a workload of its own.
func WorkloadOf(namespace, pod string, labels sample.Labels, c sample.Controller) Key {
	k := Key{Namespace: namespace, Kind: c.Kind, Name: c.Name}
	switch c.Kind {
	case "":
		k.Kind, k.Name = "Pod", pod
	case KindNode:
		k.Kind, k.Name = "Pod", strings.TrimSuffix(pod, "-"+c.Name)
	case "ReplicaSet":
		hash := labels.Get("pod-template-hash")
		if name, ok := strings.CutSuffix(c.Name, "-"+hash); ok && hash != "" && name != "" {
			k.Kind, k.Name = "Deployment", name
		}
	case "Job":
		if i := strings.LastIndexByte(c.Name, '-'); i > 0 && isMinute(c.Name[i+1:]) {
			k.Kind, k.Name = "CronJob", c.Name[:i]
		}
	}
	return k
}

// isMinute reports whether s is how the CronJob controller ends the name of a Job: minutes since
// 1970. The bounds are 2020 and 2160. Days, such as 20261130, are not between them.
func isMinute(s string) bool {
	const from, to = "26297280", "99930239"
	return len(s) == len(from) && strings.Trim(s, "0123456789") == "" && from <= s && s <= to
}
