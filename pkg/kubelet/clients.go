// Package kubelet asks kubelets for their resource metrics. Clients holds what all nodes share:
// trust, credentials and limits. A Client belongs to one node and holds its addresses, its single
// connection (httpconn) and the layout of its last answer.
//
// Kubelets are shown tokens that were issued for them, or the client certificate that was given for
// them, or else the credentials that the server shows the API server. Changed CA and certificate
// files take effect with the next scrape of each node.
//
// Clients and the methods SetEndpoint and Close of Client are safe for concurrent use; each Client
// does one Fetch at a time.
package kubelet

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"

	"k8s.io/client-go/rest"

	"metrics-server/pkg/exposition"
	"metrics-server/pkg/httpconn"
	"metrics-server/pkg/kubeapi"
)

// Config holds the settings that all nodes share. It mirrors the --kubelet-* flags.
type Config struct {
	// Rest is how the API server is reached. Its credentials are shown to kubelets too, unless a
	// client certificate or Tokens is given below, and its certificate authority is trusted unless
	// another one is given below. Its Dial applies to kubelets too, and so does its Proxy, or else
	// HTTPS_PROXY and NO_PROXY of the environment. Nil: no credentials, the system's authorities.
	Rest *rest.Config

	Insecure  bool // the kubelet's certificate is not verified
	PlainHTTP bool // plain HTTP, and no credentials

	Port              int      // default 10250
	UseNodeStatusPort bool     // Endpoint.Port takes precedence over Port
	AddressTypes      []string // in order of preference; default: kubeapi.AddressTypes

	CAFile         string // PEM
	CAData         []byte // PEM, instead of CAFile
	ClientCertFile string // PEM; if given, no other credential is used
	ClientKeyFile  string // PEM

	// Tokens, unless nil, provides the tokens that are shown to kubelets. Rest's credentials
	// (token, password, certificate, headers) are then shown only while Tokens says so. It has no
	// effect if a client certificate is given above, or over plain HTTP.
	Tokens TokenSource

	// ServingCertificate returns this server's serving certificate, in PEM, by which the server
	// recognises itself at a kubelet's address. Nil: it serves nothing.
	ServingCertificate func() []byte

	// OwnAccess returns the error of a recent request to the API server with the credentials of Rest. It is
	// called when a kubelet rejects credentials. Nil: not known.
	OwnAccess func() error

	MaxBody  int64 // bytes of an answer after decompression; default 16 MiB
	Compress bool  // ask for gzip: less traffic for more CPU on both ends
}

func (c *Config) setDefaults() {
	if c.Rest == nil {
		c.Rest = &rest.Config{}
	}
	c.Port = cmp.Or(c.Port, kubeapi.KubeletPort)
	if len(c.AddressTypes) == 0 {
		c.AddressTypes = kubeapi.AddressTypes()
	}
	c.MaxBody = cmp.Or(c.MaxBody, 16<<20)
}

// Validate returns every error in c, each with its remedy. It names settings by the flags that they
// mirror, and does not read files.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	type setting struct {
		flag  string
		given bool
	}
	exclusive := func(a setting, others ...setting) {
		for _, b := range others {
			if a.given && b.given {
				bad("%s and %s exclude each other: give one of them", a.flag, b.flag)
			}
		}
	}

	ca := setting{"--kubelet-certificate-authority", c.CAFile != ""}
	caText := setting{"--kubelet-certificate-authority-text", len(c.CAData) > 0}
	insecure := setting{"--kubelet-insecure-tls", c.Insecure}
	cert := setting{"--kubelet-client-certificate", c.ClientCertFile != ""}
	key := setting{"--kubelet-client-key", c.ClientKeyFile != ""}
	plain := setting{"--deprecated-kubelet-completely-insecure", c.PlainHTTP}
	exclusive(ca, caText, insecure)
	exclusive(caText, insecure)
	exclusive(plain, insecure, ca, caText, cert, key)
	if cert.given != key.given {
		bad("%s and %s belong together: give both or neither", cert.flag, key.flag)
	}
	if c.Port < 0 || c.Port > 65535 {
		bad("--kubelet-port: %d is not a port: give one between 1 and 65535", c.Port)
	}
	if c.MaxBody < 0 {
		bad("the limit of an answer is %d bytes: give a positive number", c.MaxBody)
	}
	return errors.Join(errs...)
}

// Clients makes the Client of each node.
type Clients struct {
	scheme     string
	port       int
	config     Config
	own        *identity // with the credentials of Config.Rest, or the client certificate for kubelets
	tokens     *identity // with tokens of Config.Tokens; nil: there are none
	replayable bool      // own is
	http       *httpconn.Pool
	parsers    chan *exposition.Parser
}

// New returns Clients, or an error that lists every problem of c. It reads the files that c names
// but does not open connections.
func New(c Config) (*Clients, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	s := &Clients{
		scheme: "https",
		port:   c.Port,
		config: c,
		// Parsing takes most of the CPU time of an answer: more parsers than processors would only
		// take more memory. The channel is both the limit and the pool.
		parsers: make(chan *exposition.Parser, runtime.GOMAXPROCS(0)),
	}
	for range cap(s.parsers) {
		s.parsers <- &exposition.Parser{}
	}

	creds, err := credentials(&c).TransportConfig()
	if err != nil {
		return nil, fmt.Errorf("credentials for kubelets: %w", err)
	}
	pool := httpconn.Config{
		Servers: "kubelets", Accept: accept, Gzip: c.Compress, MaxBody: c.MaxBody, Proxy: http.ProxyFromEnvironment,
	}
	if creds.DialHolder != nil {
		pool.Dial = creds.DialHolder.Dial
	}
	if creds.Proxy != nil {
		pool.Proxy = creds.Proxy
	}
	s.http = httpconn.New(pool)

	if c.PlainHTTP {
		s.scheme = "http"
	}
	if s.own, err = s.newIdentity(creds); err != nil {
		return nil, err
	}
	s.replayable = replayable(creds)
	if c.Tokens != nil && c.ClientCertFile == "" && !c.PlainHTTP {
		anonymous, err := rest.AnonymousClientConfig(credentials(&c)).TransportConfig()
		if err != nil {
			return nil, fmt.Errorf("connections to kubelets: %w", err)
		}
		if s.tokens, err = s.newIdentity(anonymous); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Client returns a client for the kubelet at e. Close it when the node is gone.
func (s *Clients) Client(e Endpoint) *Client {
	c := &Client{shared: s, http: s.http.Client(e.Node)}
	c.SetEndpoint(e)
	return c
}

// Close closes every Client.
func (s *Clients) Close() { s.http.Close() }

func (s *Clients) portOf(e *Endpoint) string {
	if s.config.UseNodeStatusPort && e.Port != 0 {
		return strconv.Itoa(int(e.Port))
	}
	return strconv.Itoa(s.port)
}
