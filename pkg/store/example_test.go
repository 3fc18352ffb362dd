package store_test

import (
	"fmt"
	"time"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// Two answers of a kubelet, 15 s apart, give a usage: CPU is the difference, memory the newest value.
func Example() {
	s := store.New(store.Config{Resolution: 15 * time.Second})
	id := sample.NewContainerID("default", "web-0", "app")
	received := time.UnixMilli(1700000000000)
	record := func(cpu time.Duration, memory uint64) {
		s.Record("node-1", &sample.Batch{Containers: []sample.Container{{
			ID: &id,
			Sample: sample.Sample{
				Time:   sample.TimeOf(received),
				CPU:    uint64(cpu),
				Memory: memory,
				Given:  sample.CPU | sample.Memory,
			},
		}}}, received)
	}

	record(10*time.Second, 12<<20)
	fmt.Println(s.WhyNoPod("default", "web-0", received))

	received = received.Add(15 * time.Second)
	record(13*time.Second, 20<<20)
	var pod sample.PodUsage
	if s.Pod("default", "web-0", received, &pod) {
		c := pod.Containers[0]
		fmt.Printf("%s on %s: %d millicores over %v, %d MiB\n", c.Name, pod.Node, c.CPU/1e6, pod.Window, c.Memory>>20)
	}
	// Output:
	// container "app" on node "node-1" has one sample so far, taken 0s ago: a usage needs two that are at least 5s apart
	// app on node-1: 200 millicores over 15s, 20 MiB
}

// A failed scrape hides nothing: the last usage is served until it expires, and its time says how old it is.
func ExampleStore_Node() {
	s := store.New(store.Config{}) // an answer is valid for a minute
	begin := time.UnixMilli(1700000000000)
	for _, after := range []time.Duration{0, 15 * time.Second} {
		received := begin.Add(after)
		s.Record("node-1", &sample.Batch{Node: sample.Sample{
			Time:   sample.TimeOf(received),
			CPU:    uint64(after / 2), // half a core
			Memory: 2 << 30,
			Given:  sample.CPU | sample.Memory,
		}}, received)
	}
	for _, after := range []time.Duration{20 * time.Second, 70 * time.Second, 80 * time.Second} {
		now := begin.Add(after)
		if usage, ok := s.Node("node-1", now); ok {
			fmt.Printf("after %v: %d millicores, %v old\n", after, usage.CPU/1e6, now.Sub(usage.Time.Std()))
		} else {
			fmt.Printf("after %v: %s\n", after, s.WhyNoNode("node-1", now))
		}
	}
	// Output:
	// after 20s: 500 millicores, 5s old
	// after 1m10s: 500 millicores, 55s old
	// after 1m20s: the last answer of its kubelet was received 1m5s ago
}
