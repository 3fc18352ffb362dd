package main

import (
	"embed"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
)

// Addresses of a cluster with real kubelets. They exist in its own network namespaces only.
const (
	controlPlaneIP = "10.99.0.1"    // also the first node's
	podCIDR        = "10.88.0.0/16" // of all nodes
	serviceCIDR    = "10.96.0.0/16"
	serviceIP      = "10.96.0.1" // of the API server
	// with another path the kubelet's cAdvisor does not know the containers
	containerdSock = "/run/containerd/containerd.sock"
)

// layout is how the components of one cluster find each other and their files.
type layout struct {
	Mode          mode
	Dir, Bin      string // state directory and built programs, as the components see them
	APIServer     string // host:port, like the next two
	Etcd, Peer    string
	MetricsServer string // run as a process next to simulated kubelets
	Snapshotter   string // of containerd
	Version       string // of Kubernetes
	Options       options
}

func (l layout) url() string { return "https://" + l.APIServer }

// at is a file in the state directory.
func (l layout) at(elem ...string) string { return path.Join(append([]string{l.Dir}, elem...)...) }

// program makes the process of a built program.
func (l layout) program(name string, args ...string) Process {
	env := []string{
		"PATH=" + l.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"TMPDIR=" + l.at("tmp"), "HOME=" + l.at("tmp"), // nothing outside the state directory
	}
	return Process{Name: name, Args: append([]string{path.Join(l.Bin, name)}, args...), Env: env}
}

func (l layout) etcdProcess() Process {
	client, peer := "http://"+l.Etcd, "http://"+l.Peer
	return l.program("etcd", "--name=dev", "--data-dir="+l.at("etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=dev="+peer,
		"--unsafe-no-fsync") // the state is thrown away
}

func (l layout) apiServerProcess() Process {
	host, port, _ := net.SplitHostPort(l.APIServer)
	pki := func(name string) string { return l.at("pki", name) }
	args := []string{
		"--etcd-servers=http://" + l.Etcd,
		"--advertise-address=" + host, "--secure-port=" + port, "--service-cluster-ip-range=" + serviceCIDR,
		"--client-ca-file=" + pki("ca.crt"),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + pki("service-account.key"),
		"--service-account-key-file=" + pki("service-account.pub"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
		// Aggregation: how the API server tells an aggregated server whose request it forwards, and
		// proves that it may.
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + pki("front-proxy-client.key"),
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
	}
	if l.Mode == realKubelet {
		// With aggregator routing, requests go to the endpoint itself, as in managed control planes: the
		// API server needs no kube-proxy.
		args = append(args, "--bind-address=0.0.0.0",
			fmt.Sprintf("--enable-aggregator-routing=%t", l.Options.AggregatorRouting))
	} else {
		// Without it an ExternalName service works, which leads to a process on loopback.
		args = append(args, "--bind-address="+host, "--enable-aggregator-routing=false",
			"--endpoint-reconciler-type=none",            // a loopback address is not accepted as an endpoint
			"--disable-admission-plugins=ServiceAccount") // simulated pods need none
	}
	if l.Options.KubeletCerts != selfSigned {
		args = append(args, "--kubelet-certificate-authority="+pki("ca.crt"))
	}
	return l.program("kube-apiserver", args...)
}

func (l layout) controllerManagerProcess() Process {
	args := []string{
		"--kubeconfig=" + l.at("conf/kube-controller-manager.kubeconfig"), "--secure-port=0", "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file=" + l.at("pki/service-account.key"),
		"--root-ca-file=" + l.at("pki/ca.crt"),
		"--cluster-signing-cert-file=" + l.at("pki/ca.crt"), "--cluster-signing-key-file=" + l.at("pki/ca.key"),
		"--flex-volume-plugin-dir=" + l.at("tmp/flexvolume"),
		// Autoscaling in seconds instead of minutes.
		"--horizontal-pod-autoscaler-sync-period=5s", "--horizontal-pod-autoscaler-downscale-stabilization=15s",
		"--horizontal-pod-autoscaler-cpu-initialization-period=15s", "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
	}
	if l.Mode == simulatedKubelet {
		args = append(args, "--controllers=*,-node-lifecycle-controller") // nobody renews a simulated node's lease
	}
	return l.program("kube-controller-manager", args...)
}

func (l layout) schedulerProcess() Process {
	return l.program("kube-scheduler", "--kubeconfig="+l.at("conf/kube-scheduler.kubeconfig"), "--secure-port=0",
		"--leader-elect=false")
}

func (l layout) containerdProcess() Process {
	p := l.program("containerd", "--config="+l.at("conf/containerd.toml"))
	p.Args[0] = "/usr/bin/containerd"
	return p
}

func (l layout) kubeletProcess(n node) Process {
	return l.program("kubelet", "--config="+l.at("conf/kubelet.yaml"), "--kubeconfig="+l.at("conf/kubelet.kubeconfig"),
		"--hostname-override="+n.name(), "--node-ip="+n.ip(), "--v=2")
}

func (l layout) proxyProcess() Process {
	return l.program("kube-proxy", "--config="+l.at("conf/kube-proxy.yaml"))
}

//go:embed manifests/node
var manifests embed.FS

// nodeFiles are the configuration files of a real node, by path in its state directory.
func (l layout) nodeFiles(n node) (map[string]string, error) {
	serving := "# Without a certificate the kubelet signs one itself."
	if l.Options.KubeletCerts != selfSigned {
		serving = "tlsCertFile: " + l.at("pki/kubelet.crt") + "\ntlsPrivateKeyFile: " + l.at("pki/kubelet.key")
	}
	fill := strings.NewReplacer("$DIR", l.Dir, "$NODE", n.name(), "$OWN_POD_CIDR", n.podCIDR(), "$POD_CIDR", podCIDR,
		"$SNAPSHOTTER", l.Snapshotter, "$SOCKET", containerdSock, "$IMAGE", workloadImage,
		"$SERVING_CERTIFICATE", serving)
	// There is no DNS, and pods should notice that at once. If the file were empty, containerd would
	// give them the host's DNS.
	files := map[string]string{"conf/resolv.conf": "nameserver 127.0.0.1\n"}
	for name, to := range map[string]string{
		"containerd.toml": "conf/containerd.toml", "kubelet.yaml": "conf/kubelet.yaml",
		"kube-proxy.yaml": "conf/kube-proxy.yaml", "cni.json": "conf/cni/10-node.conflist",
	} {
		b, err := manifests.ReadFile("manifests/node/" + name)
		if err != nil {
			return nil, err
		}
		files[to] = fill.Replace(string(b))
	}
	return files, nil
}

// credentials returns the control plane's keys, certificates and kubeconfigs, by path in the state directory.
// outside is the API server's URL for the host.
func (l layout) credentials(p *pki, outside string) (map[string]string, error) {
	files := map[string]string{}
	for name, content := range p.files {
		files["pki/"+name] = content
	}
	for _, k := range []struct {
		file, server, user string
		groups             []string
	}{
		{"kubeconfig", outside, "admin", []string{"system:masters"}},
		{"conf/kube-controller-manager.kubeconfig", l.url(), "system:kube-controller-manager", nil},
		{"conf/kube-scheduler.kubeconfig", l.url(), "system:kube-scheduler", nil},
	} {
		content, err := p.ca.kubeconfigFor(k.server, k.user, k.groups...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.file, err)
		}
		files[k.file] = content
	}
	return files, nil
}

// nodeCredentials returns the files with the keys, certificates and kubeconfigs of a real node.
func (l layout) nodeCredentials(ca *authority, n node) (map[string]string, error) {
	serving, err0 := ca.server("system:node:"+n.name(), n.name(), n.ip())
	kubelet, err1 := ca.kubeconfigFor(l.url(), "system:node:"+n.name(), "system:nodes")
	proxy, err2 := ca.kubeconfigFor(l.url(), "system:kube-proxy")
	files := map[string]string{
		"pki/ca.crt": string(ca.cert), "conf/kubelet.kubeconfig": kubelet, "conf/kube-proxy.kubeconfig": proxy,
	}
	if l.Options.KubeletCerts != selfSigned {
		files["pki/kubelet.crt"], files["pki/kubelet.key"] = string(serving.cert), string(serving.key)
	}
	return files, errors.Join(err0, err1, err2)
}
