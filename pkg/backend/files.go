package backend

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"os"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// authorize reads the credentials and adds them to h. It returns the secrets, which must not appear in any text.
func (c *Config) authorize(h http.Header) (secrets []string, err error) {
	file := c.TokenFile + c.PasswordFile // one of them at most
	if file == "" {
		return nil, nil
	}
	content, err := c.read(file)
	if err != nil {
		return nil, err
	}
	secret := strings.TrimRight(string(content), "\r\n")
	if c.TokenFile != "" {
		secret = strings.TrimSpace(secret)
	}
	switch {
	case secret == "":
		return nil, c.fileError(file, "it is empty", "write the token or the password into it")
	case !httpguts.ValidHeaderFieldValue(secret):
		return nil, c.fileError(file, "it has characters that a header cannot have", "write one line of text into it")
	}
	if c.TokenFile != "" {
		h.Set("Authorization", "Bearer "+secret)
		return []string{secret}, nil
	}
	basic := base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + secret))
	h.Set("Authorization", "Basic "+basic)
	return []string{basic, secret}, nil
}

// pemFiles are the contents of the files with certificates and keys.
type pemFiles struct{ ca, cert, key []byte }

func (p *pemFiles) equal(o *pemFiles) bool {
	return bytes.Equal(p.ca, o.ca) && bytes.Equal(p.cert, o.cert) && bytes.Equal(p.key, o.key)
}

func (c *Config) readPEM() (p pemFiles, err error) {
	for _, f := range []struct {
		file string
		to   *[]byte
	}{{c.CAFile, &p.ca}, {c.CertFile, &p.cert}, {c.KeyFile, &p.key}} {
		if f.file == "" {
			continue
		}
		if *f.to, err = c.read(f.file); err != nil {
			return p, err
		}
	}
	return p, nil
}

// tls returns the configuration of connections that use p.
func (c *Config) tls(p *pemFiles) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(p.ca) {
			return nil, c.fileError(c.CAFile, "it has no certificate", "write certificates in PEM into it")
		}
	}
	if c.CertFile != "" {
		pair, err := tls.X509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, c.fileError(c.CertFile, "certificate and key cannot be used together",
				"write a certificate and its key in PEM into the files").because(err)
		}
		// Unlike tls.Config.Certificates, this shows the certificate even if the server lists other authorities.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

func (c *Config) read(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, c.fileError(file, "it cannot be read", "check that it is mounted and readable").because(err)
	}
	return content, nil
}

func (c *Config) fileError(file, problem, remedy string) *Error {
	return newError(BadFile, remedy, "file %s of backend %q cannot be used: %s", file, c.Name, problem)
}

func redact(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "[redacted]")
	}
	return s
}
