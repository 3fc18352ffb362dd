package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
)

// cluster says where a cluster is and how it is configured.
type cluster struct {
	machine        // its directory has the state of the running cluster; removed by down
	cache   string // built programs, in a directory for each version
	root    string // the repository

	simulated, real, keep bool
	preferKind            bool // where that is quicker
	onKind                bool // the cluster is one of kind
	options               options

	version string // of Kubernetes, e.g. v1.37.1
	pinned  string // the version that this module requires
	// etcdVersion is the version of etcd that this module requires, without the v.
	etcdVersion string
}

// record is what a running cluster saves for later commands, in cluster.json.
type record struct {
	supervisorID        // of the control plane; it is also the first node's
	Mode         mode   `json:"mode"`
	Version      string `json:"version"`
	Server       string `json:"server"` // URL of the API server, from the host
	Layout       layout `json:"layout"`
	Others       []node `json:"others"`   // the nodes except the first
	Ready        bool   `json:"ready"`    // up has finished
	Deployed     string `json:"deployed"` // digest of the running server, an image or a program

	Kind *kindRecord `json:"kind,omitempty"` // of kindNodes only
}

// mode says which kubelets the cluster has: real ones, simulated ones, or those of kind.
type mode string

const (
	realKubelet      mode = "real kubelet"
	simulatedKubelet mode = "simulated kubelets"
	kindNodes        mode = "nodes of kind"
)

var modes = []mode{realKubelet, simulatedKubelet, kindNodes}

// defaultCache is METRICS_SERVER_DEV_DIR or a directory of the user's own; "" if there is neither.
func defaultCache() string {
	if dir := os.Getenv("METRICS_SERVER_DEV_DIR"); dir != "" {
		return dir
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "metrics-server-dev")
	}
	return ""
}

// defaultDir is the directory of the cluster that the make targets start and end.
func (c *cluster) defaultDir() string { return filepath.Join(c.cache, "cluster") }

// parse reads the flags and finds the directories.
func (c *cluster) parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.cache == "" {
		return errors.New("no cache directory: set HOME, or give -cache DIR")
	}
	if c.dir == "" {
		c.dir = c.defaultDir()
	}
	for _, dir := range []*string{&c.cache, &c.dir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if err := c.options.check(flags); err != nil {
		return err
	}
	if err := c.findProject(); err != nil {
		return err
	}
	// A version that was chosen is kept until the cluster ends.
	c.version = c.pinned
	r, running := c.load()
	if running && r.Layout.Options.Version != "" {
		c.version = r.Version
	}
	c.onKind = r.Kind != nil
	if c.options.Version != "" {
		c.version = c.options.Version
	}
	return nil
}

var (
	kubernetesVersion = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v\S+)$`)
	etcdVersion       = regexp.MustCompile(`(?m)^\s*go\.etcd\.io/etcd/server/v3 v(\S+)`)
)

// findProject sets the repository's root, and the versions of Kubernetes and etcd that this module requires.
func (c *cluster) findProject() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "hack", "cluster", "go.mod"))
		if err == nil {
			kubernetes, etcd := kubernetesVersion.FindSubmatch(mod), etcdVersion.FindSubmatch(mod)
			if kubernetes == nil || etcd == nil {
				return errors.New("hack/cluster/go.mod must name versions of k8s.io/kubernetes and go.etcd.io/etcd/server/v3")
			}
			c.root, c.pinned, c.etcdVersion = dir, string(kubernetes[1]), string(etcd[1])
			return nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return errors.New("no hack/cluster/go.mod here or above: run this from inside the repository")
		}
		dir = parent
	}
}

// module is the directory of this program's source.
func (c *cluster) module() string { return filepath.Join(c.root, "hack", "cluster") }

// bin is the directory of the built programs.
func (c *cluster) bin() string { return filepath.Join(c.cache, c.version) }

// id identifies the cluster by its state directory alone, so that the cgroups of a crashed one can
// be found.
func (c *cluster) id() string {
	return fmt.Sprintf("metrics-server-dev-%.8x", sha256.Sum256([]byte(c.dir)))
}

// authority is the cluster's CA.
func (c *cluster) authority() (*authority, error) {
	cert, err1 := os.ReadFile(c.path("pki", "ca.crt"))
	key, err2 := os.ReadFile(c.path("pki", "ca.key"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return loadAuthority(cert, key)
}

func (c *cluster) kubeconfig() string { return c.path("kubeconfig") }

func (c *cluster) kubectlPath() string {
	if c.onKind {
		return c.path("bin", "kubectl")
	}
	return filepath.Join(c.bin(), "kubectl")
}

// load returns the record of the cluster, and whether its supervisor runs, or its control plane on kind.
func (c *cluster) load() (record, bool) {
	var r record
	b, err := os.ReadFile(c.path("cluster.json"))
	if err != nil || json.Unmarshal(b, &r) != nil {
		return r, false
	}
	if r.Kind != nil {
		return r, r.Kind.runs()
	}
	return r, r.runs()
}

// create makes the state directory of a new cluster. The record comes first, because it tells removeState that the
// directory may be removed.
func (c *cluster) create(r record) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	return errors.Join(c.save(r), c.makeDirs())
}

func (c *cluster) save(r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(c.path("cluster.json"), b, 0o644)
}

// lock waits until no other command changes the cluster. The file stays: removing it would let two in.
func (c *cluster) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(c.cache, 0o755); err != nil {
		return nil, err
	}
	return lockFile(ctx, filepath.Join(c.cache, "."+c.id()+".lock"),
		"another command works on the cluster: waiting for it")
}

// status prints whether the cluster runs.
func (c *cluster) status() error {
	r, running := c.load()
	if !running {
		return errors.New("no cluster runs; start one with: make demo")
	}
	fmt.Printf("Kubernetes %s with %s at %s, state in %s\n", r.Version, r.Mode, r.Server, c.dir)
	if r.Kind != nil {
		return nil
	}
	for _, n := range r.Others {
		if n.Supervisor == 0 {
			fmt.Printf("  %-24s killed\n", n.name())
		}
	}
	states, err := c.states(r)
	if err != nil {
		return err
	}
	for _, s := range states {
		fmt.Printf("  %-24s %s\n", s.Name, s)
	}
	return nil
}

// kubectl replaces this process with kubectl.
func (c *cluster) kubectl(flags *flag.FlagSet, args []string) error {
	// All flags belong to kubectl; only the environment says where our cluster is.
	if err := c.parse(flags, nil); err != nil {
		return err
	}
	if _, running := c.load(); !running {
		return errors.New("no cluster runs; start one with: make demo")
	}
	return syscall.Exec(c.kubectlPath(), append([]string{"kubectl"}, args...), c.kubectlEnv())
}

// kubectlEnv keeps kubectl's caches out of the user's home.
func (c *cluster) kubectlEnv() []string {
	return append(os.Environ(), "KUBECONFIG="+c.kubeconfig(), "KUBECACHEDIR="+c.path("kubectl"))
}

// runKubectl runs kubectl and returns its standard output.
func (c *cluster) runKubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.kubectlPath(), args...)
	cmd.Env = c.kubectlEnv()
	return output(cmd)
}

// output runs cmd; its error ends with what cmd wrote to standard error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, exit.Stderr)
	}
	return string(out), err
}
