// Package child runs parts of the fleet in separate processes, so that their CPU time, memory and
// open files do not count for the process that measures. A child is this same program with one
// argument that main knows; it reads requests from its standard input and writes a reply to each to
// its standard output.
package child

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// Process is a child. Its methods may be called from any goroutine.
type Process struct {
	cmd *exec.Cmd // nil: there is no process
	in  io.Closer

	mu  sync.Mutex // one request at a time
	enc *gob.Encoder
	dec *gob.Decoder
}

// Start starts this program with an argument. It ends with Close, or with this process.
func Start(ctx context.Context, argument string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, argument)
	cmd.Stderr = os.Stderr
	// It ends with this process, however that ends, but not earlier by the terminal's Ctrl-C.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := Attach(in, out)
	p.cmd = cmd
	return p, nil
}

// Attach returns the other end of a Serve that reads from in and writes to out.
func Attach(in io.WriteCloser, out io.Reader) *Process {
	return &Process{in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
}

// Ask sends a request and reads the reply.
func (p *Process) Ask(request, reply any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.enc.Encode(request)
	if err == nil {
		err = p.dec.Decode(reply)
	}
	if err != nil {
		return fmt.Errorf("a process of the fleet does not answer: %w", err)
	}
	return nil
}

// PID returns the ID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Close ends the process.
func (p *Process) Close() {
	p.in.Close()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // a server that hangs would keep its connections
		_ = p.cmd.Wait()
	}
}

// Serve answers the requests in in until there are no more.
func Serve[Request, Reply any](in io.Reader, out io.Writer, answer func(*Request) *Reply) error {
	enc, dec := gob.NewEncoder(out), gob.NewDecoder(in)
	for {
		var q Request
		if err := dec.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := enc.Encode(answer(&q)); err != nil {
			return err
		}
	}
}
