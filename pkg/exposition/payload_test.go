package exposition

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// names lists the labels of pods x containers as a kubelet does: sorted by container, namespace, pod.
func names(pods, containers int) []string {
	var names []string
	for c := range containers {
		for p := range pods {
			names = append(names,
				fmt.Sprintf(`container="container-%d",namespace="namespace-%d",pod="deployment-%02d-68dc4c5594-fdms%c"`, c,
					p*4/pods, p, 'a'+p%26))
		}
	}
	return names
}

// payload is an answer in the kubelet's form that lists the containers of names. The values depend on step.
func payload(names []string, step int) []byte {
	var b bytes.Buffer
	value := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	header := func(name, kind string) {
		fmt.Fprintf(&b, "# HELP %s [STABLE] A line of help as long as those of the kubelet are\n# TYPE %[1]s %s\n", name,
			kind)
	}
	ms := received.UnixMilli() - 10_000 + int64(step)
	rows := func(family, kind string, names []string, number func(i int) float64, timestamp bool) {
		header(family, kind)
		for i, n := range names {
			fmt.Fprintf(&b, "%s{%s} %s", family, n, value(number(i)))
			if timestamp {
				fmt.Fprintf(&b, " %d", ms-int64(i)*37)
			}
			b.WriteByte('\n')
		}
	}
	cpu := func(i int) float64 { return float64(1_234_567_891*(i+1)+step*77_777_777) / 1e9 }
	memory := func(i int) float64 { return float64(12_075_008 + 4096*(i*i+step)) }
	rows("container_cpu_usage_seconds_total", "counter", names, cpu, true)
	rows("container_memory_working_set_bytes", "gauge", names, memory, true)
	rows("container_start_time_seconds", "gauge", names,
		func(i int) float64 { return 1.7953104305863268e9 + float64(i)/7 }, false)
	rows("container_swap_usage_bytes", "gauge", names, func(int) float64 { return 0 }, true)
	header("node_cpu_usage_seconds_total", "counter")
	fmt.Fprintf(&b, "node_cpu_usage_seconds_total %s %d\n", value(3325.150998618+float64(step)), ms)
	header("node_memory_working_set_bytes", "gauge")
	fmt.Fprintf(&b, "node_memory_working_set_bytes 1.064726528e+09 %d\n", ms)
	var pods []string
	for _, n := range names {
		_, pod, _ := strings.Cut(n, ",")
		if len(pods) > 0 && pods[0] == pod {
			break // the pods of the next container
		}
		pods = append(pods, pod)
	}
	rows("pod_cpu_usage_seconds_total", "counter", pods, cpu, true)
	rows("pod_memory_working_set_bytes", "gauge", pods, memory, true)
	header("resource_scrape_error", "gauge")
	b.WriteString("resource_scrape_error 0\n")
	return b.Bytes()
}
