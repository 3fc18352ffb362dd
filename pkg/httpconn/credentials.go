package httpconn

import (
	"fmt"
	"net/http"

	"k8s.io/client-go/transport"
)

// Credentials are what requests are authenticated with, and which servers are trusted with it: a
// client certificate or the credentials in requests. Different Credentials never share a
// connection, because their trusts have different credential sets.
type Credentials struct {
	trust *trust            // nil for plain HTTP
	auth  http.RoundTripper // adds the credentials and ends in wire
}

// NewCredentials returns the credentials of c, or with plainHTTP none. It reads the files that c
// names; changes of them take effect with the next request.
func (p *Pool) NewCredentials(c *transport.Config, plainHTTP bool) (*Credentials, error) {
	as := &Credentials{}
	var err error
	if !plainHTTP {
		if as.trust, err = newTrust(&c.TLS, p.config.Servers); err != nil {
			return nil, err
		}
	}
	as.auth, err = transport.HTTPWrappersForConfig(c, wire{})
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", p.config.Servers, err)
	}
	return as, nil
}

// connKey is the context key under which a request finds its connection.
type connKey struct{}

// wire is the last of the round trippers that add credentials. Nothing else sends requests.
type wire struct{}

// RoundTrip sends req on the connection in its context. It removes credentials that the server
// echoes, because client-go's round trippers, through which the answer passes, log its header at
// high verbosity.
func (wire) RoundTrip(req *http.Request) (*http.Response, error) {
	k := req.Context().Value(connKey{}).(*conn)
	if k.bare {
		req.Header.Del("Authorization")
	}
	k.secret = req.Header.Get("Authorization")
	resp, err := k.http1.roundTrip(k.rw, req, k.limit)
	if err != nil {
		return nil, fitForLogs(err, k.secret)
	}
	for _, values := range resp.Header {
		for i := range values {
			values[i] = redact(values[i], k.secret)
		}
	}
	return resp, nil
}
