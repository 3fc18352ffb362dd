// Package kubelet asks kubelets for their resource metrics. Clients holds what all nodes share:
// trust, credentials, limits. A Client is one node: its addresses, its one connection, and the
// layout of its last answer.
//
// A Client keeps its connection open between scrapes for as long as the kubelet does; nothing on
// this side lets it go idle, so it outlives any resolution. The connection is not one of
// net/http's pool: that costs two goroutines and two buffers for each node, and a system call for
// each 4 KiB that a kubelet writes. Here an idle connection owns no goroutine and no buffer, and an
// answer is read in large pieces. HTTP/2, which older kubelets choose, is left to net/http.
//
// Credentials are those that the server shows the API server, or the client certificate given
// for kubelets. One place in the code writes to the wire, and it enforces that no credential goes
// over plain HTTP and that no token goes where a client certificate does. CA and certificate files
// that change are taken up by the next scrape of each node.
//
// Clients and the methods SetEndpoint and Close of Client are safe for concurrent use; each Client
// does one Fetch at a time.
package kubelet

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"metrics-server/pkg/exposition"
)

// Config is what all nodes have in common. It mirrors the --kubelet-* flags.
type Config struct {
	// Rest is how the API server is reached. Its credentials are shown to kubelets too, unless
	// there is a client certificate below, and its certificate authority is believed unless there is
	// one below. Its Dial, and its Proxy or else the environment's HTTPS_PROXY and NO_PROXY, hold for
	// kubelets too. Nil: no credentials, the system's authorities.
	Rest *rest.Config

	Insecure  bool // the kubelet's certificate is not verified
	PlainHTTP bool // plain HTTP, and no credentials

	Port              int      // default 10250
	UseNodeStatusPort bool     // Endpoint.Port takes precedence over Port
	AddressTypes      []string // in order of preference; default: see defaultAddressTypes

	CAFile         string // PEM
	CAData         []byte // PEM, instead of CAFile
	ClientCertFile string // PEM; with it no other credential is used
	ClientKeyFile  string // PEM

	MaxBody  int64 // bytes of an answer after decompression; default 16 MiB
	Compress bool  // ask for gzip: less traffic for more CPU on both ends
}

const (
	defaultPort    = 10250
	defaultMaxBody = 16 << 20

	// keepAlive is the interval of TCP's probes on an idle connection: seldom enough not to matter,
	// often enough for the tables of firewalls.
	keepAlive = 30 * time.Second
)

var defaultAddressTypes = []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}

func (c *Config) setDefaults() {
	if c.Rest == nil {
		c.Rest = &rest.Config{}
	}
	if c.Port == 0 {
		c.Port = defaultPort
	}
	if len(c.AddressTypes) == 0 {
		c.AddressTypes = defaultAddressTypes
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
}

func (c *Config) validate() error {
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	ca := c.CAFile != "" || len(c.CAData) > 0
	cert := c.ClientCertFile != "" || c.ClientKeyFile != ""
	bad(c.CAFile != "" && len(c.CAData) > 0, "the kubelets' certificate authority is given both as a file and as text: give one of them")
	bad(c.Insecure && ca, "a certificate authority is given, but the kubelets' certificates are not to be verified: leave one of the two out")
	bad((c.ClientCertFile == "") != (c.ClientKeyFile == ""), "the client certificate for kubelets and its key belong together: give both or neither")
	bad(c.PlainHTTP && (c.Insecure || ca || cert), "plain HTTP to kubelets has no use for TLS options: leave them out, or speak TLS")
	bad(c.Port < 1 || c.Port > 65535, "the kubelets' port %d is not a port: give one between 1 and 65535", c.Port)
	bad(c.MaxBody < 1, "the limit of an answer is %d bytes: give a positive number", c.MaxBody)
	return errors.Join(errs...)
}

// Clients makes a Client for each node.
type Clients struct {
	scheme    string
	port      int
	config    Config
	tls       *trust // nil for plain HTTP
	dialer    dialer
	auth      http.RoundTripper // adds the credentials and ends in wire
	certified bool              // they are a client certificate
	h2        *http.Transport   // only ever wraps connections that negotiated HTTP/2
	parsers   chan *exposition.Parser
	large     chan struct{} // holds one for each answer that is larger than a kubelet's

	mu   sync.Mutex
	open map[*Client]struct{}
}

// New returns Clients, or every problem that c has. It reads the files that c names and dials nothing.
func New(c Config) (*Clients, error) {
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &Clients{
		scheme: "https",
		port:   c.Port,
		config: c,
		h2:     newHTTP2(),
		large:  make(chan struct{}, maxLarge),
		open:   map[*Client]struct{}{},
		// Parsing is what an answer costs most CPU for: more at once than there are processors would
		// only hold more memory. The channel is both the limit and the pool.
		parsers: make(chan *exposition.Parser, runtime.GOMAXPROCS(0)),
	}
	for range cap(s.parsers) {
		s.parsers <- &exposition.Parser{}
	}

	creds, err := credentials(&c).TransportConfig()
	if err != nil {
		return nil, fmt.Errorf("credentials for kubelets: %w", err)
	}
	s.certified = creds.HasCertAuth() || creds.HasCertCallback()
	s.dialer.dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	if creds.DialHolder != nil {
		s.dialer.dial = creds.DialHolder.Dial
	}
	s.dialer.proxy = http.ProxyFromEnvironment
	if creds.Proxy != nil {
		s.dialer.proxy = creds.Proxy
	}

	if c.PlainHTTP {
		s.scheme = "http"
	} else if s.tls, err = newTrust(&creds.TLS); err != nil {
		return nil, err
	}
	s.auth, err = transport.HTTPWrappersForConfig(creds, wire{})
	if err != nil {
		return nil, fmt.Errorf("credentials for kubelets: %w", err)
	}
	return s, nil
}

// credentials is the rest.Config of which a kubelet would be a server: c.Rest with what c says of kubelets.
func credentials(c *Config) *rest.Config {
	r := rest.CopyConfig(c.Rest)
	if c.PlainHTTP {
		r = rest.AnonymousClientConfig(r)
		r.TLSClientConfig = rest.TLSClientConfig{}
	}
	if r.UserAgent == "" {
		r.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if c.Insecure || c.CAFile != "" || len(c.CAData) > 0 {
		r.Insecure, r.CAFile, r.CAData = c.Insecure, c.CAFile, c.CAData
	}
	if c.ClientCertFile != "" {
		r.CertFile, r.CertData = c.ClientCertFile, nil
		r.KeyFile, r.KeyData = c.ClientKeyFile, nil
		r.ExecProvider, r.AuthProvider = nil, nil
	}
	if r.CertFile != "" || len(r.CertData) > 0 {
		r.BearerToken, r.BearerTokenFile = "", ""
		r.Username, r.Password = "", ""
	}
	return r
}

// Client returns a client for the kubelet at e. Close it when the node is gone.
func (s *Clients) Client(e Endpoint) *Client {
	c := &Client{shared: s}
	c.SetEndpoint(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
	return c
}

// Close closes every Client.
func (s *Clients) Close() {
	s.mu.Lock()
	open := s.open
	s.open = map[*Client]struct{}{}
	s.mu.Unlock()
	for c := range open {
		c.Close()
	}
}

func (s *Clients) forget(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// portOf returns the port of the kubelet at e.
func (s *Clients) portOf(e *Endpoint) string {
	if s.config.UseNodeStatusPort && e.Port != 0 {
		return strconv.Itoa(int(e.Port))
	}
	return strconv.Itoa(s.port)
}
