package ui

import (
	"crypto/rand"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
)

// session lets one browser in: the first one that presents the token gets the cookie. It is safe for concurrent use.
type session struct {
	token, cookie string
	name          string   // of the cookie: browsers send a cookie to every port of a host
	hosts         []string // by which the server may be addressed
	taken         atomic.Bool
}

func newSession(address netip.AddrPort) *session {
	port := strconv.Itoa(int(address.Port()))
	s := &session{
		token: rand.Text(), cookie: rand.Text(), name: "metrics-server-ui-" + port, hosts: []string{address.String()},
	}
	for _, host := range []string{"127.0.0.1", "::1", "localhost"} {
		s.hosts = append(s.hosts, net.JoinHostPort(host, port))
	}
	return s
}

// equal compares secrets in constant time.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// has reports whether r is from the browser of the session.
func (s *session) has(r *http.Request) bool {
	return slices.ContainsFunc(r.CookiesNamed(s.name), func(c *http.Cookie) bool { return equal(c.Value, s.cookie) })
}

// enter lets in a browser that presents the token, and reports whether it did. The token works once.
func (s *session) enter(w http.ResponseWriter, token string) bool {
	if !equal(token, s.token) || !s.taken.CompareAndSwap(false, true) {
		return false
	}
	http.SetCookie(w, &http.Cookie{
		Name: s.name, Value: s.cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	return true
}

const (
	taken    = "this page belongs to another browser"
	notTaken = "this browser has not opened the URL that metrics-server ui printed"
	wrongWay = "the request comes from another website, or was sent to another host name or port"

	remedyTaken    = "run metrics-server ui again, and open the URL that it prints"
	remedyNotTaken = "open that URL, with its token"
	remedyWrongWay = "open the URL that metrics-server ui printed"
)

// named reports whether r was sent to a name of the server. Without this check, a website whose own name resolves to a
// loopback address (DNS rebinding) could read the answers.
func (s *session) named(r *http.Request) bool { return slices.Contains(s.hosts, r.Host) }

// fromElsewhere reports whether a browser says that another website, or another port, has caused r.
func fromElsewhere(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return !slices.Contains([]string{"", "same-origin", "none"}, r.Header.Get("Sec-Fetch-Site")) ||
		origin != "" && origin != "http://"+r.Host
}

// refusal returns why r is not answered, or nil.
func (s *session) refusal(r *http.Request) *Problem {
	switch {
	case !s.named(r), fromElsewhere(r):
		return &Problem{wrongWay, remedyWrongWay}
	case s.has(r):
		return nil
	case s.taken.Load():
		return &Problem{taken, remedyTaken}
	}
	return &Problem{notTaken, remedyNotTaken}
}
