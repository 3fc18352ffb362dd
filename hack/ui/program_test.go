//go:build browser

package ui

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"metrics-server/hack/ui/apiserver"
)

// binary builds the program once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../bin/ui-test")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "metrics-server")
	cmd := exec.Command("go", "build", "-o", file, "./cmd/metrics-server")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return file, nil
})

// program is `metrics-server ui` at work. Make it with run.
type program struct {
	t      *testing.T
	url    string // that it printed, with the token
	origin string
	cmd    *exec.Cmd

	mu   sync.Mutex
	said bytes.Buffer
	done chan struct{}
}

var printedURL = regexp.MustCompile(`(http://[^/\s]+)/\?token=\S+`)

// run starts the program for a cluster, until the test ends.
func run(t *testing.T, s *apiserver.Server, flags ...string) *program {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, s.Kubeconfig(), 0o600); err != nil {
		t.Fatal(err)
	}
	u := &program{t: t, cmd: exec.Command(file, append([]string{"ui", "--kubeconfig", kubeconfig}, flags...)...)}
	u.done = make(chan struct{})
	// Nothing outlives the tests, even if they are killed.
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	u.cmd.Env = append(os.Environ(), "HOME="+dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	u.cmd.Stdout, u.cmd.Stderr = w, w
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the program has its own
	found := make(chan []string, 1)
	go func() {
		defer close(u.done)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			u.mu.Lock()
			u.said.WriteString(lines.Text() + "\n")
			u.mu.Unlock()
			if m := printedURL.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case found <- m:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		u.stop()
		if t.Failed() {
			u.mu.Lock()
			defer u.mu.Unlock()
			t.Logf("the program said:\n%s", u.said.String())
		}
	})
	select {
	case m := <-found:
		u.url, u.origin = m[0], m[1]
	case <-u.done:
		t.Fatalf("the program ended without a URL: %s", strings.TrimSpace(u.said.String()))
	case <-time.After(patience):
		t.Fatal("the program printed no URL")
	}
	return u
}

// stop ends the program, as Ctrl-C does.
func (u *program) stop() {
	if u.cmd.ProcessState != nil {
		return
	}
	_ = u.cmd.Process.Signal(os.Interrupt) // it may have ended
	killed := time.AfterFunc(20*time.Second, func() {
		u.t.Error("the program does not end when it is interrupted")
		_ = u.cmd.Process.Kill()
	})
	_ = u.cmd.Wait()
	killed.Stop()
	<-u.done
}

// signal sends a signal to the program, which must run.
func (u *program) signal(s os.Signal) {
	u.t.Helper()
	if err := u.cmd.Process.Signal(s); err != nil {
		u.t.Fatal(err)
	}
}

// serve serves a fake cluster until the test ends.
func serve(t *testing.T, c apiserver.Config) *apiserver.Server {
	t.Helper()
	s, err := apiserver.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// small is a cluster that is scraped often.
func small() apiserver.Config {
	return apiserver.Config{Nodes: 4, PodsPerNode: 10, HPAs: 2, Period: 3 * time.Second}
}

// memory returns what the kernel says of the program's memory.
func (u *program) memory() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", u.cmd.Process.Pid))
	if err != nil {
		u.t.Error(err)
	}
	return strings.Join(regexp.MustCompile(`(?m)^Vm(HWM|RSS):.*kB$`).FindAllString(string(b), -1), ", ")
}
