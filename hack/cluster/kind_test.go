package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeDocker puts a docker on the PATH that runs script, and returns the path of a file that its commands are
// appended to.
func fakeDocker(t *testing.T, script string) (commands string) {
	t.Helper()
	dir := t.TempDir()
	commands = filepath.Join(dir, "commands")
	write(t, filepath.Join(dir, "docker"), "#!/bin/sh\necho \"$DOCKER_HOST $*\" >>"+commands+"\n"+script, 0o755)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("DOCKER_HOST", "")
	return commands
}

func newTestCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{machine: machine{t.TempDir()}, cache: t.TempDir()}
	if err := c.findProject(); err != nil {
		t.Fatal(err)
	}
	c.version = c.pinned
	return c
}

func TestChooseKind(t *testing.T) {
	published, err := newTestCluster(t).publishedNodeImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	workflow, err := os.ReadFile("../../.github/workflows/e2e-kind.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(published, "@")
	if !strings.Contains(string(workflow), "digest: "+digest+"\n") {
		t.Errorf("the workflow does not test with %s", published)
	}
	for _, test := range []struct{ name, docker, image, reason string }{
		{"no engine", `echo "Cannot connect" >&2; exit 1`, "", "no Docker engine answers"},
		{"local image", "", localNodeImage, ""},
		{"published image", `[ "$3" != ` + localNodeImage + " ]", published, ""},
		{"image to pull", `[ "$1" != image ]`, published, ""},
		{
			"no image", `[ "$1" = version ] || { echo "no such host" >&2; exit 1; }`, "",
			"there is no node image, and it cannot be pulled: docker: exit status 1: no such host",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			fakeDocker(t, test.docker)
			image, reason := newTestCluster(t).chooseKind(t.Context())
			if image != test.image || reason != test.reason {
				t.Errorf("got image %q, reason %q; want %q, %q", image, reason, test.image, test.reason)
			}
		})
	}
}

// If kind fails although a Docker engine answers, the error says how to do without kind, and nothing is left behind.
func TestStartKindFails(t *testing.T) {
	c := newTestCluster(t)
	fakeDocker(t, "")
	t.Setenv("PATH", strings.Split(os.Getenv("PATH"), string(os.PathListSeparator))[0]) // no go: kind cannot be built
	_, _, err := c.startKind(t.Context(), localNodeImage)
	if err == nil || !strings.Contains(err.Error(), "go run . demo") {
		t.Errorf("error %v, want one that says how to do without kind", err)
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("the state directory is still there: %v", err)
	}
}

func TestKindConfig(t *testing.T) {
	c := newTestCluster(t)
	if err := c.makeDirs(); err != nil {
		t.Fatal(err)
	}
	for image, local := range map[string]bool{localNodeImage: true, "kindest/node:v1": false} {
		path, err := c.kindConfig(image)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		config := string(b)
		if !strings.Contains(config, "kind: Cluster\n") || strings.Contains(config, "addon/coredns") != local {
			t.Errorf("the configuration for %s is\n%s", image, config)
		}
	}
}

// A kind cluster is removed on the engine that it was created on, and a network that was there before stays.
func TestRemoveKind(t *testing.T) {
	for _, test := range []struct {
		name string
		kindRecord
		want []string
	}{
		{
			"with its network",
			kindRecord{"demo", "tcp://engine:2375", true},
			[]string{"container inspect", "ps", "rm -fv node", "network inspect", "network rm kind"},
		},
		{
			"other network",
			kindRecord{"demo", "tcp://engine:2375", false},
			[]string{"container inspect", "ps", "rm -fv node"},
		},
		{"removed engine", kindRecord{"demo", "unix:///no/such/socket", true}, []string{"container inspect"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newTestCluster(t)
			if err := c.makeDirs(); err != nil {
				t.Fatal(err)
			}
			commands := fakeDocker(t, `case $1 in ps) echo node ;; network) echo 0 ;; esac`)
			if err := c.save(record{Mode: kindNodes, Kind: &test.kindRecord}); err != nil {
				t.Fatal(err)
			}
			if err := c.remove(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
				t.Errorf("the state directory is still there: %v", err)
			}
			b, err := os.ReadFile(commands)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			same := func(line, want string) bool { return strings.HasPrefix(line, test.Engine+" "+want) }
			if !slices.EqualFunc(lines, test.want, same) {
				t.Errorf("docker was run as %q, want %q", lines, test.want)
			}
		})
	}
}
