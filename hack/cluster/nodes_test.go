package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseNode(t *testing.T) {
	if n, err := parseNode("node-12"); err != nil || n.Number != 12 {
		t.Errorf("node-12: %+v, %v", n, err)
	}
	for _, name := range []string{"", "node", "node-", "node-0", "node-02", "node--1", "node-201", "x-1"} {
		if n, err := parseNode(name); err == nil {
			t.Errorf("%q is taken for %s", name, n.name())
		}
	}
}

func TestRecordNodes(t *testing.T) {
	var r record
	names := func() (names []string) {
		for _, n := range r.nodes() {
			names = append(names, n.name())
		}
		return names
	}
	for _, number := range []int{4, 2, 4} { // one that is known is changed
		r.put(node{Number: number})
	}
	if want := []string{"node-1", "node-2", "node-4"}; !slices.Equal(names(), want) {
		t.Errorf("nodes %v, want %v", names(), want)
	}
	if n, err := r.free(); err != nil || n.Number != 3 {
		t.Errorf("the next node is %d, %v; want 3", n.Number, err)
	}
	copied := r
	r.drop(node{Number: 2})
	if want := []string{"node-1", "node-4"}; !slices.Equal(names(), want) {
		t.Errorf("nodes %v, want %v", names(), want)
	}
	if len(copied.Others) != 2 || copied.Others[0].Number != 2 {
		t.Errorf("a copy of the record changed with it: %v", copied.Others)
	}
	if _, err := r.find("node-2"); err == nil || !strings.Contains(err.Error(), "node-1 node-4") {
		t.Errorf("error %v, want one that lists the nodes", err)
	}
}

func TestNodeFiles(t *testing.T) {
	second := node{Number: 2}
	for _, test := range []struct {
		name             string
		options          options
		file, has, lacks string
	}{
		{"containerd", options{}, "conf/containerd.toml", `snapshotter = "native"`, ""},
		{"own pods", options{}, "conf/cni/10-node.conflist", `"10.88.1.0/24"`, "10.88.0.0"},
		{"all pods", options{}, "conf/kube-proxy.yaml", "clusterCIDR: 10.88.0.0/16", ""},
		{"name", options{}, "conf/kube-proxy.yaml", "hostnameOverride: node-2\n", ""},
		{
			"certificate of the CA",
			options{KubeletCerts: signedByCA},
			"conf/kubelet.yaml",
			"tlsCertFile: /run/cluster/pki/kubelet.crt\n", "",
		},
		{"certificate of its own", options{KubeletCerts: selfSigned}, "conf/kubelet.yaml", "kind: Kubelet", "tls"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := layout{Mode: realKubelet, Dir: insideDir, Snapshotter: "native", Version: "v1.37.1", Options: test.options}
			files, err := l.nodeFiles(second)
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range files {
				if i := strings.IndexByte(content, '$'); i >= 0 {
					t.Errorf("%s has a variable left: %.20s", name, content[i:])
				}
			}
			if content := files[test.file]; !strings.Contains(content, test.has) ||
				(test.lacks != "" && strings.Contains(content, test.lacks)) {
				t.Errorf("want %q and not %q in %s:\n%s", test.has, test.lacks, test.file, content)
			}
		})
	}
}

func TestImages(t *testing.T) {
	c := cluster{machine: machine{t.TempDir()}}
	now := time.Now()
	for i, name := range []string{"b.tar", "c.tar", "a.tar", "half.tar.tmp"} {
		write(t, c.path("images", name), "", 0o600)
		if err := os.Chtimes(c.path("images", name), now, now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.images()
	if want := []string{c.path("images", "b.tar"), c.path("images", "c.tar"), c.path("images", "a.tar")}; err != nil ||
		!slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}
