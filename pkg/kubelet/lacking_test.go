package kubelet

import (
	"testing"

	"metrics-server/pkg/sample"
)

func TestLacking(t *testing.T) {
	const whole = sample.CPU | sample.Memory
	answer := func(node sample.Fields, containers ...sample.Fields) *sample.Batch {
		b := &sample.Batch{Node: sample.Sample{Given: node}}
		for _, given := range containers {
			b.Containers = append(b.Containers, sample.Container{Sample: sample.Sample{Given: given}})
		}
		return b
	}
	for name, tc := range map[string]struct {
		answer *sample.Batch
		want   string
	}{
		"nothing":        {answer(whole, whole), ""},
		"no container":   {answer(whole), ""},
		"none that runs": {answer(whole, sample.Start, 0), ""},
		"one of two":     {answer(whole, sample.Memory, whole), ""},
		"each another":   {answer(whole, sample.Memory, sample.CPU|sample.Start), ""},
		"node's CPU":     {answer(sample.Memory, whole), "node_cpu_usage_seconds_total"},
		"node's memory":  {answer(sample.CPU, whole), "node_memory_working_set_bytes"},
		"containers' CPU": {
			answer(whole, sample.Memory, sample.Memory|sample.Start), "container_cpu_usage_seconds_total",
		},
		"containers' memory":      {answer(whole, sample.Start, sample.CPU), "container_memory_working_set_bytes"},
		"containers' CPU refused": {answer(whole, sample.Memory|sample.Refused), ""},
		"node's CPU refused":      {answer(sample.Memory|sample.Refused, whole), ""},
		"several": {
			answer(0, sample.Memory),
			"node_cpu_usage_seconds_total, node_memory_working_set_bytes, container_cpu_usage_seconds_total",
		},
	} {
		if got := Lacking(tc.answer); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	b := answer(whole, sample.Memory, whole)
	if n := testing.AllocsPerRun(10, func() { Lacking(b) }); n > 0 {
		t.Errorf("%v allocations for an answer that lacks nothing, as nearly all do", n)
	}
}
