package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
)

// checkFiles is how long the contents of CA and certificate files are believed before they are
// read again. A handshake that fails does not wait for it.
const checkFiles = 10 * time.Second

// trust is what TLS connections are made with: which authorities are believed, and which client
// certificate is shown. It reads its files again when they change.
type trust struct {
	insecure bool
	plugin   func() (*tls.Certificate, error) // client certificate of an exec plugin; nil: none
	sources  [numSources]source

	mu      sync.Mutex
	current *credentialSet
	checked time.Time
	refused *[numSources][]byte // contents that were found broken, nil if the last ones were good
}

// source is one PEM document: data, or else the contents of file, or nothing.
type source struct {
	what string
	data []byte
	file string
}

const (
	sourceCA = iota
	sourceCert
	sourceKey
	numSources
)

// credentialSet is one state of the files. It is immutable, and its address is its identity: a connection
// made with another one than the current is not used again.
type credentialSet struct {
	contents [numSources][]byte
	config   *tls.Config
}

func newTrust(c *transport.TLSConfig) (*trust, error) {
	t := &trust{
		insecure: c.Insecure,
		sources: [numSources]source{
			sourceCA:   {"certificate authority", c.CAData, c.CAFile},
			sourceCert: {"client certificate", c.CertData, c.CertFile},
			sourceKey:  {"client key", c.KeyData, c.KeyFile},
		},
	}
	if c.GetCertHolder != nil {
		t.plugin = c.GetCertHolder.GetCert
	}
	contents, err := t.read()
	if err == nil {
		t.current, err = t.parse(contents)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS to kubelets: %w", err)
	}
	t.checked = time.Now()
	return t, nil
}

// get returns the current set, not older than maxAge. Files that cannot be read or parsed, or do not
// fit one another, leave the last good set in place, which is logged once for each state of the files.
func (t *trust) get(ctx context.Context, maxAge time.Duration) *credentialSet {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.checked) < maxAge {
		return t.current
	}
	t.checked = now

	contents, err := t.read()
	if err == nil && equal(contents, t.current.contents) {
		t.refused = nil
		return t.current
	}
	var next *credentialSet
	if err == nil {
		next, err = t.parse(contents)
	}
	log := klog.FromContext(ctx)
	if err != nil {
		if t.refused == nil || !equal(contents, *t.refused) {
			t.refused = &contents
			log.Error(err, "TLS files for kubelets changed and cannot be used; the previous contents stay in use until they can")
		}
		return t.current
	}
	t.current, t.refused = next, nil
	log.Info("TLS files for kubelets changed and were read again")
	return next
}

func (t *trust) read() (contents [numSources][]byte, err error) {
	var errs []error
	for i, s := range t.sources {
		contents[i] = s.data
		if len(s.data) == 0 && s.file != "" {
			if contents[i], err = os.ReadFile(s.file); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.what, err))
			}
		}
	}
	return contents, errors.Join(errs...)
}

func (t *trust) parse(contents [numSources][]byte) (*credentialSet, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		InsecureSkipVerify: t.insecure,
	}
	var errs []error
	if s := t.sources[sourceCA]; s.given() && !t.insecure {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(contents[sourceCA]) {
			errs = append(errs, fmt.Errorf("%s: no certificate in %s: it must be PEM", s.what, s))
		}
	}
	if s := t.sources[sourceCert]; s.given() {
		pair, err := tls.X509KeyPair(contents[sourceCert], contents[sourceKey])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s with key %s: %w", s.what, s, t.sources[sourceKey], err))
		}
		// Unlike tls.Config.Certificates this shows it whatever authorities the kubelet says that it accepts.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &credentialSet{contents: contents, config: c}, nil
}

func (s source) given() bool { return len(s.data) > 0 || s.file != "" }

func (s source) String() string {
	if len(s.data) > 0 {
		return "(given inline)"
	}
	return s.file
}

func equal(a, b [numSources][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// session is the TLS session of one Client, by which a new connection to the same kubelet skips
// most of the handshake. A cache that all nodes share would have to be sized for them; this one
// comes and goes with its node. It implements tls.ClientSessionCache.
type session struct {
	mu    sync.Mutex
	key   string
	state *tls.ClientSessionState
}

// Get implements tls.ClientSessionCache.
func (s *session) Get(key string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.state != nil && s.key == key
}

// Put implements tls.ClientSessionCache.
func (s *session) Put(key string, state *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.state = key, state
}
