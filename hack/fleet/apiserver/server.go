// Package apiserver is as much of a Kubernetes API server as metrics servers ask for: nodes, pods, autoscalers and one
// ConfigMap to get, list and watch, whole or their metadata only, as JSON or protobuf; the scale of workloads and
// discovery, as JSON; and reviews of one token.
//
// Objects are made when they are asked for and as large as they are in real clusters; only what is true of a
// cluster.Cluster is kept.
package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/kubelet/kubelettest"
)

// Config is what a Server needs.
type Config struct {
	Cluster *cluster.Cluster
	// Token is the credential of the binary under test, LoadToken the credential of the measuring
	// client.
	Token, LoadToken string
}

// Server is the API server. Make it with Start, and Close it.
type Server struct {
	config    Config
	ca        *kubelettest.CA
	addr      string
	http      *http.Server
	done      chan struct{}
	resources map[string]*collection
	unknown   sync.Map // unknown paths that were requested
}

// Start serves on a free port of 127.0.0.1.
func Start(c Config) (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: c,
		ca:     kubelettest.NewCA("fleet"),
		addr:   l.Addr().String(),
		done:   make(chan struct{}),
	}
	s.resources = resources(c.Cluster, s.ca.PEM())
	s.http = &http.Server{
		Handler:  s,
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{*s.ca.Server("127.0.0.1", "localhost")},
		},
	}
	go func() {
		defer close(s.done)
		_ = s.http.ServeTLS(l, "", "") // it ends with Close
	}()
	return s, nil
}

// URL returns the URL of the server.
func (s *Server) URL() string { return "https://" + s.addr }

// CA returns the authority of its certificate, in PEM.
func (s *Server) CA() []byte { return s.ca.PEM() }

// Close ends the server.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// Unknown returns the unknown paths that were requested.
func (s *Server) Unknown() []string {
	var paths []string
	s.unknown.Range(func(path, _ any) bool {
		paths = append(paths, path.(string))
		return true
	})
	return paths
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+s.config.Token {
		s.fail(w, r, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch path := strings.Join(parts, "/"); {
	case path == "version":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w,
			`{"major":"1","minor":"37","gitVersion":"v1.37.2","goVersion":"go1.26.0","platform":"linux/amd64"}`)
		return
	case path == "readyz", path == "healthz", path == "livez":
		_, _ = io.WriteString(w, "ok")
		return
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/tokenreviews"):
		s.reviewToken(w, r)
		return
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/subjectaccessreviews"):
		s.reviewAccess(w, r)
		return
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/events"),
		r.Method == http.MethodPatch && len(parts) > 1 && parts[len(parts)-2] == "events": // an Event that recurs
		s.fail(w, r, http.StatusForbidden, metav1.StatusReasonForbidden, "no events are kept here")
		return
	}
	if r.Method == http.MethodGet && s.discover(w, parts) || r.Method == http.MethodGet && s.scale(w, r, parts) {
		return
	}
	q, ok := s.parse(parts)
	if !ok || r.Method != http.MethodGet {
		s.unknown.Store(r.Method+" "+r.URL.Path, nil)
		s.fail(w, r, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		return
	}
	var err error
	if q.as, err = accepted(r.Header.Get("Accept")); err != nil {
		s.fail(w, r, http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, err.Error())
		return
	}
	if err := q.options(r.URL.Query()); err != nil {
		s.fail(w, r, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	switch {
	case q.watch:
		s.watch(w, r, q)
	case q.name != "":
		s.get(w, r, q)
	default:
		s.list(w, q)
	}
}

// parse parses a path: api/VERSION[/namespaces/N]/RESOURCE[/NAME], or with apis/GROUP before the
// version.
func (s *Server) parse(parts []string) (query, bool) {
	var version string
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		version, parts = parts[1]+"/"+parts[2], parts[3:]
	default:
		return query{}, false
	}
	var q query
	if len(parts) > 2 && parts[0] == "namespaces" {
		q.namespace = parts[1]
		parts = parts[2:]
	}
	q.collection = s.resources[version+"/"+parts[0]]
	if q.collection == nil || q.namespace != "" && !q.collection.namespaced || len(parts) > 2 {
		return q, false
	}
	if len(parts) == 2 {
		q.name = parts[1]
	}
	return q, true
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, q query) {
	o := q.collection.get(q.namespace, q.name)
	if o == nil {
		s.fail(w, r, http.StatusNotFound, metav1.StatusReasonNotFound,
			fmt.Sprintf("%s %q not found", q.collection.name, q.name))
		return
	}
	send(w, http.StatusOK, q.as, q.encode(nil, o))
}

// fail responds with a Status.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, code int, reason metav1.StatusReason, message string) {
	as, err := accepted(r.Header.Get("Accept"))
	if err != nil {
		as = form{}
	}
	as.partial = false
	send(w, code, as, encode(nil, as, "v1", "Status", status(code, reason, message)))
}

func status(code int, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message}
}

func send(w http.ResponseWriter, code int, as form, body []byte) {
	w.Header().Set("Content-Type", as.contentType())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}
