// Package binary starts a metrics server on loopback, as an administrator would, and sends it requests. It works with
// any implementation.
package binary

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Config configures a Server.
type Config struct {
	Path       string        // of the program
	Custom     bool          // start its command custom-metrics
	Dir        string        // for its files; it exists
	Resolution time.Duration // --metric-resolution; not for Custom
	Flags      []string      // more of them

	APIServer   string // URL
	APIServerCA []byte // PEM
	KubeletCA   []byte // PEM; not for Custom
}

// Server is the running binary under test.
type Server struct {
	URL string

	cmd  *exec.Cmd
	log  string // file
	done chan struct{}
	err  error // once done is closed
}

// Start starts the binary. The caller must call Stop.
func Start(c *Config) (*Server, error) {
	for name, data := range map[string]string{
		"kubelets.crt": string(c.KubeletCA),
		"kubeconfig": fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: fleet
clusters: [{name: fleet, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: metrics-server, user: {token: %s}}]
contexts: [{name: fleet, context: {cluster: fleet, user: metrics-server}}]
`, c.APIServer, base64.StdEncoding.EncodeToString(c.APIServerCA), ServerToken),
	} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(data), 0o600); err != nil {
			return nil, err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(c.Dir, "kubeconfig")
	args := []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--secure-port=" + port, "--cert-dir=" + filepath.Join(c.Dir, "certificates"),
	}
	if c.Custom {
		args = append([]string{"custom-metrics"}, args...)
	} else {
		args = append(args, "--kubelet-use-node-status-port", "--kubelet-preferred-address-types=InternalIP",
			"--kubelet-certificate-authority="+filepath.Join(c.Dir, "kubelets.crt"),
			"--metric-resolution="+c.Resolution.String())
	}
	args = append(args, c.Flags...)
	s := &Server{
		cmd:  exec.Command(c.Path, args...),
		URL:  "https://127.0.0.1:" + port,
		log:  filepath.Join(c.Dir, "server.log"),
		done: make(chan struct{}),
	}
	out, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// PID returns the ID of the process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Failure returns err, or an error that says so if the server has exited.
func (s *Server) Failure(err error) error {
	select {
	case <-s.done:
		return fmt.Errorf("the server has exited: %w\n%s", errors.Join(s.err, err), s.Tail())
	default:
		return err
	}
}

// Log returns what the server has logged so far.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.log)
	return string(b)
}

// Tail returns the end of the server's log.
func (s *Server) Tail() string {
	all := s.Log()
	return all[max(0, len(all)-4000):]
}

// Stop ends the server gracefully, because it may write a profile at the end.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(15 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

func freePort() (string, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}
