package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFindProject(t *testing.T) {
	var c cluster
	if err := c.findProject(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.pinned, "v1.") {
		t.Errorf("version is %q, want that of k8s.io/kubernetes", c.pinned)
	}
	if _, err := os.Stat(filepath.Join(c.root, "go.mod")); err != nil {
		t.Errorf("root is %q: %v", c.root, err)
	}

	t.Chdir(t.TempDir())
	if err := c.findProject(); err == nil {
		t.Error("no error outside the repository")
	}
}

func TestParse(t *testing.T) {
	for _, test := range []struct{ cache, args, wantDir string }{
		{"/c", "", "/c/cluster"},
		{"/c", "-cache /d", "/d/cluster"},
		{"/c", "-state /s", "/s"},
	} {
		c := cluster{}
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.StringVar(&c.cache, "cache", test.cache, "")
		flags.StringVar(&c.dir, "state", "", "")
		if err := c.parse(flags, strings.Fields(test.args)); err != nil || c.dir != test.wantDir {
			t.Errorf("%q: state in %q, %v; want %q", test.args, c.dir, err, test.wantDir)
		}
	}
	if err := new(cluster).parse(flag.NewFlagSet("", flag.ContinueOnError), nil); err == nil {
		t.Error("no error without a cache directory")
	}
}

// What ends one cluster does not end another, next to it.
func TestToEnd(t *testing.T) {
	c := cluster{machine: machine{"/c/cluster"}, cache: "/c"}
	if got := c.toEnd("demo-down"); got != "make demo-down" {
		t.Errorf("the cluster is ended by %q", got)
	}
	c.dir = "/s"
	if got, want := c.toEnd("demo-down"), "cd hack/cluster && go run . down -state /s"; got != want {
		t.Errorf("a cluster in another directory is ended by %q, want %q", got, want)
	}
}

func TestMissing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "etcd"), "complete", 0o755)
	write(t, filepath.Join(dir, "kubectl"), "not executable", 0o644)
	got := missing(dir, []asset{{name: "etcd"}, {name: "kubectl"}, {name: "kubelet"}})
	if want := []asset{{name: "kubectl"}, {name: "kubelet"}}; !slices.Equal(got, want) {
		t.Errorf("missing %v, want %v", got, want)
	}
}

// An interrupted build must not leave a file that a later run would use as a finished program.
func TestBuildAssetsInterrupted(t *testing.T) {
	c := cluster{cache: t.TempDir()}
	if err := c.findProject(); err != nil {
		t.Fatal(err)
	}
	c.version = c.pinned
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.buildAssets(ctx, controlPlane); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v, want %v", err, context.Canceled)
	}
	entries, err := os.ReadDir(c.bin())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestBuildAssetsDoesNothingTwice(t *testing.T) {
	c := cluster{cache: t.TempDir(), version: "v1"}
	for _, a := range controlPlane {
		if err := os.MkdirAll(c.bin(), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(c.bin(), a.name), "", 0o755)
	}
	t.Setenv("PATH", "") // no go: nothing may be built
	if dir, err := c.buildAssets(t.Context(), controlPlane); err != nil || dir != c.bin() {
		t.Errorf("got %q, %v", dir, err)
	}
	if _, err := c.buildAssets(t.Context(), nodePrograms); err == nil {
		t.Error("the node's programs are missing, but nobody tried to build them")
	}
}

// A program is not built if the PATH has it in exactly the wanted version; a copy stays when that one changes.
func TestBuildAssetsInstalled(t *testing.T) {
	c := cluster{cache: t.TempDir(), version: "v1.37.1", pinned: "v1.37.1", etcdVersion: "3.6.5"}
	path := t.TempDir()
	t.Setenv("PATH", path) // no go: nothing can be built
	says := func(name, when, answer string) {
		write(t, filepath.Join(path, name), "#!/bin/sh\n[ \"$*\" = \""+when+"\" ] && echo \""+answer+"\"\n", 0o755)
	}
	says("etcd", "--version", "etcd Version: 3.6.5")
	says("kubectl", "version --client", "Client Version: v1.37.1")
	says("kube-apiserver", "--version", "Kubernetes v1.37.1")
	says("kube-controller-manager", "--version", "Kubernetes v1.37.10")
	if _, err := c.buildAssets(t.Context(), controlPlane); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("error is %v, want that kube-controller-manager must be built, and that there is no go", err)
	}
	if got := missing(c.bin(), controlPlane); len(got) != 1 || got[0].name != "kube-controller-manager" {
		t.Errorf("%v are missing, want kube-controller-manager, which is installed in another version", got)
	}
	says("kube-controller-manager", "--version", "Kubernetes v1.37.1")
	dir, err := c.buildAssets(t.Context(), controlPlane)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if got := missing(dir, controlPlane); len(got) > 0 {
		t.Errorf("%v are missing after the installed ones were removed", got)
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path, "waiting")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path, "waiting"); err == nil {
		t.Error("the lock was given twice")
	}
	unlock()
	if unlock, err = lockFile(t.Context(), path, "waiting"); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestLoad(t *testing.T) {
	c := cluster{machine: machine{t.TempDir()}}
	if _, running := c.load(); running {
		t.Error("runs without a record")
	}
	self := record{Mode: realKubelet, supervisorID: supervisorID{os.Getpid(), processStart(os.Getpid())}}
	self.put(node{Number: 3})
	self.put(node{2, self.supervisorID})
	if err := c.save(self); err != nil {
		t.Fatal(err)
	}
	if got, running := c.load(); !running || !reflect.DeepEqual(got, self) {
		t.Errorf("loaded %+v, running %v; want %+v, running", got, running, self)
	}
	self.Started = "another time: the process id was used again"
	if err := c.save(self); err != nil {
		t.Fatal(err)
	}
	if _, running := c.load(); running {
		t.Error("a process that started at another time is taken for the supervisor")
	}
}

func TestProcessStart(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if processStart(pid) == "" {
		t.Error("a running process has no start")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	if start := processStart(pid); start != "" {
		t.Errorf("an ended process started at %q", start)
	}
}

// Whatever -state names, only the state of a cluster is removed, however early the run that made it was killed.
func TestRemoveState(t *testing.T) {
	for _, test := range []struct {
		name    string
		make    func(t *testing.T, c *cluster) error
		removed bool
	}{
		{"no directory", func(_ *testing.T, c *cluster) error { return os.Remove(c.dir) }, true},
		{"an empty directory", func(*testing.T, *cluster) error { return nil }, true},
		{"a new cluster", func(_ *testing.T, c *cluster) error { return c.create(record{Mode: kindNodes}) }, true},
		{"a cluster whose record a power cut emptied", func(t *testing.T, c *cluster) error {
			write(t, c.path("cluster.json"), "", 0o644)
			write(t, c.path("log", "supervisor.log"), "", 0o644)
			return nil
		}, true},
		{"a file", func(t *testing.T, c *cluster) error {
			write(t, c.path("letters.txt"), "", 0o644)
			return nil
		}, false},
		{"an application with logs", func(t *testing.T, c *cluster) error {
			write(t, c.path("log", "production.log"), "", 0o644)
			write(t, c.path("cluster.json"), `{"mode": "production"}`, 0o644)
			return nil
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := cluster{machine: machine{t.TempDir()}}
			if err := test.make(t, &c); err != nil {
				t.Fatal(err)
			}
			err := c.remove()
			_, there := os.Stat(c.dir)
			if (err == nil) != test.removed || errors.Is(there, os.ErrNotExist) != test.removed {
				t.Errorf("error %v, and afterwards %v; want it removed: %t", err, there, test.removed)
			}
		})
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, test := range []struct{ content, want string }{
		{"", ""},
		{"a\n", "a\n"},
		{"a\nb\nc\n", "b\nc\n"},
		{"a\nb\nc", "b\nc"},
	} {
		write(t, path, test.content, 0o644)
		if got := tail(path, 2); got != test.want {
			t.Errorf("tail of %q is %q, want %q", test.content, got, test.want)
		}
	}
}

// Every certificate is good for what it is used for, and the front proxy's only for that.
func TestCertificates(t *testing.T) {
	certificates, err := newPKI()
	if err != nil {
		t.Fatal(err)
	}
	l := layout{Mode: realKubelet, Dir: insideDir, APIServer: controlPlaneIP + ":6443"}
	files, err := l.credentials(certificates, "https://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	// As a node that is added later gets it.
	ca, err := loadAuthority([]byte(files["pki/ca.crt"]), []byte(files["pki/ca.key"]))
	if err != nil {
		t.Fatal(err)
	}
	second := node{Number: 2}
	nodeFiles, err := l.nodeCredentials(ca, second)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(files, nodeFiles)
	verify := func(file, ca, name string, use x509.ExtKeyUsage) error {
		block, _ := pem.Decode([]byte(files["pki/"+file+".crt"]))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(files["pki/"+ca+".crt"]))
		_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	for _, name := range apiServerNames {
		if err := verify("apiserver", "ca", name, x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"node-2", "10.99.0.2"} {
		if err := verify("kubelet", "ca", name, x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	}
	for _, file := range []string{"admin", "apiserver-kubelet-client"} {
		if err := verify(file, "ca", "", x509.ExtKeyUsageClientAuth); err != nil {
			t.Error(err)
		}
	}
	if err := verify("front-proxy-client", "front-proxy-ca", "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if verify("front-proxy-client", "ca", "", x509.ExtKeyUsageClientAuth) == nil {
		t.Error("the front proxy's certificate is a client certificate of the cluster, too")
	}
	if !strings.Contains(files["kubeconfig"], `"https://127.0.0.1:1"`) {
		t.Error("the administrator's kubeconfig does not lead to the host's door")
	}
	if !strings.Contains(files["conf/kubelet.kubeconfig"], `"https://10.99.0.1:6443"`) {
		t.Error("the kubelet's kubeconfig does not lead to the address inside")
	}
	if key, ok := nodeFiles["pki/ca.key"]; ok {
		t.Errorf("a node gets the authority's key: %.30s", key)
	}

	l.Options.KubeletCerts = selfSigned
	if nodeFiles, err = l.nodeCredentials(ca, second); err != nil {
		t.Fatal(err)
	}
	if cert, ok := nodeFiles["pki/kubelet.crt"]; ok {
		t.Errorf("a kubelet that is to sign its certificate itself is given one: %.30s", cert)
	}
}

func TestUsage(t *testing.T) {
	known := usage{"n", "p", "c", 0.2, 100 << 20}
	for _, test := range []struct {
		cpu, memory string
		within      bool
	}{
		{"200m", "100Mi", true},
		{"209999999n", "104857600", true},
		{"190100u", "97280Ki", true},
		{"211m", "100Mi", false},
		{"189m", "100Mi", false},
		{"200m", "106Mi", false},
		{"200m", "94Mi", false},
	} {
		served := known
		if err := served.parse(test.cpu, test.memory); err != nil {
			t.Fatal(err)
		}
		if err := known.compare(served, 0.05); (err == nil) != test.within {
			t.Errorf("%s and %s within 5 %%: %v, want %v", test.cpu, test.memory, err == nil, test.within)
		}
	}
	if err := new(usage).parse("much", "1"); err == nil {
		t.Error("no error for a quantity that is none")
	}
}

func TestSimulatedUsage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "objects.json")
	write(t, path, `{"items": [
		{"metadata": {"name": "a-node"}},
		{"metadata": {"namespace": "n", "name": "p", "annotations": {"usage/a": "1000n 4096", "usage/b": "3000n 8192"}}},
		{"metadata": {"namespace": "n", "name": "q", "annotations": {"usage/a": "2000n 4096", "other": "x"}}}
	]}`, 0o644)
	got, err := simulatedUsage(path)
	if want := (usage{"n", "p", "b", 3e-6, 8192}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	write(t, path, `{"items": []}`, 0o644)
	if _, err := simulatedUsage(path); err == nil {
		t.Error("no error without pods")
	}
}

// A supervisor without namespaces starts, reports and stops processes, and ends them when it ends.
func TestSupervisor(t *testing.T) {
	if os.Getenv(supervisorEnv) != "" { // this test's own child, as main would run it
		if err := supervise(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	c := cluster{machine: machine{t.TempDir()}}
	if err := os.Mkdir(c.path("log"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := record{Mode: simulatedKubelet}
	supervisorArgs = []string{"-test.run=^TestSupervisor$"}
	_, err := c.launchSupervisor(t.Context(), supervisorConfig{Dir: c.dir}, nil, func(id supervisorID) error {
		r.supervisorID = id
		return c.save(r)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	})
	sleeper, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	s := c.supervisor()
	for _, p := range []Process{
		{Name: "fails", Args: []string{"/bin/sh", "-c", "echo it failed; exit 3"}},
		{Name: "stays", Args: []string{sleeper, "60"}},
		{Name: "stopped", Args: []string{sleeper, "60"}},
	} {
		if err := s.start(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, frozen := range []bool{true, false} {
		if err := s.freeze("stays", frozen); err != nil {
			t.Fatal(err)
		}
		states, err := s.status()
		if i := slices.IndexFunc(states, func(st ProcessState) bool { return st.Name == "stays" }); err != nil ||
			states[i].Frozen != frozen {
			t.Errorf("states %v, %v; want frozen %v", states, err, frozen)
		}
	}
	if err := s.freeze("nothing", true); err == nil {
		t.Error("no error for freezing what does not run")
	}
	if err := s.start(Process{Name: "missing", Args: []string{"/no/such/program"}}); err == nil {
		t.Error("no error for a program that does not exist")
	}
	if err := s.stop("stopped"); err != nil {
		t.Fatal(err)
	}
	err = c.wait(t.Context(), "nothing", "stays", time.Minute,
		func(context.Context) error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "fails ended: exit status 3") ||
		!strings.Contains(err.Error(), "it failed") {
		t.Errorf("the wait ended with %v, want the end of the process that failed, with its log", err)
	}
	states, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, st := range states {
		names = append(names, st.Name)
	}
	if want := []string{"fails", "stays"}; !slices.Equal(names, want) {
		t.Fatalf("processes %v, want %v", names, want)
	}
	if err := c.remove(); err != nil {
		t.Fatal(err)
	}
	if start := processStart(states[1].PID); start != "" {
		t.Error("a process outlived its supervisor")
	}
}

func write(t *testing.T, path, content string, perm os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
}

// TestAwaitStart checks that a process whose start cannot be read at once does not count as ended.
func TestAwaitStart(t *testing.T) {
	reads := 0
	got := awaitStart(7, func(pid int) string {
		if reads++; reads < 3 || pid != 7 {
			return ""
		}
		return "42"
	})
	if got != "42" {
		t.Errorf("got start %q, want that of the third read", got)
	}
}
