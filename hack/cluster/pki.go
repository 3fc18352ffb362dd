package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

// authority signs certificates.
type authority struct {
	pair
	x509 *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes a CA that is valid for a year.
func newAuthority(name string) (*authority, error) {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	key, p, err := sign(template, nil)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(p.cert)
	parsed, err := x509.ParseCertificate(block.Bytes)
	return &authority{pair: p, x509: parsed, key: key}, err
}

// loadAuthority reads what newAuthority made.
func loadAuthority(cert, key []byte) (*authority, error) {
	loaded, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	private, ok := loaded.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not a key of this program's making")
	}
	return &authority{pair: pair{cert, key}, x509: loaded.Leaf, key: private}, nil
}

// client makes a client certificate; its groups are what RBAC sees.
func (a *authority) client(user string, groups ...string) (pair, error) {
	_, p, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a)
	return p, err
}

// server makes a serving certificate for names, which may be IP addresses.
func (a *authority) server(cn string, names ...string) (pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: cn},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	_, p, err := sign(template, a)
	return p, err
}

// sign completes template with a new key, signed by parent or, without one, by itself.
func sign(template *x509.Certificate, parent *authority) (*ecdsa.PrivateKey, pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, pair{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, pair{}, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.x509, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		return nil, pair{}, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, pair{}, err
	}
	return key, pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// publicKey returns the public half of a private key in PEM.
func publicKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// pki is every key and certificate of a cluster.
type pki struct {
	ca, frontProxyCA *authority
	files            map[string]string // file name below pki/ -> PEM
}

// apiServerNames are the names that the API server's certificate is good for.
var apiServerNames = []string{
	"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", serviceIP, controlPlaneIP,
}

// newPKI makes the authorities and the certificates of the control plane.
func newPKI() (*pki, error) {
	p := &pki{files: map[string]string{}}
	var err error
	if p.ca, err = newAuthority("cluster-ca"); err != nil {
		return nil, err
	}
	// An authority of its own: whoever it certifies may speak for any user to aggregated servers.
	if p.frontProxyCA, err = newAuthority("cluster-front-proxy-ca"); err != nil {
		return nil, err
	}
	p.files["ca.crt"] = string(p.ca.cert)
	p.files["ca.key"] = string(p.ca.pair.key)
	p.files["front-proxy-ca.crt"] = string(p.frontProxyCA.cert)

	admin, err0 := p.ca.client("admin", "system:masters")
	apiServer, err1 := p.ca.server("kube-apiserver", apiServerNames...)
	toKubelet, err2 := p.ca.client("kube-apiserver-kubelet-client", "system:masters")
	frontProxy, err3 := p.frontProxyCA.client("front-proxy-client")
	serviceAccountKey, serviceAccount, err4 := sign(&x509.Certificate{}, nil)
	for _, err := range []error{err0, err1, err2, err3, err4} {
		if err != nil {
			return nil, err
		}
	}
	public, err := publicKey(serviceAccountKey)
	if err != nil {
		return nil, err
	}
	p.add("admin", admin)
	p.add("apiserver", apiServer)
	p.add("apiserver-kubelet-client", toKubelet)
	p.add("front-proxy-client", frontProxy)
	p.files["service-account.key"] = string(serviceAccount.key)
	p.files["service-account.pub"] = string(public)
	return p, nil
}

func (p *pki) add(name string, pair pair) {
	p.files[name+".crt"], p.files[name+".key"] = string(pair.cert), string(pair.key)
}

// kubeconfigFor makes a kubeconfig with a new client certificate for user.
func (a *authority) kubeconfigFor(server, user string, groups ...string) (string, error) {
	client, err := a.client(user, groups...)
	if err != nil {
		return "", err
	}
	return kubeconfig(server, a.cert, fmt.Sprintf("{client-certificate-data: %s, client-key-data: %s}",
		base64.StdEncoding.EncodeToString(client.cert), base64.StdEncoding.EncodeToString(client.key))), nil
}

// kubeconfig returns a kubeconfig; user is its user stanza in YAML's flow form.
func kubeconfig(server string, ca []byte, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: dev, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: dev, user: %s}]
contexts: [{name: dev, context: {cluster: dev, user: dev}}]
current-context: dev
`, server, base64.StdEncoding.EncodeToString(ca), user)
}
