// Package ui serves the page of metrics-server ui to one browser on the same machine: the nodes, the pods, the
// workloads and the autoscalers of a cluster, and the findings of the doctor. It reads the cluster with the credentials
// of its Config, and changes nothing.
//
// New listens, and Run serves until its context ends; it leaves no goroutine behind. The page polls JSON (answers.go).
// Every answer is made from an immutable snapshot of the cluster and the latest findings, so no handler holds a lock of
// their collectors while it writes an answer.
package ui

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/ui/cluster"
	"metrics-server/pkg/ui/page"
)

// Config says what to serve, and where.
type Config struct {
	Rest *rest.Config // for the API server
	// Address is a loopback address with a port; port 0 is any free port. Default: 127.0.0.1:0.
	Address string
	// Namespace is the only namespace that is read; "" reads all.
	Namespace string
	Version   string // of this program
	Context   string // shown as the name of the cluster
	Doctor    doctor.Config
	// Hint is added if the doctor cannot run because no API server answers; "" is none.
	Hint string
	// File is the path of a copy of the custom metrics server's administrator file; "" is none.
	File string
}

// Server serves the page. Make it with New.
type Server struct {
	config   Config
	listener net.Listener
	session  *session
	since    time.Time
	instance string // in ETags: versions begin again with each process
	cluster  source
	findings *findings
	scalers  *explainer[scalerReport]
	pods     *explainer[string] // why they have no usage
	latest   latest
	handler  http.Handler
}

// source provides the state of a cluster.
type source interface {
	Snapshot() *cluster.Snapshot
	Reason(ctx context.Context, namespace, pod string) string
	Run(context.Context) error
}

// New listens at the address of c. Run serves, and closes the listener even if its context has already ended.
func New(c Config) (*Server, error) {
	l, err := listen(c.Address)
	if err != nil {
		return nil, err
	}
	state, err := cluster.New(cluster.Config{Rest: c.Rest, Namespace: c.Namespace})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s, err := newServer(c, l, state, page.Files)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

func newServer(c Config, l net.Listener, state source, files fs.FS) (*Server, error) {
	address := l.Addr().(*net.TCPAddr)
	s := &Server{
		config: c, listener: l, session: newSession(address.AddrPort()), since: time.Now().UTC(), instance: rand.Text()[:8],
		cluster: state, findings: newFindings(c.examine),
		scalers: newExplainer(c.explain),
		pods: newExplainer(func(ctx context.Context, pod Object) (string, error) {
			return state.Reason(ctx, pod.Namespace, pod.Name), nil
		}),
	}
	static, err := loadFiles(files)
	if err != nil {
		return nil, err
	}
	s.handler = s.routes(static)
	return s, nil
}

// listen listens at a loopback address.
func listen(address string) (net.Listener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: %w: give one such as 127.0.0.1:0 or [::1]:8080", address, err)
	}
	if !a.IP.IsLoopback() {
		return nil, fmt.Errorf("%q is not a loopback address: the page shows whatever your credentials may read, so it is "+
			"served to this machine only: give an address such as 127.0.0.1:8080; to open the page on another machine, "+
			"run this there: ssh -L 8080:127.0.0.1:8080 NAME-OF-THIS-MACHINE", address)
	}
	l, err := net.ListenTCP("tcp", a)
	if err != nil {
		return nil, fmt.Errorf("%w: give another --address, or 127.0.0.1:0 for any port that is free", err)
	}
	return l, nil
}

// state returns the newest state.
func (s *Server) state() *state { return s.latest.of(s.cluster.Snapshot(), s.findings.current.Load()) }

// URL returns the URL that lets in the first browser that opens it.
func (s *Server) URL() string {
	return fmt.Sprintf("http://%s/?token=%s", s.listener.Addr(), s.session.token)
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	g.Go(func() error { return s.cluster.Run(ctx) })
	g.Go(func() error { s.findings.run(ctx); return nil })
	g.Go(func() error { s.scalers.run(ctx); return nil })
	g.Go(func() error { s.pods.run(ctx); return nil })
	g.Go(func() error {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the page: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close() // no answer takes long, and the page asks again
	})
	return g.Wait()
}
