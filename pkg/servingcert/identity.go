package servingcert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The keys in the Secret: the two of the type kubernetes.io/tls, and two for the authority.
const (
	certName         = corev1.TLSCertKey
	keyName          = corev1.TLSPrivateKeyKey
	authoritiesName  = corev1.ServiceAccountRootCAKey // ca.crt
	authorityKeyName = "ca.key"
)

// backdate is how long before its creation a certificate becomes valid, for clocks that are behind.
const backdate = time.Hour

// identity is the contents of the Secret. It is immutable.
type identity struct {
	// authorities are the ones that clients trust. The first one, the newest, signs; the others have
	// signed certificates that may still be served.
	authorities []*x509.Certificate
	signer      crypto.Signer // of the newest authority; nil if there is none that fits
	signerPEM   []byte

	certPEM, keyPEM []byte
	leaf            *x509.Certificate // nil: there is no certificate with a key that fits
}

// isEmpty reports whether a Secret has none of what this package keeps in it.
func isEmpty(data map[string][]byte) bool {
	return len(data[certName])+len(data[keyName])+len(data[authoritiesName])+len(data[authorityKeyName]) == 0
}

// parse returns the valid parts of data, and what is wrong with the rest.
func parse(data map[string][]byte) (*identity, []string) {
	if isEmpty(data) {
		return &identity{}, []string{"it was empty"}
	}
	var wrong []string
	bad := func(name, format string, args ...any) { wrong = append(wrong, name+": "+fmt.Sprintf(format, args...)) }

	i := &identity{}
	for rest := data[authoritiesName]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				bad(authoritiesName, "it has text that is not PEM")
			}
			break
		}
		switch c, err := x509.ParseCertificate(block.Bytes); {
		case err != nil:
			bad(authoritiesName, "%v", err)
		case !c.IsCA:
			bad(authoritiesName, "%q is not a certificate authority", c.Subject.CommonName)
		default:
			i.authorities = append(i.authorities, c)
		}
	}
	if len(i.authorities) == 0 {
		bad(authoritiesName, "it has no certificate authority")
	} else if pair, err := tls.X509KeyPair(
		encode("CERTIFICATE", i.authorities[0].Raw), data[authorityKeyName],
	); err != nil {
		bad(authorityKeyName, "%v", err)
	} else {
		i.signer, i.signerPEM = pair.PrivateKey.(crypto.Signer), data[authorityKeyName] // X509KeyPair gives no others
	}
	pair, err := tls.X509KeyPair(data[certName], data[keyName])
	if err != nil {
		bad(certName+" and "+keyName, "%v", err)
		return i, wrong
	}
	i.certPEM, i.keyPEM, i.leaf = data[certName], data[keyName], pair.Leaf
	return i, wrong
}

// data returns what the Secret is to contain. Other keys of the Secret stay as they are.
func (i *identity) data() map[string][]byte {
	return map[string][]byte{
		certName: i.certPEM, keyName: i.keyPEM, authoritiesName: i.bundle(), authorityKeyName: i.signerPEM,
	}
}

// bundle returns the caBundle for the APIServices.
func (i *identity) bundle() (bundle []byte) {
	for _, a := range i.authorities {
		bundle = append(bundle, encode("CERTIFICATE", a.Raw)...)
	}
	return bundle
}

// unusable returns why a client that trusts the authorities rejects the certificate for names, or nil.
func (i *identity) unusable(now time.Time, names ...string) error {
	if i.leaf == nil {
		return errors.New("there is none")
	}
	roots := x509.NewCertPool()
	for _, a := range i.authorities {
		roots.AddCert(a)
	}
	if _, err := i.leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		return err
	}
	for _, name := range names {
		if err := i.leaf.VerifyHostname(name); err != nil {
			return err
		}
	}
	return nil
}

// withAuthority returns i with a new authority, which has signed nothing yet.
func (i *identity) withAuthority(life time.Duration, now time.Time) (*identity, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := newTemplate("metrics-server-serving-ca-"+now.UTC().Format("20060102150405"), life, now)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	ca, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	next := *i
	next.authorities = append([]*x509.Certificate{ca}, i.authorities...)
	next.signer, next.signerPEM = key, keyPEM
	return &next, nil
}

// withCertificate returns i with a new certificate, which the newest authority signs and does not outlive.
func (i *identity) withCertificate(names []string, life time.Duration, now time.Time) (*identity, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(names[0], life, now)
	if err != nil {
		return nil, err
	}
	if end := i.authorities[0].NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	template.DNSNames = names
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	next := *i
	if next.leaf, err = sign(template, i.authorities[0], &key.PublicKey, i.signer); err != nil {
		return nil, err
	}
	next.certPEM, next.keyPEM = encode("CERTIFICATE", next.leaf.Raw), keyPEM
	return &next, nil
}

func newTemplate(name string, life time.Duration, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	// A common name has at most 64 characters, and no client verifies it.
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name[:min(len(name), 64)]},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(life),
	}, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, encode("PRIVATE KEY", der), nil
}

func sign(
	template, parent *x509.Certificate, public *ecdsa.PublicKey, signer crypto.Signer,
) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate just signed: %w", err)
	}
	return c, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
