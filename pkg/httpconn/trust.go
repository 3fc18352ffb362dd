package httpconn

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

// checkFiles is the interval at which CA and certificate files are read again. A failed handshake
// causes an earlier read.
const checkFiles = 10 * time.Second

// trust holds what TLS connections are made with: the trusted authorities and the client
// certificate. It reloads its files when they change.
type trust struct {
	servers  string // see Config
	insecure bool
	plugin   func() (*tls.Certificate, error) // client certificate of an exec plugin; nil: none
	sources  [numSources]source

	mu      sync.Mutex
	current *credentialSet
	checked time.Time
	refused *[numSources][]byte // the last contents, if they were unusable; otherwise nil
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

// credentialSet is one state of the files. It is immutable and compared by address: a connection
// that was made with another set than the current one is not used again.
type credentialSet struct {
	contents [numSources][]byte
	config   *tls.Config
}

func newTrust(c *transport.TLSConfig, servers string) (*trust, error) {
	t := &trust{
		servers:  servers,
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
		return nil, fmt.Errorf("TLS to %s: %w", servers, err)
	}
	t.checked = time.Now()
	return t, nil
}

// get returns the current set, after reloading files that were last read maxAge ago. If they cannot
// be read or parsed, or do not match, the last good set stays in place, which is logged once for
// each state of the files.
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
			log.Error(err, "TLS files for "+t.servers+" changed and cannot be used; the previous contents stay in use")
		}
		return t.current
	}
	t.current, t.refused = next, nil
	log.Info("Reloaded the TLS files for " + t.servers)
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
		MinVersion: tls.VersionTLS12,
		// Without h2: an idle HTTP/2 connection has a reader, which a hostile server can keep
		// busy.
		NextProtos:         []string{"http/1.1"},
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
		// Unlike tls.Config.Certificates, this shows the certificate whatever authorities the
		// server says that it accepts.
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
