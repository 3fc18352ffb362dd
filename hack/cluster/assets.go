package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// asset is a program that is built from the Go module proxy.
type asset struct{ name, pkg string }

const etcd = "etcd" // always the version that this module requires, regardless of the version of Kubernetes

// controlPlane is what simulated kubelets need; the rest runs a real node.
var controlPlane = []asset{
	{etcd, "go.etcd.io/etcd/server/v3"},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
}

var nodePrograms = []asset{
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
	{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
	{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
}

// otherPrograms are built only by name: hack/kind/node needs kubeadm.
var otherPrograms = []asset{{"kubeadm", "k8s.io/kubernetes/cmd/kubeadm"}}

// built returns the name that Go gives the program.
func (a asset) built() string { return path.Base(strings.TrimSuffix(a.pkg, "/v3")) }

// names lists the names of assets.
func names(assets []asset) string {
	var all []string
	for _, a := range assets {
		all = append(all, a.name)
	}
	return strings.Join(all, ", ")
}

// assetsNamed returns the assets in a list of names that are separated by commas.
func assetsNamed(list string) (found []asset, err error) {
	all := slices.Concat(controlPlane, nodePrograms, otherPrograms)
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(a asset) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no program %q is built here, but these are: %s", name, names(all))
		}
		found = append(found, all[i])
	}
	return found, nil
}

// missing returns the assets that dir does not have.
func missing(dir string, assets []asset) []asset {
	return slices.DeleteFunc(slices.Clone(assets), func(a asset) bool {
		info, err := os.Stat(filepath.Join(dir, a.name))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0
	})
}

// buildAssets builds the missing programs of want and returns their directory. A program gets its final name only when
// it is complete, so that an aborted run leaves nothing that looks finished.
func (c *cluster) buildAssets(ctx context.Context, want []asset) (string, error) {
	dir := c.bin()
	if len(missing(dir, want)) == 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, ".lock"), "another run builds the Kubernetes programs: waiting for it")
	if err != nil {
		return "", err
	}
	defer unlock()
	todo := missing(dir, want) // the other run may have built them
	if len(todo) == 0 {
		return dir, nil
	}

	// Temporary files of this run, and of aborted ones: whoever holds the lock owns them all.
	tmp := filepath.Join(dir, ".build")
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)

	for _, a := range todo {
		program := c.installed(ctx, a)
		if program == "" {
			continue
		}
		sayf("%s is installed in the wanted version: %s", a.name, program)
		if err := copyProgram(program, tmp, dir); err != nil {
			return "", err
		}
	}
	if todo = missing(dir, want); len(todo) == 0 {
		return dir, nil
	}

	sayf("Building %d programs of Kubernetes %s into %s: %s.", len(todo), c.version, dir, names(todo))
	if len(todo) > 1 {
		sayf("The first build compiles several thousand packages: about 10 minutes on 2 cores. It is done once.")
	}
	start := time.Now()
	module := c.module()
	if c.version != c.pinned {
		module = filepath.Join(tmp, "module")
		err := step("Kubernetes "+c.version+" downloaded", func(*progress) error { return c.kubernetesModule(ctx, module) })
		if err != nil {
			return "", errors.Join(context.Cause(ctx), err)
		}
	}
	ofModule := map[string][]asset{}
	for _, a := range todo {
		if a.name == etcd {
			ofModule[c.module()] = append(ofModule[c.module()], a)
		} else {
			ofModule[module] = append(ofModule[module], a)
		}
	}
	for module, assets := range ofModule {
		// All at once, because a link occupies one processor only.
		err := step(fmt.Sprintf("programs built (%d)", len(assets)), func(p *progress) error {
			return c.build(ctx, module, assets, tmp, p)
		})
		if err != nil {
			return "", fmt.Errorf("build %s: %w", names(assets), err)
		}
	}
	for _, a := range todo {
		if err := os.Rename(filepath.Join(tmp, a.built()), filepath.Join(dir, a.name)); err != nil {
			return "", err
		}
	}
	sayf("Built in %s.", time.Since(start).Round(time.Second))
	return dir, nil
}

// installed returns the path of the program if the PATH has it in exactly the wanted version, so that it need not be
// built, or else "".
func (c *cluster) installed(ctx context.Context, a asset) string {
	program, err := exec.LookPath(a.name)
	if err != nil {
		return ""
	}
	version, args := c.version, []string{"--version"}
	switch a.name {
	case etcd:
		version = c.etcdVersion
	case "kubectl":
		args = []string{"version", "--client"}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil || !slices.Contains(strings.Fields(string(out)), version) {
		return ""
	}
	return program
}

// copyProgram copies a program into dir, by way of tmp, so that it appears there complete. A link would change with
// what is installed.
func copyProgram(program, tmp, dir string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	name := filepath.Base(program)
	if err := os.WriteFile(filepath.Join(tmp, name), b, 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name))
}

// build builds programs of a module's requirements into dir, under the names that Go gives them. Go's build cache is
// reused only while the flags stay the same. The module versions and the build tag are those of the server (ADR 11), so
// building the server reuses what is compiled here.
func (c *cluster) build(ctx context.Context, module string, assets []asset, dir string, p *progress) error {
	packages := make([]string, 0, len(assets))
	for _, a := range assets {
		packages = append(packages, a.pkg)
	}
	stamp := fmt.Sprintf("-X k8s.io/component-base/version.gitVersion=%[1]s -X "+
		"k8s.io/client-go/pkg/version.gitVersion=%[1]s", c.version)
	const tags = "-tags=grpcnotrace"
	var mod []string
	if module != c.module() {
		mod = []string{"-mod=mod"} // go completes the go.mod and go.sum that were made for this
	}
	goTool := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "go", slices.Concat(args[:1], mod, args[1:], packages)...)
		cmd.Dir = module
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+dir)
		killGroup(cmd)
		return cmd
	}
	p.updatef("finding and downloading what they consist of")
	deps, err := output(goTool("list", "-deps", tags))
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	total := strings.Count(deps, "\n")

	cmd := goTool("build", "-v", "-trimpath", tags, "-ldflags", "-s -w "+stamp, "-o", dir+"/")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// go build -v prints each package that it compiles, which is its only sign of progress.
	compiled := 0
	var said bytes.Buffer
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if line := lines.Text(); strings.ContainsAny(line, " \t") {
			fmt.Fprintln(&said, line)
		} else {
			compiled++
		}
		p.updatef("%d of at most %d packages compiled", compiled, total)
	}
	if err := cmd.Wait(); err != nil {
		return errors.Join(context.Cause(ctx), err, errors.New(said.String()))
	}
	return nil
}

// killGroup makes the end of cmd's context end cmd and its children: otherwise the compilers that
// go build has started go on.
func killGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
}
