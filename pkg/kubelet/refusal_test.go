package kubelet

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet/kubelettest"
)

// The error shows the explanation of a failure, wherever it is in the body and whoever wrote it.
func TestTextOfRefusal(t *testing.T) {
	const twice = "An error has occurred while serving metrics:\n\ncollected before with the same name and label values\n"
	status := `{
  "kind": "Status",
  "apiVersion": "v1",
  "metadata": {},
  "status": "Failure",
  "message": "nodes \"n1\" is forbidden: User \"u\" cannot get path \"/metrics/resource\"",
  "reason": "Forbidden",
  "details": {},
  "code": 403
}`
	long := "collected metric \"container_cpu_usage_seconds_total\" { " +
		strings.Repeat("label:{name:\"x\" value:\"y\"} ", 40) + "} was collected before with the same name and label values"
	compressed := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, s)
		_ = z.Close()
		return b.String()
	}
	for _, tt := range []struct {
		name     string
		code     int
		kind     string // Content-Type
		encoding string
		body     string
		says     string
		hides    string
	}{
		{
			name: "second paragraph", code: 500, body: twice,
			says: `answer is 500 Internal Server Error: "An error has occurred while serving metrics: ` +
				`collected before with the same name and label values"`,
		},
		{
			name: "list of errors", code: 500,
			body: "An error has occurred while serving metrics:\r\n\r\n2 error(s) occurred:\r\n* first\r\n* second",
			says: "2 error(s) occurred: * first * second",
		},
		{
			name: "end of a long text", code: 500, body: "An error has occurred while serving metrics:\n\n" + long,
			says: "was collected before with the same name and label values",
		},
		{
			name: "beginning of a long text", code: 500,
			body: long, says: `collected metric \"container_cpu_usage_seconds_total\"`,
		},
		{
			name: "status", code: 403, kind: "application/json", body: status,
			says:  `answer is 403 Forbidden: "nodes \"n1\" is forbidden: User \"u\" cannot get path \"/metrics/resource\""`,
			hides: "apiVersion",
		},
		{
			name: "status in one line", code: 404,
			body: `{"kind":"Status","message":"not here"}`, says: `404 Not Found: "not here"`, hides: "kind",
		},
		{
			name: "status that is cut off", code: 404,
			body: `{"kind":"Status","message":"not here","details":{"causes":"` + strings.Repeat("x", maxRefusal),
			says: `"not here"`,
		},
		{
			name: "message that is cut off", code: 404,
			body: `{"kind":"Status","message":"not here ` + strings.Repeat("x", maxRefusal), says: "not here xxx",
		},
		{
			name: "message of a gateway", code: 503,
			body: "{\n \"message\": \"no route matched\"\n}", says: `"no route matched"`,
		},
		{
			name: "nested error", code: 503,
			body: `{"error": {"code": 7, "message": "upstream is gone"}}`, says: `"upstream is gone"`,
		},
		{name: "JSON without a message", code: 500, body: "{\n  \"a\": 1\n}", says: `"{ \"a\": 1 }"`},
		{name: "no JSON", code: 500, body: "{{ template }}\nfailed", says: `"{{ template }} failed"`},
		{
			name: "page", code: 502, kind: "text/html; charset=utf-8",
			body: "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n" +
				"<body><center><h1>502 Bad Gateway</h1></center><hr>nginx</body></html>",
			says: `answer is 502 Bad Gateway: HTML page "502 Bad Gateway"`, hides: "<",
		},
		{
			name: "page of another type", code: 503, kind: "text/plain",
			body: "<!DOCTYPE HTML>\n<HTML><TITLE>\n Access &amp; more\n</TITLE>", says: `HTML page "Access & more"`,
		},
		{
			name: "page without a title", code: 403, kind: "text/html",
			body: "<html><style>p {}</style><body><p>blocked by <b>policy</b></body>", says: `HTML page "blocked by policy"`,
			hides: "{",
		},
		{name: "empty page", code: 403, kind: "text/html", body: "", says: "answer is 403 Forbidden", hides: `"`},
		{name: "empty", code: 500, body: "", says: "answer is 500 Internal Server Error", hides: `Error:`},
		{name: "blank", code: 500, body: " \n\t\r\n", says: "answer is 500 Internal Server Error", hides: `Error:`},
		{
			name: "compressed, unasked", code: 500, encoding: "gzip",
			body: compressed(twice), says: "serving metrics: collected before",
		},
		{name: "compressed, undeclared", code: 500, body: compressed(twice), says: "serving metrics: collected before"},
		{name: "bomb", code: 500, encoding: "gzip", body: compressed(strings.Repeat("x", 10<<20)), says: "xxx...xxx"},
		{name: "broken gzip", code: 500, encoding: "gzip", body: "\x1f\x8b\x08broken", says: "9 bytes that are not text"},
		{
			name: "protobuf", code: 403, kind: "application/vnd.kubernetes.protobuf",
			body: "k8s\x00\n\f\n\x02v1\x12\x06Status", says: "18 bytes that are not text", hides: "v1",
		},
		{name: "another encoding", code: 500, body: strings.Repeat("\xe9\xff", 30), says: "60 bytes that are not text"},
		{name: "controls", code: 500, body: "a\x1b[31mred\x07\nb\u202ec", says: `"a\x1b[31mred\a b\u202ec"`, hides: "\x1b"},
		{
			name: "character cut off", code: 500,
			body: strings.Repeat("x", maxRefusal-1) + "é", says: "xxx...xxx", hides: "not text",
		},
		{name: "many characters", code: 500, body: strings.Repeat("é", 1000), says: "é...é", hides: `\x`},
		{
			name: "token in a status", code: 401,
			body: `{"kind":"Status","message":"bad \u0073` + token[1:] + `"}`, says: "bad [redacted]", hides: token[1:],
		},
		{
			name: "token in a page", code: 401, kind: "text/html",
			body: "<title>&#115;" + token[1:] + "</title>", says: "[redacted]", hides: token[1:],
		},
		{
			name: "token in the last paragraph", code: 500,
			body: "failed:\n\nAuthorization: Bearer " + token, says: "failed: Authorization: Bearer [redacted]",
		},
		{name: "token compressed", code: 500, body: compressed("failed: " + token), says: "failed: [redacted]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, secure())
			f.SetFault(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
				if tt.kind != "" {
					w.Header().Set("Content-Type", tt.kind)
				}
				if tt.encoding != "" {
					w.Header().Set("Content-Encoding", tt.encoding)
				}
				w.WriteHeader(tt.code)
				_, _ = io.WriteString(w, tt.body)
			})
			e := fetchError(t, newClient(t, config(), f.endpoint()))
			text := e.Err.Error()
			if !strings.Contains(text, tt.says) {
				t.Errorf("%s does not say %s", text, tt.says)
			}
			if tt.hides != "" && strings.Contains(text, tt.hides) {
				t.Errorf("%s shows %q", text, tt.hides)
			}
			if strings.Contains(text, token) || strings.ContainsAny(text, "\r\n\t") || len(text) > maxError+len("...") {
				t.Errorf("%d bytes, of more than one line, or with the token: %q", len(text), text)
			}
		})
	}
}

// An answer that no kubelet gives, a Status or a web page, has another remedy than the same status code
// of a kubelet.
func TestAnswersOfOtherServers(t *testing.T) {
	for _, code := range []int{401, 403, 404, 410, 500, 501, 502, 503} {
		for _, body := range []struct{ text, remedy string }{
			{`{"kind":"Status","message":"no"}`, "an API server answers here instead of a kubelet"},
			{"<html><title>no</title></html>", "a web server or a proxy answers here instead of a kubelet"},
		} {
			t.Run(fmt.Sprint(code, body.text), func(t *testing.T) {
				f := newFake(t, secure())
				f.SetFault(kubelettest.Status(code, body.text))
				e := failure(t, within(t), newClient(t, config(), f.endpoint()), "not a kubelet")
				if !strings.Contains(e.Remedy(), body.remedy) {
					t.Errorf("remedy %q, want one that says %q", e.Remedy(), body.remedy)
				}
			})
		}
	}
}

// A refusal is known as soon as its header has arrived, even if its body never ends.
func TestRefusalWithoutEnd(t *testing.T) {
	for _, text := range []string{"Forbidden (user=x)", ""} {
		synctest.Test(t, func(t *testing.T) {
			answer := "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"
			want := "answer is 403 Forbidden"
			if text != "" {
				answer += hex(len(text)) + "\r\n" + text + "\r\n"
				want += `: "` + text + `"`
			}
			s := newSilent(t, answer)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			e := failure(t, ctx, s.Client(Endpoint{Node: "n1", Addresses: []Address{{"Hostname", "n1"}}}), "403")
			if !strings.HasSuffix(e.Error(), ": "+want) {
				t.Errorf("error %q does not end with %q", e, want)
			}
		})
	}
}

// If a node's answer is not read in time because other nodes send large answers slowly, the remedy is not about the
// node or the network.
func TestSlowLargeAnswersOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const turns = 4 // of httpconn
		s := newSilent(t, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4194304\r\n\r\n"+
			strings.Repeat("x", 2<<20))
		fetch := func(node int, timeout time.Duration) *Error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			return failure(t, ctx, s.Client(Endpoint{
				Node: fmt.Sprint("n", node), Addresses: []Address{{"Hostname", "n"}},
			}), "timeout")
		}
		var others sync.WaitGroup
		for node := range turns {
			others.Go(func() {
				if e := fetch(node, time.Minute); !strings.Contains(e.Remedy(), "firewall") {
					t.Errorf("remedy of a node that is slow: %q", e.Remedy())
				}
			})
		}
		synctest.Wait()
		e := fetch(turns, 10*time.Second)
		if want := "timed out while waiting for a turn to read a large answer"; !strings.Contains(e.Error(), want) ||
			e.Remedy() != remedyTurn {
			t.Errorf("error %q with remedy %q, want %q", e, e.Remedy(), want)
		}
		others.Wait()
	})
}

// newSilent returns Clients for kubelets that send answer, and then nothing. It is for synctest bubbles.
func newSilent(t *testing.T, answer string) *Clients {
	s, err := New(Config{PlainHTTP: true, Rest: &rest.Config{
		Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				_, _ = http.ReadRequest(bufio.NewReader(there))
				_, _ = io.WriteString(there, answer)
			}()
			return here, nil
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
