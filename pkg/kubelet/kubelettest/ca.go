package kubelettest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// CA is a certificate authority. Unless a method says otherwise, certificates are valid from 1999
// for decades. Functions panic if the system provides no random numbers.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA returns an authority with that name and a key of its own.
func NewCA(name string) *CA {
	ca := &CA{key: newKey()}
	t := template(name)
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	ca.cert = sign(t, t, &ca.key.PublicKey, ca.key)
	return ca
}

// PEM returns the authority's certificate.
func (ca *CA) PEM() []byte { return encode("CERTIFICATE", ca.cert.Raw) }

// Pool returns a pool with the authority in it.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// Server returns a serving certificate for hosts: IP addresses or names.
func (ca *CA) Server(hosts ...string) *tls.Certificate { return ca.serving(template("kubelet"), hosts) }

// Named is Server for a certificate without SANs, with name as its common name.
func (ca *CA) Named(name string) *tls.Certificate { return ca.serving(template(name), nil) }

// ForClients is Server for a certificate whose extended key usage is client authentication only.
func (ca *CA) ForClients(hosts ...string) *tls.Certificate {
	t := template("kubelet")
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return ca.serving(t, hosts)
}

// Expired is Server for a certificate that was valid until yesterday.
func (ca *CA) Expired(hosts ...string) *tls.Certificate {
	t := template("kubelet")
	t.NotAfter = time.Now().Add(-24 * time.Hour)
	return ca.serving(t, hosts)
}

// SelfSigned returns a self-signed serving certificate for hosts.
func SelfSigned(hosts ...string) *tls.Certificate {
	t := template("kubelet")
	t.IsCA, t.BasicConstraintsValid = true, true
	key := newKey()
	return (&CA{cert: withHosts(t, hosts), key: key}).servingWith(t, key)
}

// Client returns a client certificate for user in groups, and its key, in PEM.
func (ca *CA) Client(user string, groups ...string) (cert, key []byte) {
	t := template(user)
	t.Subject.Organization = groups
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	k := newKey()
	c := sign(t, ca.cert, &k.PublicKey, ca.key)
	der, err := x509.MarshalECPrivateKey(k)
	must(err)
	return encode("CERTIFICATE", c.Raw), encode("EC PRIVATE KEY", der)
}

func (ca *CA) serving(t *x509.Certificate, hosts []string) *tls.Certificate {
	return ca.servingWith(withHosts(t, hosts), newKey())
}

func (ca *CA) servingWith(t *x509.Certificate, key *ecdsa.PrivateKey) *tls.Certificate {
	if t.ExtKeyUsage == nil {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	c := sign(t, ca.cert, &key.PublicKey, ca.key)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func withHosts(t *x509.Certificate, hosts []string) *x509.Certificate {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	// Far into the past as well: the clock of a synctest bubble starts in the year 2000.
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Now().AddDate(50, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func sign(t, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, key)
	must(err)
	c, err := x509.ParseCertificate(der)
	must(err)
	return c
}

func newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return k
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
