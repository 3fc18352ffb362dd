package exposition_test

import (
	"fmt"
	"time"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/sample"
)

// A kubelet's answer becomes a batch of samples. A row that cannot be used costs only itself.
func ExampleParser_ParseText() {
	const answer = `# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="app",namespace="default",pod="web-0"} 12.5 1700000000000
container_cpu_usage_seconds_total{container="app",namespace="default",pod="web-1"} NaN 1700000000000
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{container="app",namespace="default",pod="web-0"} 4.194304e+06 1700000000000
`
	var (
		parser exposition.Parser // one per worker
		layout exposition.Layout // one per node
		batch  sample.Batch
	)
	received := time.UnixMilli(1700000005000)
	if err := parser.ParseText([]byte(answer), received, &layout, &batch); err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range batch.Containers {
		if c.Given.Has(sample.CPU | sample.Memory) {
			cpu := time.Duration(c.CPU)
			fmt.Printf("%s/%s %s: %v of CPU time, %d KiB\n", c.ID.Namespace(), c.ID.Pod(), c.ID.Container(), cpu, c.Memory>>10)
		}
	}
	fmt.Println("refused:", batch.Refused.String())
	// Output:
	// default/web-0 app: 12.5s of CPU time, 4096 KiB
	// refused: not_a_number: 1
}

// An answer without anything usable is an error that says how much was refused, and why.
func ExampleParser_ParseText_error() {
	var (
		parser exposition.Parser
		layout exposition.Layout
		batch  sample.Batch
	)
	err := parser.ParseText([]byte("node_cpu_usage_seconds_total -1\n"), time.UnixMilli(1700000005000), &layout, &batch)
	fmt.Println(err)
	// Output:
	// answer has no usable sample of the node or of a container: 1 rows refused, most of them as negative
}
