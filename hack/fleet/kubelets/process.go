package kubelets

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"sync"
	"syscall"

	"metrics-server/pkg/kubelet/kubelettest"
)

// Processes are kubelets in other processes.
type Processes struct {
	all []*child
	ca  []byte

	mu sync.Mutex
	of map[netip.AddrPort]*child // the one that has the kubelet there
}

type child struct {
	cmd *exec.Cmd // nil: it is no process
	in  io.Closer

	mu  sync.Mutex // one request at a time
	enc *gob.Encoder
	dec *gob.Decoder
}

// request is what a child is asked; it answers each with a reply.
type request struct {
	Config *Config // the first request, and no other
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

// Main is a child's: it answers the requests that are read from in until there are no more.
func Main(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(300) // the binary that is measured wants the CPU
	enc, dec := gob.NewEncoder(out), gob.NewDecoder(in)
	var s *Server
	for {
		var q request
		if err := dec.Decode(&q); err != nil {
			if s != nil {
				err = errors.Join(err, s.Close())
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var r reply
		if q.Config != nil {
			s = Serve(*q.Config)
			r.CA = s.CA()
		}
		for i := range q.Add {
			if q.Add[i].Pods == nil { // gob makes no difference, but a node without pods is not one whose pods are to be made up
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
		if err := enc.Encode(&r); err != nil {
			return err
		}
	}
}

// Start starts n processes of this program, with Argument. They end with Close, or with this process.
func Start(ctx context.Context, n int, c Config) (*Processes, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Processes{of: map[netip.AddrPort]*child{}}
	for range n {
		cmd := exec.CommandContext(ctx, self, Argument)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = endsWithUs()
		in, err := cmd.StdinPipe()
		if err != nil {
			return p, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return p, err
		}
		if err := cmd.Start(); err != nil {
			return p, err
		}
		if err := p.attach(cmd, in, out, c); err != nil {
			return p, err
		}
	}
	return p, nil
}

// attach makes what reads from in and writes to out, as Main does, one of p.
func (p *Processes) attach(cmd *exec.Cmd, in io.WriteCloser, out io.Reader, c Config) error {
	k := &child{cmd: cmd, in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
	p.all = append(p.all, k)
	r, err := k.ask(request{Config: &c})
	p.ca = append(p.ca, r.CA...)
	return err
}

// endsWithUs makes a child end with this process, however that ends, and not by the terminal's Ctrl-C before.
func endsWithUs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (k *child) ask(q request) (reply, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var r reply
	if err := k.enc.Encode(&q); err != nil {
		return r, fmt.Errorf("kubelets: %w", err)
	}
	if err := k.dec.Decode(&r); err != nil {
		return r, fmt.Errorf("kubelets: %w", err)
	}
	if r.Err != "" {
		return r, fmt.Errorf("kubelets: %s", r.Err)
	}
	return r, nil
}

// CA returns the authorities of all processes, in PEM.
func (p *Processes) CA() []byte { return bytes.Clone(p.ca) }

// Add starts kubelets, or tells those at the same addresses their pods anew.
func (p *Processes) Add(specs ...Spec) error {
	groups := make([]request, len(p.all))
	at := map[*child]int{}
	for i, k := range p.all {
		at[k] = i
	}
	for _, s := range specs {
		k := p.child(s.Addr)
		groups[at[k]].Add = append(groups[at[k]].Add, s)
	}
	errs := make([]error, len(p.all))
	var wg sync.WaitGroup
	for i, k := range p.all {
		if len(groups[i].Add) > 0 {
			wg.Go(func() { _, errs[i] = k.ask(groups[i]) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// child returns the process that has the kubelet at addr, or is to have it.
func (p *Processes) child(addr netip.AddrPort) *child {
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
	_, err := p.child(addr).ask(request{Remove: addr.Addr()})
	return err
}

// SetFault makes the kubelet at addr do what the fault of that name is; none heals it.
func (p *Processes) SetFault(addr netip.AddrPort, name string) error {
	_, err := p.child(addr).ask(request{Faulty: addr.Addr(), Fault: name})
	return err
}

// Stats is the sum of all processes'.
func (p *Processes) Stats() (Stats, error) {
	var sum Stats
	for _, k := range p.all {
		r, err := k.ask(request{})
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

// PIDs are those of the processes.
func (p *Processes) PIDs() []int {
	var pids []int
	for _, k := range p.all {
		pids = append(pids, k.cmd.Process.Pid)
	}
	return pids
}

// Close ends the processes.
func (p *Processes) Close() {
	for _, k := range p.all {
		k.in.Close()
	}
	for _, k := range p.all {
		_ = k.cmd.Process.Kill() // connections of a server that hangs would keep it
		_ = k.cmd.Wait()
	}
}
