//go:build browser

package ui

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"metrics-server/hack/ui/apiserver"
)

var tabs = []string{"nodes", "pods", "workloads", "hpas", "findings"}

// TestTabs opens all tabs, and the details of the first row of each.
func TestTabs(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	p := open(t, run(t, s))
	for tab, count := range map[string]string{"nodes": "4", "pods": "40", "hpas": "2"} {
		p.wait("the number of "+tab, says(id("tab-"+tab)+" "+id("count"), "^"+count+"$"))
	}
	if got := p.text(id("server")); !strings.Contains(got, strings.TrimPrefix(s.URL(), "http://")) {
		t.Errorf("the server is %q, want %s", got, s.URL())
	}
	p.wait("the CPU of all nodes", one(id("total-cpu"))+"?.ariaValueNow > 0")
	for _, tab := range tabs[:4] {
		p.tab(tab)
		column := "cpu"
		if tab == "hpas" {
			column = "metrics"
		}
		p.wait("a number of "+tab, says(id("row")+" td[data-col="+column+"]", "[0-9]"))
		p.shot("tab-" + tab)
		p.details(eval[[]string](p, keys)[0])
		if tab == "hpas" {
			p.wait("the calculation", says(id("report"), "replicas"))
		}
		p.shot("details-" + tab)
		p.click(id("close"))
		p.wait("the details close", "!"+one(id("panel")))
	}
	p.tab("findings")
	p.shot("tab-findings")
	for _, status := range []string{"problem", "warning"} {
		if got := p.text(id("finding") + "[data-status=" + status + "]"); got != "" {
			t.Errorf("a healthy cluster has a %s:\n%s", status, got)
		}
	}
}

// TestStaticPod opens the workload of a static pod, which is of kind Pod, its pod, and from that the workload again.
func TestStaticPod(t *testing.T) {
	t.Parallel()
	const workload = "Pod/kube-system/kube-apiserver"
	s := serve(t, small())
	pod := "Pod/kube-system/" + s.Pods("Pod", "kube-system", "kube-apiserver")[0]
	p := open(t, run(t, s))
	p.tab("workloads")
	p.details(workload)
	p.wait("the row is marked", one(row(workload)+".opened"))
	object := func(key string) string { return fmt.Sprintf("%s a[data-object=%q]", id("panel"), key) }
	p.click(object(pod))
	p.wait("the details of the pod", one(panel(pod)+" "+id("container")))
	p.wait("the tab of the pod", one(id("tab-pods")+"[aria-selected=true]"))
	p.click(object(workload))
	p.wait("the details of the workload", one(panel(workload)+" [data-chart=pods]"))
	p.wait("the tab of the workload", one(id("tab-workloads")+"[aria-selected=true]"))
	p.shot("static-pod")
}

// TestSorting sorts pods whose usages are known, by mouse and by keyboard.
func TestSorting(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	var byCPU []string // the highest first
	for i, name := range slices.Concat(s.Pods("Deployment", "shop", "web-0"), s.Pods("Deployment", "shop", "web-1")) {
		byCPU = append(byCPU, "Pod/shop/"+name)
		if err := s.SetUsage("shop", name, float64(20-i), float64(10+i)*(1<<40)); err != nil {
			t.Fatal(err)
		}
	}
	byMemory := slices.Clone(byCPU)
	slices.Reverse(byMemory)
	p := open(t, run(t, s))
	p.tab("pods")
	begins := func(want []string) {
		t.Helper()
		p.wait(fmt.Sprintf("the rows begin with %q", want),
			fmt.Sprintf("%s.slice(0, %d).join(' ') === %s", keys, len(want), js(strings.Join(want, " "))))
	}
	sorted := func(column, direction string) {
		t.Helper()
		p.wait(column+" is "+direction, one("th[data-col="+column+"][aria-sort="+direction+"]"))
	}
	sorted("cpu", "descending")
	begins(byCPU)
	p.click(id("sort-memory"))
	sorted("memory", "descending")
	begins(byMemory)
	p.click(id("sort-name"))
	sorted("name", "ascending")
	p.wait("names in order", `(names => names.length > 10 && names.every((n, i) => i === 0 || names[i-1] <= n))(`+keys+
		`.map(k => k.split('/')[2]))`)

	p.do("focus the head", chromedp.Focus(chromedp.CSS(id("sort-cpu"))))
	p.press(kb.Enter)
	sorted("cpu", "descending")
	begins(byCPU)
	p.press(" ")
	sorted("cpu", "ascending")
	p.wait("the lowest first", "!"+js(strings.Join(byCPU, " "))+".includes("+keys+"[0])")
	// The URL has the order.
	p.do("reload", chromedp.Reload())
	sorted("cpu", "ascending")
	p.wait("rows after a reload", one(id("row")))
}

// TestFilter filters by words, by namespace and by problems.
func TestFilter(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	crashed := s.Pods("Deployment", "shop", "web-1")[0]
	if err := s.Crash("shop", crashed); err != nil {
		t.Fatal(err)
	}
	p := open(t, run(t, s))
	p.tab("pods")
	matched := func(what string, n, total int) {
		t.Helper()
		p.wait(what, one(fmt.Sprintf("%s[data-matched='%d'][data-total='%d']", id("matched"), n, total)))
		p.wait("the rows of "+what, fmt.Sprintf("%s.length === %d", keys, n))
	}
	p.press("/")
	p.wait("the key / leads to the filter", "document.activeElement === "+one(id("filter")))
	p.press("web-1")
	matched("the pods of web-1", 3, 40)
	// What is not known is not a number.
	for _, column := range []string{"cpu", "memory"} {
		if got := p.text(cell("Pod/shop/"+crashed, column)); got != "–" {
			t.Errorf("%s of a pod without usage is shown as %q", column, got)
		}
	}
	if got := p.text(cell("Pod/shop/"+crashed, "status")); !strings.Contains(got, "CrashLoopBackOff") {
		t.Errorf("its status is %q", got)
	}
	p.shot("filter")
	// A space is kept while the filter takes effect without it.
	p.choose(id("filter"), "")
	p.press("shop ")
	matched("the pods of shop", 6, 40)
	p.wait("the filter in the URL", "location.hash.endsWith('filter=shop')")
	p.press("web-1")
	matched("the pods of web-1 in shop", 3, 40)
	if got := eval[string](p, one(id("filter"))+".value"); got != "shop web-1" {
		t.Errorf("the filter is %q", got)
	}
	// Whatever else changes the filter changes the text as well.
	p.click(id("problems"))
	p.wait("the filter of the button", one(id("filter"))+".value === 'problem'")
	p.click(id("problems"))
	p.wait("no filter", one(id("filter"))+".value === ''")
	p.choose(id("namespace"), "kube-system")
	matched("the pods of kube-system", 2, 2)
	p.choose(id("namespace"), "")
	p.click(id("problems"))
	matched("pods with problems", 1, 40)
	if got := eval[[]string](p, keys); got[0] != "Pod/shop/"+crashed {
		t.Errorf("pods with problems: %v", got)
	}
}

// TestKeyboard uses the page without a mouse.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	p := open(t, run(t, serve(t, small())))
	for i, tab := range tabs {
		p.press(fmt.Sprint(i + 1))
		p.wait("tab "+tab, one(id("tab-"+tab)+"[aria-selected=true]"))
	}
	p.press("?")
	p.wait("help", one(id("help-dialog")+"[open]"))
	p.shot("help")
	p.press(kb.Escape)
	p.wait("help closes", "!"+one(id("help-dialog")+"[open]"))
	p.press("1")
	p.wait("rows", keys+".length === 4")
	p.press("j")
	p.wait("a selected row", one(id("row")+"[aria-selected=true]"))
	p.press("jk" + kb.ArrowDown)
	key := eval[string](p, one(id("row")+"[aria-selected=true]")+".dataset.key")
	p.press(kb.Enter)
	p.wait("its details", one(panel(key)))
	p.press(kb.Escape)
	p.wait("the details close", "!"+one(id("panel")))
	p.press(kb.End)
	p.wait("the last row is selected", one(id("row")+"[aria-selected=true][aria-rowindex='5']"))
}

// TestPause checks that a paused table sends requests only after its order or filter has changed, and not when the page
// becomes visible again and refreshes everything else.
func TestPause(t *testing.T) {
	t.Parallel()
	p := open(t, run(t, serve(t, small())))
	p.tab("pods")
	p.press("p")
	p.wait("a pause", one(id("pause")+"[aria-pressed=true]"))
	p.click(id("sort-name"))
	p.wait("the order", one("th[data-col=name][aria-sort=ascending]"))
	p.wait("names in order", `(names => names.length > 10 && names.every((n, i) => i === 0 || names[i-1] <= n))(`+keys+
		`.map(k => k.split('/')[2]))`)
	requests := func(path string) string {
		return "performance.getEntriesByType('resource').filter(e => e.name.includes('/api/" + path + "')).length"
	}
	p.run("performance.clearResourceTimings()")
	p.run("document.dispatchEvent(new Event('visibilitychange'))")
	p.wait("other answers", requests("status")+" >= 3")
	if n := eval[int](p, requests("pods")); n != 0 {
		t.Errorf("%d requests of a paused table", n)
	}
	p.press("p")
	p.wait("requests after the pause", requests("pods")+" >= 2")
}

// contrasts is the expression for the texts of the page whose contrast with the background is too low by WCAG 2.
const contrasts = `(() => {
	const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
	const rgba = color => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = color;
		canvas.fillRect(0, 0, 1, 1);
		return [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255);
	};
	const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
	const behind = element => {
		const layers = [];
		for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
		return layers.reverse().reduce((below, top) => over(top, below), [1, 1, 1]);
	};
	const luminance = c => c.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const low = new Map();
	let checked = 0;
	for (const e of document.querySelectorAll('body *')) {
		const text = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
		if (!text || e.disabled || e.closest('svg') ||
			!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
		const color = getComputedStyle(e).color, below = behind(e);
		const [dark, bright] = [luminance(over(rgba(color), below)), luminance(below)].sort((a, b) => a - b);
		const ratio = (bright + 0.05) / (dark + 0.05);
		checked++;
		if (ratio < 4.5) low.set(e.tagName + '.' + e.className + ' ' + color + ': ' + ratio.toFixed(2), e.innerText);
	}
	return [...low].map(([what, text]) => what + ' ' + text.slice(0, 40)).concat(
		checked < 20 ? ['only ' + checked + ' texts were found'] : []);
})()`

// TestColours checks that all texts can be read in dark and in light.
func TestColours(t *testing.T) {
	t.Parallel()
	s := serve(t, small())
	if err := s.Crash("shop", s.Pods("Deployment", "shop", "web-1")[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.StopNode("node-0002"); err != nil {
		t.Fatal(err)
	}
	p := open(t, run(t, s))
	const background = "getComputedStyle(document.body).backgroundColor"
	backgrounds := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		p.scheme(scheme)
		for _, tab := range tabs {
			p.tab(tab)
			for _, low := range eval[[]string](p, contrasts) {
				t.Errorf("%s, %s: %s", scheme, tab, low)
			}
			p.shot("colours-" + scheme + "-" + tab)
		}
		backgrounds[scheme] = eval[string](p, background)
	}
	if backgrounds["dark"] == backgrounds["light"] {
		t.Errorf("dark and light have the same background: %v", backgrounds)
	}
	// The button wins over the system.
	for _, theme := range []string{"dark", "light"} {
		p.click(id("theme"))
		p.wait("the theme "+theme, "document.documentElement.dataset.theme === "+js(theme))
	}
	if got := eval[string](p, background); got != backgrounds["light"] {
		t.Errorf("the background of the theme light is %s, want %s", got, backgrounds["light"])
	}
}

// TestNarrow checks that a page as wide as a phone does not scroll sideways, that the focus returns from the details
// that cover it, and that the banner about a lost connection stays visible above the details.
func TestNarrow(t *testing.T) {
	t.Parallel()
	const width = 360
	u := run(t, serve(t, small()))
	p := open(t, u)
	p.resize(width, 740)
	check := func(what string) {
		t.Helper()
		if got := eval[int](p, "document.documentElement.scrollWidth"); got > width {
			t.Errorf("%s: %d px wide", what, got)
		}
		p.shot("narrow-" + what)
	}
	for _, tab := range tabs {
		p.tab(tab)
		check(tab)
		if tab == "findings" {
			continue
		}
		p.details(eval[[]string](p, keys)[0])
		check("details-" + tab)
		p.click(id("close"))
		p.wait("the focus returns to the table", "document.activeElement === "+one(id("table")))
	}
	// The details also close if another tab is opened by its key.
	p.tab("nodes")
	p.details(eval[[]string](p, keys)[0])
	p.press("2")
	p.wait("tab pods", one(id("table")+"[data-tab=pods] "+id("row")))
	p.wait("the focus is in its table", "document.activeElement === "+one(id("table")))
	p.details(eval[[]string](p, keys)[0])
	u.stop()
	p.wait("nothing covers the banner", `(b => {
		const r = b?.getBoundingClientRect();
		return r && b.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2));
	})(`+one(id("banner"))+`)`)
	check("lost")
}

// TestSecondBrowser checks that the page belongs to the browser that opened it first.
func TestSecondBrowser(t *testing.T) {
	t.Parallel()
	u := run(t, serve(t, small()))
	p := open(t, u)
	get := func(url, host string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, tt := range []struct{ url, host string }{
		{u.url, ""},
		{u.origin + "/", ""},
		{u.origin + "/app.js", ""},
		{u.origin + "/api/status", ""},
		{u.origin + "/api/pods", ""},
		{u.origin + "/?token=wrong", ""},
		{u.url, "example.com"},
	} {
		if code, body := get(tt.url, tt.host); code != http.StatusForbidden || strings.Contains(body, "web-0") {
			t.Errorf("%s without the session, Host %q: %d\n%.200s", tt.url, tt.host, code, body)
		}
	}
	other := browser(t, func(any) {})
	if err := chromedp.Do(other, chromedp.Navigate(u.url)); err != nil {
		t.Fatal(err)
	}
	text, err := chromedp.Run(other, chromedp.Text(chromedp.CSS("body")))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "another browser") {
		t.Errorf("a second browser sees: %s", text)
	}
	// The first one goes on.
	p.do("reload", chromedp.Reload())
	p.wait("rows after a reload", one(id("row")))
}

// TestLarge scrolls through 150,000 pods, and logs how long requests take.
func TestLarge(t *testing.T) {
	s := serve(t, apiserver.Config{Nodes: 5000, PodsPerNode: 30, HPAs: 20})
	began := time.Now()
	u := run(t, s)
	p := open(t, u)
	p.patience = 5 * time.Minute
	p.wait("all pods", says(id("tab-pods")+" "+id("count"), "^150,000$"))
	t.Logf("150,000 pods are shown %v after the start", time.Since(began).Round(100*time.Millisecond))
	p.tab("pods")
	p.click(id("sort-name"))
	p.wait("the order", one("th[data-col=name][aria-sort=ascending]"))
	p.wait("all rows", one(id("table")+"[aria-rowcount='150001']"))
	last := ""
	for i := range 20 {
		last = max(last, slices.Max(s.Pods("Deployment", "shop", fmt.Sprintf("web-%d", i))))
	}
	p.run(one(id("scroller")) + ".scrollTop = 1e9")
	p.wait("the last row", one(row("Pod/shop/"+last)+"[aria-rowindex='150001']"))
	p.shot("large-end")
	if n := eval[int](p, keys+".length"); n > 150 {
		t.Errorf("%d rows are in the document", n)
	}
	p.run("(e => e.scrollTop = e.scrollHeight / 2)(" + one(id("scroller")) + ")")
	p.wait("rows in the middle", all(id("row"))+
		".some(r => Math.abs(r.ariaRowIndex - 75000) < 100 && r.innerText.includes('team-'))")
	p.click(id("sort-cpu"))
	p.wait("the order by CPU", one("th[data-col=cpu][aria-sort=descending]"))
	p.run("performance.clearResourceTimings()")
	p.wait("ten answers", "performance.getEntriesByType('resource').length >= 20")
	t.Logf("requests, in ms: %s", eval[string](p, `Object.entries(Object.groupBy(
		performance.getEntriesByType('resource'), e => new URL(e.name).pathname)).map(([path, all]) => {
			const times = all.map(e => e.duration).sort((a, b) => a - b);
			return path + ': ' + all.length + ', median ' + times[times.length >> 1].toFixed(1) +
				', longest ' + times.at(-1).toFixed(1);
		}).join('; ')`))
	t.Logf("the program: %s", u.memory())
}
