package kubelet

import "metrics-server/pkg/sample"

// ExplainRefused returns why samples are refused for reason r, and the remedy.
func ExplainRefused(r sample.Reason) (cause, remedy string) {
	switch r {
	case sample.TimestampAhead, sample.TimestampBehind:
		return "their timestamps are more than an hour from the server's time", RemedyClock
	case sample.TimestampOld:
		return "their timestamps are older than earlier ones: the node's clock was set back", RemedyClock
	case sample.Excess:
		return "the node lists more than 8,192 containers, or names of more than 1 MiB together",
			"find out what creates so many containers there"
	case sample.OverCapacity:
		return "they show more CPU or memory than the Node's status.capacity",
			"if that capacity is wrong, restart the kubelet, which measures it at its start; otherwise update the " +
				"kubelet and the container runtime"
	case sample.Contradicted:
		return "the container runtime reports zero for containers whose pod uses CPU or memory",
			"restart the container runtime on the node, and update it"
	case sample.Frozen:
		return "the kubelet repeats the same samples for minutes",
			"restart the kubelet; if that does not help, the container runtime"
	}
	return "the kubelet or its container runtime gives values that make no sense",
		"update the kubelet and the container runtime"
}
