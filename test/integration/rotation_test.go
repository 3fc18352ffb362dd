//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"metrics-server/pkg/kubelet/kubelettest"
)

// TestRotation changes every credential while the server runs: its own token, the credentials that
// it shows to kubelets, its serving certificate, and all authorities that it trusts. Meanwhile
// clients send requests in every possible way, and scrapes go on. None may fail, and the replaced
// credentials must be worthless afterwards.
func TestRotation(t *testing.T) {
	t.Parallel()
	r := newRotation(t)
	s := startServer(t, r.fleet, slices.Concat(r.args, []string{"--kubeconfig=" + r.kubeconfig})...)
	certified := startServer(
		t, r.fleet,
		slices.Concat(r.args, r.flags("scraper", "kubelet-client-certificate", "kubelet-client-key"))...)
	s.ready(t)
	certified.ready(t)
	r.startFrontProxy(s)
	s.aggregate(t, cluster.ca.PEM())
	r.callers(s, certified)
	before := []scrapes{scrapesOf(t, s, r.monitor), scrapesOf(t, certified, r.monitor)}

	// The server reads its token again within a minute. Everything else is changed meanwhile.
	r.phase("the service account's token changes")
	written := time.Now()
	first, second := r.token, boundToken(t, "rotation-second")
	r.check(cluster.write(r.fleet.name+".token", []byte(second)))

	r.phase("the serving certificate changes")
	r.renewServing(cluster.ca.Server("127.0.0.1", serviceName))
	eventually(
		t, "new connections get the new serving certificate",
		func() error { return errors.Join(r.presents(s), r.presents(certified)) },
	)

	r.phase("the authority of the kubelets' certificates changes: both are believed")
	next := kubelettest.NewCA("next")
	r.rescraped("a change of the authorities makes new connections", func() {
		r.check(cluster.write(r.kubeletCA, append(cluster.ca.PEM(), next.PEM()...)))
	})
	r.phase("the authority of the kubelets' certificates changes: only the new one is believed")
	for _, n := range r.fleet.nodes {
		n.server.SetCertificate(next.Server("127.0.0.1"))
	}
	r.rescraped(
		"a change of the authorities makes new connections",
		func() { r.check(cluster.write(r.kubeletCA, next.PEM())) },
	)

	r.phase("the client certificate for kubelets changes")
	cert, key := r.clients.Client("scraper-second")
	r.writePair("scraper", cert, key)
	r.shown("the kubelets see the new certificate", func(g *guard) bool { return g.user == "scraper-second" })
	r.refuse("scraper-first")

	r.phase("the front proxy's authority changes")
	r.rotateFrontProxy(s)

	r.phase("the clients' authority changes")
	r.rotateClients(s)

	r.phase("the service account's token changes")
	r.shown("the kubelets see the new token", func(g *guard) bool { return g.token == second })
	r.refuse(first)
	// Every client for the API server reads the file again when what it read is 50 s old.
	time.Sleep(time.Until(written.Add(55 * time.Second)))
	r.check(cluster.client.CoreV1().Secrets("kube-system").Delete(t.Context(), "rotation-first", metav1.DeleteOptions{}))
	stale := newClient(nil)
	eventually(t, "the first token is worth nothing", func() error {
		code, body, err := stale.get(t.Context(), cluster.admin.Host+"/api/v1/nodes", first)
		if err == nil && code != http.StatusUnauthorized {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	for range 3 { // tokens for which nobody can have cached an answer
		s.list(t, token(t, "default", "reader"), nodesPath)
	}
	r.fleet.addPod(t, "default", "after-rotation", r.fleet.nodes[0].name)
	eventually(t, "a new pod is seen", func() error {
		_, body, err := s.get("/apis/metrics.k8s.io/v1/namespaces/default/pods/after-rotation", token(t, "default", "reader"))
		if err == nil && !strings.Contains(body, "no kubelet lists it") {
			err = errors.New(body)
		}
		return err
	})

	r.stop()
	for i, server := range []*metricsServer{s, certified} {
		after := scrapesOf(t, server, r.monitor)
		if after.failed != before[i].failed || after.good < before[i].good+20 {
			t.Errorf(
				"server %d: %d scrapes failed and %d were good during the rotations, want 0 and many", i,
				after.failed-before[i].failed, after.good-before[i].good,
			)
		}
	}

	// A kubelet with a certificate of the replaced authority is no longer trusted. It is another
	// process, because the same one could resume its TLS session.
	n := r.fleet.nodes[0]
	late, err := kubelettest.Serve(n.kubelet, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")})
	r.check(err)
	t.Cleanup(late.Close)
	n.moveTo(t, late.Host(), int32(late.Port()))
	eventually(t, "the kubelets' old authority is not believed", func() error {
		if lines := linesWith(s.output(), n.name); len(lines) == 0 || !strings.Contains(lines[len(lines)-1], "x509") {
			return fmt.Errorf("the log says of the node %q", lines)
		}
		return nil
	})
}

// serviceName is the name for which the aggregator verifies the server's certificate.
const serviceName = "metrics-server.kube-system.svc"

// readerName is the user who may read metrics, to be named by a client certificate or the front proxy.
const readerName = "system:serviceaccount:default:reader"

// rotation has what TestRotation rotates, and what checks that nothing fails.
type rotation struct {
	t     *testing.T
	fleet *fleet
	args  []string

	kubeconfig string // with the token in a file
	token      string // of the service account, at first
	serving    []byte // certificate
	kubeletCA  string // file of the cluster
	clients    *kubelettest.CA
	frontProxy *kubelettest.CA // in addition to the cluster's own, which other tests use at the same time
	guards     []*guard

	reader, monitor string // tokens
	proxy, client   atomic.Pointer[tls.Certificate]

	doing    atomic.Pointer[string]
	quit     context.CancelFunc
	asking   sync.WaitGroup
	mu       sync.Mutex
	failures []string
	answers  map[string]int
}

func newRotation(t *testing.T) *rotation {
	t.Helper()
	r := &rotation{
		t:          t,
		fleet:      newFleet(t, 0, 0),
		answers:    map[string]int{},
		clients:    kubelettest.NewCA("clients"),
		frontProxy: kubelettest.NewCA("front-proxy-first"),
	}
	r.reader, r.monitor, r.token = reader(t), monitor(t), boundToken(t, "rotation-first")
	name := r.fleet.name
	r.kubeletCA, r.kubeconfig = name+"-kubelet-ca.crt", cluster.path(name+"-file.kubeconfig")
	r.check(errors.Join(
		cluster.write(name+".token", []byte(r.token)),
		cluster.write(r.kubeletCA, cluster.ca.PEM()),
		cluster.writeKubeconfig(
			name+"-file.kubeconfig", cluster.admin.Host,
			&clientcmdapi.AuthInfo{TokenFile: cluster.path(name + ".token")},
		),
	))
	r.renewServing(cluster.ca.Server("127.0.0.1", serviceName))
	cert, key := r.clients.Client(readerName)
	r.client.Store(keyPair(t, cert, key))
	cert, key = r.clients.Client("scraper-first")
	r.writePair("scraper", cert, key)
	r.check(cluster.write("client-ca.crt", append(cluster.ca.PEM(), r.clients.PEM()...)))
	r.args = append(
		r.flags("serving", "tls-cert-file", "tls-private-key-file"),
		"--kubelet-certificate-authority="+cluster.path(r.kubeletCA),
		// No scrape may fail. On a busy machine one may take longer than the 700 ms that a resolution of 1 s leaves it.
		"--metric-resolution=5s",
	)
	for i := range 2 {
		n, g := r.fleet.node(2), &guard{refused: map[string]bool{}}
		n.kubelet.SetFault(g.serve)
		r.fleet.add(
			t, n,
			kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1"), HTTP2: i%2 == 1, ClientCA: r.clients.Pool()},
		)
		r.guards = append(r.guards, g)
	}
	return r
}

func (r *rotation) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rotation) phase(what string) { r.doing.Store(&what) }

// boundToken returns a token of the server's service account that is valid for as long as a Secret
// of that name exists, which it creates.
func boundToken(t *testing.T, name string) string {
	t.Helper()
	secrets := cluster.client.CoreV1().Secrets("kube-system")
	secret, err := secrets.Create(
		t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = secrets.Delete(context.Background(), name, metav1.DeleteOptions{}) })
	r, err := cluster.client.CoreV1().ServiceAccounts("kube-system").CreateToken(
		t.Context(), "metrics-server",
		&authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{
				BoundObjectRef: &authenticationv1.BoundObjectReference{
					APIVersion: "v1",
					Kind:       "Secret",
					Name:       name,
					UID:        secret.UID,
				},
			},
		},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

// guard is a kubelet's authentication: it accepts every credential that is not rejected explicitly.
type guard struct {
	mu          sync.Mutex
	token, user string // that were shown last
	refused     map[string]bool
}

func (g *guard) serve(w http.ResponseWriter, r *http.Request, answer []byte) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	user := ""
	if len(r.TLS.VerifiedChains) > 0 {
		user = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	g.mu.Lock()
	if token != "" {
		g.token = token
	}
	if user != "" {
		g.user = user
	}
	in := (token != "") != (user != "") && !g.refused[token] && !g.refused[user]
	g.mu.Unlock()
	if !in {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	kubelettest.Answer(w, r, answer)
}

// shown waits until every kubelet has seen the wanted credential.
func (r *rotation) shown(what string, want func(*guard) bool) {
	r.t.Helper()
	eventually(r.t, what, func() error {
		for i, g := range r.guards {
			g.mu.Lock()
			ok := want(g)
			g.mu.Unlock()
			if !ok {
				return fmt.Errorf("not the kubelet of node %d", i)
			}
		}
		return nil
	})
}

// refuse makes the kubelets refuse a token or user from now on.
func (r *rotation) refuse(credential string) {
	for _, g := range r.guards {
		g.mu.Lock()
		g.refused[credential] = true
		g.mu.Unlock()
	}
}

// rescraped makes a change and waits until both servers have opened a new connection to every kubelet.
func (r *rotation) rescraped(what string, change func()) {
	r.t.Helper()
	before := make([]int, len(r.fleet.nodes))
	for i, n := range r.fleet.nodes {
		before[i] = n.server.Accepted()
	}
	change()
	eventually(r.t, what, func() error {
		for i, n := range r.fleet.nodes {
			if got := n.server.Accepted(); got < before[i]+2 {
				return fmt.Errorf("%d new connections to the kubelet of node %d", got-before[i], i)
			}
		}
		return nil
	})
}

// startFrontProxy gives the aggregator the certificate that is to be replaced.
func (r *rotation) startFrontProxy(s *metricsServer) {
	r.t.Helper()
	cert, key := r.frontProxy.Client(proxyName)
	r.proxy.Store(keyPair(r.t, cert, key))
	r.check(cluster.write("proxy-ca.crt", append(cluster.frontProxy.PEM(), r.frontProxy.PEM()...)))
	eventually(r.t, "the front proxy is believed", func() error { return wantCode(s.as(r.proxy.Load()), http.StatusOK) })
	r.check(errors.Join(cluster.write("proxy.crt", cert), cluster.write("proxy.key", key)))
}

// rotateFrontProxy does what an administrator does: it adds the new authority, gives the aggregator
// a certificate that it signed, and removes the old authority.
func (r *rotation) rotateFrontProxy(s *metricsServer) {
	t := r.t
	t.Helper()
	next := kubelettest.NewCA("front-proxy-next")
	cert, key := next.Client(proxyName)
	previous, renewed := r.proxy.Load(), keyPair(t, cert, key)
	if code := s.as(renewed); code != http.StatusUnauthorized {
		t.Errorf("a front proxy of an authority that is not known yet gets %d, want 401", code)
	}
	// An API service that leads here shows what the aggregator shows.
	all := slices.Concat(cluster.frontProxy.PEM(), r.frontProxy.PEM(), next.PEM())
	left := append(cluster.frontProxy.PEM(), next.PEM()...)
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(all)
	var seen atomic.Pointer[[]byte]
	probe, err := kubelettest.Serve(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if len(q.TLS.PeerCertificates) > 0 {
			seen.Store(&q.TLS.PeerCertificates[0].Raw)
		}
		_, _ = io.WriteString(w, "{}")
	}), kubelettest.ServerConfig{Certificate: kubelettest.SelfSigned("localhost"), ClientCA: known})
	r.check(err)
	t.Cleanup(probe.Close)
	kubectl(t, "create", "service", "externalname", "-n", "kube-system", "rotation", "--external-name=localhost")
	api := fmt.Sprintf(
		`{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.rotation.test"},`+
			`"spec":{"group":"rotation.test","version":"v1","groupPriorityMinimum":100,"versionPriority":100,`+
			`"insecureSkipTLSVerify":true,"service":{"name":"rotation","namespace":"kube-system","port":%d}}}`,
		probe.Port(),
	)
	const services = "/apis/apiregistration.k8s.io/v1/apiservices"
	client := cluster.client.Discovery().RESTClient()
	r.check(client.Post().AbsPath(services).Body([]byte(api)).Do(t.Context()).Error())
	t.Cleanup(func() {
		_ = client.Delete().AbsPath(services + "/v1.rotation.test").Do(context.Background()).Error()
		_ = cluster.client.CoreV1().Services("kube-system").Delete(context.Background(), "rotation", metav1.DeleteOptions{})
	})
	shows := func(what string, want []byte) {
		t.Helper()
		eventually(t, what, func() error {
			_, err := client.Get().AbsPath("/apis/rotation.test/v1").DoRaw(t.Context())
			if got := seen.Load(); got == nil || !bytes.Equal(*got, want) {
				err = errors.Join(errors.New("it shows another one"), err)
			}
			return err
		})
	}
	shows("the aggregator shows its certificate", previous.Certificate[0])

	r.check(cluster.write("proxy-ca.crt", all))
	eventually(t, "both front proxies are believed", func() error {
		return errors.Join(wantCode(s.as(renewed), http.StatusOK), wantCode(s.as(previous), http.StatusOK))
	})
	r.check(errors.Join(cluster.write("proxy.crt", cert), cluster.write("proxy.key", key)))
	r.proxy.Store(renewed)
	shows("the aggregator shows its new certificate", renewed.Certificate[0])
	r.more()
	r.check(cluster.write("proxy-ca.crt", left))
	// The kube-apiserver adds its authorities to the config map, but leaves it to the administrator to remove them.
	r.distrust(
		"requestheader-client-ca-file", left, "the old front proxy is believed no more",
		func() int { return s.as(previous) },
	)
	r.more()
}

// rotateClients does the same with the authority of clients' certificates.
func (r *rotation) rotateClients(s *metricsServer) {
	t := r.t
	t.Helper()
	next := kubelettest.NewCA("clients-next")
	cert, key := next.Client(readerName)
	previous, renewed := r.client.Load(), keyPair(t, cert, key)
	if code := s.certified(renewed); code != http.StatusUnauthorized {
		t.Errorf("a client of an authority that is not known yet gets %d, want 401", code)
	}
	r.check(cluster.write("client-ca.crt", slices.Concat(cluster.ca.PEM(), r.clients.PEM(), next.PEM())))
	through := newClient(func() *tls.Certificate { return renewed })
	eventually(t, "both authorities of clients are believed", func() error {
		code, body, err := through.get(t.Context(), cluster.admin.Host+nodesPath, "")
		if err == nil && code != http.StatusOK {
			err = errors.New(body)
		}
		return errors.Join(err, wantCode(s.certified(renewed), http.StatusOK), wantCode(s.certified(previous), http.StatusOK))
	})
	r.client.Store(renewed)
	r.more()
	left := append(cluster.ca.PEM(), next.PEM()...)
	r.check(cluster.write("client-ca.crt", left))
	r.distrust(
		"client-ca-file", left, "the old authority of clients is believed no more",
		func() int { return s.certified(previous) },
	)
	r.more()
}

// distrust makes the config map name only those authorities, until the server refuses clients that
// the others certified.
func (r *rotation) distrust(key string, authorities []byte, what string, code func() int) {
	r.t.Helper()
	maps := cluster.client.CoreV1().ConfigMaps("kube-system")
	eventually(r.t, what, func() error {
		m, err := maps.Get(r.t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
		if err == nil && m.Data[key] != string(authorities) {
			m.Data[key] = string(authorities)
			_, err = maps.Update(r.t.Context(), m, metav1.UpdateOptions{})
		}
		return errors.Join(err, wantCode(code(), http.StatusUnauthorized))
	})
}

// as returns the status code for a list that a front proxy with that certificate requests in the
// name of a reader.
func (s *metricsServer) as(proxy *tls.Certificate) int {
	c := newClient(func() *tls.Certificate { return proxy })
	c.header = http.Header{"X-Remote-User": {readerName}}
	code, _, _ := c.get(context.Background(), s.url+nodesPath, "")
	return code
}

// certified returns the status code for a list that a client with that certificate requests.
func (s *metricsServer) certified(client *tls.Certificate) int {
	code, _, _ := newClient(func() *tls.Certificate { return client }).get(context.Background(), s.url+nodesPath, "")
	return code
}

func wantCode(got, want int) error {
	if got != want {
		return fmt.Errorf("code %d, want %d", got, want)
	}
	return nil
}

// callers starts clients that send requests several times a second, in every possible way.
func (r *rotation) callers(s, certified *metricsServer) {
	r.t.Helper()
	ctx, quit := context.WithCancel(context.Background())
	r.quit = quit
	r.t.Cleanup(r.stop)
	r.phase("nothing has changed yet")
	once := newClient(nil)
	once.client.Transport.(*http.Transport).DisableKeepAlives = true
	viaProxy := newClient(r.proxy.Load)
	viaProxy.header = http.Header{"X-Remote-User": {readerName}}
	for what, c := range map[string]struct {
		*httpClient
		url, token string
	}{
		"the aggregator with a token":             {newClient(nil), cluster.admin.Host, r.reader},
		"the aggregator with a certificate":       {newClient(r.client.Load), cluster.admin.Host, ""},
		"the server with a token":                 {newClient(nil), s.url, r.reader},
		"the server on a new connection":          {once, s.url, r.reader},
		"the server with a certificate":           {newClient(r.client.Load), s.url, ""},
		"the server as a front proxy":             {viaProxy, s.url, ""},
		"the server that has another certificate": {newClient(nil), certified.url, r.reader},
	} {
		ask := func() error {
			code, body, err := c.get(ctx, c.url+nodesPath, c.token)
			if err != nil {
				return err
			}
			var list struct{ Items []item }
			if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK ||
				len(list.Items) != len(r.fleet.nodes) {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		}
		eventually(r.t, what, ask)
		r.asking.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
				doing := *r.doing.Load()
				err := ask()
				r.mu.Lock()
				switch {
				case err == nil:
					r.answers[what]++
				case ctx.Err() == nil:
					r.failures = append(r.failures, fmt.Sprintf("while %s: %s: %v", doing, what, err))
				}
				r.mu.Unlock()
			}
		})
	}
}

// more waits until every caller has sent some more requests.
func (r *rotation) more() {
	r.t.Helper()
	r.mu.Lock()
	before := maps.Clone(r.answers)
	r.mu.Unlock()
	eventually(r.t, "everybody is still answered", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for what, n := range before {
			if r.answers[what] < n+3 {
				return errors.New(what)
			}
		}
		return nil
	})
}

// stop ends the callers and fails the test if one request failed.
func (r *rotation) stop() {
	r.t.Helper()
	r.quit()
	r.asking.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.failures); n > 0 {
		r.t.Errorf("%d requests failed: %s", n, strings.Join(r.failures[:min(n, 10)], "\n"))
	}
	r.failures = nil
}

// scrapes are how many scrapes a server counted.
type scrapes struct{ good, failed int }

var scrapeCount = regexp.MustCompile(`(?m)^metrics_server_kubelet_request_total\{success="(true|false)"\} (\d+)`)

func scrapesOf(t *testing.T, s *metricsServer, monitor string) (n scrapes) {
	t.Helper()
	code, body, err := s.get("/metrics", monitor)
	if err != nil || code != http.StatusOK {
		t.Fatalf("/metrics: %d %v %s", code, err, body)
	}
	for _, m := range scrapeCount.FindAllStringSubmatch(body, -1) {
		v, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "true" {
			n.good = v
		} else {
			n.failed = v
		}
	}
	return n
}

// renewServing makes c the serving certificate in the files, and in r.
func (r *rotation) renewServing(c *tls.Certificate) {
	r.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	r.check(err)
	r.writePair(
		"serving", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	)
	r.serving = c.Certificate[0]
}

// writePair writes a certificate and its key to the files of that name.
func (r *rotation) writePair(name string, cert, key []byte) {
	r.t.Helper()
	name = r.fleet.name + "-" + name
	r.check(errors.Join(cluster.write(name+".crt", cert), cluster.write(name+".key", key)))
}

// flags returns the flags that give a server the files that writePair writes.
func (r *rotation) flags(name, cert, key string) []string {
	path := cluster.path(r.fleet.name + "-" + name)
	return []string{"--" + cert + "=" + path + ".crt", "--" + key + "=" + path + ".key"}
}

// presents says whether s presents the current serving certificate on a new connection.
func (r *rotation) presents(s *metricsServer) error {
	conn, err := tls.Dial("tcp", "127.0.0.1:"+s.port, &tls.Config{RootCAs: cluster.ca.Pool()})
	if err != nil {
		return err
	}
	defer conn.Close()
	if !bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, r.serving) {
		return errors.New("it presents another one")
	}
	return nil
}

// httpClient returns a client that verifies its server. It may present a certificate, which may
// change.
type httpClient struct {
	client      *http.Client
	header      http.Header
	certificate func() *tls.Certificate // nil: none
	shown       *tls.Certificate
}

func newClient(certificate func() *tls.Certificate) *httpClient {
	config := &tls.Config{RootCAs: cluster.ca.Pool()}
	c := &httpClient{certificate: certificate}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate(), nil
		}
	}
	c.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}
	return c
}

func (c *httpClient) get(ctx context.Context, url, token string) (int, string, error) {
	if c.certificate != nil {
		if now := c.certificate(); now != c.shown {
			c.client.CloseIdleConnections()
			c.shown = now
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if c.header != nil {
		req.Header = c.header.Clone()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// keyPair is a certificate with its key, of two PEM texts.
func keyPair(t *testing.T, cert, key []byte) *tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &c
}
