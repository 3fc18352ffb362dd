package measure

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

// self is this process.
var self = os.Getpid()

// server is the binary under test at work.
type server struct {
	cmd  *exec.Cmd
	url  string
	log  string // file
	done chan struct{}
	err  error // once done is closed
}

// startServer starts the binary as an administrator would, on loopback.
func startServer(dir, apiURL string, apiCA, kubeletCA []byte, o *Options) (*server, error) {
	for name, data := range map[string]string{
		"kubelets.crt": string(kubeletCA),
		"kubeconfig": fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: fleet
clusters: [{name: fleet, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: metrics-server, user: {token: %s}}]
contexts: [{name: fleet, context: {cluster: fleet, user: metrics-server}}]
`, apiURL, base64.StdEncoding.EncodeToString(apiCA), serverToken),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			return nil, err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	args := append([]string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--secure-port=" + port, "--cert-dir=" + filepath.Join(dir, "certificates"),
		"--kubelet-use-node-status-port", "--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + filepath.Join(dir, "kubelets.crt"),
		"--metric-resolution=" + o.Resolution.String(),
	}, o.Flags...)
	s := &server{
		cmd:  exec.Command(o.Binary, args...),
		url:  "https://127.0.0.1:" + port,
		log:  filepath.Join(dir, "server.log"),
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

func (s *server) pid() int { return s.cmd.Process.Pid }

// failure is err, or that the server has ended, if it has.
func (s *server) failure(err error) error {
	select {
	case <-s.done:
		return fmt.Errorf("the server has ended: %w\n%s", errors.Join(s.err, err), s.tail())
	default:
		return err
	}
}

// tail is the end of the server's log.
func (s *server) tail() string {
	b, _ := os.ReadFile(s.log)
	return string(b[max(0, len(b)-4000):])
}

// stop ends the server: kindly, for a profile may be written at the end.
func (s *server) stop() {
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
