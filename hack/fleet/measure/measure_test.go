package measure

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/truth"
	"metrics-server/pkg/kubelet/kubelettest"
)

func TestQuantile(t *testing.T) {
	var hundred durations
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for _, tt := range []struct {
		of   durations
		q    float64
		want time.Duration
	}{
		{nil, 0.5, 0},
		{durations{7}, 0.5, 7},
		{durations{7}, 0.99, 7},
		{durations{3, 1, 2}, 0.5, 2},
		{durations{4, 3, 2, 1}, 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.9, 90},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
	} {
		if got := tt.of.quantile(tt.q); got != tt.want {
			t.Errorf("quantile %v of %d: %v, want %v", tt.q, len(tt.of), got, tt.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("it sorts what it is given")
	}
}

func TestSpread(t *testing.T) {
	names := strings.Fields("a b c d e f g h")
	if got := strings.Join(spread(names, 4), ""); got != "aceg" {
		t.Errorf("%q", got)
	}
	if got := spread(names, 10); len(got) != 8 {
		t.Errorf("%q", got)
	}
}

func TestTable(t *testing.T) {
	r := newReport(Options{Binary: "/bin/x", Nodes: 3, Pods: 2, Containers: 1, Resolution: 15 * time.Second, Faulty: 1})
	r.Start.All = 12.34
	r.Steady.CPUPerScrape = 321
	r.Machine.Busy = 0.95
	r.Requests = []Request{{Name: "all pods", Count: 9, Latency: 0.0123, CPU: 0.004, Bytes: 777}}
	r.finish(truth.Verdict{Numbers: 5, Wrong: 1, Examples: []string{"pod n/p is purple"}})
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 nodes x 2 pods", "OVERLOADED", "12.3 s", "never", "321 us", "12.3 ms", "777", "pod n/p is purple"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	if r.OK() {
		t.Error("a wrong number is ok")
	}
}

func TestShort(t *testing.T) {
	for s, want := range map[float64]string{0.00048: "0.48 ms", 0.0123: "12.3 ms", 0.9994: "999 ms", 0.9996: "1 s", 12.34: "12.3 s"} {
		if got := short(s); got != want {
			t.Errorf("%v s is %q, want %q", s, got, want)
		}
	}
}

func TestYardstick(t *testing.T) {
	c := cluster.New(cluster.Config{Nodes: 1, Pods: 1, Containers: 1, Now: time.Now()})
	nodes, _ := c.Nodes()
	node := kubelettest.NewNode(kubelettest.NodeConfig{List: c.On(nodes[0].Machine)})
	var out bytes.Buffer
	if err := YardstickMain(bytes.NewReader(node.Append(nil, time.Now())), &out, "1ms"); err != nil {
		t.Fatal(err)
	}
	var loop, paced int
	if _, err := fmt.Sscan(out.String(), &loop, &paced); err != nil || loop <= 0 || paced <= 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := YardstickMain(strings.NewReader("{"), &out, "1ms"); err == nil {
		t.Error("what is no answer is measured")
	}
}

func TestLate(t *testing.T) {
	result, stop := watchLateness(t.Context())
	time.Sleep(100 * time.Millisecond)
	stop()
	if len(result()) == 0 {
		t.Error("nothing was measured")
	}
}
