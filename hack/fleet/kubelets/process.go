package kubelets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"sync"

	"metrics-server/hack/fleet/child"
	"metrics-server/pkg/kubelet/kubelettest"
)

// Processes runs kubelets in other processes.
type Processes struct {
	all []*child.Process
	ca  []byte

	mu sync.Mutex
	of map[netip.AddrPort]*child.Process // the process that runs the kubelet at an address
}

// request is a request to a child, which sends a reply to each.
type request struct {
	Config *Config // in the first request only
	Add    []Spec
	Remove netip.Addr
	Faulty netip.Addr
	Fault  string // of Faulty
}

type reply struct {
	Err   string
	CA    []byte // to the first
	Stats Stats
}

func (r *reply) fail(err error) {
	if err != nil {
		r.Err = err.Error()
	}
}

// Argument is the only argument of a child: main calls Main for it.
const Argument = "serve-kubelets"

// Main runs a child: it answers the requests in in until there are no more.
func Main(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(300) // leave the CPU to the binary that is measured
	var s *Server
	err := child.Serve(in, out, func(q *request) *reply {
		var r reply
		if q.Config != nil {
			s = Serve(*q.Config)
			r.CA = s.CA()
		}
		for i := range q.Add {
			if q.Add[i].Pods == nil { // as gob decodes an empty slice, but a nil one would ask for generated pods
				q.Add[i].Pods = []kubelettest.Pod{}
			}
			if err := s.Add(q.Add[i]); err != nil {
				r.fail(err)
				break
			}
		}
		if q.Remove.IsValid() {
			r.fail(s.Remove(q.Remove))
		}
		if q.Faulty.IsValid() {
			r.fail(s.SetFault(q.Faulty, q.Fault))
		}
		r.Stats = s.Stats()
		return &r
	})
	if s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Start starts n processes of this program, with Argument. They end with Close, or with this process.
func Start(ctx context.Context, n int, c Config) (*Processes, error) {
	p := &Processes{of: map[netip.AddrPort]*child.Process{}}
	for range n {
		k, err := child.Start(ctx, Argument)
		if err != nil {
			return p, err
		}
		if err := p.attach(k, c); err != nil {
			return p, err
		}
	}
	return p, nil
}

// attach adds k to p.
func (p *Processes) attach(k *child.Process, c Config) error {
	p.all = append(p.all, k)
	r, err := ask(k, request{Config: &c})
	p.ca = append(p.ca, r.CA...)
	return err
}

func ask(k *child.Process, q request) (reply, error) {
	var r reply
	if err := k.Ask(&q, &r); err != nil {
		return r, err
	}
	if r.Err != "" {
		return r, fmt.Errorf("kubelets: %s", r.Err)
	}
	return r, nil
}

// CA returns the authorities of all processes, in PEM.
func (p *Processes) CA() []byte { return bytes.Clone(p.ca) }

// Add starts kubelets, or replaces the pods of the kubelets at the same addresses.
func (p *Processes) Add(specs ...Spec) error {
	groups := make([]request, len(p.all))
	at := map[*child.Process]int{}
	for i, k := range p.all {
		at[k] = i
	}
	for _, s := range specs {
		k := p.process(s.Addr)
		groups[at[k]].Add = append(groups[at[k]].Add, s)
	}
	errs := make([]error, len(p.all))
	var wg sync.WaitGroup
	for i, k := range p.all {
		if len(groups[i].Add) > 0 {
			wg.Go(func() { _, errs[i] = ask(k, groups[i]) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// process returns the process that runs the kubelet at addr, or will run it.
func (p *Processes) process(addr netip.AddrPort) *child.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.of[addr]
	if k == nil {
		k = p.all[len(p.of)%len(p.all)]
		p.of[addr] = k
	}
	return k
}

// Remove ends the kubelet at addr.
func (p *Processes) Remove(addr netip.AddrPort) error {
	_, err := ask(p.process(addr), request{Remove: addr.Addr()})
	return err
}

// SetFault applies the fault of that name to the kubelet at addr; "" ends its fault.
func (p *Processes) SetFault(addr netip.AddrPort, name string) error {
	_, err := ask(p.process(addr), request{Faulty: addr.Addr(), Fault: name})
	return err
}

// Stats returns the sum over all processes.
func (p *Processes) Stats() (Stats, error) {
	var sum Stats
	for _, k := range p.all {
		r, err := ask(k, request{})
		if err != nil {
			return sum, err
		}
		sum.Answers += r.Stats.Answers
		sum.Faults += r.Stats.Faults
		sum.Refused += r.Stats.Refused
		sum.Bytes += r.Stats.Bytes
	}
	return sum, nil
}

// PIDs returns the IDs of the processes.
func (p *Processes) PIDs() []int {
	var pids []int
	for _, k := range p.all {
		pids = append(pids, k.PID())
	}
	return pids
}

// Close ends the processes.
func (p *Processes) Close() {
	for _, k := range p.all {
		k.Close()
	}
}
