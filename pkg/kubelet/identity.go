package kubelet

import (
	"cmp"
	"context"
	"errors"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"metrics-server/pkg/httpconn"
)

// TokenSource provides the tokens by which kubelets authenticate this server. It is safe for
// concurrent use.
type TokenSource interface {
	// Token returns the token to show, or own if no token is available and the credentials of
	// Config.Rest are to be shown instead. It may wait until ctx ends. If the error has a method
	// Remedy() string, the Error of the Fetch has that remedy.
	Token(ctx context.Context) (token string, own bool, err error)
	// Refused reports that a kubelet rejected token, or does not let its account read metrics.
	Refused(token string)
}

// identity is how this server authenticates to kubelets: by the client certificate of a connection
// or by the credentials in requests.
type identity struct {
	credentials *httpconn.Credentials
	certified   bool // the credential is a client certificate
}

func (s *Clients) newIdentity(c *transport.Config) (*identity, error) {
	creds, err := s.http.NewCredentials(c, s.config.PlainHTTP)
	return &identity{credentials: creds, certified: c.HasCertAuth() || c.HasCertCallback()}, err
}

// credentials returns c.Rest with the kubelet settings of c applied.
func credentials(c *Config) *rest.Config {
	r := rest.CopyConfig(c.Rest)
	if c.PlainHTTP {
		r = rest.AnonymousClientConfig(r)
		r.TLSClientConfig = rest.TLSClientConfig{}
	}
	r.UserAgent = cmp.Or(r.UserAgent, rest.DefaultKubernetesUserAgent())
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

// replayable reports whether a kubelet could use the credentials of c elsewhere. It cannot use a
// client certificate, of which it never sees the key.
func replayable(c *transport.Config) bool {
	return !c.HasCertAuth() && (c.HasTokenAuth() || c.HasBasicAuth() || c.WrapTransport != nil)
}

// OwnReplayable reports whether a kubelet that is shown the credentials of Config.Rest could use
// them elsewhere.
func (s *Clients) OwnReplayable() bool { return s.replayable }

// identify chooses the identity of f and its token.
func (f *fetch) identify(ctx context.Context) error {
	f.identity = f.shared.own
	if f.shared.tokens == nil {
		return nil
	}
	token, own, err := f.shared.config.Tokens.Token(ctx)
	if err != nil {
		return &noTokenError{err}
	}
	if !own {
		f.identity, f.token = f.shared.tokens, token
	}
	return nil
}

// noTokenError says why there is no token to show to a kubelet.
type noTokenError struct{ err error }

func (e *noTokenError) Error() string { return "not asked: " + e.err.Error() }
func (e *noTokenError) Unwrap() error { return e.err }

func (e *noTokenError) remedy() string {
	var r interface{ Remedy() string }
	if errors.As(e.err, &r) {
		return r.Remedy()
	}
	return "see the message"
}
