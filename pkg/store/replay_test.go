package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// replayed is when the answers of testdata/replay begin: scrape-012s.txt is what a kubelet answers
// from 12 s later on.
var replayed = time.Unix(1_795_900_000, 0)

// recording is an answer and when a kubelet began to give it.
type recording struct {
	at   float64 // seconds since replayed
	body string
}

// recorded returns the answers of a directory of testdata/replay.
func recorded(t *testing.T, name string) []recording {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "replay", name, "scrape-*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no answers: %v", err)
	}
	var all []recording
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r recording
		if _, err := fmt.Sscanf(filepath.Base(file), "scrape-%fs.txt", &r.at); err != nil {
			t.Fatal(err)
		}
		r.body = string(body)
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b recording) int { return int(a.at - b.at) })
	return all
}

// kubelet is a kubelet whose answers are parsed and recorded as in the server.
type kubelet struct {
	*testing.T
	store   *store.Store
	parser  exposition.Parser
	layout  exposition.Layout
	refused sample.Refusals // all that ever was
}

func newKubelet(t *testing.T, cores uint64) *kubelet {
	return &kubelet{T: t, store: store.New(store.Config{Capacity: func(string) sample.Capacity {
		return sample.Capacity{CPU: cores * 1e9, Memory: 16 << 30}
	}})}
}

func at(s float64) time.Time { return replayed.Add(time.Duration(s * float64(time.Second))) }

// receive lets an answer arrive, and returns what was refused and why none of it was used.
func (k *kubelet) receive(s float64, body string) (sample.Refusals, error) {
	var b sample.Batch
	err := k.parser.ParseText([]byte(body), at(s), &k.layout, &b)
	if err == nil {
		r := k.store.Record("n", &b, at(s))
		b.Refused.Add(&r.Refused)
	}
	k.refused.Add(&b.Refused)
	return b.Refused, err
}

// answer lets an answer arrive that is used, and returns what was refused of it.
func (k *kubelet) answer(s float64, body string) sample.Refusals {
	k.Helper()
	refused, err := k.receive(s, body)
	if err != nil {
		k.Fatalf("at %v s: %v", s, err)
	}
	return refused
}

// served says what is served of a pod of the namespace default, or of the node if pod is "":
// millicores and MiB of each container, or why there is nothing.
func (k *kubelet) served(s float64, pod string) string {
	if pod == "" {
		if u, ok := k.store.Node("n", at(s)); ok {
			return fmt.Sprintf("%dm %dMi", u.CPU/1e6, u.Memory>>20)
		}
		return k.store.WhyNoNode("n", at(s))
	}
	var u sample.PodUsage
	if !k.store.Pod("default", pod, at(s), &u) {
		return k.store.WhyNoPod("default", pod, at(s))
	}
	var all []string
	for _, c := range u.Containers {
		all = append(all, fmt.Sprintf("%s %dm %dMi", c.Name, c.CPU/1e6, c.Memory>>20))
	}
	return strings.Join(all, ", ")
}

// want fails the test if not exactly this is served of a pod, as served says it.
func (k *kubelet) want(s float64, pod, want string) {
	k.Helper()
	if got := k.served(s, pod); got != want {
		k.Errorf("at %v s: %q is served as %q, want %q", s, pod, got, want)
	}
}

// Faults of real kubelets. Each answer is fed when the kubelet begins to give it, and then again
// every 12 s, as the server does. At every moment the served usage must match: until the second
// answer, and from then on.
func TestReplay(t *testing.T) {
	const (
		one          = "has one sample so far"
		contradicted = "contradicted: it shows zero CPU or memory, but other rows of the same answer show usage$"
	)
	for name, c := range map[string]struct {
		first   string            // of the pod web after the first answer
		then    map[string]string // of pods, and the node by the name "", after all others
		refused sample.Reason     // the only reason for which samples are refused; 0: none is
	}{
		"start-grows-with-age": {
			first: one, then: map[string]string{"web": "^app (99|100|109)m 95Mi$", "": "^(499|500|545)m 3814Mi$"},
		},
		"start-drifts":     {first: one, then: map[string]string{"web": "^app 100m 93Mi$", "": "^500m 3814Mi$"}},
		"start-jumps-near": {first: one, then: map[string]string{"web": "^app 100m 93Mi$", "": "^500m 3814Mi$"}},
		"start-moves-5s":   {first: one, then: map[string]string{"web": "^app 100m 93Mi$", "": "^500m 3814Mi$"}},
		"memory-zero-of-all": {
			first: contradicted, refused: sample.Contradicted,
			then: map[string]string{"web": contradicted, "single": "^app 50m 0Mi, helper 50m 50Mi$", "": "^500m 3814Mi$"},
		},
		"memory-zero-one":  {first: contradicted, then: map[string]string{"web": contradicted}, refused: sample.Contradicted},
		"cpu-counter-zero": {first: contradicted, then: map[string]string{"web": contradicted}, refused: sample.Contradicted},
		"init-memory-zero": {first: one, then: map[string]string{"web": "^app 100m 93Mi$"}},
		"init-cpu-zero":    {first: one, then: map[string]string{"web": "^app 100m 93Mi$"}},
		"counter-back-7us": {first: one, then: map[string]string{"web": "^app 100m 93Mi$", "": "^500m 3814Mi$"}},
	} {
		answers := recorded(t, name)
		check := func(k *kubelet, s float64, second bool) {
			t.Helper()
			want := map[string]string{"web": c.first}
			if second {
				want = c.then
			}
			for pod, w := range want {
				if got := k.served(s, pod); !regexp.MustCompile(w).MatchString(got) {
					k.Errorf("at %v s: %q: got %q, want %q", s, pod, got, w)
				}
			}
			if k.refused.Total() != k.refused[c.refused] || (c.refused == 0) != (k.refused.Total() == 0) {
				k.Errorf("at %v s: refused %v", s, &k.refused)
			}
		}
		t.Run(name, func(t *testing.T) {
			k := newKubelet(t, 4)
			for i, a := range answers {
				k.answer(a.at, a.body)
				check(k, a.at, i > 0)
			}
		})
		phases := 12
		if name == "counter-back-7us" {
			phases = 8 // later ones do not see both samples before that at 60 s
		}
		for phase := range phases {
			t.Run(fmt.Sprintf("%s, asked every 12 s from %d s on", name, phase), func(t *testing.T) {
				k := newKubelet(t, 4)
				first, last := -1, 0
				for s := answers[0].at + float64(phase); s < answers[len(answers)-1].at+12; s += 12 {
					for i, a := range answers {
						if a.at <= s {
							last = i
						}
					}
					if first < 0 {
						first = last
					}
					k.answer(s, answers[last].body)
					if name == "start-grows-with-age" { // without timestamps the answer is of when it was asked
						continue
					}
					check(k, s, last > first)
				}
			})
		}
	}
}

// report is what a kubelet reports at one moment about the container app of default/web and about the node.
// Rows whose value is "" are not there.
type report struct {
	at, stamp          float64 // when it is asked, and the timestamp of the rows; -1: they have none
	cpu, memory, start string
	nodeCPU            string
	podCPU, podMemory  string
	want, wantNode     string // regular expressions of what is served then
	wantRefused        sample.Reason
	refused            bool
}

func (x report) body() string {
	var b strings.Builder
	stamp := ""
	if x.stamp >= 0 {
		stamp = fmt.Sprint(" ", at(x.stamp).UnixMilli())
	}
	row := func(family, labels, value, stamp string) {
		if value != "" {
			fmt.Fprintf(&b, "%s%s %s%s\n", family, labels, value, stamp)
		}
	}
	const container, pod = `{container="app",namespace="default",pod="web"}`, `{namespace="default",pod="web"}`
	row("container_cpu_usage_seconds_total", container, x.cpu, stamp)
	row("container_memory_working_set_bytes", container, x.memory, stamp)
	row("container_start_time_seconds", container, x.start, "")
	row("node_cpu_usage_seconds_total", "", x.nodeCPU, stamp)
	row("node_memory_working_set_bytes", "", "4e+09", stamp)
	row("pod_cpu_usage_seconds_total", pod, x.podCPU, stamp)
	row("pod_memory_working_set_bytes", pod, x.podMemory, stamp)
	return b.String()
}

// More cases of the same kinds as in TestReplay.
func TestReplayNeighbours(t *testing.T) {
	// steps makes answers that are 10 s apart and lets change do what it will to each.
	steps := func(n int, change func(i int, x *report)) []report {
		all := make([]report, n)
		for i := range all {
			s := float64(10 * i)
			all[i] = report{
				at: s + 1, stamp: s, cpu: fmt.Sprint(3600 + s/10), memory: "104857600", start: "1795864000",
				nodeCPU: fmt.Sprint(90000 + s/2), want: "^app 100m 100Mi$", wantNode: "^500m 3814Mi$",
			}
			if i == 0 {
				all[i].want, all[i].wantNode = "one sample", "one sample"
			}
			change(i, &all[i])
		}
		return all
	}
	for name, answers := range map[string][]report{
		"Go's zero time as start": steps(4, func(_ int, x *report) { x.start = "-6.21355968e+10" }),
		"start of 0":              steps(4, func(_ int, x *report) { x.start = "0" }),
		"start in the future":     steps(4, func(i int, x *report) { x.start = fmt.Sprint(1_795_990_000 + i) }),
		"start far in the future": steps(4, func(i int, x *report) { x.start = "9e+15" }),
		"start comes and goes": steps(6, func(i int, x *report) {
			if i%2 == 1 {
				x.start = ""
			}
		}),
		"start is always near": steps(6, func(i int, x *report) { x.start = fmt.Sprint(1_795_900_000 + 10*i - 8) }),
		"start is always the sample's": steps(6, func(i int, x *report) {
			x.start = fmt.Sprint(1_795_900_000 + 10*i)
		}),
		"no timestamps, start is the age": steps(5, func(i int, x *report) { x.stamp, x.start = -1, fmt.Sprint(46+10*i) }),
		"start jumps back and forth": steps(7, func(i int, x *report) {
			if i%2 == 1 {
				x.start = "1795899990"
			}
		}),
		"counters slip every other time": steps(9, func(i int, x *report) {
			if i >= 2 && i%2 == 0 {
				x.cpu, x.nodeCPU = fmt.Sprintf("%f", 3600+float64(i-1)-7e-6), fmt.Sprintf("%f", 90000+5*float64(i-1)-7e-6)
			}
		}),
		"no timestamps, start is the time of the answer, and a low counter slips": steps(6, func(i int, x *report) {
			x.stamp, x.start, x.cpu = -1, fmt.Sprint(1_795_900_001+10*i), fmt.Sprint(1+i)
			if i == 3 {
				x.cpu = "2.999993"
			}
		}),
		"an idle counter slips each time": steps(20, func(i int, x *report) {
			x.cpu, x.nodeCPU = fmt.Sprintf("%f", 3600-7e-6*float64(i)), fmt.Sprintf("%f", 90000-7e-6*float64(i))
			x.want, x.wantNode = "one sample", "one sample"
			if i >= 7 { // it stands still, and is reported once a minute
				x.want, x.wantNode = "^app 0m 100Mi$", "^0m 3814Mi$"
			}
		}),
		"a part of the counter is gone": steps(6, func(i int, x *report) {
			if i >= 3 {
				x.cpu, x.nodeCPU = fmt.Sprint(2000+i), fmt.Sprint(40000+5*i)
			}
		}),
		"the node boots": steps(6, func(i int, x *report) {
			if i >= 3 {
				x.nodeCPU = fmt.Sprint(5 * (i - 2))
			}
		}),
		"the node's counter jumps once": steps(6, func(i int, x *report) {
			if i == 3 {
				x.nodeCPU, x.refused = "152490", true // 6,249 CPUs
			}
			x.wantRefused = sample.OverCapacity
		}),
		"the container's counter jumps once, and stays": steps(6, func(i int, x *report) {
			if i >= 3 {
				x.cpu, x.refused = fmt.Sprint(70000+i), i == 3
			}
			x.wantRefused = sample.OverCapacity
		}),
		"memory of 2^60 once": steps(5, func(i int, x *report) {
			if i == 3 {
				x.memory, x.refused = "1152921504606846976", true
			}
			x.wantRefused = sample.OverCapacity
		}),
		"memory is 0 for a while": steps(12, func(i int, x *report) {
			x.podCPU, x.podMemory, x.wantRefused = x.cpu, "104857600", sample.Contradicted
			if i >= 3 {
				x.memory, x.refused = "0", true
			}
			if i >= 9 { // the last usage has expired
				x.want = "contradicted"
			}
		}),
		"CPU is 0 from the start, and the pod begins to work": steps(5, func(i int, x *report) {
			x.start, x.cpu, x.podCPU, x.wantRefused = "1795899998", "0", fmt.Sprint(max(0, 4*(i-1))), sample.Contradicted
			switch i {
			case 1:
				x.want = "^app 0m 100Mi$"
			case 2, 3: // what was served before is not true either
				x.want, x.refused = "no valid sample yet.*contradicted", true
			case 4:
				x.cpu, x.want = "12", "^app 285m 100Mi$"
			}
		}),
		"memory is 0 from the start, and the pod shows later that it has some": steps(4, func(i int, x *report) {
			x.start, x.memory, x.cpu = "1795899998", "0", fmt.Sprint(i+1)
			x.podCPU, x.podMemory, x.wantRefused = x.cpu, "0", sample.Contradicted
			switch {
			case i == 1:
				x.want = "^app 100m 0Mi$"
			case i > 1:
				x.podMemory, x.want, x.refused = "104857600", "no valid sample yet.*contradicted", true
			}
		}),
		"memory is 0 and the kubelet has no rows of pods": steps(3, func(i int, x *report) {
			x.memory = "0"
			if i > 0 {
				x.want = "^app 100m 0Mi$"
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			k := newKubelet(t, 16)
			for _, x := range answers {
				before := k.refused
				k.answer(x.at, x.body())
				for pod, want := range map[string]string{"web": x.want, "": x.wantNode} {
					if got := k.served(x.at, pod); !regexp.MustCompile(want).MatchString(got) {
						t.Errorf("at %v s: %q: got %q, want %q", x.at, pod, got, want)
					}
				}
				refused := k.refused.Total() > before.Total()
				if refused != x.refused || refused && k.refused[x.wantRefused] == before[x.wantRefused] {
					t.Errorf("at %v s: refused %v, before it %v", x.at, &k.refused, &before)
				}
			}
		})
	}
}
