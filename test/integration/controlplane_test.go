//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"metrics-server/pkg/kubelet/kubelettest"
)

// patience is how long anything here may take, because machines are shared and slow.
const patience = 2 * time.Minute

// proxyName is the name in the certificate of the cluster's front proxy, the kube-apiserver's
// aggregator.
const proxyName = "front-proxy-client"

// cluster is a control plane without nodes and controllers, for all tests of this package.
var cluster controlPlane

type controlPlane struct {
	dir, assets string
	binary      string          // metrics-server
	ca          *kubelettest.CA // of kubelets and of clients
	frontProxy  *kubelettest.CA // signs for the aggregator
	admin       *rest.Config
	client      kubernetes.Interface

	mu    sync.Mutex
	procs []*process
}

func TestMain(m *testing.M) {
	if url := os.Getenv(probeVariable); url != "" {
		probe(url, os.Stdout)
		return
	}
	flag.Parse()
	code := 1
	// Those that may run at the same time mostly wait.
	err := flag.Set("test.parallel", "6")
	if err == nil {
		err = cluster.start()
	}
	if err == nil {
		code = m.Run()
	}
	err = errors.Join(err, cluster.stop())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func (c *controlPlane) start() (err error) {
	c.assets = os.Getenv("KUBE_ASSETS_DIR")
	if c.assets == "" {
		return errors.New("KUBE_ASSETS_DIR is not set: run these tests by `make test-integration`")
	}
	if c.dir, err = os.MkdirTemp("", "metrics-server-integration-"); err != nil {
		return err
	}
	c.binary = c.path("metrics-server")
	build := exec.Command(
		"go", "build", "-trimpath", "-buildvcs=false", "-tags=grpcnotrace", "-o", c.binary,
		"metrics-server/cmd/metrics-server",
	)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build metrics-server: %w\n%s", err, out)
	}

	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	etcd, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	if _, err = c.run("etcd", filepath.Join(c.assets, "etcd"),
		"--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer); err != nil {
		return err
	}

	c.ca = kubelettest.NewCA("cluster")
	c.frontProxy = kubelettest.NewCA("front-proxy")
	serving := c.ca.Server("127.0.0.1", "localhost")
	servingKey, err := x509.MarshalPKCS8PrivateKey(serving.PrivateKey)
	if err != nil {
		return err
	}
	tokenKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	proxyCert, proxyKey := c.frontProxy.Client(proxyName)
	for name, data := range map[string][]byte{
		"ca.crt":        c.ca.PEM(),
		"client-ca.crt": c.ca.PEM(),
		"proxy-ca.crt":  c.frontProxy.PEM(),
		"proxy.crt":     proxyCert,
		"proxy.key":     proxyKey,
		"apiserver.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serving.Certificate[0]}),
		"apiserver.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: servingKey}),
		"audit.yaml":    []byte(auditPolicy),
		"sa.key": pem.EncodeToMemory(
			&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(tokenKey)},
		),
	} {
		if err := c.write(name, data); err != nil {
			return err
		}
	}
	if _, err = c.run("kube-apiserver", filepath.Join(c.assets, "kube-apiserver"), "--etcd-servers="+etcd,
		"--bind-address=127.0.0.1", "--secure-port="+ports[2], "--service-cluster-ip-range=10.96.0.0/16",
		"--cert-dir="+c.path("apiserver"), "--client-ca-file="+c.path("client-ca.crt"),
		"--tls-cert-file="+c.path("apiserver.crt"), "--tls-private-key-file="+c.path("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file="+c.path("sa.key"), "--service-account-key-file="+c.path("sa.key"),
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
		"--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+c.path("audit.log"),
		"--requestheader-client-ca-file="+c.path("proxy-ca.crt"), "--requestheader-allowed-names="+proxyName,
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+c.path("proxy.crt"), "--proxy-client-key-file="+c.path("proxy.key")); err != nil {
		return err
	}

	cert, key := c.ca.Client("admin", "system:masters")
	c.admin = &rest.Config{
		Host:            "https://127.0.0.1:" + ports[2],
		QPS:             1000,
		Burst:           1000,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.PEM(), CertData: cert, KeyData: key},
	}
	if err := c.writeKubeconfig(
		"admin.kubeconfig", c.admin.Host, &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key},
	); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.admin); err != nil {
		return err
	}
	err = poll(func() error {
		_, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err
	})
	if err != nil {
		return fmt.Errorf("kube-apiserver is not ready: %w\n%s", err, c.procs[1].tail())
	}
	// The objects that an administrator applies: what is tested here runs with their rights.
	if out, err := c.kubectl("apply", "-k", "../../deploy/kustomize/base"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// auditPolicy makes the API server record the requests of the servers.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:kube-system:metrics-server", "system:serviceaccount:kube-system:custom-metrics-server"]
- level: None
`

func (c *controlPlane) stop() error {
	var errs []error
	for _, p := range slices.Backward(c.procs) {
		errs = append(errs, p.kill())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

func (c *controlPlane) path(name string) string { return filepath.Join(c.dir, name) }

// write replaces the contents of a file with data atomically.
func (c *controlPlane) write(name string, data []byte) error {
	next := c.path(name + ".next")
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.path(name))
}

// kubectl runs the real kubectl as the cluster's administrator and returns what it printed.
func (c *controlPlane) kubectl(args ...string) (string, error) {
	args = append([]string{"--kubeconfig=" + c.path("admin.kubeconfig"), "--cache-dir=" + c.path("kubectl")}, args...)
	out, err := exec.Command(filepath.Join(c.assets, "kubectl"), args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %q: %w", args[2:], err)
	}
	return string(out), err
}

func (c *controlPlane) writeKubeconfig(name, server string, user *clientcmdapi.AuthInfo) error {
	k := clientcmdapi.NewConfig()
	k.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.ca.PEM()}
	k.AuthInfos["u"] = user
	k.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	k.CurrentContext = "c"
	return clientcmd.WriteToFile(*k, c.path(name))
}

// process is a program in the background.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // then

	mu  sync.Mutex
	out bytes.Buffer
}

func (c *controlPlane) run(name, program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	// Nothing outlives the tests, even if they are killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.procs = append(c.procs, p)
	c.mu.Unlock()
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *process) tail() string {
	out := p.output()
	return fmt.Sprintf("--- %s said:\n%s", p.name, out[max(0, len(out)-8000):])
}

func (p *process) kill() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return err
}

// poll calls f until it returns nil, or returns its last error when patience ends.
func poll(f func() error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("still not so after %v: %w", patience, err)
}

// hold fails t if f returns an error at any time of a period.
func hold(t *testing.T, what string, period time.Duration, f func() error) {
	t.Helper()
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// eventually fails t if f does not return nil in time.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	if err := poll(f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// lastPort is the port that freePorts returned last. Its ports are below the range from which the
// kernel chooses ports for other listeners and for outgoing connections, so that none of these takes
// a port between its choice and its use. The first one depends on the process, for runs in parallel.
var lastPort = 20_000 + os.Getpid()%10_000

var portMu sync.Mutex

// freePorts returns n ports of 127.0.0.1 on which nobody listens.
func freePorts(n int) (ports []string, err error) {
	portMu.Lock()
	defer portMu.Unlock()
	for len(ports) < n {
		lastPort++
		if lastPort == 32_768 {
			return nil, fmt.Errorf("no port below %d is free: %w", lastPort, err)
		}
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(lastPort)); err == nil {
			_ = l.Close()
			ports = append(ports, strconv.Itoa(lastPort))
		}
	}
	return ports, nil
}

// insecure is a client for servers with self-signed certificates.
func insecure() *http.Client {
	return &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
}
