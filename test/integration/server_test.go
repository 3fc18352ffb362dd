//go:build integration

package integration

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"metrics-server/pkg/kubelet/kubelettest"
)

// token returns a token of a service account, and creates the account if necessary.
func token(t *testing.T, namespace, name string) string {
	t.Helper()
	accounts := cluster.client.CoreV1().ServiceAccounts(namespace)
	_, err := accounts.Create(
		t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{},
	)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	r, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

// fakeNode is a node of the cluster with a fake kubelet.
type fakeNode struct {
	name    string
	says    *kubelettest.Node
	kubelet *kubelettest.Kubelet
	server  *kubelettest.Server
}

// fleet is a set of nodes with the label fleet=name, and the service account of the server that scrapes them.
type fleet struct {
	name   string
	token  string
	api    string            // where the server finds the API server
	env    []string          // of the server, in addition to this process's
	labels map[string]string // of generated nodes and pods
	nodes  []*fakeNode
}

// newFleet creates nodes with fake kubelets, and their pods. Timestamps are the times of requests,
// so that a usage needs no more than two scrapes.
func newFleet(t *testing.T, nodes, pods int) *fleet {
	t.Helper()
	f := &fleet{name: label(t.Name()), token: token(t, "kube-system", "metrics-server"), api: cluster.admin.Host}
	f.labels = map[string]string{"fleet": f.name}
	for i := range nodes {
		f.nodes = append(f.nodes, f.newNode(t, i, pods))
	}
	return f
}

// newNode makes one more node, the i-th.
func (f *fleet) newNode(t *testing.T, i, pods int) *fakeNode {
	t.Helper()
	n := f.made(i, pods)
	f.serve(t, n, i%2 == 1)
	f.register(t, n)
	return n
}

// node returns the fleet's next node, which must be added.
func (f *fleet) node(pods int) *fakeNode {
	n := f.made(len(f.nodes), pods)
	n.kubelet = &kubelettest.Kubelet{Answer: n.says.Append}
	return n
}

// add starts the kubelet of n and makes n a node of the cluster.
func (f *fleet) add(t *testing.T, n *fakeNode, c kubelettest.ServerConfig) {
	t.Helper()
	var err error
	if n.server, err = kubelettest.Serve(n.kubelet, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.server.Close)
	f.register(t, n)
	f.nodes = append(f.nodes, n)
}

// made returns the i-th node without a kubelet.
func (f *fleet) made(i, pods int) *fakeNode {
	n := &fakeNode{
		name: fmt.Sprintf("%s-%d", f.name, i),
		says: kubelettest.NewNode(kubelettest.NodeConfig{
			Seed: hash(f.name) + uint64(i), Pods: pods, Containers: 2, Boot: time.Now().Add(-time.Hour), RequestTime: true,
		}),
	}
	return n
}

// serve starts the kubelet of n.
func (f *fleet) serve(t *testing.T, n *fakeNode, http2 bool) {
	t.Helper()
	n.kubelet = &kubelettest.Kubelet{Answer: n.says.Append, Authenticate: true}
	n.kubelet.SetToken(f.token)
	var err error
	if n.server, err = kubelettest.Serve(
		n.kubelet, kubelettest.ServerConfig{Certificate: cluster.ca.Server("127.0.0.1"), HTTP2: http2},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.server.Close)
}

// label converts a test's name to a valid label of nodes.
func label(test string) string {
	return strings.NewReplacer("/", "-", "_", "-").Replace(strings.ToLower(test))
}

func hash(s string) (h uint64) {
	for _, b := range []byte(s) {
		h = h*31 + uint64(b)
	}
	return h
}

// register creates the objects of n and its pods in the API server, and deletes them after the test.
func (f *fleet) register(t *testing.T, n *fakeNode) {
	t.Helper()
	f.registerNode(t, n)
	for _, c := range n.says.Containers() {
		f.addPod(t, c.Namespace, c.Pod, n.name)
	}
}

func (f *fleet) registerNode(t *testing.T, n *fakeNode) {
	t.Helper()
	ctx, core := context.Background(), cluster.client.CoreV1()
	node, err := core.Nodes().Create(
		ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: maps.Clone(f.labels)}},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = core.Nodes().Delete(ctx, n.name, metav1.DeleteOptions{}) })
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "no-such-host.invalid"},
		{Type: corev1.NodeInternalIP, Address: n.server.Host()},
	}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(n.server.Port())
	if _, err := core.Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// addPod creates a running pod, if it does not exist yet.
func (f *fleet) addPod(t *testing.T, namespace, name, node string) {
	t.Helper()
	ctx, core := context.Background(), cluster.client.CoreV1()
	_, err := core.Namespaces().Create(
		ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{},
	)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	pod, err := core.Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: maps.Clone(f.labels)},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "c0", Image: "none"}, {Name: "c1", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return // by another of its containers
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deletePod(namespace, name) })
	pod.Status.Phase = corev1.PodRunning
	if _, err := core.Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func deletePod(namespace, name string) {
	now := int64(0)
	_ = cluster.client.CoreV1().Pods(namespace).Delete(
		context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &now},
	)
}

// metricsServer is the real binary at work for a fleet.
type metricsServer struct {
	*process
	url  string
	port string
	http *http.Client
}

// startServer starts the binary with the rights of its service account, at a resolution of a second, for f's nodes.
func startServer(t *testing.T, f *fleet, args ...string) *metricsServer {
	t.Helper()
	return f.start(t, "", append([]string{
		"--kubelet-use-node-status-port", "--metric-resolution=1s",
		"--kubelet-certificate-authority=" + cluster.path("ca.crt"), "--node-selector=fleet=" + f.name,
	}, args...)...)
}

// start starts a command of the binary, "" for the resource server, with the rights of f's service account.
func (f *fleet) start(t *testing.T, command string, args ...string) *metricsServer {
	t.Helper()
	if err := cluster.writeKubeconfig(f.name+".kubeconfig", f.api, &clientcmdapi.AuthInfo{Token: f.token}); err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	program := append(slices.Clone(f.env), cluster.binary)
	if command != "" {
		program = append(program, command)
	}
	p, err := cluster.run("metrics-server", "/usr/bin/env", slices.Concat(program, []string{
		"--kubeconfig=" + cluster.path(f.name+".kubeconfig"), "--secure-port=" + ports[0], "--bind-address=127.0.0.1",
		"--cert-dir=" + filepath.Join(cluster.dir, f.name),
	}, args)...)
	if err != nil {
		t.Fatal(err)
	}
	s := &metricsServer{process: p, url: "https://127.0.0.1:" + ports[0], port: ports[0], http: insecure()}
	t.Cleanup(func() {
		_ = p.kill()
		if t.Failed() {
			t.Log(p.tail())
		}
	})
	eventually(t, "/livez", func() error { return s.ok("/livez") })
	return s
}

// aggregator is held by the test to whose server the API services lead.
var aggregator sync.Mutex

// aggregate makes the kube-apiserver's aggregator send requests to s until the test ends. It
// verifies the serving certificate if an authority is given.
func (s *metricsServer) aggregate(t *testing.T, authority []byte) {
	t.Helper()
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	trust := `"insecureSkipTLSVerify":true,"caBundle":null`
	if authority != nil {
		trust = `"insecureSkipTLSVerify":false,"caBundle":"` + base64.StdEncoding.EncodeToString(authority) + `"`
	}
	patchAPIServices(t, trust)
	s.lead(t)
}

// patchAPIServices changes fields of the specifications of both API services. The caller must hold
// aggregator.
func patchAPIServices(t *testing.T, fields string) {
	t.Helper()
	for _, version := range []string{"v1", "v1beta1"} {
		kubectl(t, "patch", "apiservice", version+".metrics.k8s.io", "--type=merge", "-p", `{"spec":{`+fields+`}}`)
	}
}

// lead makes the API services lead to s, and waits until they are available.
func (s *metricsServer) lead(t *testing.T) {
	t.Helper()
	// The Service of deploy/ selects pods, but there are none here: a Service that leads to this process replaces it.
	until := func(condition string) {
		for _, version := range []string{"v1", "v1beta1"} {
			kubectl(t, "wait", "--for=condition="+condition, "apiservice/"+version+".metrics.k8s.io", "--timeout=2m")
		}
	}
	kubectl(t, "delete", "service", "-n", "kube-system", "metrics-server")
	until("Available=false") // otherwise the next wait would accept the status of another server
	kubectl(t, "create", "service", "externalname", "-n", "kube-system", "metrics-server", "--external-name=localhost")
	patchAPIServices(t, `"service":{"port":`+s.port+`}`)
	until("Available")
	eventually(t, "the aggregator leads to the server", func() error {
		for _, version := range []string{"v1", "v1beta1"} {
			if out, err := cluster.kubectl("get", "--raw", "/apis/metrics.k8s.io/"+version); err != nil {
				status, _ := cluster.kubectl("get", "apiservice", version+".metrics.k8s.io", "-o", "jsonpath={.status}")
				return fmt.Errorf("%w\n%s\n%s", err, out, status)
			}
		}
		return nil
	})
}

// get sends a request to the server itself, not through the aggregator.
func (s *metricsServer) get(path, token string, header ...string) (int, string, error) {
	req, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	r, err := s.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

func (s *metricsServer) ok(path string) error {
	code, body, err := s.get(path, "")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, code, body)
	}
	return err
}

func (s *metricsServer) ready(t *testing.T) {
	t.Helper()
	eventually(t, "/readyz", func() error { return s.ok("/readyz") })
}

// terminate sends SIGTERM.
func (s *metricsServer) terminate(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// list returns the items of a list as the server itself answers it.
func (s *metricsServer) list(t *testing.T, token, path string) map[string]item {
	t.Helper()
	items, err := s.items(path, token)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// items is like list, for callers that cannot continue after an error.
func (s *metricsServer) items(path, token string, header ...string) (map[string]item, error) {
	code, body, err := s.get(path, token, header...)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusTooManyRequests:
		return nil, fmt.Errorf("%s: %w: %s", path, errTurnedAway, body)
	case code != http.StatusOK:
		return nil, fmt.Errorf("%s: %d %s", path, code, body)
	}
	var l struct{ Items []item }
	if err := json.Unmarshal([]byte(body), &l); err != nil {
		return nil, err
	}
	items := map[string]item{}
	for _, i := range l.Items {
		items[i.Metadata.Namespace+"/"+i.Metadata.Name] = i
	}
	return items, nil
}

// errTurnedAway is the error for a server that is overloaded and asks the client to retry.
var errTurnedAway = errors.New("too many requests")

// item is a NodeMetrics or a PodMetrics, with quantities as they were written.
type item struct {
	Metadata   metav1.ObjectMeta
	Timestamp  metav1.Time
	Window     metav1.Duration
	Usage      map[string]string
	Containers []containerUsage
}

type containerUsage struct {
	Name  string
	Usage map[string]string
}
