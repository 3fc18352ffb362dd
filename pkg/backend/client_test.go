package backend

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sharedtest"
)

// quiet is the log of servers that report failed handshakes.
var quiet = log.New(io.Discard, "", 0)

func trusted(t testing.TB, text string) Expression {
	t.Helper()
	e, err := Trust(text, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newClient(t *testing.T, c Config) *Client {
	t.Helper()
	c.Name = "main"
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// wantError fails unless err has the cause and a text with all of parts.
func wantError(t *testing.T, err error, cause Cause, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.cause != cause {
		t.Fatalf("%v, want cause %q", err, cause)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("%q lacks %q", e, part)
		}
	}
}

func write(t *testing.T, file string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const up = `{"status":"success","data":{"resultType":"vector","result":[
	{"metric":{"__name__":"up","pod":"a"},"value":[1700000000.123,"1"]},
	{"metric":{"pod":"b"},"value":[1700000000,"NaN"]}]}}`

func TestQuery(t *testing.T) {
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		got = r
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		_, _ = z.Write([]byte(up))
	}))
	defer server.Close()
	c := newClient(t, Config{
		URL: server.URL + "/prometheus/", Headers: map[string]string{"X-Scope-OrgID": "team"},
		Parameters: map[string]string{"dedup": "true"}, Interval: 2 * time.Minute, Timeout: 61500 * time.Millisecond,
	})
	a, err := c.Query(t.Context(), trusted(t, "up"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodPost || got.URL.String() != "/prometheus/api/v1/query" {
		t.Errorf("the request is %s %s, want POST /prometheus/api/v1/query", got.Method, got.URL)
	}
	if d := cmp.Diff(map[string][]string{
		"query": {"up"}, "timeout": {"1m1s500ms"}, "dedup": {"true"},
	}, map[string][]string(got.PostForm)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if h := got.Header; h.Get("X-Scope-OrgID") != "team" || h.Get("Authorization") != "" || h["Idempotency-Key"] != nil {
		t.Errorf("header: %v", h)
	}
	if len(a.Samples) != 2 || a.Samples[0].Value != 1 || time.Since(a.Received) > time.Minute {
		t.Errorf("got %+v, want two samples, the first of value 1, received just now", a)
	}
	if got := a.Samples[0].Labels.String(); got != `{pod="a"}` {
		t.Errorf("labels %s are kept, want only namespace and pod", got)
	}
	for keep, want := range map[string]string{
		"__name__": `{__name__="up", pod="a"}`, "pod": `{pod="a"}`, "": `{pod="a"}`,
		"pod,__name__,none": `{__name__="up", pod="a"}`,
	} {
		e, err := Trust("up", "", keep)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Query(t.Context(), e)
		if err != nil || a.Samples[0].Labels.String() != want {
			t.Errorf("%s: %+v, %v, want %s", keep, a, err, want)
		}
	}
}

// TestNames checks that the names of series have limits of their own.
func TestNames(t *testing.T) {
	count, name := 0, "a"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		one := `{"metric":{"__name__":"` + name + `"},"value":[1,"1"]}`
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[`+
			strings.Repeat(one+",", count-1)+one+"]}}")
	}))
	defer server.Close()
	e, err := Names(`group by (__name__) ({__name__=~".+"})`)
	if err != nil {
		t.Fatal(err)
	}
	small := newClient(t, Config{URL: server.URL, MaxSeries: 10, MaxBody: 1000})
	count = 10_001
	for _, c := range []*Client{newClient(t, Config{URL: server.URL}), small} {
		if a, err := c.Query(t.Context(), e); err != nil || len(a.Samples) != count ||
			a.Samples[0].Labels.Get("__name__") != name {
			t.Errorf("%v, want %d names", err, count)
		}
	}
	fails := func(part string) {
		t.Helper()
		_, err := small.Query(t.Context(), e)
		wantError(t, err, TooLarge, "too many names of series: more than "+part, "seriesQuery")
		if detail := errors.Unwrap(err); detail == nil || !strings.Contains(detail.Error(), "group by (__name__)") {
			t.Errorf("the log has %v, want the query", detail)
		}
	}
	count = maxNames + 1
	fails("50000 series")
	// A backend may have larger limits than these.
	large := newClient(t, Config{URL: server.URL, MaxSeries: count})
	if a, err := large.Query(t.Context(), e); err != nil || len(a.Samples) != count {
		t.Errorf("%v, want %d names", err, count)
	}
	count, name = 1, strings.Repeat("a", maxNamesBody)
	fails("8388608 bytes")
	// Other answers keep their limits.
	count, name = 11, "a"
	_, err = small.Query(t.Context(), trusted(t, "up"))
	wantError(t, err, TooLarge, "10 series", "maxSeries")
}

func TestAnswers(t *testing.T) {
	const token = "s3cret-token"
	for name, tt := range map[string]struct {
		status int
		header http.Header
		body   string
		config Config
		cause  Cause // "" if there is no error
		parts  []string
		detail string // only for the log
		part   bool   // the answer may lack series
	}{
		"scalar":         {body: `{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}`},
		"empty":          {body: `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		"infos are fine": {body: `{"status":"success","infos":["not a counter"],"data":{"resultType":"vector","result":[]}}`},
		"warning": {
			body:  `{"status":"success","warnings":["store 2: ` + token + `"],"data":{"resultType":"vector","result":[]}}`,
			cause: Warned, parts: []string{
				`backend "main" warns that its answer may be wrong or incomplete: have an administrator`, "allowWarnings",
			},
			detail: "store 2: [redacted]",
		},
		"warnings about the expression": {
			body: `{"status":"success","warnings":["PromQL warning: c","PromQL warning: b ` + token + `"],
				"data":{"resultType":"vector","result":[]}}`,
			cause: Warned, parts: []string{"incomplete: PromQL warning: b [redacted]: correct the expression"},
		},
		"infos as warnings": {
			body: `{"status":"success","warnings":["PromQL info: metric might not be a counter: \"a\" (1:6)",
				"2 more info annotations omitted"],"data":{"resultType":"vector","result":[]}}`,
		},
		"infos as warnings, allowed": {
			body:   `{"status":"success","warnings":["PromQL info: c"],"data":{"resultType":"vector","result":[]}}`,
			config: Config{AllowWarnings: true},
		},
		"info and warning": {
			body: `{"status":"success","warnings":["PromQL info: c","store 2 is down"],
				"data":{"resultType":"vector","result":[]}}`,
			cause: Warned, parts: []string{"have an administrator look up"}, detail: "store 2 is down",
		},
		"omitted warnings": {
			body: `{"status":"success","warnings":["3 more warning annotations omitted","PromQL warning: b"],
				"data":{"resultType":"vector","result":[]}}`,
			cause: Warned, parts: []string{"incomplete: PromQL warning: b: correct the expression"},
		},
		"omitted warnings allowed": {
			body: `{"status":"success","warnings":["3 more warning annotations omitted","PromQL warning: b"],
				"data":{"resultType":"vector","result":[]}}`,
			config: Config{AllowWarnings: true},
		},
		"nothing but omissions": { // Prometheus 2.53 omits infos and warnings alike
			body: `{"status":"success","warnings":["PromQL info: c","3 more annotations omitted"],
				"data":{"resultType":"vector","result":[]}}`,
			cause: Warned, parts: []string{"incomplete: 3 more annotations omitted: correct the expression"},
		},
		"warning allowed": {
			body:   `{"status":"success","warnings":["store 2 is down"],"data":{"resultType":"vector","result":[]}}`,
			config: Config{AllowWarnings: true}, part: true,
		},
		"warning about the expression allowed": {
			body:   `{"status":"success","warnings":["PromQL warning: c"],"data":{"resultType":"vector","result":[]}}`,
			config: Config{AllowWarnings: true},
		},
		"partial": {
			body:  `{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`,
			cause: Partial, parts: []string{`backend "main" says that its answer is partial`},
		},
		"partial allowed": {
			body:   `{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`,
			config: Config{AllowPartial: true}, part: true,
		},
		"partial, though warnings are allowed": {
			body:   `{"status":"success","isPartial":true,"warnings":["w"],"data":{"resultType":"vector","result":[]}}`,
			config: Config{AllowWarnings: true}, cause: Partial,
		},
		"matrix": {
			body:  `{"status":"success","data":{"resultType":"matrix","result":[]}}`,
			cause: WrongType, parts: []string{"matrix"},
		},
		"histogram": {
			body: `{"status":"success","data":{"resultType":"vector","result":[
				{"metric":{},"histogram":[1,{"count":"1","sum":"2"}]}]}}`,
			cause: WrongType, parts: []string{"histogram_quantile"},
		},
		"no value in a series": {
			body:  `{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}`,
			cause: NotPrometheus, parts: []string{"malformed vector"},
		},
		"no value at a time": {
			body:  `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000]}]}}`,
			cause: NotPrometheus, parts: []string{"malformed vector"},
		},
		"null": {
			body:  `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000,null]}]}}`,
			cause: NotPrometheus, parts: []string{"malformed vector"},
		},
		"scalar without a value": {
			body:  `{"status":"success","data":{"resultType":"scalar","result":[1700000000]}}`,
			cause: NotPrometheus, parts: []string{"malformed scalar"},
		},
		"no scalar": {
			body:  `{"status":"success","data":{"resultType":"scalar","result":null}}`,
			cause: NotPrometheus, parts: []string{"malformed scalar"},
		},
		"not a number": {
			body:  `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}`,
			cause: NotPrometheus, parts: []string{"malformed vector"},
		},
		"cut off":    {body: `{"status":"success","data":{"resultType":"vector","result":[`, cause: NotPrometheus},
		"page":       {body: "<html>", cause: NotPrometheus, parts: []string{"Mimir needs the path /prometheus"}},
		"other JSON": {body: "{}", cause: NotPrometheus},
		"nothing":    {cause: NotPrometheus},
		"too large": {
			body: strings.Repeat(" ", 101), config: Config{MaxBody: 100}, cause: TooLarge,
			parts: []string{"100 bytes", "maxBodyBytes"},
		},
		"too many series": {
			body: up, config: Config{MaxSeries: 1}, cause: TooLarge, parts: []string{"1 series", "sum by (pod)", "maxSeries"},
		},
		"just allowed": {body: strings.Repeat(" ", 100), config: Config{MaxBody: 100}, cause: NotPrometheus},
		"bad query": {
			status: 400, body: `{"status":"error","errorType":"bad_data","error":"unknown function with ` + token + `"}`,
			cause: BadQuery, parts: []string{"unknown function with [redacted]"},
		},
		"too expensive": {
			status: 422, body: `{"status":"error","errorType":"execution","error":"too many samples"}`,
			cause: BadQuery, parts: []string{"too many samples"},
		},
		"an error with status 200": {
			body:  `{"status":"error","errorType":"execution","error":"multiple matches for labels: many-to-one"}`,
			cause: BadQuery, parts: []string{
				`backend "main" cannot evaluate the expression: multiple matches for labels: many-to-one`,
			},
		},
		"another error with status 200": {
			body: `{"status":"error","errorType":"execution","error":"no"}`, cause: ServerError, detail: "no",
		},
		"ambiguous match": {
			status: 422, body: `{"status":"error","errorType":"execution","error":"found duplicate series for the match group ` +
				`{pod=\"a\"} on the right hand-side of the operation: [];many-to-many matching not allowed"}`,
			cause: BadQuery, parts: []string{`expression: found duplicate series for the match group {pod="a"} on`},
		},
		"ambiguous match in VictoriaMetrics": {
			status: 422, body: `{"status":"error","errorType":"422","error":"error when executing query=\"a \\\"b\\\" / c\" ` +
				`for (time=1, step=300000): cannot evaluate \"a\": ` +
				"duplicate time series on the left side of `/ on (pod)`\"}",
			cause: BadQuery, parts: []string{"expression: duplicate time series on the left side of `/ on (pod)`"},
		},
		"too many series in a storage node": {
			status: 422, body: `{"status":"error","errorType":"422","error":"cannot perform search on vmstorage ` +
				`172.30.1.2:8401: the number of matching timeseries exceeds 300000; narrow down the search"}`,
			cause: BadQuery, parts: []string{"expression: the number of matching timeseries exceeds 300000; narrow"},
		},
		"storage fails in Prometheus": {
			status: 422, body: `{"status":"error","errorType":"execution","error":"expanding series: proxy Series(): rpc ` +
				`error: receive series from Addr: 10.1.2.3:10901 LabelSets: {}: EOF"}`,
			cause: ServerError, parts: []string{`backend "main" failed (422): see the logs`},
			detail: "expanding series: proxy Series(): rpc error: receive series from Addr: 10.1.2.3:10901 LabelSets: {}: EOF",
		},
		"storage fails in VictoriaMetrics": { // the expression is a user's
			status: 422, body: `{"status":"error","errorType":"422","error":"query=\"x{a=\\\"parse error\\\"}\": ` +
				`cannot perform search on vmstorage 172.30.1.2:8401"}`,
			cause: ServerError, parts: []string{"failed (422): see the logs"},
			detail: `query="x{a=\"parse error\"}": cannot perform search on vmstorage 172.30.1.2:8401`,
		},
		"timeout there": {
			status: 503, body: `{"status":"error","errorType":"timeout","error":"query timed out"}`,
			cause: Timeout, parts: []string{"aborted the query because it took too long"}, detail: "query timed out",
		},
		"HTTP to a TLS port": {
			status: 400, body: "Client sent an HTTP request to an HTTPS server.", cause: BadStatus, parts: []string{"scheme"},
		},
		"unauthorized": {
			status: 401, body: token, cause: Unauthorized, parts: []string{"does not accept the credentials (401)"},
		},
		"only GET": {
			status: 405, cause: BadStatus,
			parts: []string{"does not accept POST requests (405)", "pass on POST requests for /api/v1/query"},
		},
		"denied":      {status: 403, cause: Denied, parts: []string{"denied the query (403)"}},
		"not found":   {status: 404, body: "404 page not found", cause: NotFound, parts: []string{"/select/TENANT"}},
		"busy":        {status: 429, body: `{"error":"slow down"}`, cause: Busy, detail: "slow down"},
		"unavailable": {status: 503, body: "no healthy upstream", cause: ServerError, parts: []string{"(503)"}},
		"a server behind it fails": {
			status: 500, body: `{"status":"error","errorType":"internal","error":"dial 10.1.2.3:10901"}`,
			cause: ServerError, parts: []string{"failed (500): see the logs"}, detail: "dial 10.1.2.3:10901",
		},
		"redirect": {
			status: 307, header: http.Header{"Location": {"/login?token=" + token}},
			cause: Redirect, parts: []string{"redirects are not followed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				if r.Header.Get("Authorization") != "Bearer "+token {
					t.Errorf("Authorization: %q", r.Header.Get("Authorization"))
				}
				maps.Copy(w.Header(), tt.header)
				if tt.status != 0 {
					w.WriteHeader(tt.status)
				}
				_, _ = w.Write([]byte(tt.body))
			}))
			defer server.Close()
			config := tt.config
			config.URL = server.URL
			config.CAFile = caFile(t, server)
			config.TokenFile = write(t, filepath.Join(t.TempDir(), "token"), []byte(token+"\n"))
			a, err := newClient(t, config).Query(t.Context(), trusted(t, "up"))
			if requests != 1 {
				t.Errorf("%d requests, want 1: a redirect is not followed", requests)
			}
			if tt.cause == "" {
				if err != nil {
					t.Fatal(err)
				}
				if a == nil {
					t.Fatal("no answer")
				}
				if a.Partial != tt.part {
					t.Errorf("Partial is %v, want %v", a.Partial, tt.part)
				}
				return
			}
			wantError(t, err, tt.cause, tt.parts...)
			if tt.detail != "" {
				if strings.Contains(err.Error(), tt.detail) {
					t.Errorf("users are told %q", err)
				}
				if detail := errors.Unwrap(err); detail == nil || detail.Error() != tt.detail {
					t.Errorf("the log has %v, want %s", detail, tt.detail)
				}
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(e.Error(), token) {
					t.Errorf("%q has the token", e)
				}
			}
			if strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("%q has the address", err)
			}
		})
	}
}

// caFile returns a file with the certificate of a server.
func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "ca"), pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: s.Certificate().Raw,
	}))
}

// TestNoProxy checks that queries do not go to a proxy, whatever the environment says.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	c := newClient(t, Config{URL: "http://backend.invalid"})
	transport, err := c.current()
	if err != nil {
		t.Fatal(err)
	}
	if transport.Proxy != nil {
		t.Error("the transport has a proxy")
	}
	_, err = c.Query(t.Context(), trusted(t, "up"))
	wantError(t, err, Unresolved, "the host in its URL")
}

func TestFailures(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = quiet
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	for name, tt := range map[string]struct {
		config Config
		cause  Cause
		part   string
	}{
		"refused":           {Config{URL: "http://" + sharedtest.RefusingAddr(t)}, Refused, "check that it runs"},
		"https of http":     {Config{URL: strings.Replace(plain.URL, "http:", "https:", 1)}, TLSFailed, "scheme"},
		"unknown authority": {Config{URL: secure.URL}, TLSFailed, "caFile"},
		"another name": {
			Config{URL: secure.URL, CAFile: caFile(t, secure), ServerName: "else.where"}, TLSFailed, "certificate",
		},
		"ends early": {Config{URL: broken.URL}, Unreachable, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(t, tt.config).Query(t.Context(), trusted(t, "up"))
			wantError(t, err, tt.cause, `backend "main"`, tt.part)
			if text := err.Error(); strings.Contains(text, "127.0.0.1") {
				t.Errorf("%q has the address", text)
			}
		})
	}
}

// hanging is a server that answers no query before it is closed.
func hanging(t *testing.T) (url string, asked <-chan struct{}) {
	t.Helper()
	requests, end := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		requests <- struct{}{}
		<-end
	}))
	t.Cleanup(func() {
		close(end)
		s.Close()
	})
	return s.URL, requests
}

func TestTimeout(t *testing.T) {
	url, _ := hanging(t)
	_, err := newClient(t, Config{URL: url, Timeout: minTimeout}).Query(t.Context(), trusted(t, "up"))
	wantError(t, err, Timeout, "did not answer in time", "NetworkPolicy")
}

// TestParallel checks that a query waits for its turn, and not for ever.
func TestParallel(t *testing.T) {
	url, asked := hanging(t)
	c := newClient(t, Config{URL: url, Interval: time.Hour, Timeout: time.Minute, Parallel: 2})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error)
	for range 2 {
		go func() {
			_, err := c.Query(ctx, trusted(t, "up"))
			results <- err
		}()
	}
	<-asked
	<-asked
	ended, end := context.WithCancel(t.Context())
	end()
	_, err := c.Query(ended, trusted(t, "up"))
	wantError(t, err, Busy, `too many queries wait for backend "main", which is sent at most 2 at a time`,
		"raise parallel or interval of the backend")
	cancel()
	for range 2 {
		wantError(t, <-results, Timeout)
	}
	if err := c.turns.Take(t.Context(), ""); err != nil {
		t.Errorf("the turns are still taken: %v", err)
	}
	if n := len(asked); n != 0 {
		t.Errorf("%d more queries were sent, want none", n)
	}
}

// TestFairness checks that however many queries of one namespace hang, those of another are sent.
func TestFairness(t *testing.T) {
	url, asked := hanging(t)
	c := newClient(t, Config{URL: url, Interval: time.Hour, Timeout: time.Minute, Parallel: 4})
	query := func(ctx context.Context, namespace string) chan error {
		e, err := Confine("up", "namespace", namespace)
		if err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() {
			_, err := c.Query(ctx, e)
			result <- err
		}()
		return result
	}
	ctx, cancel := context.WithCancel(t.Context())
	var results []chan error
	for range 10 {
		results = append(results, query(ctx, "greedy"))
	}
	for range 3 {
		<-asked
	}
	results = append(results, query(ctx, "other"))
	<-asked
	if n := len(asked); n != 0 {
		t.Errorf("%d more queries were sent, want none", n)
	}
	cancel()
	for _, r := range results {
		if err := <-r; err == nil {
			t.Error("a query that hangs was answered")
		}
	}
}

// TestCredentialsChange checks that files are read again, that a broken state of them is an error, and that a
// connection which was made with other files is not used any more.
func TestCredentialsChange(t *testing.T) {
	var authorization string
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		_, _ = w.Write([]byte(up))
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	file := filepath.Join(t.TempDir(), "password")
	ca := caFile(t, server)
	c := newClient(t, Config{URL: server.URL, CAFile: ca, Username: "u", PasswordFile: file})

	query := func() error {
		_, err := c.Query(t.Context(), trusted(t, "up"))
		return err
	}
	wantError(t, query(), BadFile, `file `+file+` of backend "main" cannot be used: it cannot be read`, "mounted")
	wantError(t, c.CheckFiles(), BadFile)
	write(t, file, []byte(" \x01"))
	wantError(t, query(), BadFile, "characters")
	write(t, file, []byte("\n"))
	wantError(t, query(), BadFile, "empty")
	for _, tt := range []struct{ password, want string }{
		{"p 1\n", "Basic dTpwIDE="}, {"p 2", "Basic dTpwIDI="},
	} {
		write(t, file, []byte(tt.password))
		if err := query(); err != nil {
			t.Fatal(err)
		}
		if authorization != tt.want {
			t.Errorf("Authorization: %q, want %q", authorization, tt.want)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, want 1: the certificates have not changed", n)
	}
	if err := c.CheckFiles(); err != nil {
		t.Error(err)
	}

	good, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	write(t, ca, []byte("nothing"))
	wantError(t, query(), BadFile, ca, "no certificate")
	write(t, ca, append(good, good...))
	if err := query(); err != nil {
		t.Fatal(err)
	}
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestClientCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) != 1 {
			t.Errorf("the client shows %d certificates, want 1", len(r.TLS.PeerCertificates))
		}
		_, _ = w.Write([]byte(up))
	}))
	server.Config.ErrorLog = quiet
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	certificate := server.TLS.Certificates[0]
	key, err := x509Key(certificate)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := Config{URL: server.URL, CAFile: caFile(t, server)}
	_, err = newClient(t, config).Query(t.Context(), trusted(t, "up"))
	wantError(t, err, TLSFailed, "client certificate")

	config.CertFile = config.CAFile
	config.KeyFile = write(t, filepath.Join(dir, "key"), key)
	if _, err := newClient(t, config).Query(t.Context(), trusted(t, "up")); err != nil {
		t.Error(err)
	}
	config.KeyFile = config.CAFile
	_, err = newClient(t, config).Query(t.Context(), trusted(t, "up"))
	wantError(t, err, BadFile, "together")
}

func x509Key(c tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
