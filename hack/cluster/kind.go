package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// localNodeImage is the node image that hack/kind/e2e.sh has hack/kind/node/build.sh make.
const localNodeImage = "localhost/metrics-server-e2e-node:dev"

// kindRecord is what later commands need to know about a kind cluster.
type kindRecord struct {
	Name    string `json:"name"`    // of the cluster
	Engine  string `json:"engine"`  // $DOCKER_HOST
	Network bool   `json:"network"` // the engine had no network "kind" before
}

// docker runs a docker command on the cluster's engine, and returns its standard output.
func (k kindRecord) docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	if k.Engine != "" {
		cmd.Env = append(os.Environ(), "DOCKER_HOST="+k.Engine)
	}
	killGroup(cmd)
	return output(cmd)
}

func (k kindRecord) controlPlane() string { return k.Name + "-control-plane" }

func (k kindRecord) runs() bool {
	out, err := k.docker(context.Background(), "container", "inspect", "-f", "{{.State.Running}}", k.controlPlane())
	return err == nil && strings.TrimSpace(out) == "true"
}

// remove removes the containers in the same way as kind, and the network if the cluster created it and nobody else
// uses it. The node image stays.
func (k kindRecord) remove() error {
	if socket, ok := strings.CutPrefix(k.Engine, "unix://"); ok {
		if _, err := os.Stat(socket); errors.Is(err, os.ErrNotExist) {
			return nil // the engine was removed, with all that it ran
		}
	}
	ctx := context.Background()
	out, err := k.docker(ctx, "ps", "-aq", "--filter", "label=io.x-k8s.kind.cluster="+k.Name)
	if err != nil {
		return fmt.Errorf("remove the cluster %s of kind: %w", k.Name, err)
	}
	if nodes := strings.Fields(out); len(nodes) > 0 {
		if _, err := k.docker(ctx, append([]string{"rm", "-fv"}, nodes...)...); err != nil {
			return fmt.Errorf("remove the cluster %s of kind: %w", k.Name, err)
		}
	}
	if !k.Network {
		return nil
	}
	out, err = k.docker(ctx, "network", "inspect", "-f", "{{len .Containers}}", "kind")
	if err == nil && strings.TrimSpace(out) == "0" {
		_, err = k.docker(ctx, "network", "rm", "kind")
		return err
	}
	return nil
}

// chooseKind returns the node image for a kind cluster, or else the reason why the demo does not use kind. Both are
// empty if another cluster is already running.
func (c *cluster) chooseKind(ctx context.Context) (image, reason string) {
	r, running := c.load()
	switch {
	case running && r.Mode != kindNodes:
		return "", ""
	case len(missing(c.bin(), slices.Concat(controlPlane, nodePrograms))) == 0 && noKubelet() == nil:
		return "", "the programs of Kubernetes are built already"
	}
	var k kindRecord
	if _, err := k.docker(ctx, "version"); err != nil {
		return "", "no Docker engine answers"
	}
	if _, err := exec.LookPath("kubectl"); err != nil && runtime.GOOS != "linux" {
		return "", "kubectl is not installed, and the one in the node image runs on Linux only"
	}
	there := func(image string) bool {
		_, err := k.docker(ctx, "image", "inspect", image)
		return err == nil
	}
	if there(localNodeImage) {
		return localNodeImage, ""
	}
	published, err := c.publishedNodeImage(ctx)
	if err != nil {
		return "", err.Error()
	}
	if there(published) {
		return published, ""
	}
	err = step("kind node image pulled", func(*progress) error {
		ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("it takes more than 5 minutes"))
		defer cancel()
		if _, err := k.docker(ctx, "pull", published); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		return nil
	})
	if err != nil {
		// What docker says follows the first line.
		said := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", ": ")
		return "", "there is no node image, and it cannot be pulled: " + said
	}
	return published, ""
}

var defaultNodeImage = regexp.MustCompile(`(?m)^const Image = "(kindest/node:\S+)"$`)

// publishedNodeImage returns the default node image of the kind version that hack/kind/go.mod pins.
func (c *cluster) publishedNodeImage(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "sigs.k8s.io/kind")
	cmd.Dir = filepath.Join(c.root, "hack", "kind")
	out, err := output(cmd)
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		return "", err
	}
	source, err := os.ReadFile(filepath.Join(module.Dir, "pkg", "apis", "config", "defaults", "image.go"))
	if err != nil {
		return "", err
	}
	image := defaultNodeImage.FindSubmatch(source)
	if image == nil {
		return "", errors.New("this version of kind does not say which node image belongs to it")
	}
	return string(image[1]), nil
}

// startKind is like start, for a kind cluster whose nodes run image.
func (c *cluster) startKind(ctx context.Context, image string) (r record, started bool, err error) {
	if r, running := c.load(); running && r.Ready {
		if a, err := c.connect(r.Server); err == nil && a.get(ctx, "/readyz", nil) == nil {
			sayf("The cluster runs already: Kubernetes %s with %s.", r.Version, r.Mode)
			return r, false, nil
		}
	}
	if err := c.remove(); err != nil {
		return r, false, fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	begun := time.Now()
	r, err = c.runKind(ctx, image)
	if err != nil {
		return r, false, c.giveUp(ctx, fmt.Errorf("%w\nTo run the demo without kind: cd hack/cluster && go run . demo", err))
	}
	sayf("Cluster up in %.1f s: Kubernetes %s with %s.", time.Since(begun).Seconds(), r.Version, r.Mode)
	return r, true, nil
}

// runKind creates a kind cluster in an empty state directory, and loads the image of the workload.
func (c *cluster) runKind(ctx context.Context, image string) (record, error) {
	name, _, _ := strings.Cut(image, "@")
	sayf("Starting Kubernetes on kind, with the node image %s; state in %s.", name, c.dir)
	k := kindRecord{Name: c.id(), Engine: os.Getenv("DOCKER_HOST")}
	_, err := k.docker(ctx, "network", "inspect", "kind")
	k.Network = err != nil
	r := record{Mode: kindNodes, Kind: &k}
	r.Layout.Options.KubeletCerts = selfSigned
	if err := c.create(r); err != nil {
		return r, err
	}
	for _, dir := range []string{"bin", "images"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return r, err
		}
	}
	c.onKind = true

	err = step("kind", func(*progress) error {
		return c.goBuild(ctx, filepath.Join(c.root, "hack", "kind"), "sigs.k8s.io/kind", c.path("bin", "kind"))
	})
	if err != nil {
		return r, err
	}
	config, err := c.kindConfig(image)
	if err != nil {
		return r, err
	}
	err = step("kind cluster", func(*progress) error {
		return c.kind(ctx, "create", "cluster", "--name", k.Name, "--image", image, "--config", config,
			"--kubeconfig", c.kubeconfig(), "--wait", "3m")
	})
	if err != nil {
		return r, err
	}
	if err := c.takeCredentials(ctx, &r); err != nil {
		return r, err
	}
	archive := c.path("images", "workload.tar")
	err = step("image of the workload", func(*progress) error {
		if err := c.buildWorkloadImage(ctx, archive); err != nil {
			return err
		}
		return c.loadIntoNodes(ctx, r, archive)
	})
	if err != nil {
		return r, err
	}
	r.Ready = true
	return r, c.save(r)
}

// kindConfig writes the configuration of a kind cluster whose nodes run image, and returns its path.
func (c *cluster) kindConfig(image string) (string, error) {
	config, err := os.ReadFile(filepath.Join(c.root, "hack", "kind", "cluster.yaml"))
	if err != nil {
		return "", err
	}
	if image == localNodeImage {
		more, err := os.ReadFile(filepath.Join(c.root, "hack", "kind", "node", "cluster.yaml"))
		if err != nil {
			return "", err
		}
		config = append(config, more...)
	}
	path := c.path("conf", "kind.yaml")
	return path, os.WriteFile(path, config, 0o600)
}

// kind runs a command of kind.
func (c *cluster) kind(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, c.path("bin", "kind"), args...)
	killGroup(cmd)
	_, err := output(cmd)
	return err
}

// loadIntoNodes loads an image archive into the nodes of a cluster, on kind or not.
func (c *cluster) loadIntoNodes(ctx context.Context, r record, archive string) error {
	if r.Kind != nil {
		return c.kind(ctx, "load", "image-archive", "--name", r.Kind.Name, archive)
	}
	return importImages(ctx, r, r.up(""), []string{archive})
}

// takeCredentials provides kubectl, a copy of the node's on Linux, and adds to the record and the state directory the
// address and the credentials that kind wrote into the kubeconfig.
func (c *cluster) takeCredentials(ctx context.Context, r *record) error {
	if runtime.GOOS == "linux" {
		if _, err := r.Kind.docker(ctx, "cp", r.Kind.controlPlane()+":/usr/bin/kubectl", c.kubectlPath()); err != nil {
			return err
		}
	} else {
		installed, err := exec.LookPath("kubectl")
		if err != nil {
			return err
		}
		if err := os.Symlink(installed, c.kubectlPath()); err != nil {
			return err
		}
	}
	out, err := c.runKubectl(ctx, "config", "view", "--raw", "-o", "json")
	if err != nil {
		return err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &config); err != nil {
		return err
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return fmt.Errorf("%s has %d clusters and %d users, want one each", c.kubeconfig(), len(config.Clusters),
			len(config.Users))
	}
	r.Server = config.Clusters[0].Cluster.Server
	user := config.Users[0].User
	err = writeFiles(c.dir, map[string]string{
		"pki/ca.crt": string(config.Clusters[0].Cluster.CA), "pki/admin.crt": string(user.Certificate),
		"pki/admin.key": string(user.Key),
	})
	if err != nil {
		return err
	}
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	var version struct{ GitVersion string }
	if err := a.get(ctx, "/version", &version); err != nil {
		return err
	}
	r.Version = version.GitVersion
	return nil
}
