package docs

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/kubelet/kubelettest"
	"metrics-server/pkg/sample"
)

const troubleshooting = "docs/troubleshooting.md"

// row is a row of a table of troubleshooting.md.
type row struct {
	line  int
	table string // the heading of its first column
	cells []string
}

func rows(t *testing.T) []row {
	t.Helper()
	var all []row
	table := ""
	for i, line := range strings.Split(read(t, troubleshooting), "\n") {
		if strings.HasPrefix(line, "|---") {
			continue
		}
		if !strings.HasPrefix(line, "| ") {
			table = ""
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if table == "" {
			table = cells[0]
			continue
		}
		all = append(all, row{i + 1, table, cells})
	}
	if len(all) < 50 {
		t.Fatalf("found only %d rows of tables in %s", len(all), troubleshooting)
	}
	return all
}

var spans = regexp.MustCompile("`([^`]+)`")

// quoted returns the code spans of a cell.
func quoted(cell string) (all []string) {
	for _, m := range spans.FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

// matches reports whether message contains the text that the document quotes, whose addresses, names and amounts are
// examples.
func matches(message, quote string) bool {
	pattern := regexp.QuoteMeta(quote)
	for _, example := range []struct{ one, any string }{
		{`10\.0\.0\.7`, `[\d.]+`}, {`worker2`, `\S+`}, {`3h0m0s`, `\S+`}, {`\.\.\.`, `.*`},
	} {
		pattern = strings.ReplaceAll(pattern, example.one, example.any)
	}
	return regexp.MustCompile(pattern).MatchString(message)
}

// broken is a kubelet with a fault, and how it is scraped.
type broken struct {
	fault  kubelettest.Fault
	server kubelettest.ServerConfig
	config func(*kubelet.Config)
	node   func(*kubelet.Endpoint)
	hangs  bool // until the timeout
}

var (
	authority = kubelettest.NewCA("cluster")
	// own is the certificate that the server serves.
	own = authority.Server("127.0.0.1")
)

// fetch scrapes the broken kubelet, and returns the error and the remedy that users see.
func (b broken) fetch(t *testing.T, timeout time.Duration) (message, remedy string) {
	t.Helper()
	if b.server.Certificate == nil {
		b.server.Certificate = authority.Server("127.0.0.1")
	}
	b.server.ClientCA = authority.Pool()
	says := kubelettest.NewNode(
		kubelettest.NodeConfig{Seed: 1, Pods: 1, Boot: time.Now().Add(-time.Hour), RequestTime: true},
	)
	k := &kubelettest.Kubelet{Answer: says.Append}
	k.SetFault(b.fault)
	server, err := kubelettest.Serve(k, b.server)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	config := kubelet.Config{
		Rest:              &rest.Config{BearerToken: "token"},
		CAData:            authority.PEM(),
		AddressTypes:      []string{"InternalIP"},
		UseNodeStatusPort: true,
		ServingCertificate: func() []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})
		},
	}
	if b.config != nil {
		b.config(&config)
	}
	clients, err := kubelet.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer clients.Close()
	e := kubelet.Endpoint{
		Node:      "n1",
		Port:      int32(server.Port()),
		Addresses: []kubelet.Address{{Type: "InternalIP", Address: server.Host()}},
	}
	if b.node != nil {
		b.node(&e)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	failed, ok := errors.AsType[*kubelet.Error](clients.Client(e).Fetch(ctx, &sample.Batch{}))
	if !ok {
		t.Fatal("the scrape does not fail")
	}
	return failed.Error(), failed.Remedy()
}

func dialled(err error) func(*kubelet.Config) {
	return func(c *kubelet.Config) {
		c.Rest.Dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
}

// saysFirst returns a kubelet that answers a TLS client hello with text.
func saysFirst(text string) broken {
	return broken{config: func(c *kubelet.Config) {
		c.Rest.Dial = func(context.Context, string, string) (net.Conn, error) {
			server, client := net.Pipe()
			go func() {
				defer server.Close()
				_, _ = server.Read(make([]byte, 4096))
				_, _ = io.WriteString(server, text)
			}()
			return client, nil
		}
	}}
}

func answers(text string) kubelettest.Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Type", kubelettest.ContentType)
		_, _ = io.WriteString(w, text)
	}
}

func listens(names ...string) broken {
	return broken{server: kubelettest.ServerConfig{Certificate: authority.Server(names...)}}
}

func clockIs(by time.Duration) broken {
	return broken{
		fault: answers("node_memory_working_set_bytes 1 " + strconv.FormatInt(time.Now().Add(by).UnixMilli(), 10) + "\n"),
	}
}

func status(code int, text string) broken { return broken{fault: kubelettest.Status(code, text)} }

const (
	statusObject = `{"kind":"Status","message":"no"}`
	refusedLink  = "https://elsewhere.example/"

	anonymous = "(user=system:anonymous, verb=get, resource=nodes, "
	account   = "(user=system:serviceaccount:kube-system:metrics-server, verb=get, resource=nodes, "
)

// faults are the kubelets that cause the errors in the table of nodes, by the quoted text.
var faults = map[string]broken{
	"x509: certificate signed by unknown authority": {
		server: kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("127.0.0.1")},
	},
	"x509: cannot validate certificate for 10.0.0.7 because it doesn't contain any IP SANs": listens("worker2"),
	"x509: certificate is valid for worker2, not 10.0.0.7":                                  listens("10.9.9.9"),
	"x509: certificate relies on legacy Common Name field, use SANs instead": {
		server: kubelettest.ServerConfig{Certificate: authority.Named("localhost")},
		node:   func(e *kubelet.Endpoint) { e.Addresses[0].Address = "localhost" },
	},
	"names no address at all": listens(),
	"x509: certificate has expired or is not yet valid": {
		server: kubelettest.ServerConfig{Certificate: authority.Expired("127.0.0.1")},
	},
	"remote error: tls: ":                              foreignClient,
	"does not accept this server's client certificate": foreignClient,
	"lookup worker2 ...: no such host": {
		config: dialled(&net.DNSError{Err: "no such host", Name: "worker2", Server: "10.96.0.10:53", IsNotFound: true}),
	},
	"the node has only addresses of type ...": {node: func(e *kubelet.Endpoint) { e.Addresses[0].Type = "ExternalDNS" }},
	"the node has no address in its status":   {node: func(e *kubelet.Endpoint) { e.Addresses = nil }},
	"connection refused":                      {config: dialled(os.NewSyscallError("connect", syscall.ECONNREFUSED))},
	"no route to host":                        {config: dialled(os.NewSyscallError("connect", syscall.EHOSTUNREACH))},
	"timed out while connecting": {hangs: true, config: func(c *kubelet.Config) {
		c.Rest.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}},
	"timed out while waiting for the answer": {fault: kubelettest.Hang, hangs: true},
	"connection reset by peer":               {fault: kubelettest.Reset},
	"unexpected EOF":                         {fault: kubelettest.Half},
	"through the proxy": {config: func(c *kubelet.Config) {
		c.Rest.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://127.0.0.1:9") }
	}},
	"answer is 401 Unauthorized": status(401, "Unauthorized"),
	"the API server does not accept this server's token either": {
		fault: kubelettest.Status(401, "Unauthorized"),
		config: func(c *kubelet.Config) {
			c.OwnAccess = func() error { return apierrors.NewUnauthorized("no") }
		},
	},
	"cannot ask the API server about this server's token": {
		fault: kubelettest.Status(401, "Unauthorized"),
		config: func(c *kubelet.Config) {
			c.OwnAccess = func() error { return syscall.ECONNREFUSED }
		},
	},
	"answer is 403 Forbidden":       status(403, "Forbidden "+account+"subresource=metrics)"),
	"user=system:anonymous":         status(403, "Forbidden "+anonymous+"subresource(s)=[metrics])"),
	"subresource=proxy":             status(403, "Forbidden "+account+"subresource=proxy)"),
	"Authorization error (user=...": status(500, "Authorization error "+account+"subresource=metrics)"),

	"remote error: tls: internal error":                 saysFirst("\x15\x03\x03\x00\x02\x02\x50"),
	"remote error: tls: handshake failure":              saysFirst("\x15\x03\x03\x00\x02\x02\x28"),
	"remote error: tls: protocol version not supported": saysFirst("\x15\x03\x03\x00\x02\x02\x46"),
	"first record does not look like a TLS handshake":   saysFirst("SSH-2.0-OpenSSH_9.9\r\n"),
	"incompatible key usage": {
		server: kubelettest.ServerConfig{Certificate: authority.ForClients("127.0.0.1")},
	},
	"operation not permitted":         {config: dialled(os.NewSyscallError("connect", syscall.EPERM))},
	"answer is 404 Not Found":         status(404, "404 page not found"),
	"answer is 501 Not Implemented":   status(501, "not implemented"),
	"answer is 429 Too Many Requests": status(429, ""),
	"answer is 302 Found to":          {fault: kubelettest.Redirect(refusedLink)},
	"answer is 400 Bad Request": {config: func(c *kubelet.Config) {
		c.CAData, c.PlainHTTP = nil, true
	}},
	`answer is 500 Internal Server Error: "An error has occurred while serving metrics: ..."`: status(
		500, "An error has occurred while serving metrics:\n\ncollected before",
	),
	"this is the server itself, not a kubelet": {
		fault:  kubelettest.Status(403, statusObject),
		server: kubelettest.ServerConfig{Certificate: own},
	},
	"an API server answers here instead of a kubelet": status(403, statusObject),
	`HTML page "502 Bad Gateway"`: status(
		502, "<html><head><title>502 Bad Gateway</title></head></html>",
	),
	`answer is "text/html", not metrics`: {fault: kubelettest.As("text/html")},
	"answer is too large":                {fault: kubelettest.Flood(32<<20, true)},
	"answer is incomplete":               {fault: answers("node_memory_working_set_bytes 1")},
	"the node's clock is 3h0m0s ahead":   clockIs(3 * time.Hour),
	"behind":                             clockIs(-3 * time.Hour),
	"kubelet failed to collect metrics":  {fault: answers("resource_scrape_error 1\n")},
	"answer has no usable sample":        {fault: answers("up 1\n")},
}

var foreignClient = func() broken {
	cert, key := kubelettest.NewCA("foreign").Client("stranger")
	return broken{config: func(c *kubelet.Config) {
		c.Rest = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CertData: cert, KeyData: key}}
	}}
}()

// toSet matches what a row tells users to set. The remedy that they see must name it too.
var toSet = regexp.MustCompile(
	`^(--[a-z]|metrics\.k8s\.io/|authentication\.|serverTLSBootstrap|nodes/metrics|HTTPS_PROXY|NO_PROXY|containerPort)`,
)

// tableOfNodes is the heading of the table of errors that scraping a node can cause.
const tableOfNodes = "the error has"

// TestRemediesOfNodes makes the fault of each row of the table of nodes, and compares the error and the remedy that
// users see with the row.
func TestRemediesOfNodes(t *testing.T) {
	used := map[string]bool{}
	for _, r := range rows(t) {
		if r.table != tableOfNodes {
			continue
		}
		for _, quote := range quoted(r.cells[0]) {
			b, ok := faults[quote]
			if used[quote] = ok; !ok {
				if !lookedFor(t, quote) {
					t.Errorf("%s:%d: nothing makes the fault of %q: add it to faults", troubleshooting, r.line, quote)
				}
				continue
			}
			const patience = 30 * time.Second
			timeout := patience
			if b.hangs {
				timeout = 50 * time.Millisecond
			}
			message, remedy := b.fetch(t, timeout)
			// On a busy machine a short timeout may end an earlier step.
			for ; !matches(message+": "+remedy, quote) && timeout < patience; timeout *= 2 {
				message, remedy = b.fetch(t, timeout)
			}
			if !matches(message+": "+remedy, quote) {
				t.Errorf(
					"%s:%d: the document quotes %q, but users see\n%s\n%s", troubleshooting, r.line, quote, message, remedy,
				)
			}
			for _, want := range quoted(r.cells[2]) {
				if toSet.MatchString(want) && !strings.Contains(remedy, want) {
					t.Errorf(
						"%s:%d: %q: the document recommends %q, but users see\n%s", troubleshooting, r.line, quote, want, remedy,
					)
				}
			}
		}
	}
	for quote := range faults {
		if !used[quote] {
			t.Errorf("%s does not quote %q", troubleshooting, quote)
		}
	}
}

// partOf has, for quotes with names and addresses of one example, the part that a test looks for.
var partOf = map[string]string{
	`MissingEndpoints: endpointslices for service/metrics-server in "kube-system" have no addresses ` +
		`with port name "https"`: "have no addresses with port name",
	"serve on --bind-address 0.0.0.0 --secure-port 10250: ... bind: address already in use": "bind: address already in " +
		"use",
	"FailedDiscoveryCheck: failing or missing response from " +
		"https://10.88.0.65:9/apis/metrics.k8s.io/v1: ... connect: connection refused": "connect: connection refused",
	"FailedDiscoveryCheck: ... tls: failed to verify certificate: x509: certificate is valid for " +
		"localhost, localhost, not metrics-server.kube-system.svc": "x509: certificate is valid for localhost, " +
		"not metrics-server.kube-system.svc",
	"FailedDiscoveryCheck: failing or missing response from https://...: bad status from https://...: 401": "bad " +
		"status from https://10.96.0.9:443/apis/metrics.k8s.io/v1beta1: 401",
	`ServicePortError: service/metrics-server in "kube-system" is not listening on port 4443`: "is not listening on " +
		"port 4443",
	`ServiceNotFound: service/metrics-server in "kube-system" is not present`: "is not present",
	`apiservices.apiregistration.k8s.io "v1.metrics.k8s.io" not found`:        "not installed",
	"the answer lacks container_cpu_usage_seconds_total":                      "lack(cpu)",
	"Passed: all checks passed":                                               "all checks passed",
	"no token of service account kube-system/metrics-server-kubelets":         "no token of service account",
	"error: Metrics not available for pod default/web, age: 3m0s":             "Metrics not available for pod",
	"missing request for cpu in container app of Pod web-1":                   "missing request for cpu",
}

// tests has the sources of all tests of the product, whose texts may be in several pieces.
var tests = sync.OnceValues(func() (string, error) {
	files, err := Files(root, ".go")
	var all strings.Builder
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "hack/") ||
			strings.HasPrefix(file, "test/docs/") {
			continue
		}
		text, readErr := os.ReadFile(filepath.Join(root, file))
		err = errors.Join(err, readErr)
		all.Write(text)
	}
	joined := regexp.MustCompile("[\"`]\\s*\\+\\s+[\"`]").ReplaceAllString(all.String(), "")
	return strings.ReplaceAll(joined, `\"`, `"`), err
})

// lookedFor reports whether a test of the product looks for a text that the document quotes.
func lookedFor(t *testing.T, quote string) bool {
	t.Helper()
	all, err := tests()
	if err != nil {
		t.Fatal(err)
	}
	return matches(all, cmp.Or(partOf[quote], quote))
}

// TestRemediesElsewhere checks that every text that the other tables quote, a message of ours or of another program, is
// looked for by a test.
func TestRemediesElsewhere(t *testing.T) {
	used := map[string]bool{}
	for _, r := range rows(t) {
		if r.table == tableOfNodes || r.table == "reason" || causes[r.table] != nil {
			continue // TestRemediesOfNodes, pkg/sample and TestCauses check these
		}
		for _, quote := range quoted(r.cells[0]) {
			used[quote] = true
			if !lookedFor(t, quote) {
				t.Errorf("%s:%d: no test looks for %q: add one that makes the fault, or give the part that it looks for in "+
					"partOf", troubleshooting, r.line, quote)
			}
		}
	}
	document := read(t, troubleshooting)
	for quote := range partOf {
		if !strings.Contains(document, "`"+quote+"`") {
			t.Errorf("%s does not quote %q", troubleshooting, quote)
		}
	}
	if len(used) < 80 {
		t.Errorf("%d texts were found, and there are more", len(used))
	}
}

// causes has the files with the causes that the tables of alerts list, by the heading of the table.
var causes = map[string][]string{
	"cause":                    {"pkg/kubelet/cause.go", "pkg/schedule/cause.go"},
	"cause of failing pods":    {"pkg/podtarget/errors.go"},
	"cause of failing queries": {"pkg/backend/errors.go"},
}

// TestCauses checks that the tables of alerts list causes that there are, and the first one all of them.
func TestCauses(t *testing.T) {
	constant := regexp.MustCompile(`(?m)^\t(?:[cC]ause\w+ .*|\w+ +Cause +)= "([^"]+)"`)
	for table, files := range causes {
		want, got := map[string]bool{}, map[string]bool{}
		for _, file := range files {
			for _, m := range constant.FindAllStringSubmatch(read(t, file), -1) {
				want[m[1]] = true
			}
		}
		for _, r := range rows(t) {
			if r.table != table {
				continue
			}
			for _, quote := range quoted(r.cells[0]) {
				if got[quote] = true; !want[quote] {
					t.Errorf("%s:%d: %q have no cause %q", troubleshooting, r.line, files, quote)
				}
			}
		}
		if len(got) == 0 || table == "cause" && len(got) != len(want) {
			t.Errorf("%s lists %d causes in the table %q, but %q have %d", troubleshooting, len(got), table, files, len(want))
		}
	}
}
