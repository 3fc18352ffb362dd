//go:build integration

package integration

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubelet/kubelettest"
)

// asWritten is a client that changes nothing of a path and follows no redirect.
func asWritten(t *testing.T, certificate *tls.Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Timeout: 30 * time.Second, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// code returns the status code with which s answers a request. Headers are names and values.
func (s *metricsServer) code(t *testing.T, c *http.Client, method, path, token string, header ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestWhoReachesWhat requests all paths that the server has, and some that it should not have.
func TestWhoReachesWhat(t *testing.T) {
	f := newFleet(t, 1, 1)
	s := startServer(t, f)
	s.ready(t)
	c := asWritten(t, nil)
	one := f.nodes[0].says.Containers()[0]
	stranger, watcher, admin := token(t, "default", "stranger"), monitor(t), bound(t, "admin", "cluster-admin")
	_, body, err := s.get("/", admin)
	var index struct{ Paths []string }
	if err := errors.Join(err, json.Unmarshal([]byte(body), &index)); err != nil ||
		!slices.Contains(index.Paths, "/metrics") || !slices.Contains(index.Paths, "/readyz/metric-storage-ready") {
		t.Fatalf("index %s: %v", body, err)
	}
	resources := []string{
		nodesPath, nodesPath + "/" + f.nodes[0].name, podsPath,
		"/apis/metrics.k8s.io/v1beta1/nodes", "/apis/metrics.k8s.io/v1beta1/pods",
		"/apis/metrics.k8s.io/v1/namespaces/" + one.Namespace + "/pods",
		"/apis/metrics.k8s.io/v1/namespaces/" + one.Namespace + "/pods/" + one.Pod,
	}
	paths := slices.Concat(index.Paths, resources, []string{
		"/", "/metrics", "/metrics/slis", "/metrics/",
		"/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline",
		"/debug/pprof/profile?seconds=1", "/debug/pprof/symbol", "/debug/pprof/trace?seconds=1", "/debug/flags/v",
		"/version", "/version/", "/api", "/api/v1", "/apis", "/apis/metrics.k8s.io", "/apis/metrics.k8s.io/v1",
		"/openapi", "/openapi/v2", "/openapi/v3", "/openapi/v3/apis/metrics.k8s.io/v1",
		"/configz", "/flagz", "/statusz", "/logs", "/healthz/ping", "/livez/ping", "/readyz/ping",
		"/livez/", "/healthz/", "/readyz/", "//livez", "/livez/../metrics", "/healthz/..%2fmetrics",
		"/livez/%2e%2e/debug/pprof/", "//metrics", "/./metrics", "/LIVEZ", "/metrics%00", "/livez;/../metrics",
	})
	slices.Sort(paths)
	paths = slices.Compact(paths)

	// The cluster's own roles: system:public-info-viewer is for everybody, system:discovery for
	// authenticated users, and system:monitoring for its members.
	probes := []string{"/healthz", "/livez", "/readyz"}
	public := []string{"/healthz", "/livez", "/readyz", "/version", "/version/"}
	under := func(path string, roots ...string) bool {
		return slices.ContainsFunc(roots, func(root string) bool { return strings.HasPrefix(path, root+"/") || path == root })
	}
	discovery := func(path string) bool {
		return slices.Contains(public, path) || under(path, "/api", "/apis", "/openapi") && !slices.Contains(resources, path)
	}
	for _, who := range []struct {
		name, token string
		may         func(path string) bool
	}{
		{"anonymous", "", func(path string) bool { return slices.Contains(public, path) }},
		{"a stranger", stranger, discovery},
		{"the server's own account", f.token, discovery},
		{"who monitors", watcher, func(path string) bool {
			return discovery(path) || under(path, probes...) || slices.Contains(
				[]string{"/metrics", "/metrics/slis", "/flagz", "/statusz"}, path,
			)
		}},
		{"an administrator", admin, func(string) bool { return true }},
	} {
		for _, path := range paths {
			code := s.code(t, c, http.MethodGet, path, who.token)
			refused := code == http.StatusForbidden || code == http.StatusUnauthorized
			// The cluster decides what a path means; the path must only not be mistaken for another.
			strange := strings.ContainsAny(path, "%;") || strings.Contains(path, "..") || strings.Contains(path, "//")
			if strange && who.token != admin {
				if code < 300 {
					t.Errorf("%s gets %s: %d", who.name, path, code)
				}
				continue
			}
			if refused == who.may(path) {
				t.Errorf("%s asks for %s: %d", who.name, path, code)
			}
		}
		for _, write := range []struct {
			method, path string
			admin        int
		}{
			{http.MethodPut, "/debug/flags/v", http.StatusBadRequest}, // no level in the body
			{http.MethodPost, podsPath, http.StatusMethodNotAllowed},
			{http.MethodDelete, nodesPath + "/" + f.nodes[0].name, http.StatusMethodNotAllowed},
			{http.MethodPatch, nodesPath + "/" + f.nodes[0].name, http.StatusMethodNotAllowed},
		} {
			want := http.StatusForbidden
			if who.token == admin {
				want = write.admin
			}
			if code := s.code(t, c, write.method, write.path, who.token); code != want {
				t.Errorf("%s: %s %s: %d, want %d", who.name, write.method, write.path, code, want)
			}
		}
	}
	// Somebody who is not a user of the cluster fails authentication, so authorization is never
	// reached.
	for _, liar := range []string{"not.a.token", admin + "x", strings.ToUpper(admin)} {
		for _, path := range []string{nodesPath, "/metrics", "/apis"} {
			if code := s.code(t, c, http.MethodGet, path, liar); code != http.StatusUnauthorized {
				t.Errorf("%s with a false token: %d, want 401", path, code)
			}
		}
	}
}

// TestForgedProxyHeaders names users and groups in the headers of the front proxy, from clients
// that are not the front proxy.
func TestForgedProxyHeaders(t *testing.T) {
	f := newFleet(t, 1, 1)
	s := startServer(t, f)
	s.ready(t)
	_ = reader(t) // readerName may read
	certificate := func(ca *kubelettest.CA, name string) *tls.Certificate {
		cert, key := ca.Client(name)
		return keyPair(t, cert, key)
	}
	for _, tc := range []struct {
		who         string
		certificate *tls.Certificate
		want        int
	}{
		{"the front proxy", certificate(cluster.frontProxy, proxyName), http.StatusOK},
		{"nobody", nil, http.StatusForbidden},
		{"another name of the front proxy's authority", certificate(cluster.frontProxy, "other"), http.StatusUnauthorized},
		{
			"the front proxy's name of another authority", certificate(kubelettest.NewCA("front-proxy"), proxyName),
			http.StatusUnauthorized,
		},
		// It is a user of the cluster, but without rights.
		{"the front proxy's name of the clients' authority", certificate(cluster.ca, proxyName), http.StatusForbidden},
	} {
		c := asWritten(t, tc.certificate)
		for _, header := range [][]string{
			{"X-Remote-User", readerName},
			{"X-Remote-User", "root", "X-Remote-Group", "system:masters"},
			{"x-remote-user", readerName, "X-Remote-Extra-Scopes", "all", "X-Remote-Uid", "0"},
		} {
			if code := s.code(t, c, http.MethodGet, nodesPath, "", header...); code != tc.want {
				t.Errorf("%s with %q: %d, want %d", tc.who, header, code, tc.want)
			}
		}
	}
	// A group without a user is not accepted, and impersonation is done by the kube-apiserver.
	stranger := token(t, "default", "stranger")
	for _, header := range [][]string{
		{"X-Remote-Group", "system:masters"},
		{"X-Remote-User", readerName, "X-Remote-Group", "system:masters"},
		{"Impersonate-User", readerName, "Impersonate-Group", "system:masters"},
	} {
		if code := s.code(
			t, asWritten(t, nil), http.MethodGet, nodesPath, stranger, header...,
		); code != http.StatusForbidden {
			t.Errorf("a stranger with %q: %d, want 403", header, code)
		}
	}
}

// TestTLS tries every TLS version and cipher suite, for a certificate with an RSA key and for one
// with an ECDSA key.
func TestTLS(t *testing.T) {
	const curved = "curved.test"
	r := &rotation{t: t, fleet: newFleet(t, 0, 0)}
	r.renewServing(cluster.ca.Server(curved))
	file := cluster.path(r.fleet.name + "-serving")
	sni := "--tls-sni-cert-key=" + file + ".crt," + file + ".key:" + curved
	dial := func(s *metricsServer, name string, c *tls.Config) (tls.ConnectionState, error) {
		c.InsecureSkipVerify, c.ServerName, c.NextProtos = true, name, []string{"h2", "http/1.1"}
		conn, err := tls.Dial("tcp", "127.0.0.1:"+s.port, c)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	suites := func(s *metricsServer, protocol string) (accepted []string) {
		for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
			for _, name := range []string{"localhost", curved} {
				state, err := dial(
					s, name,
					&tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}},
				)
				if err != nil {
					continue
				}
				if state.CipherSuite != suite.ID {
					t.Fatalf("%s was asked for, %x taken", suite.Name, state.CipherSuite)
				}
				accepted = append(accepted, suite.Name)
				if strings.HasSuffix(suite.Name, "AES_128_GCM_SHA256") && state.NegotiatedProtocol != protocol {
					t.Errorf("%s: protocol %q, want %q", suite.Name, state.NegotiatedProtocol, protocol)
				}
			}
		}
		slices.Sort(accepted)
		return accepted
	}
	const http1, http2 = "http/1.1", "h2"
	for _, tc := range []struct {
		args     []string
		protocol string
		want     []string
	}{
		{nil, http1, []string{
			"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
			"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
			"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
			"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
		}},
		{ // a manifest's own choice holds
			[]string{
				"--disable-http2-serving=false", "--tls-min-version=VersionTLS12",
				"--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
			},
			http2,
			[]string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"},
		},
		{[]string{"--tls-min-version=VersionTLS13"}, http1, nil},
	} {
		s := startServer(t, r.fleet, append(tc.args, sni)...)
		if got := suites(s, tc.protocol); !slices.Equal(got, tc.want) {
			t.Errorf("%q: TLS 1.2 with %q, want %q", tc.args, got, tc.want)
		}
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
			if _, err := dial(s, "localhost", &tls.Config{MinVersion: version, MaxVersion: version}); err == nil {
				t.Errorf("%q: %s is accepted", tc.args, tls.VersionName(version))
			}
		}
		if state, err := dial(s, "localhost", &tls.Config{MinVersion: tls.VersionTLS13}); err != nil ||
			state.NegotiatedProtocol != tc.protocol {
			t.Errorf("%q: TLS 1.3: protocol %q, %v", tc.args, state.NegotiatedProtocol, err)
		}
		_ = s.kill()
	}
}

// TestNoSecretInTheLog makes servers log as much as they can, while kubelets and clients cause
// errors that are logged. Then it searches the logs for every token and key.
func TestNoSecretInTheLog(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 0, 0)
	echo := func(answer func(w http.ResponseWriter, token string)) kubelettest.Fault {
		return func(w http.ResponseWriter, r *http.Request, _ []byte) {
			answer(w, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}
	}
	faults := []kubelettest.Fault{
		nil,
		echo(func(w http.ResponseWriter, token string) { http.Error(w, "who is "+token, http.StatusUnauthorized) }),
		echo(func(w http.ResponseWriter, token string) {
			w.Header().Set("Location", "https://127.0.0.1:1/?token="+token)
			w.WriteHeader(http.StatusFound)
		}),
		echo(func(w http.ResponseWriter, token string) { w.Header().Set("Content-Type", token) }),
		echo(func(w http.ResponseWriter, token string) { w.Header().Set("Content-Encoding", token) }),
		echo(func(w http.ResponseWriter, token string) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("Bearer " + token + "\r\n\r\n"))
			conn.Close()
		}),
		kubelettest.Reset,
	}
	for _, fault := range faults {
		n := f.node(1)
		n.kubelet.SetFault(fault)
		f.add(t, n, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1")})
	}
	admin := bound(t, "admin", "cluster-admin")
	for name, args := range map[string][]string{
		"text":                    {"-v=10"},
		"JSON":                    {"-v=10", "--logging-format=json"},
		"by module":               {"--vmodule=*=10"},
		"turned up while it runs": {"-v=6"},
	} {
		s := startServer(
			t, f,
			append(args, "--cert-dir="+filepath.Join(cluster.dir, f.name, strings.ReplaceAll(name, " ", "-")))...)
		s.ready(t)
		secrets := map[string]string{"the server's token": f.token, "the administrator's token": admin}
		if name == "turned up while it runs" {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.url+"/debug/flags/v", strings.NewReader("10"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+admin)
			resp, err := s.http.Do(req)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("turn up the verbosity: %v %v", resp, err)
			}
			resp.Body.Close()
		}
		for _, who := range []struct {
			name, token string
			want        int
		}{
			{"a reader", reader(t), 200},
			{"a stranger", token(t, "default", "stranger"), 403},
			{"a liar", forged(reader(t)), 401},
		} {
			secrets[who.name+"'s token"] = who.token
			for _, path := range []string{podsPath, "/apis/metrics.k8s.io/v1beta1/nodes/" + f.nodes[0].name} {
				if code, body, err := s.get(path, who.token, "X-Remote-User", "root"); err != nil || code != who.want {
					t.Errorf("%s: %s asks for %s: %d %s %v, want %d", name, who.name, path, code, body, err, who.want)
				}
			}
		}
		eventually(t, "every node was asked", func() error {
			for _, n := range f.nodes[1:] {
				if len(linesWith(s.output(), n.name)) == 0 {
					return errors.New(n.name)
				}
			}
			return nil
		})
		key, err := os.ReadFile(filepath.Join(cluster.dir, f.name, strings.ReplaceAll(name, " ", "-"), "apiserver.key"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(key), "\n")
		secrets["the serving certificate's key"] = strings.Join(lines[1:len(lines)-2], "")
		_ = s.kill()
		said := s.output()
		// The test proves something only if the errors that could have shown the secrets were logged.
		if !strings.Contains(said, "tokenreviews") || !strings.Contains(said, "Request Body") {
			t.Errorf("%s: no word of the bodies of TokenReviews", name)
		}
		for what, secret := range secrets {
			if part := partOf(secret, said); part != "" {
				t.Errorf("%s: the log shows %s: %s", name, what, part)
			}
		}
	}
}

// forged is a token with an invented signature.
func forged(token string) string {
	return token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("Zm9yZ2VkIHNpZ25hdHVyZQ", 12)
}

// partOf returns a part of secret that text shows, with its line, or "". The header and the claims
// of a token are not secret, so only the signature is searched for. Parts are short enough to be
// found in a hexadecimal dump, which shows 16 bytes in a row.
func partOf(secret, text string) string {
	const size = 8
	secret = secret[strings.LastIndexByte(secret, '.')+1:]
	for i := 0; i+size <= len(secret); i += size {
		if lines := linesWith(text, secret[i:i+size]); len(lines) > 0 {
			return secret[i:i+size] + " in " + lines[0]
		}
	}
	return ""
}

// trap is a port that records what it is sent, and answers as if it were a kubelet.
type trap struct {
	net.Listener
	mu    sync.Mutex
	taken []byte
	conns int
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &trap{Listener: l}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 64<<10)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			n, _ := conn.Read(b)
			_, _ = conn.Write([]byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"))
			conn.Close()
			p.mu.Lock()
			p.taken = append(p.taken, b[:n]...)
			p.conns++
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return p
}

func (p *trap) got() (string, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.taken), p.conns
}

func (p *trap) port() int32 { return int32(p.Addr().(*net.TCPAddr).Port) }

// moveTo changes the address in the node's status, as its kubelet may.
func (n *fakeNode) moveTo(t *testing.T, host string, port int32) {
	t.Helper()
	nodes := cluster.client.CoreV1().Nodes()
	eventually(t, "the node's status changes", func() error {
		node, err := nodes.Get(t.Context(), n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
		node.Status.DaemonEndpoints.KubeletEndpoint.Port = port
		_, err = nodes.UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		return err
	})
}

// TestCompromisedKubelets has kubelets try to divert the server's token, and to report usage for
// pods of other nodes.
func TestCompromisedKubelets(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, 2)
	honest := f.nodes[0]
	var requests sync.Map // node name -> how many requests had a token
	evil := func(fault kubelettest.Fault, certificate *tls.Certificate) *fakeNode {
		n := f.node(0)
		asked := 0
		n.kubelet.OnRequest = func(*http.Request) {
			asked++ // one connection, one request at a time
			requests.Store(n.name, asked)
		}
		n.kubelet.SetFault(fault)
		f.add(t, n, kubelettest.ServerConfig{Certificate: certificate})
		return n
	}
	ours := cluster.ca.Server("127.0.0.1")
	secured := &kubelettest.Kubelet{}
	elsewhere, err := kubelettest.Serve(secured, kubelettest.ServerConfig{Certificate: ours})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(elsewhere.Close)
	plain, moved := newTrap(t), newTrap(t)

	toTLS := evil(kubelettest.Redirect(fmt.Sprintf("https://127.0.0.1:%d/metrics/resource", elsewhere.Port())), ours)
	toHTTP := evil(kubelettest.Redirect(fmt.Sprintf("http://127.0.0.1:%d/metrics/resource", plain.port())), ours)
	foreign := evil(nil, kubelettest.NewCA("cluster").Server("127.0.0.1"))
	misnamed := evil(nil, cluster.ca.Server("10.0.0.1"))
	mover, impostor := evil(nil, ours), evil(nil, ours)
	mover.moveTo(t, "127.0.0.1", moved.port())
	impostor.moveTo(t, honest.server.Host(), int32(honest.server.Port()))
	// The pods of the honest node, with a later start and another usage, and one that does not exist.
	liar := f.node(0)
	liar.says = kubelettest.NewNode(
		kubelettest.NodeConfig{
			Seed:        hash(f.name),
			Pods:        3,
			Containers:  2,
			Boot:        time.Now().Add(-30 * time.Minute),
			RequestTime: true,
		},
	)
	known := honest.says.Containers()
	others := liar.says.Containers()
	invented := others[slices.IndexFunc(others, func(c kubelettest.Container) bool {
		return !slices.ContainsFunc(
			known, func(k kubelettest.Container) bool { return k.Namespace == c.Namespace && k.Pod == c.Pod },
		)
	})]
	liar.kubelet.Answer = liar.says.Append
	if liar.server, err = kubelettest.Serve(liar.kubelet, kubelettest.ServerConfig{Certificate: ours}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(liar.server.Close)
	f.register(t, &fakeNode{name: liar.name, says: kubelettest.NewNode(kubelettest.NodeConfig{}), server: liar.server})

	s := startServer(t, f)
	tok := reader(t)
	eventually(t, "everybody was asked more than once", func() error {
		for _, n := range []*fakeNode{toTLS, toHTTP} {
			if asked, _ := requests.Load(n.name); asked == nil || asked.(int) < 2 {
				return fmt.Errorf("%s was asked %v times", n.name, asked)
			}
		}
		for _, n := range []*fakeNode{foreign, misnamed} {
			if n.server.Accepted() < 2 {
				return fmt.Errorf("%s was dialled %d times", n.name, n.server.Accepted())
			}
		}
		if _, conns := moved.got(); conns < 2 {
			return fmt.Errorf("the trap was dialled %d times", conns)
		}
		return nil
	})
	for _, n := range []*fakeNode{foreign, misnamed} {
		if asked, ok := requests.Load(n.name); ok {
			t.Errorf("%s, whose certificate is not to be believed, got %v requests", n.name, asked)
		}
	}
	if n := elsewhere.Accepted(); n != 0 {
		t.Errorf("where a redirect leads was dialled %d times", n)
	}
	if _, n := plain.got(); n != 0 {
		t.Errorf("where a redirect to plain HTTP leads was dialled %d times", n)
	}
	if taken, _ := moved.got(); strings.Contains(taken, "Authorization") || partOf(f.token, taken) != "" {
		t.Errorf("a port that speaks no TLS was sent %q", taken)
	}

	mine := func() (map[string]item, map[string]item) {
		return s.list(t, tok, podsPath+"?fieldSelector=spec.nodeName="+honest.name), s.list(t, tok, podsPath)
	}
	true0 := func() error {
		of, all := mine()
		if len(of) != 2 || len(all) != 2 {
			return fmt.Errorf("%d pods of the honest node, %d in all, want 2", len(of), len(all))
		}
		return nil
	}
	eventually(t, "the honest node is believed, and nobody else", true0)
	if code, body, err := s.get(
		"/apis/metrics.k8s.io/v1/namespaces/"+invented.Namespace+"/pods/"+invented.Pod, tok,
	); err != nil ||
		code != http.StatusNotFound {
		t.Errorf("a pod that does not exist: %d %s %v", code, body, err)
	}
	// Its kubelet falls silent: no other node speaks in its place, not even when its last answer has
	// expired.
	honest.server.Close()
	eventually(t, "the honest node's last word has expired", func() error {
		of, all := mine()
		if len(all) > len(of) {
			t.Fatalf("%d pods are served, %d of them of the honest node", len(all), len(of))
		}
		if len(of) > 0 {
			return fmt.Errorf("%d pods are served", len(of))
		}
		return nil
	})
	for range 20 {
		if _, all := mine(); len(all) > 0 {
			t.Fatalf("%d pods of a silent node are served by others", len(all))
		}
		time.Sleep(200 * time.Millisecond)
	}
}
