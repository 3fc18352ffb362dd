//go:build browser

package ui

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestFailingNode stops a kubelet: its row says why it has no usage, the doctor finds it, and no other row is marked.
func TestFailingNode(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	p := open(t, run(t, s))
	const failing = "Node//node-0002"
	marks := all(id("row") + " " + id("badge") + ", " + id("row") + " " + id("no-usage"))
	const cpu = " td[data-col=cpu]"
	p.wait("the usage of all nodes", all(id("row")+cpu)+".filter(c => /[0-9]/.test(c.innerText)).length === 4")
	if n := eval[int](p, marks+".length"); n > 0 {
		t.Errorf("%d rows of a healthy cluster are marked", n)
	}
	if err := s.StopNode("node-0002"); err != nil {
		t.Fatal(err)
	}
	p.wait("the row says that it has no usage", one(row(failing)+" "+id("no-usage")+"[title*='connection refused']"))
	if got := p.text(cell(failing, "cpu")); got != "–" {
		t.Errorf("its CPU is shown as %q", got)
	}
	p.wait("the totals leave it out", one(id("total-cpu")+"[aria-valuetext$='1 node without usage']"))
	p.tab("findings")
	p.wait("the doctor can run", one(id("check-again")+":enabled"))
	p.click(id("check-again"))
	link := fmt.Sprintf("%s[data-status=problem] a[data-object=%q]", id("finding"), failing)
	p.wait("the doctor finds it", one(link))
	p.shot("failing-findings")
	p.click(link)
	p.wait("its details with the finding", one(panel(failing)+" "+id("finding")))
	p.shot("failing-details")
	p.click(id("close"))
	p.tab("nodes")
	p.wait("the finding in the row", one(row(failing)+" "+id("badge")))
	p.shot("failing-nodes")
	if n := eval[int](p, marks+".length"); n != 1 {
		t.Errorf("%d marks, want that of the failing node", n)
	}
	if err := s.StartNode("node-0002"); err != nil {
		t.Fatal(err)
	}
	p.wait("its usage returns", says(cell(failing, "cpu"), "[0-9]"))
}

// TestAutoscaler raises the load of a workload, and scales it as its autoscaler wants.
func TestAutoscaler(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	p := open(t, run(t, s))
	p.tab("hpas")
	const key = "HorizontalPodAutoscaler/shop/web-1"
	p.details(key)
	line := func(chart, line string) string {
		return one(fmt.Sprintf("%s[data-chart=%s] path[data-line=%s]", id("chart"), chart, line))
	}
	p.wait("the replicas over time", line("replicas", "current"))
	p.wait("the limits", one(id("chart")+"[data-chart=replicas] [data-limit=max]"))
	p.wait("both metrics", all(id("metric"))+".length === 2")
	p.wait("nothing to scale", says(id("report"), "the controller decided the same"))
	if err := s.SetLoad("web-1", 0.9); err != nil {
		t.Fatal(err)
	}
	p.wait("3 replicas, and 6 desired", says(cell(key, "replicas"), `\b3\b.*\b6\b`))
	p.wait("the calculation", says(id("report"), "scale up from 3 to 6"))
	p.shot("hpa-wants")
	if err := s.ScaleHPA("web-1", 6); err != nil {
		t.Fatal(err)
	}
	p.wait("6 replicas", says(cell(key, "replicas"), `^\s*6\b`))
	// A step is two heights at least.
	for _, l := range []string{line("replicas", "current"), line("replicas", "desired"), line("metric-0", "current")} {
		p.wait("a step in "+l, `(line => { const y = new Set(), n = line.getTotalLength();
			for (let i = 0; i <= 200; i++) y.add(Math.round(line.getPointAtLength(n * i / 200).y));
			return y.size > 1 })(`+l+`)`)
	}
	p.shot("hpa-scaled")
}

// TestLostAPIServer breaks all connections to the API server, and mends it.
func TestLostAPIServer(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	p := open(t, run(t, s))
	banner := one(id("banner") + "[data-kind=apiserver]")
	cpu, age := cell("Node//node-0001", "cpu"), cell("Node//node-0001", "sampled")
	p.wait("usage", says(cpu, "[0-9]"))
	s.Break()
	p.wait("the banner", banner)
	grows := func() {
		t.Helper()
		young := p.text(age)
		p.wait("the age grows", one(age)+".innerText.trim() !== "+js(young))
	}
	grows() // the table is requested on its own, and may still have got what was read before
	before := p.text(cpu)
	grows()
	p.shot("lost-apiserver")
	if got := p.text(cpu); got != before || !strings.ContainsAny(got, "0123456789") {
		t.Errorf("the CPU was %q and is %q while nothing can be read", before, got)
	}
	if err := s.Mend(); err != nil {
		t.Fatal(err)
	}
	p.wait("the banner goes", "!"+banner)
	p.wait("usage is read again", one(cpu)+".innerText.trim() !== "+js(before))
}

// TestLostProgram ends the program under the page.
func TestLostProgram(t *testing.T) {
	t.Parallel()
	u := run(t, serve(t, small()))
	p := open(t, u)
	u.stop()
	p.wait("the banner", says(id("banner")+"[data-kind=program]", "start it again and open the URL it prints"))
	p.wait("the header is not live", says(id("sources"), "not live"))
	p.shot("lost-program")
	if n := eval[int](p, keys+".length"); n != 4 {
		t.Errorf("%d rows are still shown, want 4", n)
	}
}

// TestStoppedProgram stops the program without closing its connections, as Ctrl-Z does, and as a network that drops all
// packets seems to.
func TestStoppedProgram(t *testing.T) {
	t.Parallel()
	u := run(t, serve(t, small()))
	p := open(t, u)
	p.patience = 20 * time.Second
	banner := one(id("banner") + "[data-kind=program]")
	p.wait("the header is live", "!"+says(id("sources"), "not live"))
	u.signal(syscall.SIGSTOP)
	defer u.signal(syscall.SIGCONT) // it would not end otherwise
	p.wait("the banner", banner)
	p.wait("the header is not live", says(id("sources"), "not live"))
	p.shot("stopped-program")
	u.signal(syscall.SIGCONT)
	p.wait("the banner goes", "!"+banner)
	p.wait("the header is live again", "!"+says(id("sources"), "not live"))
}

// source waits until a source of the page is in a state.
func (p *page) source(name, state string) {
	p.t.Helper()
	p.wait("source "+name+" is "+state,
		one(fmt.Sprintf("%s [data-source=%s][data-state=%s]", id("source-list"), name, state)))
}

// TestPolling reads a server that is not this project's.
func TestPolling(t *testing.T) {
	t.Parallel()
	c := small()
	c.Incumbent = true
	s := serve(t, c)
	p := open(t, run(t, s))
	p.click(id("sources"))
	for name, state := range map[string]string{
		"pods": "watching", "podmetrics": "polling", "nodemetrics": "polling", "history": "absent",
	} {
		p.source(name, state)
	}
	p.shot("polling")
	p.press(kb.Escape)
	p.tab("pods")
	name := s.Pods("Deployment", "shop", "web-0")[0]
	if err := s.SetUsage("shop", name, 25, 1<<30); err != nil {
		t.Fatal(err)
	}
	p.wait("the usage at the next poll", one(row("Pod/shop/"+name)+"[aria-rowindex='2']"))
}

// TestWatching checks that a change is shown at once, where the server has watches.
func TestWatching(t *testing.T) {
	t.Parallel()
	c := small()
	c.Period = time.Hour // nothing changes by itself
	s := serve(t, c)
	p := open(t, run(t, s))
	p.click(id("sources"))
	for _, name := range []string{"nodes", "pods", "hpas", "nodemetrics", "podmetrics"} {
		p.source(name, "watching")
	}
	p.shot("sources")
	p.press(kb.Escape)
	p.tab("pods")
	name := s.Pods("Deployment", "shop", "web-0")[0]
	began := time.Now()
	if err := s.SetUsage("shop", name, 25, 1<<30); err != nil {
		t.Fatal(err)
	}
	p.wait("the usage", one(row("Pod/shop/"+name)+"[aria-rowindex='2']"))
	if took := time.Since(began); took > 12*time.Second { // a poll takes up to 15 s
		t.Errorf("a change was shown after %v", took)
	}
	s.Expire()
	if err := s.DeletePod("shop", name); err != nil {
		t.Fatal(err)
	}
	p.wait("the pod goes, after its watch expired", "!"+one(row("Pod/shop/"+name)))
}

// TestHistory checks that the page begins with the past that the server keeps.
func TestHistory(t *testing.T) {
	t.Parallel()
	c := small()
	c.History = 2 * time.Hour
	p := open(t, run(t, serve(t, c)))
	p.click(id("sources"))
	p.source("history", "read")
	p.press(kb.Escape)
	for _, tt := range []struct{ path, series string }{
		{"nodes", "rows[0].cpu.history"},
		{"nodes/node-0001", "memory.history"},
		{"workloads/shop/Deployment/web-0", "cpu.history"},
	} {
		n := eval[int](p, fmt.Sprintf("fetch('/api/%s').then(r => r.json()).then(a => "+
			"a.%s.values.filter(v => v !== null).length)", tt.path, tt.series))
		if n < 30 {
			t.Errorf("%s: %d values of the past", tt.path, n)
		}
	}
	const key = "Node//node-0001"
	p.wait("sparklines", one(cell(key, "cpuHistory")+" svg path"))
	p.details(key)
	p.wait("a graph of the past",
		one(id("chart")+"[data-chart=cpu] path[data-line=usage]")+"?.getAttribute('d').length > 500")
	p.shot("history")

	// Values of the past can be read without a mouse.
	chart := id("chart") + "[data-chart=cpu]"
	p.do("focus the chart", chromedp.Focus(chromedp.CSS(chart)))
	last := eval[int](p, "Number("+one(chart)+".ariaValueNow)")
	p.press(kb.ArrowLeft + kb.ArrowLeft)
	p.wait("an earlier value", fmt.Sprintf("%s.ariaValueNow < %d", one(chart), last))
	p.wait("its time and value", "/^[0-9:]{8}: usage [0-9]/.test("+one(chart)+".ariaValueText)")
	p.wait("its time is shown", says(panel(key)+" .chart-time", "^[0-9:]{8}$"))
}

// TestRights shows what the rights of the kubeconfig permit, and says which it lacks.
func TestRights(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	for _, resource := range []string{"pods.metrics.k8s.io", "horizontalpodautoscalers.autoscaling", "nodes/proxy"} {
		s.Deny(resource)
	}
	p := open(t, run(t, s))
	p.click(id("sources"))
	for name, state := range map[string]string{
		"nodes": "watching", "nodemetrics": "watching", "podmetrics": "denied", "hpas": "denied",
	} {
		p.source(name, state)
	}
	if got := p.text(id("source-list")); !strings.Contains(got, "pods.metrics.k8s.io") {
		t.Errorf("the missing right is not named:\n%s", got)
	}
	p.shot("rights")
	p.press(kb.Escape)
	p.tab("pods")
	if got := p.text(id("row") + " td[data-col=cpu]"); got != "–" {
		t.Errorf("the CPU of a pod is shown as %q without the right to read it", got)
	}
}

// TestUnreadPods checks that no number of pods is shown to a user who may read nodes only.
func TestUnreadPods(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	s.Deny("pods")
	p := open(t, run(t, s))
	const node = "Node//node-0001"
	p.wait("usage", says(cell(node, "cpu"), "[0-9]"))
	p.click(id("sources"))
	p.source("pods", "denied")
	p.source("podmetrics", "watching")
	for what, selector := range map[string]string{
		"the pods of a node":             cell(node, "pods"),
		"the objects of a denied source": id("source-list") + " [data-source=pods] td:nth-child(3)",
		"usage without pods":             id("source-list") + " [data-source=podmetrics] td:nth-child(3)",
	} {
		if got := p.text(selector); got != "–" {
			t.Errorf("%s: %q, want a dash", what, got)
		}
	}
	p.press(kb.Escape)
	p.wait("the number of nodes", says(id("tab-nodes")+" "+id("count"), "^4$"))
	p.details(node)
	p.wait("no pods in the details", one(panel(node)+" .facts [title='pods have not been read']"))
	p.shot("unread-pods")
	p.click(id("close"))
	for _, tab := range []string{"pods", "workloads"} {
		p.click(id("tab-" + tab))
		p.wait("the missing right", says(id("empty"), "list and watch pods"))
		for what, selector := range map[string]string{
			"the tab": id("tab-"+tab) + " " + id("count"), "the toolbar": id("matched"),
		} {
			if got := p.text(selector); got != "" {
				t.Errorf("%s of %s has the number %q", what, tab, got)
			}
		}
	}
}

// TestNamespace reads one namespace, with the rights for that alone.
func TestNamespace(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	s.Confine("shop")
	p := openAt(t, run(t, s, "--namespace", "shop"), "pods")
	p.wait("the pods of the namespace", one(id("matched")+"[data-total='6']"))
	p.wait("usage", says(id("row")+" td[data-col=cpu]", "[0-9]"))
	p.wait("the number of pods", says(id("tab-pods")+" "+id("count"), "^6$"))
	if got := p.text(id("tab-nodes") + " " + id("count")); got != "" {
		t.Errorf("%s nodes, which are not read", got)
	}
	p.shot("namespace")
}
