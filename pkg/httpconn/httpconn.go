// Package httpconn sends GET requests over connections that are kept open between scrapes. A Pool
// holds what many connections share: dialling, limits and what is accepted. A Client belongs to one
// target and has at most one connection.
//
// The connections do not come from net/http's pool, which costs two goroutines and two buffers per
// target, and one system call for every 4 KiB that a server writes. Here an idle connection has no
// goroutine and no buffer, and answers are read in large pieces. There is no idle timeout on this
// side, so a connection is reused at any interval. Only HTTP/1.1 is spoken, and redirects are not
// followed.
//
// A Pool holds no credentials: each request names those that it is sent with. All requests are
// written in one place, which enforces that no credential is sent over plain HTTP and no token along
// with a client certificate, and which removes credentials that a server echoes from headers and
// errors.
//
// A Pool and the methods Peer and Close of a Client are safe for concurrent use; each Client sends
// one request at a time.
package httpconn

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Config configures a Pool.
type Config struct {
	Servers string // what the servers are called in logs and errors, such as "kubelets"
	Accept  string // the Accept header
	Gzip    bool   // ask for gzip; an answer that is compressed without being asked to is refused
	MaxBody int64  // bytes of an answer, before and after decompression
	// Turns limit how many large answers are read at once. They are sorted by size, the smallest
	// first. Default: 4 of more than 1 MiB.
	Turns []*Turns

	// Dial opens connections, also to proxies. It may refuse addresses. Default: a net.Dialer with
	// probes for idle connections.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Proxy returns the proxy for a request. Nil: none.
	Proxy func(*http.Request) (*url.URL, error)
}

// keepAlive is the interval of TCP probes on an idle connection: long enough to cost nothing, short
// enough that firewalls do not drop the connection from their tables.
const keepAlive = 30 * time.Second

// Pool makes the Client of each target.
type Pool struct {
	config Config
	dialer dialer

	mu      sync.Mutex // guards the field that follows
	clients map[*Client]struct{}
}

// New returns a Pool. It does not open connections.
func New(c Config) *Pool {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	if c.Turns == nil {
		c.Turns = []*Turns{NewTurns(maxKept, maxLarge)}
	}
	return &Pool{
		config:  c,
		dialer:  dialer{dial: c.Dial, proxy: c.Proxy},
		clients: map[*Client]struct{}{},
	}
}

// Client returns a client for one target. Large answers of the target count as those of owner: see
// Turns. Close the client when the target is gone.
func (p *Pool) Client(owner string) *Client {
	c := &Client{pool: p, owner: owner}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[c] = struct{}{}
	return c
}

// Close closes every Client.
func (p *Pool) Close() {
	p.mu.Lock()
	clients := p.clients
	p.clients = map[*Client]struct{}{}
	p.mu.Unlock()
	for c := range clients {
		c.Close()
	}
}

func (p *Pool) forget(c *Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, c)
}
