package docs

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
			c.Rejected = func() bool { return true }
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
				if _, ok := seenBy[quote]; !ok {
					t.Errorf("%s:%d: nothing makes the fault of %q: add it to faults or seenBy", troubleshooting, r.line, quote)
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

// seen is a test that causes a fault, with real programs or with fakes, and looks for the text has.
type seen struct{ file, has string }

const (
	e2eAggregation = "test/e2e/aggregation_test.go"
	e2eKubelets    = "test/e2e/kubelets_test.go"
	e2eAnswers     = "test/e2e/answers_test.go"
	e2eAutoscaling = "test/e2e/autoscaling_test.go"
	doctorAPI      = "pkg/doctor/apiservice_test.go"
	doctorNodes    = "pkg/doctor/nodes_test.go"
	doctorServed   = "pkg/doctor/served_test.go"
	remedies       = "test/integration/remedies_test.go"
	awaitTest      = "pkg/app/await_test.go"
	streamTest     = "pkg/inventory/stream_test.go"
)

// seenBy has the tests of all other quotes, which are messages of other programs, or need more than one kubelet.
var seenBy = map[string]seen{
	`MissingEndpoints: endpointslices for service/metrics-server in "kube-system" have no addresses ` +
		`with port name "https"`: {
		e2eAggregation, `"MissingEndpoints: ", "have no addresses with port name"`,
	},
	"MissingEndpoints": {e2eAggregation, "MissingEndpoints: "},
	"serve on --bind-address 0.0.0.0 --secure-port 10250: ... bind: address already in use": {
		e2eKubelets, "bind: address already in use",
	},
	"bind: permission denied": {"pkg/app/app_test.go", "bind: permission denied"},
	"FailedDiscoveryCheck: failing or missing response from " +
		"https://10.88.0.65:9/apis/metrics.k8s.io/v1: ... connect: connection refused": {
		e2eAggregation, `"connect: connection refused"`,
	},
	"FailedDiscoveryCheck: failing or missing response from https://...": {
		doctorAPI, "failing or missing response from https://",
	},
	"context deadline exceeded": {doctorAPI, "context deadline exceeded"},
	"i/o timeout":               {doctorNodes, "i/o timeout"},
	"no route to host":          {doctorAPI, "no route to host"},
	"network is unreachable":    {doctorAPI, "network is unreachable"},
	"FailedDiscoveryCheck: ... tls: failed to verify certificate: x509: certificate is valid for " +
		"localhost, localhost, not metrics-server.kube-system.svc": {
		doctorAPI, "x509: certificate is valid for localhost, not metrics-server.kube-system.svc",
	},
	"signed by unknown authority": {e2eAggregation, "unknown authority"},
	"kubectl apply":               {remedies, "may not be true if caBundle is present"},
	"spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present": {
		remedies, "may not be true if caBundle is present",
	},
	"FailedDiscoveryCheck: failing or missing response from https://...: bad status from https://...: 401": {
		doctorAPI, "bad status from https://10.96.0.9:443/apis/metrics.k8s.io/v1beta1: 401",
	},
	`ServicePortError: service/metrics-server in "kube-system" is not listening on port 4443`: {
		e2eAggregation, "is not listening on port 4443",
	},
	`ServiceNotFound: service/metrics-server in "kube-system" is not present`: {
		e2eAggregation, "is not present",
	},
	`apiservices.apiregistration.k8s.io "v1.metrics.k8s.io" not found`: {
		doctorAPI, `"not installed"`,
	},
	"Passed: all checks passed": {"test/e2e/docs_test.go", "all checks passed"},
	"ConfigMap kube-system/extension-apiserver-authentication has no requestheader-client-ca-file": {
		e2eKubelets, `" has no " + frontProxyKey`,
	},
	"proxyconnect":       {e2eKubelets, "proxyconnect"},
	"through the proxy":  {e2eKubelets, "through the proxy"},
	"Forbidden":          {awaitTest, "metrics-server-auth-reader"},
	"Unauthorized":       {awaitTest, "delete the pod"},
	"connection refused": {awaitTest, "can be reached from here"},
	"timeout":            {awaitTest, `"timeout"`},
	"no token of service account kube-system/metrics-server-kubelets": {
		"pkg/kubelettoken/kubelettoken_test.go", "no token of service account kube-system/kubelets",
	},
	"The API server does not complete a streamed list":            {streamTest, "does not complete a streamed list"},
	"watches end at once, again and again":                        {streamTest, "watches end at once, again and again"},
	"the answer lacks container_cpu_usage_seconds_total":          {e2eAnswers, `lack(cpu)`},
	"container_memory_working_set_bytes":                          {e2eAnswers, "container_memory_working_set_bytes"},
	"node_cpu_usage_seconds_total":                                {e2eAnswers, "node_cpu_usage_seconds_total"},
	"node_memory_working_set_bytes":                               {e2eAnswers, "node_memory_working_set_bytes"},
	"<none>":                                                      {e2eAnswers, "<none>"},
	"error: metrics not available yet":                            {remedies, "metrics not available yet"},
	"error: Metrics not available for pod default/web, age: 3m0s": {remedies, "Metrics not available for pod"},
	"<unknown>":         {e2eAnswers, "<unknown>"},
	"kubectl top nodes": {"test/e2e/kubectl_test.go", `"top", "nodes"`},
	"kubectl top":       {e2eAggregation, "kubectl top"},
	"missing request for cpu in container app of Pod web-1": {e2eAutoscaling, "missing request for cpu"},
	"no metrics returned from resource metrics API": {
		doctorServed, "no metrics returned from resource metrics API",
	},
	"did not receive metrics for targeted pods (pods might be unready)": {
		e2eAutoscaling, "did not receive metrics for targeted pods",
	},
	"Unable to authenticate the request": {
		e2eAggregation, "Unable to authenticate the request",
	},
	"x509": {e2eAggregation, "x509"},
}

// TestRemediesElsewhere checks that every text that the other tables quote is looked for by a test
// that causes the fault.
func TestRemediesElsewhere(t *testing.T) {
	used := map[string]bool{}
	for _, r := range rows(t) {
		switch r.table {
		case "cause", ofFailingPods, ofFailingQueries, ofCustomMetrics:
			continue // the other tests of this file check these tables
		case "reason":
			continue // pkg/sample checks this one
		}
		for _, quote := range quoted(r.cells[0]) {
			s, ok := seenBy[quote]
			if used[quote] = used[quote] || ok; ok && !strings.Contains(read(t, s.file), s.has) {
				t.Errorf("%s:%d: %q is made by %s, which does not have %q", troubleshooting, r.line, quote, s.file, s.has)
			}
			if _, here := faults[quote]; !ok && (!here || r.table != tableOfNodes) {
				t.Errorf("%s:%d: no test makes the fault of %q: add one, and name it in seenBy", troubleshooting, r.line, quote)
			}
		}
	}
	for quote := range seenBy {
		if !used[quote] {
			t.Errorf("%s does not quote %q", troubleshooting, quote)
		}
	}
}

// TestCausesOfTheAlert checks that the table of the alert has each cause of a failed scrape, and no
// other.
func TestCausesOfTheAlert(t *testing.T) {
	var want []string
	cause := regexp.MustCompile(`(?m)^\t[cC]ause\w+ .*= "([a-z0-9 ]+)"`)
	for _, file := range []string{"pkg/kubelet/cause.go", "pkg/schedule/cause.go"} {
		for _, m := range cause.FindAllStringSubmatch(read(t, file), -1) {
			want = append(want, m[1])
		}
	}
	var got []string
	for _, r := range rows(t) {
		if r.table == "cause" {
			got = append(got, quoted(r.cells[0])...)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(want, got) {
		t.Errorf("the code has the causes\n%q\nbut %s lists\n%q", want, troubleshooting, got)
	}
}

// The headings of the tables with the causes of failing scrapes of pods, and of failing queries of backends.
const (
	ofFailingPods    = "cause of failing pods"
	ofFailingQueries = "cause of failing queries"
)

// The tables of the alerts about pods and backends have only causes that a scrape and a query can have.
func TestCausesOfCustomMetrics(t *testing.T) {
	files := map[string]string{ofFailingPods: "pkg/podtarget/errors.go", ofFailingQueries: "pkg/backend/errors.go"}
	found := map[string]int{}
	for _, r := range rows(t) {
		file := files[r.table]
		if file == "" {
			continue
		}
		for _, quote := range quoted(r.cells[0]) {
			found[r.table]++
			if !strings.Contains(read(t, file), fmt.Sprintf("= %q", quote)) {
				t.Errorf("%s:%d: %s does not have the cause %q", troubleshooting, r.line, file, quote)
			}
		}
	}
	for table := range files {
		if found[table] == 0 {
			t.Errorf("%s has no table %q", troubleshooting, table)
		}
	}
}

// ofCustomMetrics is the heading of the tables with the messages of the custom metrics server.
const ofCustomMetrics = "the message has"

// Each text that these tables quote is looked for by a test that makes the mistake.
func TestRemediesOfCustomMetrics(t *testing.T) {
	var tests strings.Builder
	for _, file := range []string{
		"test/e2e/custommetrics_test.go", "pkg/podtarget/podtarget_test.go", "pkg/podtarget/scrape_test.go",
		"pkg/demand/demand_test.go", "pkg/demand/parse_test.go", "pkg/demand/targets_test.go",
		"pkg/appmetrics/evaluate_test.go",
		"pkg/appmetrics/query_test.go", "pkg/appmetrics/limits_test.go", "pkg/appmetrics/page_test.go",
		"pkg/customserver/limits_test.go", "pkg/customserver/backends_test.go", "pkg/customserver/rules_test.go",
		"pkg/customserver/named_test.go",
		"pkg/backend/answer_test.go", "pkg/backend/client_test.go", "pkg/backend/poller_test.go",
		"pkg/definition/definition_test.go", "pkg/appmetrics/remote_test.go",
	} {
		tests.WriteString(read(t, file))
	}
	joined := regexp.MustCompile("[\"`]\\s*\\+\\s+[\"`]").ReplaceAllString(tests.String(), "")
	joined = strings.ReplaceAll(joined, `\"`, `"`)
	seen := 0
	for _, r := range rows(t) {
		if r.table != ofCustomMetrics {
			continue
		}
		for _, quote := range quoted(r.cells[0]) {
			if seen++; !matches(joined, quote) {
				t.Errorf("%s:%d: no test makes the mistake of %q", troubleshooting, r.line, quote)
			}
		}
	}
	if seen < 40 {
		t.Errorf("%d texts were found, and there are more", seen)
	}
}
