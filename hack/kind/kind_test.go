// Package kind checks the cluster on kind as far as possible without Docker: what kind makes of
// cluster.yaml, and which versions of Kubernetes the workflow uses.
package kind

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/exec"
)

const (
	config   = "cluster.yaml"
	workflow = "../../.github/workflows/e2e-kind.yml"
)

// TestCluster makes kind's own library prepare the nodes of cluster.yaml, for every version of the
// workflow and for the image of node/build.sh, up to the point where it would start kubeadm.
// testdata/docker replaces docker, and keeps what is written on the nodes.
func TestCluster(t *testing.T) {
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", here+string(os.PathListSeparator)+os.Getenv("PATH"))
	flags := flagsOfOtherCluster(t)
	type nodes struct{ name, kubernetes, image, config string }
	// As e2e.sh puts it together.
	local := nodes{"local", "v1.37.1", "localhost/node:dev", filepath.Join(t.TempDir(), "cluster.yaml")}
	var both []byte
	for _, part := range []string{config, "node/cluster.yaml"} {
		b, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	if err := os.WriteFile(local.config, both, 0o600); err != nil {
		t.Fatal(err)
	}
	list := []nodes{local}
	for _, v := range versions(t) {
		list = append(list, nodes{v.Kubernetes, v.Kubernetes, v.image(), config})
	}
	for _, v := range list {
		t.Run(v.name, func(t *testing.T) {
			patches := patchesOf(t, v.config)
			dir := t.TempDir()
			t.Setenv("FAKE_DOCKER", dir)
			t.Setenv("FAKE_KUBERNETES", v.kubernetes)
			err := cluster.NewProvider(cluster.ProviderWithDocker()).Create("e2e",
				cluster.CreateWithConfigFile(v.config), cluster.CreateWithNodeImage(v.image),
				cluster.CreateWithRetain(true), cluster.CreateWithStopBeforeSettingUpKubernetes(true))
			if err != nil {
				if failed := exec.RunErrorForError(err); failed != nil {
					t.Logf("%q said %s", failed.Command, failed.Output)
				}
				t.Fatal(err)
			}
			nodes, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, n := range nodes {
				names = append(names, n.Name())
				image, err := os.ReadFile(filepath.Join(dir, n.Name(), "image"))
				if err != nil || strings.TrimSpace(string(image)) != v.image {
					t.Errorf("%s is of image %s (%v), want %s", n.Name(), image, err, v.image)
				}
			}
			if want := []string{"e2e-control-plane", "e2e-worker"}; !slices.Equal(names, want) {
				t.Fatalf("nodes %q, want %q", names, want)
			}
			for _, name := range names {
				t.Run(name, func(t *testing.T) {
					f, err := os.Open(filepath.Join(dir, name, "kubeadm.conf"))
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					documents := decode(t, f)
					for _, p := range patches {
						if documents[p] == nil {
							t.Errorf("a patch is of %s, of which kind wrote nothing: it has no effect", p)
						}
					}
					routing := "true"
					if v.name == local.name {
						routing = "false"
					}
					checkFlags(t, documents["ClusterConfiguration"], flags, routing)
					checkNodes(t, documents)
				})
			}
		})
	}
}

// patchesOf returns the kinds that the patches of a configuration are of.
func patchesOf(t *testing.T, config string) []string {
	t.Helper()
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var c v1alpha4.Cluster
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, patch := range c.KubeadmConfigPatches {
		for kind, document := range decode(t, strings.NewReader(patch)) {
			if version := document["apiVersion"]; version != nil {
				t.Errorf("the patch of %s is for %s alone: with another version of kubeadm it has no effect", kind, version)
			}
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		t.Fatal("no patches")
	}
	return kinds
}

// document is a file of YAML, or a part of one.
type document = map[string]any

// decode returns documents by their kind.
func decode(t *testing.T, r io.Reader) map[string]document {
	t.Helper()
	documents := map[string]document{}
	for decoder := yaml.NewDecoder(r); ; {
		var d document
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return documents
		}
		kind, ok := d["kind"].(string)
		if err != nil || !ok || documents[kind] != nil {
			t.Fatalf("want documents of one kind each: %v: %v", d, err)
		}
		documents[kind] = d
	}
}

// flagsOfOtherCluster returns the flags of the cluster of `make e2e`. A component ends at once if it does not know
// one, so they are flags that exist. Of a flag that is there with several values, one is returned.
func flagsOfOtherCluster(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../cluster/components.go")
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{}
	for _, f := range regexp.MustCompile(`"--([a-z-]+)=([^"]*)"`).FindAllStringSubmatch(string(b), -1) {
		flags[f[1]] = f[2]
	}
	return flags
}

// checkFlags checks that the control plane's flags, except kind's own, are among those of the
// cluster of `make e2e`, that autoscaling is as quick as there, and whether the aggregator routes to endpoints.
func checkFlags(t *testing.T, c document, other map[string]string, routing string) {
	t.Helper()
	got := extraArgs(t, c, "apiServer")
	if got["enable-aggregator-routing"] != routing {
		t.Errorf("the API server's flags are %q", got)
	}
	maps.Copy(got, extraArgs(t, c, "controllerManager"))
	for _, kinds := range []string{"runtime-config", "enable-hostpath-provisioner"} {
		delete(got, kinds)
	}
	for name := range got {
		if _, ok := other[name]; !ok {
			t.Errorf("--%s, which hack/cluster does not have: does it exist?", name)
		}
	}
	quick := 0
	for name, want := range other {
		if !strings.HasPrefix(name, "horizontal-pod-autoscaler-") {
			continue
		}
		quick++
		if got[name] != want {
			t.Errorf("--%s is %q, in hack/cluster %q", name, got[name], want)
		}
	}
	if quick == 0 {
		t.Error("hack/cluster has no flags of the autoscaler any more: this proves nothing")
	}
}

// extraArgs returns a component's flags: kubeadm takes a map of them in v1beta3, a list from then on.
func extraArgs(t *testing.T, c document, component string) map[string]string {
	t.Helper()
	part, _ := c[component].(document)
	extra := part["extraArgs"]
	args := map[string]string{}
	if c["apiVersion"] == "kubeadm.k8s.io/v1beta3" {
		named, ok := extra.(document)
		if !ok {
			t.Fatalf("%s has the extraArgs %v, want a map", component, extra)
		}
		for name, value := range named {
			args[name], _ = value.(string)
		}
		return args
	}
	list, ok := extra.([]any)
	if !ok {
		t.Fatalf("%s has the extraArgs %v, want a list", component, extra)
	}
	for _, e := range list {
		e, _ := e.(document)
		name, _ := e["name"].(string)
		args[name], _ = e["value"].(string)
	}
	return args
}

// checkNodes checks that pods run on both nodes, and that kubelets sign their certificates
// themselves, as the overlay that e2e.sh applies requires.
func checkNodes(t *testing.T, documents map[string]document) {
	t.Helper()
	first, _ := documents["InitConfiguration"]["nodeRegistration"].(document)
	// Without the field it has kubeadm's taint.
	if taints, ok := first["taints"].([]any); !ok || len(taints) > 0 {
		t.Errorf("taints of the control plane's node: %v, want an empty list", first["taints"])
	}
	joining, _ := documents["JoinConfiguration"]["nodeRegistration"].(document)
	if len(joining) == 0 || joining["taints"] != nil {
		t.Errorf("the worker registers with %v", joining)
	}
	kubelet := documents["KubeletConfiguration"]
	if kubelet == nil || kubelet["serverTLSBootstrap"] != nil || kubelet["tlsCertFile"] != nil {
		t.Errorf("the kubelets are configured with %v", kubelet)
	}
}

// version is one of the workflow's.
type version struct{ Kubernetes, Digest string }

func (v version) image() string { return "kindest/node:" + v.Kubernetes + "@" + v.Digest }

func versions(t *testing.T) []version {
	t.Helper()
	b, err := os.ReadFile(workflow)
	if err != nil {
		t.Fatal(err)
	}
	var w struct {
		Jobs struct {
			E2E struct {
				Strategy struct {
					Matrix struct{ Include []version }
				}
			}
		}
	}
	if err := yaml.Unmarshal(b, &w); err != nil {
		t.Fatal(err)
	}
	list := w.Jobs.E2E.Strategy.Matrix.Include
	if len(list) == 0 {
		t.Fatalf("%s has no versions in jobs.e2e.strategy.matrix.include", workflow)
	}
	return list
}

// TestVersions checks that the workflow's images have digests, one for each minor version, and that
// the default of this kind is among them. When kind is updated, update them too: its release notes
// have the list.
func TestVersions(t *testing.T) {
	minors := map[string]bool{}
	isDefault := false
	for _, v := range versions(t) {
		if !regexp.MustCompile(`^v1\.\d+\.\d+$`).MatchString(v.Kubernetes) ||
			!regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(v.Digest) {
			t.Errorf("want v1.N.N and sha256:..., not %+v", v)
		}
		minor := v.Kubernetes[:strings.LastIndexByte(v.Kubernetes, '.')+1]
		if minors[minor] {
			t.Errorf("%s is there twice", minor)
		}
		minors[minor] = true
		isDefault = isDefault || v.image() == defaults.Image
	}
	if !isDefault {
		t.Errorf("kind's default, %s, is not among them", defaults.Image)
	}
}
