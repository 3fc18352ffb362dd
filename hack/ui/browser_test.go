//go:build browser

package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long a test waits for what the page shows within a few seconds on a quiet machine.
const patience = time.Minute

// page is a page in a Chromium of its own. Make it with open.
type page struct {
	t        *testing.T
	ctx      context.Context
	origin   string // that all requests must go to
	patience time.Duration

	mu     sync.Mutex
	faults []string // violations of the policy, requests to other origins, errors of scripts
}

// chromium returns the path of Chrome or Chromium. On Ubuntu, AppArmor denies a sandbox to programs without a profile
// that allows it. Chrome's package installs such a profile; an unpacked Chromium, as on GitHub's runners, has none.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"google-chrome", "chromium", "chromium-browser"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("Chromium is not in PATH: install it (Debian: apt-get install chromium)")
	return ""
}

// browser starts a Chromium without a page, whose events go to listen, until the test ends.
func browser(t *testing.T, listen func(any)) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 800),
		chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("lang", "en-US"), chromedp.WSURLReadTimeout(patience),
		chromedp.Env("TMPDIR="+t.TempDir())) // it does not remove its socket when it is killed
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to start as root with one
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithListener(listen))
	t.Cleanup(cancel)
	// The browser would end with the context of the first action, so that one has no timeout.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// call is an action: a command of the protocol.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

// open opens the page of a program, and waits for the table of nodes.
func open(t *testing.T, u *program) *page {
	t.Helper()
	return openAt(t, u, "nodes")
}

// openAt opens the page of a program at a tab.
func openAt(t *testing.T, u *program, tab string) *page {
	t.Helper()
	p := &page{t: t, origin: u.origin, patience: patience}
	p.ctx = browser(t, p.listen)
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, f := range p.faults {
			t.Error(f)
		}
	})
	p.do("open the page", call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{}),
		call(audits.Enable, cdp.Empty{}),
		call(cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: `
			window.violations = [];
			document.addEventListener("securitypolicyviolation",
				e => window.violations.push(e.violatedDirective + " " + e.blockedURI));
		`}),
		chromedp.Navigate(u.url))
	p.tab(tab)
	t.Cleanup(func() {
		if t.Failed() {
			p.shot("failed-" + t.Name())
		}
		violations, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string]("window.violations || []"))
		if err == nil && len(violations) > 0 {
			t.Errorf("the content security policy was violated: %s", violations)
		}
	})
	return p
}

// listen notes what no page may do.
func (p *page) listen(event any) {
	fault := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if url := e.Request.URL; !strings.HasPrefix(url, p.origin+"/") {
			fault = "a request left the origin: " + url
		}
	case *audits.EventIssueAdded:
		if e.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
			fault = fmt.Sprintf("the content security policy was violated: %+v",
				e.Issue.Details.ContentSecurityPolicyIssueDetails)
		}
	case *runtime.EventExceptionThrown:
		fault = fmt.Sprintf("a script failed: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
	case *log.EventEntryAdded:
		// That requests fail is what some tests are about.
		if e.Entry.Source == log.EntrySourceSecurity ||
			e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			fault = "the browser logged: " + e.Entry.Text
		}
	}
	if fault != "" {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.faults = append(p.faults, fault)
	}
}

// do runs actions.
func (p *page) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// eval evaluates an expression, and waits for it if it is a promise.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// run runs a script.
func (p *page) run(script string) {
	p.t.Helper()
	eval[chromedp.Void](p, script)
}

// wait waits until an expression is true.
func (p *page) wait(what, expression string) {
	p.t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(p.patience); ; <-ticker.C {
		if eval[bool](p, "!!("+expression+")") {
			return
		}
		if time.Now().After(end) {
			text := eval[string](p, `document.body.innerText.slice(0, 3000)`)
			p.t.Fatalf("%s: not within %v; the page shows:\n%s", what, p.patience, text)
		}
	}
}

// id is the selector of a test hook.
func id(name string) string { return "[data-testid=" + name + "]" }

// one is the expression for the first element that a selector finds, all that for an array of all.
func one(selector string) string { return "document.querySelector(" + js(selector) + ")" }
func all(selector string) string { return "[...document.querySelectorAll(" + js(selector) + ")]" }

// says is the expression for whether the text of the first element matches a pattern.
func says(selector, pattern string) string {
	return "/" + pattern + "/.test(" + one(selector) + "?.innerText ?? '')"
}

// js quotes a text for a script.
func js(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// click clicks the first element that a selector finds.
func (p *page) click(selector string) {
	p.t.Helper()
	p.wait("find "+selector, one(selector))
	p.do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// press presses keys, one after another. Unlike those of chromedp.KeyEvent, a key that a script prevents types nothing,
// as at a keyboard.
func (p *page) press(keys string) {
	p.t.Helper()
	for _, key := range keys {
		events := kb.Encode(key)
		for i, e := range events {
			if e.Type == kb.KeyChar {
				continue
			}
			if i+1 < len(events) && events[i+1].Type == kb.KeyChar {
				char := events[i+1]
				e.Type, e.Text, e.UnmodifiedText = input.DispatchKeyEventTypeKeyDown, char.Text, char.UnmodifiedText
			}
			p.do(fmt.Sprintf("press %q", key), call(input.DispatchKeyEvent, *e))
		}
	}
}

// choose gives an input or a select a value, as a user would.
func (p *page) choose(selector, value string) {
	p.t.Helper()
	p.run(fmt.Sprintf(`(e => {
		e.value = %s;
		e.dispatchEvent(new Event('input', {bubbles: true}));
		e.dispatchEvent(new Event('change', {bubbles: true}));
	})(%s)`, js(value), one(selector)))
}

// text returns the text of the first element that a selector finds, "" if there is none.
func (p *page) text(selector string) string {
	p.t.Helper()
	return eval[string](p, one(selector)+"?.innerText.trim() ?? ''")
}

// keys is the expression for the keys of the rows in the table, in order.
var keys = all(id("row")) + ".sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(r => r.dataset.key)"

// row is the selector of a row.
func row(key string) string { return fmt.Sprintf("%s[data-key=%q]", id("row"), key) }

// cell is the selector of a cell.
func cell(key, column string) string { return fmt.Sprintf("%s td[data-col=%s]", row(key), column) }

// tab opens a tab, and waits for its rows.
func (p *page) tab(name string) {
	p.t.Helper()
	p.click(id("tab-" + name))
	p.wait("tab "+name, one(id("tab-"+name)+"[aria-selected=true]"))
	if name == "findings" {
		p.wait("findings", one(id("finding")))
		return
	}
	p.wait("rows of tab "+name, one(fmt.Sprintf("%s[data-tab=%s] %s", id("table"), name, id("row"))))
}

// details opens the details of a row.
func (p *page) details(key string) {
	p.t.Helper()
	p.click(cell(key, "name"))
	p.wait("the details of "+key, one(panel(key)+" "+id("chart")))
}

// panel is the selector of the details of a row.
func panel(key string) string { return fmt.Sprintf("%s[data-key=%q]", id("panel"), key) }

// resize gives the page a size in CSS pixels.
func (p *page) resize(width, height int64) {
	p.t.Helper()
	p.do("resize", chromedp.EmulateViewport(width, height))
}

// scheme has the system prefer dark or light.
func (p *page) scheme(name string) {
	p.t.Helper()
	p.do("prefer "+name, call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	}))
}

// shot writes a picture of the page, if they are wanted.
func (p *page) shot(name string) {
	dir := os.Getenv("UI_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("screenshot %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".png"), png, 0o600); err != nil {
		p.t.Error(err)
	}
}
