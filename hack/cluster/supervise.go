package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// A supervisor is the parent of a cluster's processes and the only process whose id is saved: when
// it ends, all of them end. For a real node it is process 1 of the node's namespaces. It starts the
// processes that it is asked for over a socket in the state directory. It never restarts anything,
// so that a dead component is noticed.

const (
	socketName    = "supervisor.sock"
	supervisorEnv = "CLUSTER_SUPERVISOR"
	readyFD       = 3 // the supervisor writes its setupResult there
	extraFD       = 4 // for supervisorConfig.Forward or Follow, which exclude each other
)

// supervisorConfig is handed over in the environment.
type supervisorConfig struct {
	Dir        string // the state directory, as the supervisor's children see it
	Forward    string // extraFD listens on the host's loopback: where its connections go; "" = there is none
	Follow     bool   // extraFD is a pidfd: end when that process ends
	Namespaces *namespaces
}

// setupResult is how a new supervisor reports the result of its setup.
type setupResult struct {
	Error       string
	Snapshotter string // of containerd: what the state directory's file system can do
}

// Process is a component to start. Exported for net/rpc, like ProcessState. Its output goes to log/NAME.log.
type Process struct {
	Name string
	Args []string // Args[0] is the program's absolute path
	Env  []string
}

// ProcessState is the state of a process.
type ProcessState struct {
	Name   string
	PID    int    // as the supervisor sees it
	Frozen bool   // stopped by Freeze
	Ended  bool   // it ended although it should not have
	Result string // how it ended
}

func (s ProcessState) String() string {
	if s.Ended {
		return "ended: " + s.Result
	}
	if s.Frozen {
		return fmt.Sprintf("frozen, pid %d", s.PID)
	}
	return fmt.Sprintf("runs, pid %d", s.PID)
}

// supervisorLoop runs everything in one loop on one thread. It needs no locks, and a child's parent
// thread lives as long as the process, which is what the parent-death signal depends on.
type supervisorLoop struct {
	dir    string
	states []ProcessState
	do     chan func()
}

// supervise runs the supervisor until it ends.
func supervise() error {
	var config supervisorConfig
	if err := json.Unmarshal([]byte(os.Getenv(supervisorEnv)), &config); err != nil {
		return fmt.Errorf("supervise is for this program's own use: %s: %w", supervisorEnv, err)
	}
	runtime.LockOSThread() // for the parent-death signal of the children
	ready := os.NewFile(readyFD, "ready")
	fail := func(err error) error {
		return errors.Join(err, json.NewEncoder(ready).Encode(setupResult{Error: err.Error()}))
	}
	var result setupResult
	if config.Namespaces != nil {
		var err error
		if result.Snapshotter, err = config.Namespaces.setUp(config); err != nil {
			return fail(err)
		}
	}

	signals := make(chan os.Signal, 16)
	signal.Reset() // process 1 ignores what it does not handle; only SIGTERM is meant for us
	signal.Ignore(os.Interrupt, syscall.SIGHUP)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGCHLD)
	s := &supervisorLoop{dir: config.Dir, do: make(chan func())}
	server := rpc.NewServer()
	if err := server.RegisterName("Supervisor", &remote{s}); err != nil {
		return fail(err)
	}
	socket := filepath.Join(config.Dir, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) { // of a node that was killed
		return fail(err)
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", socket)
	if err != nil {
		return fail(err)
	}
	go server.Accept(listener)
	if config.Forward != "" {
		file := os.NewFile(extraFD, "listener")
		outside, err := net.FileListener(file)
		if err != nil {
			return fail(err)
		}
		file.Close()
		go forward(outside, config.Forward)
	}
	if config.Follow {
		syscall.CloseOnExec(extraFD)
		go func() {
			waitPidfd(extraFD)
			os.Exit(1)
		}()
	}
	if err := json.NewEncoder(ready).Encode(result); err != nil {
		return err
	}
	ready.Close()

	for {
		select {
		case f := <-s.do:
			f()
		case sig := <-signals:
			if sig == syscall.SIGTERM {
				s.end()
				return nil
			}
			s.reap()
		}
	}
}

// start runs p.
func (s *supervisorLoop) start(p Process) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log", p.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	child, err := os.StartProcess(p.Args[0], p.Args, &os.ProcAttr{
		Dir: s.dir, Env: p.Env, Files: []*os.File{null, log, log}, Sys: childAttr(),
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	s.states = append(s.states, ProcessState{Name: p.Name, PID: child.Pid})
	return child.Release() // reap waits for it
}

// reap collects every child that has ended, adopted ones too: process 1 inherits containerd's shims.
func (s *supervisorLoop) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
		for i := range s.states {
			if st := &s.states[i]; st.PID == pid && !st.Ended {
				st.Ended, st.Result = true, exitText(status)
			}
		}
	}
}

// signal sends sig to a process and reports whether it still runs; one that has ended is forgotten.
func (s *supervisorLoop) signal(name string, sig syscall.Signal) bool {
	running := false
	s.states = slices.DeleteFunc(s.states, func(st ProcessState) bool {
		if st.Name == name && !st.Ended {
			running = true
			_ = syscall.Kill(-st.PID, sig) // it may have ended just now: reap will say so
		}
		return st.Name == name && st.Ended
	})
	return running
}

func exitText(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// end kills the children and waits for them. Whatever they leave is thrown away, so none needs time
// to clean up. In a PID namespace the kernel also kills all their children when process 1 ends.
func (s *supervisorLoop) end() {
	if os.Getpid() == 1 {
		return
	}
	for _, st := range s.states {
		if !st.Ended {
			_ = syscall.Kill(-st.PID, syscall.SIGKILL) // it may have ended just now
		}
	}
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// remote has the methods that callers use over the socket.
type remote struct{ s *supervisorLoop }

// Start starts a process.
func (r *remote) Start(p Process, _ *struct{}) error {
	result := make(chan error)
	r.s.do <- func() { result <- r.s.start(p) }
	return <-result
}

// Stop ends a process and forgets it, so that another one with its name can be started. If there is
// no such process, it does nothing.
func (r *remote) Stop(name string, _ *struct{}) error {
	for sig := syscall.SIGTERM; ; sig = syscall.SIGKILL {
		for range 100 {
			running := make(chan bool)
			r.s.do <- func() { running <- r.s.signal(name, sig) }
			if !<-running {
				return nil
			}
			sig = 0 // once is enough
			if err := sleep(context.Background(), 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// Freeze stops a process without ending it, or lets it go on.
func (r *remote) Freeze(args FreezeArgs, _ *struct{}) error {
	sig := syscall.SIGCONT
	if args.Freeze {
		sig = syscall.SIGSTOP
	}
	running := make(chan bool)
	r.s.do <- func() {
		ok := r.s.signal(args.Name, sig)
		for i := range r.s.states {
			if r.s.states[i].Name == args.Name {
				r.s.states[i].Frozen = args.Freeze
			}
		}
		running <- ok
	}
	if !<-running {
		return fmt.Errorf("%s does not run", args.Name)
	}
	return nil
}

// FreezeArgs are the arguments of Freeze.
type FreezeArgs struct {
	Name   string
	Freeze bool
}

// Status lists the processes in the order of their start.
func (r *remote) Status(_ struct{}, states *[]ProcessState) error { //nolint:unparam // net/rpc wants it
	done := make(chan struct{})
	r.s.do <- func() { *states = append(*states, r.s.states...); close(done) }
	<-done
	return nil
}

// Reach reports whether something listens at address, in the supervisor's network.
func (*remote) Reach(address [2]string, _ *struct{}) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).Dial(address[0], address[1])
	if err == nil {
		err = conn.Close()
	}
	return err
}

// supervisor is the caller's side of remote.
type supervisor struct{ socket string }

func (s supervisor) call(method string, args, reply any) error {
	client, err := rpc.Dial("unix", s.socket)
	if err != nil {
		return fmt.Errorf("the cluster's supervisor does not answer: %w", err)
	}
	defer client.Close()
	return client.Call("Supervisor."+method, args, reply)
}

func (s supervisor) start(p Process) error { return s.call("Start", p, &struct{}{}) }

func (s supervisor) stop(name string) error { return s.call("Stop", name, &struct{}{}) }

func (s supervisor) freeze(name string, freeze bool) error {
	return s.call("Freeze", FreezeArgs{name, freeze}, &struct{}{})
}

func (s supervisor) reach(network, address string) error {
	return s.call("Reach", [2]string{network, address}, &struct{}{})
}

func (s supervisor) status() (states []ProcessState, err error) {
	err = s.call("Status", struct{}{}, &states)
	return states, err
}

// forward accepts connections on a listener in the host's network and connects them to an address
// in this network.
func forward(listener net.Listener, to string) {
	for {
		outside, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer outside.Close()
			inside, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
			if err != nil {
				return
			}
			defer inside.Close()
			go func() {
				_, _ = io.Copy(inside, outside) // whoever broke it knows why
				_ = inside.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(outside, inside)
		}()
	}
}
