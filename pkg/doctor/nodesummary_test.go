package doctor

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Many nodes with the same cause are one line.
func TestManyNodes(t *testing.T) {
	c := newCluster(t)
	for i := range 50 {
		name := fmt.Sprintf("m%02d", i)
		n := c.nodes[0].DeepCopy()
		n.Name = name
		c.nodes = append(c.nodes, n)
		c.refuse(proxyPath(name), 503, metav1.StatusReasonServiceUnavailable, fmt.Sprintf("dial tcp 10.0.0.%d:10250: i/o "+
			"timeout", i))
	}
	r := c.run()
	lines := find(r, Line{Check: checkNodes, Status: Problem})
	if len(lines) != 1 || len(lines[0].Nodes) != 50 || !strings.Contains(lines[0].Message, "50 of 52 nodes: ") ||
		!strings.Contains(lines[0].Message, ": m00, m01, m02 and 47 more") {
		t.Errorf("want one finding about 50 of 52 nodes in\n%s", text(t, r))
	}
	if len(r.Nodes) != 52 {
		t.Errorf("%d nodes in the report", len(r.Nodes))
	}
}

// A fault of one node is not reported for five: if nodes have the same remedy but different causes,
// each cause has a line.
func TestCausesAreReportedSeparately(t *testing.T) {
	c := newCluster(t)
	for i := range 20 {
		name := fmt.Sprintf("m%02d", i)
		n := c.nodes[0].DeepCopy()
		n.Name = name
		c.nodes = append(c.nodes, n)
		message := fmt.Sprintf("cgroup %d of %s is gone at 10.0.0.%d:10250", 1000+i, name, i)
		switch {
		case i >= 12:
			message = fmt.Sprintf("disk pressure%s on %s", strings.Repeat("!", i%8), name)
		case i >= 7:
			message = "context of " + name + " ended"
		}
		c.objects[proxyPath(name)] = plainError{500, message}
	}
	r := c.run()
	lines := find(r, Line{Check: checkNodes, Status: Problem})
	if len(lines) != maxKinds {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), maxKinds, text(t, r))
	}
	for i, want := range []struct {
		nodes      int
		cause      string
		of, others string
	}{
		{7, "for example m00: ", "cgroup 1000 of m00", ""},
		{6, "for example m", "disk pressure", "for other reasons"},
		{5, "for example m07: ", "context of m07", ""},
	} {
		l := lines[i]
		if len(l.Nodes) != want.nodes || !strings.HasPrefix(l.Cause, want.cause) || !strings.Contains(l.Cause, want.of) ||
			!strings.Contains(l.Message, want.others) {
			t.Errorf("line %d: %+v, want %+v", i, l, want)
		}
	}
	seen := map[string]bool{}
	for _, l := range lines {
		for _, n := range l.Nodes {
			if seen[n] {
				t.Errorf("%s is in two lines", n)
			}
			seen[n] = true
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d nodes in the lines", len(seen))
	}
}

// Each amount is next to the node that it belongs to.
func TestAmountsOfNodes(t *testing.T) {
	c := newCluster(t)
	for i, name := range []string{"n1", "n2"} {
		at := time.Now().Add(time.Duration(10*(i+1)) * time.Minute).UnixMilli()
		c.objects[proxyPath(name)] = func() []byte {
			return fmt.Appendf(nil, "node_cpu_usage_seconds_total 1 %[1]d\nnode_memory_working_set_bytes 1 %[1]d\n"+
				"container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n"+
				"container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 1 %[1]d\n", at)
		}
	}
	r := c.run()
	lines := find(r, Line{Check: checkNodes, Status: Warning, Message: "ahead of the API server's clock: n1 (by "})
	amounts := regexp.MustCompile(`n1 \(by (10m|9m)[^)]*\), n2 \(by (20m|19m)`)
	if len(lines) != 1 || !amounts.MatchString(lines[0].Message) {
		t.Error(text(t, r))
	}
}

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"dial tcp 10.0.0.1:10250: connection refused", "dial tcp 10.0.0.2:10350: connection refused", true},
		{"dial tcp [fd00::1]:10250: i/o timeout", "dial tcp [fd00::2f]:10250: i/o timeout", true},
		{"dial tcp 10.0.0.1:10250: connect: connection refused", "dial tcp 10.0.0.1:10250: i/o timeout", false},
		{`answer is 500 Internal Server Error: "boom"`, `answer is 503 Service Unavailable: "boom"`, false},
		{`answer is 500 Internal Server Error: "boom"`, `answer is 500 Internal Server Error: "bang"`, false},
		{`GET https://a.example:10250/x: "of a"`, `GET https://b.example:10250/x: "of b"`, true},
		{"x509: valid for a; certificate by CN=a for a, valid until 2027-01-01", "x509: valid for b; certificate by CN=b " +
			"for b, valid until 2028-01-01", true},
		{"the node's clock is 3h0m0s ahead", "the node's clock is 2h59m58s ahead", true},
		{"the node's clock is 3h0m0s ahead", "the node's clock is 3h0m0s behind", false},
	} {
		if got := kindOf(tt.a, "a") == kindOf(tt.b, "b"); got != tt.same {
			t.Errorf("%q and %q: %t", kindOf(tt.a, "a"), kindOf(tt.b, "b"), got)
		}
	}
}
