package pods

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"

	"metrics-server/hack/fleet/child"
)

// Process runs a Server in a separate process.
type Process struct{ child *child.Process }

type request struct {
	Serve  string // the address, in the first request
	Add    []Spec
	Remove []netip.Addr
}

type reply struct {
	Err   string
	Stats Stats
}

// Argument is the only argument of a child: main calls Main for it.
const Argument = "serve-pods"

// Main runs a child: it answers the requests in in until there are no more.
func Main(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(300) // leave the CPU to the binary that is measured
	var s *Server
	return child.Serve(in, out, func(q *request) *reply {
		var err error
		if q.Serve != "" {
			if s, err = Serve(q.Serve); err != nil {
				return &reply{Err: err.Error()}
			}
		}
		s.Remove(q.Remove...)
		r := &reply{Stats: s.Stats()}
		if err := s.Add(q.Add...); err != nil {
			r.Err = err.Error()
		}
		return r
	})
}

// Start starts a process that serves pods at Port of all addresses. It ends with Close, or with this process.
func Start(ctx context.Context) (*Process, error) {
	c, err := child.Start(ctx, Argument)
	if err != nil {
		return nil, err
	}
	p := &Process{c}
	if _, err := p.ask(request{Serve: fmt.Sprintf("0.0.0.0:%d", Port)}); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Process) ask(q request) (reply, error) {
	var r reply
	if err := p.child.Ask(&q, &r); err != nil {
		return r, err
	}
	if r.Err != "" {
		return r, errors.New("pods: " + r.Err)
	}
	return r, nil
}

// Add adds pods, or replaces those at the same addresses.
func (p *Process) Add(specs ...Spec) error {
	_, err := p.ask(request{Add: specs})
	return err
}

// Remove removes pods.
func (p *Process) Remove(addrs ...netip.Addr) error {
	_, err := p.ask(request{Remove: addrs})
	return err
}

// Stats returns what was answered so far.
func (p *Process) Stats() (Stats, error) {
	r, err := p.ask(request{})
	return r.Stats, err
}

// PID returns the ID of the process.
func (p *Process) PID() int { return p.child.PID() }

// Close ends the process.
func (p *Process) Close() { p.child.Close() }
