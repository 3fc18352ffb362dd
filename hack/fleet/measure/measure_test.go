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
	r.Watches = Watches{Open: 4321, BytesPerSecond: 87.6e6}
	r.Requests = []Request{{Name: "all pods", Count: 9, Latency: 0.0123, CPU: 0.004, Bytes: 777}}
	r.finish(truth.Verdict{Numbers: 5, Wrong: 1, Examples: []string{"pod n/p is purple"}})
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"3 nodes x 2 pods", "OVERLOADED", "12.3 s", "never", "321 us", "12.3 ms", "777",
		"with 4321 watches", "87.6 MB/s",
		"pod n/p is purple",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	if r.OK() {
		t.Error("a wrong number is ok")
	}
}

func TestShort(t *testing.T) {
	for s, want := range map[float64]string{
		0.00048: "0.48 ms", 0.0123: "12.3 ms", 0.9994: "999 ms", 0.9996: "1 s",
		12.34: "12.3 s",
	} {
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
		t.Error("an invalid answer is measured")
	}
}

func TestLate(t *testing.T) {
	for span := 100 * time.Millisecond; ; span *= 2 { // on a busy machine little happens in a short time
		result, stop := watchLateness(t.Context())
		time.Sleep(span)
		stop()
		if len(result()) > 0 {
			return
		}
		if span > 10*time.Second {
			t.Fatalf("nothing was measured in %v", span)
		}
	}
}

func TestHPATable(t *testing.T) {
	r := newHPAReport(HPAOptions{Binary: "/bin/x", HPAs: 3, Pods: 2, Faulty: 10, Fault: "hang"})
	r.Controlled.Cores, r.Controlled.CPUPerPage = 0.456, 321
	r.Changes.NewPod = delaysOf(durations{time.Second, 2 * time.Second, 5 * time.Second})
	r.Loop = answersOf(durations{time.Millisecond, 3 * time.Millisecond}, 4)
	r.Truth = truth.Verdict{Numbers: 10, Missing: 1, Examples: []string{"pod x is missing"}}
	r.Controlled.Pods, r.Controlled.RSS = 4, 8<<10
	r.Prometheus = &PrometheusReport{Using: Scraping{Pods: 8, RSS: 32 << 10}, CPU: 0.123, RSS: 0.5}
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"3 HPAs x 2 pods: /bin/x", "10% faulty pods (hang)", "0.456 cores, 321 us per page", "p50 2.0 s, p99 5.0 s of 3",
		"0/s, p50 1 ms, p99 3 ms", "0, 1", "pod x is missing",
		"same 8 pods", "12.3%: 321 of 0 us", "50.0%: 2 of 4 KiB, of 4 and 8 pods",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "OVERLOADED") || r.OK() {
		t.Errorf("overloaded or OK: %v\n%s", r.OK(), b.String())
	}
}

// Servers that scraped different numbers of pods, for different times, are compared by page and by pod.
func TestComparisonWithPrometheus(t *testing.T) {
	server := &Scraping{Pods: 1900, Pages: 3800, Cores: 0.028, CPUPerPage: 200, RSS: 1900 << 10}
	p := &PrometheusReport{Using: Scraping{Pods: 2000, Pages: 8000, Cores: 0.2, CPUPerPage: 800, RSS: 2000 << 12}}
	if err := p.compare(server); err != nil || p.CPU != 0.25 || p.RSS != 0.25 {
		t.Errorf("CPU %v, RSS %v, error %v, want a quarter of both", p.CPU, p.RSS, err)
	}
	if err := p.compare(&Scraping{Pods: 1900}); err == nil {
		t.Error("a server that scraped nothing is compared")
	}
}
