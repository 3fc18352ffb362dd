package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// machine is the state directory of one supervisor and of the processes that it runs, as the host
// sees it. It belongs to a real node, or to a whole cluster with simulated kubelets.
type machine struct{ dir string }

// path is a path within the state directory.
func (m machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

func (m machine) supervisor() supervisor { return supervisor{m.path(socketName)} }

// makeDirs makes the directories that the components expect.
func (m machine) makeDirs() error {
	for _, dir := range []string{"log", "conf", "tmp"} {
		if err := os.MkdirAll(m.path(dir), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// supervisorID distinguishes a supervisor's process from a later one with the same process id.
type supervisorID struct {
	Supervisor int    `json:"supervisor"` // its process id, seen from the host
	Started    string `json:"started"`    // when that process started
}

func (s supervisorID) runs() bool {
	return s.Supervisor != 0 && processStart(s.Supervisor) == s.Started
}

// end ends the supervisor, and with it everything that it runs. It sends signals in order until one
// of them works within ten seconds.
func (s supervisorID) end(signals ...syscall.Signal) error {
	for _, sig := range signals {
		if !s.runs() {
			return nil
		}
		if err := syscall.Kill(s.Supervisor, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the supervisor, process %d: %w", s.Supervisor, err)
		}
		for end := time.Now().Add(10 * time.Second); s.runs() && time.Now().Before(end); {
			if err := sleep(context.Background(), 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	if s.runs() {
		return fmt.Errorf("the supervisor, process %d, does not end", s.Supervisor)
	}
	return nil
}

// setupError reports that the namespaces of a real node cannot be set up, so that kubelets must be simulated.
type setupError struct{ reason string }

func (e *setupError) Error() string { return e.reason }

var supervisorArgs = []string{"supervise"} // a test has others

// launchSupervisor starts the supervisor and waits until it has set itself up.
// It calls started as soon as there is a process to record. The process inherits file, which may be nil, as extraFD.
func (m machine) launchSupervisor(
	ctx context.Context, config supervisorConfig, file *os.File, started func(supervisorID) error,
) (setupResult, error) {
	var result setupResult
	self, err := os.Executable()
	if err != nil {
		return result, err
	}
	env, err := json.Marshal(config)
	if err != nil {
		return result, err
	}
	log, err := os.Create(m.path("log", "supervisor.log"))
	if err != nil {
		return result, err
	}
	defer log.Close()
	read, ready, err := os.Pipe()
	if err != nil {
		return result, err
	}
	defer read.Close()

	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, supervisorArgs...) // it outlives this command
	cmd.Env = append(os.Environ(), supervisorEnv+"="+string(env))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{ready} // readyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if config.Namespaces != nil {
		inNamespaces(cmd)
	}
	if file != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, file) // extraFD
	}
	err = cmd.Start()
	ready.Close()
	if err != nil {
		if config.Namespaces != nil {
			err = &setupError{fmt.Sprintf("new namespaces: %v", err)}
		}
		return result, err
	}
	go func() { _ = cmd.Wait() }() // if it ends before this command does, it must not stay a zombie
	if err := started(supervisorID{cmd.Process.Pid, awaitStart(cmd.Process.Pid, processStart)}); err != nil {
		return result, errors.Join(err, cmd.Process.Kill())
	}
	stop := context.AfterFunc(ctx, func() { read.Close() })
	defer stop()
	if err := json.NewDecoder(read).Decode(&result); err != nil {
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
		return result, fmt.Errorf("the supervisor ended early: %w\n%s", err, tail(log.Name(), 20))
	}
	if result.Error != "" {
		return result, &setupError{result.Error}
	}
	return result, nil
}

// awaitStart returns what read, processStart but for tests, says of a new process. It has been seen to fail once for
// a process that ran; the node then counted as down, and got no images.
func awaitStart(pid int, read func(int) string) (start string) {
	for range 100 {
		if start = read(pid); start != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return start
}

func (m machine) startProcesses(processes ...Process) error {
	for _, p := range processes {
		if err := m.supervisor().start(p); err != nil {
			return err
		}
	}
	return nil
}

// wait is waitUntil that fails when any component has ended, and ends its error with the log of the component to blame.
func (m machine) wait(ctx context.Context, title, component string, limit time.Duration,
	ready func(context.Context) error,
) error {
	err := waitUntil(ctx, title, limit, ready, m.ended)
	if errors.Is(err, errNotReady) {
		err = fmt.Errorf("%w; the end of the log of %s:\n%s", err, component, tail(m.path("log", component+".log"), 20))
	}
	return err
}

// ended is an error if a component has ended, with the end of its log.
func (m machine) ended() error {
	states, err := m.supervisor().status()
	if err != nil {
		return err
	}
	for _, s := range states {
		if s.Ended {
			return fmt.Errorf("%s %s; the end of its log:\n%s", s.Name, s, tail(m.path("log", s.Name+".log"), 20))
		}
	}
	return nil
}

var errNotReady = errors.New("not ready")

// waitUntil shows title until ready returns nil. It fails when failed does, and with errNotReady when the time is over.
func waitUntil(ctx context.Context, title string, limit time.Duration,
	ready func(context.Context) error, failed func() error,
) error {
	return step(title, func(p *progress) error {
		for deadline := time.Now().Add(limit); ; {
			err := ready(ctx)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.updatef("%s", firstLine(err))
			if err := failed(); err != nil {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %w after %s: %w", title, errNotReady, limit, err)
			}
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
	})
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
