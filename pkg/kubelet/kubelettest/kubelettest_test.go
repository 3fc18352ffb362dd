package kubelettest_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/kubelet/kubelettest"
)

var boot = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

// A Node writes the same HELP and TYPE lines in the same order as a kubelet, and rows of the same form.
func TestFamilies(t *testing.T) {
	capture, err := os.ReadFile("testdata/resource.txt")
	if err != nil {
		t.Fatal(err)
	}
	node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 1, Pods: 3, Containers: 2, Boot: boot})
	shape := func(answer []byte) (comments []string, rows map[string]bool) {
		rows = map[string]bool{}
		quoted, number := regexp.MustCompile(`"[^"]*"`), regexp.MustCompile(`[ ][-+.e0-9]+`)
		for line := range strings.Lines(string(answer)) {
			if strings.HasPrefix(line, "#") {
				comments = append(comments, line)
				continue
			}
			rows[number.ReplaceAllString(quoted.ReplaceAllString(line, `""`), " 0")] = true
		}
		return comments, rows
	}
	wantComments, wantRows := shape(capture)
	comments, rows := shape(node.Append(nil, boot.Add(time.Hour)))
	if d := cmp.Diff(wantComments, comments); d != "" {
		t.Errorf("HELP and TYPE lines (-kubelet +fake):\n%s", d)
	}
	if d := cmp.Diff(wantRows, rows); d != "" {
		t.Errorf("forms of rows (-kubelet +fake):\n%s", d)
	}
}

func TestRowsAreSorted(t *testing.T) {
	answer := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 2, Pods: 40, Containers: 3, Boot: boot}).
		Append(nil, boot.Add(time.Hour))
	last := ""
	for line := range strings.Lines(string(answer)) {
		if strings.HasPrefix(line, "#") {
			last = ""
			continue
		}
		labels, _, _ := strings.Cut(line, " ")
		if labels < last {
			t.Fatalf("%q comes after %q", labels, last)
		}
		last = labels
	}
}

func TestSizeOfAnAnswer(t *testing.T) {
	answer := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 3, Pods: 30, Containers: 2, Boot: boot}).
		Append(nil, boot.Add(time.Hour))
	if len(answer) < 40_000 || len(answer) > 48_000 {
		t.Errorf("30 pods of 2 containers make %d bytes; a kubelet's answer has 43 KB", len(answer))
	}
}

// The answers of ten minutes agree with the usage that the node reports as true.
func TestTruth(t *testing.T) {
	for _, requestTime := range []bool{false, true} {
		node := kubelettest.NewNode(kubelettest.NodeConfig{
			Seed: 4, Pods: 5, Containers: 2, Boot: boot, RequestTime: requestTime,
		})
		for now := boot; now.Before(boot.Add(10 * time.Minute)); now = now.Add(7 * time.Second) {
			answer := string(node.Append(nil, now))
			for i, c := range node.Containers() {
				labels := `{container="` + c.Name + `",namespace="` + c.Namespace + `",pod="` + c.Pod + `"} `
				want, listed := node.Container(i, now)
				cpu, at, found := value(t, answer, "container_cpu_usage_seconds_total"+labels)
				if found != listed {
					t.Fatalf("%v: container %d listed %v, want %v", now, i, found, listed)
				}
				if !listed {
					continue
				}
				mem, _, _ := value(t, answer, "container_memory_working_set_bytes"+labels)
				start, _, _ := value(t, answer, "container_start_time_seconds"+labels)
				got := kubelettest.Sample{Time: at, CPU: uint64(cpu*1e9 + 0.5), Memory: uint64(mem)}
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("%v: container %d (-truth +answer):\n%s", now, i, d)
				}
				if int64(start*1000+0.5) != c.Start.UnixMilli() {
					t.Fatalf("start %v, want %v", start, c.Start)
				}
				if usage := float64(want.CPU) / want.Time.Sub(c.Start).Seconds(); want.CPU > 0 && uint64(usage+0.5) != c.NanoCores {
					t.Fatalf("usage since the start %v, want %d", usage, c.NanoCores)
				}
			}
			cpu, at, _ := value(t, answer, "node_cpu_usage_seconds_total ")
			got := kubelettest.Sample{Time: at, CPU: uint64(cpu*1e9 + 0.5), Memory: node.Self(now).Memory}
			if d := cmp.Diff(node.Self(now), got); d != "" {
				t.Fatalf("node (-truth +answer):\n%s", d)
			}
		}
	}
}

// The usage of a pod in a list does not depend on other pods of its node.
func TestList(t *testing.T) {
	pods := []kubelettest.Pod{
		{Namespace: "n", Name: "a", Seed: 1, Started: []time.Time{boot, boot.Add(time.Minute)}},
		{Namespace: "n", Name: "b-with-a-longer-name", Seed: 2, Started: []time.Time{boot.Add(time.Hour)}},
	}
	config := kubelettest.NodeConfig{Seed: 9, Boot: boot, List: pods}
	both := kubelettest.NewNode(config)
	config.List = pods[:1]
	one := kubelettest.NewNode(config)
	if got := len(both.Containers()); got != 3 {
		t.Fatalf("%d containers, want 3", got)
	}
	for now := boot; now.Before(boot.Add(2 * time.Hour)); now = now.Add(7 * time.Second) {
		if d := cmp.Diff(one.Self(now), both.Self(now)); d != "" {
			t.Fatalf("%v: node without and with b:\n%s", now, d)
		}
		// Sorted by container first: a/c0, b/c0, a/c1.
		for i, j := range []int{0, 2} {
			want, wantListed := one.Container(i, now)
			got, listed := both.Container(j, now)
			if d := cmp.Diff(want, got); d != "" || listed != wantListed {
				t.Fatalf("%v: a/c%d without and with b, listed %t and %t:\n%s", now, i, wantListed, listed, d)
			}
			if listed && got.Time.Before(pods[0].Started[i]) {
				t.Fatalf("%v: a/c%d has a sample of %v", now, i, got.Time)
			}
		}
	}
}

func value(t *testing.T, answer, prefix string) (v float64, at time.Time, found bool) {
	t.Helper()
	i := strings.Index(answer, "\n"+prefix)
	if i < 0 {
		return 0, time.Time{}, false
	}
	line, _, _ := strings.Cut(answer[i+1+len(prefix):], "\n")
	text, stamp, _ := strings.Cut(line, " ")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	ms, _ := strconv.ParseInt(stamp, 10, 64)
	return v, time.UnixMilli(ms).UTC(), true
}

// TestClocks checks that the node is sampled every 10 s and containers every 10 to 20 s, 15 on
// average.
func TestClocks(t *testing.T) {
	node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 5, Pods: 4, Containers: 1, Boot: boot})
	const samples = 200
	clock := func(what string, least, most, average time.Duration, sampled func(now time.Time) time.Time) {
		var first, last time.Time
		n := 0
		for now := boot.Add(time.Minute); n <= samples; now = now.Add(250 * time.Millisecond) {
			at := sampled(now)
			if age := now.Sub(at); age < 0 || age > most {
				t.Fatalf("%s: sample of %v at %v", what, at, now)
			}
			if at.Equal(last) {
				continue
			}
			if d := at.Sub(last); n > 0 && (d < least || d > most) {
				t.Fatalf("%s: %v between two samples", what, d)
			}
			if n == 0 {
				first = at
			}
			last = at
			n++
		}
		if got := last.Sub(first) / samples; got < average*19/20 || got > average*21/20 {
			t.Errorf("%s: %v between samples on average, want %v", what, got, average)
		}
	}
	const ten = 10 * time.Second
	clock("node", ten, ten, ten, func(now time.Time) time.Time { return node.Self(now).Time })
	for i := range node.Containers() {
		clock("container", 10*time.Second, 20*time.Second, 15*time.Second, func(now time.Time) time.Time {
			s, _ := node.Container(i, now)
			return s.Time
		})
	}
}

func TestAppendIsDeterministicAndDoesNotAllocate(t *testing.T) {
	config := kubelettest.NodeConfig{Seed: 6, Pods: 10, Containers: 2, Boot: boot}
	node := kubelettest.NewNode(config)
	now := boot.Add(time.Hour)
	want := node.Append(nil, now)
	if got := kubelettest.NewNode(config).Append(nil, now); !bytes.Equal(got, want) {
		t.Error("two nodes with the same seed differ")
	}
	config.Seed++
	if got := kubelettest.NewNode(config).Append(nil, now); bytes.Equal(got, want) {
		t.Error("two nodes with different seeds do not differ")
	}
	buf := make([]byte, 0, 2*len(want))
	if n := testing.AllocsPerRun(10, func() { buf = node.Append(buf[:0], now) }); n != 0 {
		t.Errorf("%v allocations for an answer, want 0", n)
	}
}

// TestServer uses a Kubelet with net/http only.
func TestServer(t *testing.T) {
	ca := kubelettest.NewCA("test")
	node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 7, Pods: 2, Boot: boot})
	now := boot.Add(time.Hour)
	k := &kubelettest.Kubelet{
		Answer:       node.Append,
		Authenticate: true,
		Forbidden:    "nobody",
		Now:          func() time.Time { return now },
	}
	k.SetToken("good")
	for _, http2 := range []bool{false, true} {
		s, err := kubelettest.Serve(k, kubelettest.ServerConfig{Certificate: ca.Server("127.0.0.1"), HTTP2: http2})
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: true}
		get := func(path, token string) (int, string) {
			req, _ := http.NewRequest(http.MethodGet, "https://"+net.JoinHostPort(s.Host(), strconv.Itoa(s.Port()))+path, nil)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if (resp.ProtoMajor == 2) != http2 {
				t.Errorf("answer by %s, HTTP/2 offered: %v", resp.Proto, http2)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(b)
		}
		for _, tt := range []struct {
			path, token string
			code        int
			body        string
		}{
			{"/metrics/resource", "good", 200, string(node.Append(nil, now))},
			{"/metrics/resource", "bad", 401, "Unauthorized\n"},
			{
				"/metrics/resource", "nobody", 403,
				"Forbidden (user=system:serviceaccount:kube-system:nobody, verb=get, resource=nodes, subresource(s)=[metrics])\n",
			},
			{"/other", "good", 404, "404 page not found\n"},
		} {
			code, body := get(tt.path, tt.token)
			if code != tt.code || body != tt.body {
				t.Errorf("GET %s with token %q: %d %q", tt.path, tt.token, code, body)
			}
		}
		if s.Accepted() != 1 {
			t.Errorf("%d connections, want 1", s.Accepted())
		}
		tr.CloseIdleConnections()
		s.Close()
	}
}

func TestHangInHeader(t *testing.T) {
	k := &kubelettest.Kubelet{}
	k.SetFault(kubelettest.HangInHeader)
	s, err := kubelettest.Serve(k, kubelettest.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := net.Dial("tcp", net.JoinHostPort(s.Host(), strconv.Itoa(s.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /metrics/resource HTTP/1.1\r\nHost: x\r\n\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("got %q, %v, want the status line of a 200", line, err)
	}
}

func BenchmarkAppend(b *testing.B) {
	node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: 8, Pods: 30, Containers: 2, Boot: boot})
	buf := node.Append(nil, boot.Add(time.Hour))
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		buf = node.Append(buf[:0], boot.Add(time.Hour+time.Duration(i)*15*time.Second))
	}
}
