package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

// rows are those of a node and of the container app of the pod default/web, by a clock at that time.
func rows(clock time.Time, nodeCPU, cpu string) string {
	ms := clock.UnixMilli()
	const labels = `{container="app",namespace="default",pod="web"}`
	return fmt.Sprintf("container_cpu_usage_seconds_total%s %s %d\ncontainer_memory_working_set_bytes%s 98304000 %d\n"+
		"node_cpu_usage_seconds_total %s %d\nnode_memory_working_set_bytes 5000000000 "+
		"%d\n", labels, cpu, ms, labels, ms, nodeCPU, ms, ms)
}

// A value that cannot be parsed is treated as a bad sample: the last usage of the pod is served.
func TestRule5MalformedValues(t *testing.T) {
	for _, bad := range []string{"NaN", "abc", "", "1e", "0x10", "--1", "5 5 5", "1_0"} {
		k := newKubelet(t, 16)
		record := func(s float64, cpu string) sample.Refusals { return k.answer(s, rows(at(s), "1", cpu)) }
		record(0, "10")
		record(15, "11.5")
		k.want(15, "web", "app 100m 93Mi")
		if refused := record(30, bad); refused.Total() != 1 {
			t.Errorf("CPU %q: refused %q", bad, &refused)
		}
		k.want(30, "web", "app 100m 93Mi")
		record(45, "17.5")
		k.want(45, "web", "app 200m 93Mi")
	}

	// A row whose labels cannot be parsed may belong to the pod.
	k := newKubelet(t, 16)
	for i, labels := range []string{`{container="app",`, `{container="app",`, `{container="app" `} {
		s := 15 * float64(i)
		k.answer(s, strings.Replace(rows(at(s), "1", fmt.Sprint(10+s/10)), `{container="app",`, labels, 1))
	}
	k.want(30, "web", "app 100m 93Mi")
}

// Nothing of a truncated answer is used, not even the number in which it ends.
func TestRule5TruncatedAnswer(t *testing.T) {
	whole := rows(at(30), "103", "13")
	for n := 1; n < len(whole); n++ {
		if whole[n-1] == '\n' {
			continue
		}
		k := newKubelet(t, 16)
		k.answer(0, rows(at(0), "100", "10"))
		k.answer(15, rows(at(15), "101", "11.5"))
		if _, err := k.receive(30, whole[:n]); err == nil {
			t.Fatalf("%q is used", whole[:n])
		}
		if u, ok := k.store.Node("n", at(30)); !ok || u.Memory != 5_000_000_000 {
			t.Fatalf("%q: the node is served as %+v, %v", whole[:n], u, ok)
		}
		k.want(30, "web", "app 100m 93Mi")
	}
}

// The answers of a kubelet whose clock is more than an hour off are refused from the first one on;
// the rest of its answers say so.
func TestRule5Clock(t *testing.T) {
	for off, reason := range map[time.Duration]sample.Reason{
		-56 * 365 * 24 * time.Hour: sample.TimestampBehind, // 1970
		-61 * time.Minute:          sample.TimestampBehind,
		-59 * time.Minute:          sample.NumReasons,
		59 * time.Minute:           sample.NumReasons,
		61 * time.Minute:           sample.TimestampAhead,
		73 * 365 * 24 * time.Hour:  sample.TimestampAhead,
	} {
		k := newKubelet(t, 16)
		for i := range 3 {
			s := 15 * float64(i)
			refused, err := k.receive(s, rows(at(s).Add(off), fmt.Sprint(100+i), fmt.Sprint(10+s/10)))
			if reason == sample.NumReasons {
				if err != nil || refused.Total() > 0 {
					t.Errorf("%v off: %v, refused %q", off, err, &refused)
				}
			} else if err == nil || refused[reason] != 4 || refused.Total() != 4 {
				t.Errorf("%v off: error %v, refused %q", off, err, &refused)
			}
		}
		if reason == sample.NumReasons {
			k.want(30, "web", "app 100m 93Mi")
		} else if k.store.Pod("default", "web", at(30), &sample.PodUsage{}) {
			t.Errorf("%v off: the pod is served", off)
		}
	}
}

// Of two rows of one container the first is taken.
func TestDuplicateRows(t *testing.T) {
	k := newKubelet(t, 16)
	const families = "container_cpu_usage_seconds_total,container_memory_working_set_bytes,container_start_time_seconds"
	for i := range 3 {
		s := 10 * float64(i)
		ms := at(s).UnixMilli()
		answer := fmt.Sprintf("node_cpu_usage_seconds_total %d %d\nnode_memory_working_set_bytes 4e9 %d\n", 90000+5*i, ms, ms)
		for family := range strings.SplitSeq(families, ",") {
			for _, row := range []struct {
				pod string
				cpu int
			}{{"web", 500 + i}, {"web", 3}, {"other", 100 + i}} {
				value := fmt.Sprintf("%d %d", row.cpu, ms)
				switch family {
				case "container_memory_working_set_bytes":
					value = fmt.Sprintf("98304000 %d", ms)
				case "container_start_time_seconds":
					value = fmt.Sprint(ms/1000 - int64(10*i) - 9000)
				}
				answer += fmt.Sprintf("%s{container=\"app\",namespace=\"default\",pod=%q} %s\n", family, row.pod, value)
			}
		}
		if refused := k.answer(s, answer); refused[sample.Duplicate] != 3 || refused.Total() != 3 {
			t.Errorf("at %v s: refused %q", s, &refused)
		}
	}
	k.want(20, "web", "app 100m 93Mi")
	k.want(20, "other", "app 100m 93Mi")
}
