package ui

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// The token lets one browser in, once.
func TestToken(t *testing.T) {
	f := newFixture(t, testSnapshot())
	if w := f.do("GET", "/", nil); w.Code != 403 || !strings.Contains(w.Body.String(), remedyNotTaken) {
		t.Errorf("without a token: %d %s", w.Code, w.Body)
	}
	if w := f.do("GET", "/?token=guessed", nil); w.Code != 403 || len(w.Result().Cookies()) > 0 {
		t.Errorf("a wrong token: %d %s", w.Code, w.Body)
	}
	w := f.do("GET", "/?token="+f.session.token, nil)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Errorf("the token: %d, Location %q, want 303 to /", w.Code, w.Header().Get("Location"))
	}
	cookies := w.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("the token gave %d cookies", len(cookies))
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || !c.Expires.IsZero() ||
		c.Name != "metrics-server-ui-"+port(f.host) || c.Value == f.session.token || len(c.Value) < 26 {
		t.Errorf("the cookie is %v", c)
	}
	if w := f.do("GET", "/?token="+f.session.token, nil); w.Code != 403 || len(w.Result().Cookies()) > 0 ||
		!strings.Contains(w.Body.String(), "this page belongs to another browser: run metrics-server ui again") {
		t.Errorf("the token once more: %d %s", w.Code, w.Body)
	}
	if w := f.do("GET", "/api/status", nil); w.Code != 403 || !strings.Contains(w.Body.String(), `"remedy"`) {
		t.Errorf("another browser: %d %s", w.Code, w.Body)
	}
	f.cookie = c
	if w := f.do("GET", "/", nil); w.Code != 200 || !strings.Contains(w.Body.String(), "<title>page") {
		t.Errorf("the browser of the session: %d %s", w.Code, w.Body)
	}
	if w := f.do("GET", "/?token="+f.session.token, nil); w.Code != http.StatusSeeOther {
		t.Errorf("the browser of the session follows the link again: %d", w.Code)
	}
	f.cookie = &http.Cookie{Name: c.Name, Value: c.Value[1:]}
	if w := f.do("GET", "/", nil); w.Code != 403 {
		t.Errorf("a wrong cookie: %d", w.Code)
	}
}

// A link on another website leads to the page by a new request, as the redirect would come without the cookie.
func TestTokenFromElsewhere(t *testing.T) {
	f := newFixture(t, testSnapshot())
	w := f.do("GET", "/?token="+f.session.token, map[string]string{"Sec-Fetch-Site": "cross-site"})
	if w.Code != 200 || w.Header().Get("Refresh") != "0; url=/" || len(w.Result().Cookies()) != 1 {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
}

// Only requests that the page itself has caused are answered.
func TestForeignRequests(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	p := port(f.host)
	for _, tc := range []struct {
		headers map[string]string
		allowed bool
	}{
		{nil, true},
		{map[string]string{"Host": "localhost:" + p}, true},
		{map[string]string{"Host": "[::1]:" + p}, true},
		{map[string]string{"Host": "localhost"}, false},
		{map[string]string{"Host": "127.0.0.1:1"}, false},
		{map[string]string{"Host": "evil.example:" + p}, false},
		{map[string]string{"Host": "localhost.evil.example:" + p}, false},
		{map[string]string{"Host": ""}, false},
		{map[string]string{"Sec-Fetch-Site": "none"}, true},
		{map[string]string{"Sec-Fetch-Site": "same-origin"}, true},
		{map[string]string{"Sec-Fetch-Site": "same-site"}, false},
		{map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
		{map[string]string{"Sec-Fetch-Site": "invented"}, false},
		{map[string]string{"Origin": "http://" + f.host}, true},
		{map[string]string{"Origin": "http://127.0.0.1:1"}, false},
		{map[string]string{"Origin": "null"}, false},
	} {
		for _, target := range []string{"/", "/app.js", "/api/status"} {
			w := f.do("GET", target, tc.headers)
			if tc.allowed != (w.Code == 200) || !tc.allowed && w.Code != 403 {
				t.Errorf("%s with %v: %d %s", target, tc.headers, w.Code, w.Body)
			}
		}
	}
	// A website whose name resolves to this machine cannot use a token either.
	f = newFixture(t, testSnapshot())
	w := f.do("GET", "/?token="+f.session.token, map[string]string{"Host": "evil.example:" + port(f.host)})
	if w.Code != 403 || len(w.Result().Cookies()) > 0 {
		t.Errorf("the token sent to another name: %d", w.Code)
	}
	f.enter()
}

// Every answer has the headers, and none is of CORS.
func TestHeaders(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	check := func(what string, h http.Header) {
		t.Helper()
		for name, value := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
				"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cross-Origin-Opener-Policy":   "same-origin",
		} {
			if got := h.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", what, name, got, value)
			}
		}
		for name := range h {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: has the header %s", what, name)
			}
		}
		isFile := !strings.Contains(what, "/api")
		if cache := h.Get("Cache-Control"); cache != "no-store" && (cache != "no-cache" || !isFile) {
			t.Errorf("%s: Cache-Control is %q", what, cache)
		}
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
		for _, target := range []string{
			"/", "/app.js", "/none", "/api/status", "/api/nodes", "/api/nodes/n1", "/api/nodes/none", "/api/pods?count=0",
			"/api/doctor", "/api/none", "/a/../b", "//", "/?token=x",
		} {
			check(method+" "+target, f.do(method, target, nil).Header())
			check(method+" "+target+" of another website",
				f.do(method, target, map[string]string{"Sec-Fetch-Site": "cross-site"}).Header())
		}
	}
	f.cookie = nil
	check("GET /", f.do("GET", "/", nil).Header())
	check("GET /api/status", f.do("GET", "/api/status", nil).Header())
}

func TestMethods(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	for _, tc := range []struct {
		method, target string
		code           int
		allow          string
	}{
		{"HEAD", "/", 200, ""},
		{"HEAD", "/api/status", 200, ""},
		{"POST", "/", 405, "GET"},
		{"POST", "/api/status", 405, "GET"},
		{"DELETE", "/api/nodes/n1", 405, "GET"},
		{"OPTIONS", "/api/pods", 405, "GET"},
		{"GET", "/api/doctor", 405, "POST"},
		{"POST", "/api/doctor", 403, ""},
	} {
		w := f.do(tc.method, tc.target, nil)
		if w.Code != tc.code || w.Header().Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", tc.method, tc.target, w.Code, w.Header().Get("Allow"), tc.code,
				tc.allow)
		}
		if tc.code >= 400 && (w.Header().Get("Content-Type") != "application/json" ||
			!strings.Contains(w.Body.String(), `"remedy":"`)) {
			t.Errorf("%s %s: %s", tc.method, tc.target, w.Body)
		}
	}
}

// The doctor is started by the page only.
func TestStartDoctor(t *testing.T) {
	for name, tc := range map[string]struct {
		headers map[string]string
		code    int
	}{
		"nothing":         {nil, 403},
		"another header":  {map[string]string{"X-Requested-With": "XMLHttpRequest"}, 403},
		"navigation":      {map[string]string{"Sec-Fetch-Site": "none"}, 403},
		"header":          {map[string]string{"X-Requested-With": "metrics-server-ui"}, 202},
		"same origin":     {map[string]string{"Sec-Fetch-Site": "same-origin"}, 202},
		"another website": {map[string]string{"X-Requested-With": "metrics-server-ui", "Sec-Fetch-Site": "cross-site"}, 403},
	} {
		f := newFixture(t, testSnapshot()).enter()
		w := f.do("POST", "/api/doctor", tc.headers)
		if started := len(f.findings.now) == 1; w.Code != tc.code || started != (tc.code == 202) {
			t.Errorf("%s: %d, started %t, want %d", name, w.Code, started, tc.code)
		}
	}
}

func TestFiles(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	for target, mediaType := range map[string]string{
		"/": "text/html; charset=utf-8", "/index.html": "text/html; charset=utf-8",
		"/app.js": "text/javascript; charset=utf-8", "/app.css": "text/css; charset=utf-8",
		"/third/LICENSE.txt": "text/plain; charset=utf-8", "/data.bin": "application/octet-stream",
	} {
		w := f.do("GET", target, nil)
		if w.Code != 200 || w.Header().Get("Content-Type") != mediaType || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %v", target, w.Code, w.Header())
		}
		if again := f.do("GET", target, map[string]string{"If-None-Match": w.Header().Get("ETag")}); again.Code != 304 ||
			again.Body.Len() > 0 {
			t.Errorf("%s again: %d %s", target, again.Code, again.Body)
		}
	}
	for _, target := range []string{
		"/none", "/third", "/third/", "/app.js/", "/..%2fui.go", "/%2e%2e/ui.go", "/third/..%2f..%2fui.go", "/app.js%00",
		`/..\ui.go`, "/api", "/api/", "/api/none", "/api/nodes/", "/api/pods/shop", "/api/pods/shop/web-1/more",
	} {
		w := f.do("GET", target, nil)
		for range 3 { // the router redirects to the shortest form of a path
			if location := w.Header().Get("Location"); location != "" {
				w = f.do("GET", location, nil)
			}
		}
		if w.Code != 404 || !strings.Contains(w.Body.String(), `"remedy":"`) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if _, err := loadFiles(fstest.MapFS{"app.js": {}}); err == nil || !strings.Contains(err.Error(), "make ui") {
		t.Errorf("without index.html: %v", err)
	}
}

// An answer is not sent again until what it is made from changes.
func TestETag(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	const target = "/api/nodes?sort=name"
	tag := f.do("GET", target, nil).Header().Get("ETag")
	code := func(target string) int { return f.do("GET", target, map[string]string{"If-None-Match": tag}).Code }
	if got := code(target); got != 304 {
		t.Errorf("again: %d", got)
	}
	for _, list := range []string{"W/" + tag, `"other", ` + tag} {
		if got := f.do("GET", target, map[string]string{"If-None-Match": list}).Code; got != 304 {
			t.Errorf("If-None-Match: %s: %d", list, got)
		}
	}
	if got := code(target + "&desc=1"); got != 200 {
		t.Errorf("another URL: %d", got)
	}
	f.found(3)
	if got := code(target); got != 200 {
		t.Errorf("after new findings: %d", got)
	}
	tag = f.do("GET", target, nil).Header().Get("ETag")
	changed := testSnapshot()
	changed.Version++
	f.source.Store(changed)
	if got := code(target); got != 200 {
		t.Errorf("after a change of the cluster: %d", got)
	}
	if got := newFixture(t, changed).enter().do("GET", target, map[string]string{"If-None-Match": tag}).Code; got != 200 {
		t.Errorf("of another process: %d", got)
	}
}

// An answer that JSON cannot express is an error, not an empty answer that the browser keeps.
func TestUnwritable(t *testing.T) {
	f := newFixture(t, testSnapshot())
	w := httptest.NewRecorder()
	f.answer(w, httptest.NewRequestWithContext(t.Context(), "GET", "/api/status", http.NoBody),
		func(*request) (any, uint64, *failure) { return math.NaN(), 0, nil })
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 500 || w.Header().Get("ETag") != "" ||
		!strings.Contains(p.Error, "/api/status") || !strings.Contains(p.Error, "NaN") || p.Remedy == "" {
		t.Errorf("%d, ETag %q, %s (%v)", w.Code, w.Header().Get("ETag"), w.Body, err)
	}
}

func TestListen(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:0":       "ssh -L",
		":0":              "ssh -L",
		"[::]:0":          "ssh -L",
		"192.0.2.1:80":    "ssh -L",
		"127.0.0.1":       "such as 127.0.0.1:0",
		"127.0.0.1:x":     "such as 127.0.0.1:0",
		"127.0.0.1:99999": "such as 127.0.0.1:0",
	} {
		l, err := listen(address)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
	for _, address := range []string{"", "localhost:0", "127.0.0.1:0"} {
		l, err := listen(address)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		if _, err := listen(l.Addr().String()); err == nil || !strings.Contains(err.Error(), "give another --address") {
			t.Errorf("a port in use: %v", err)
		}
		l.Close()
	}
}
