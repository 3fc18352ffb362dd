package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMissingPackages(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string
		want  []string
	}{
		{"bare machine", nil, []string{"containerd", "runc", "containernetworking-plugins", "nftables"}},
		{
			"Debian's packages",
			[]string{"usr/bin/containerd", "usr/bin/ctr", "usr/sbin/runc", "usr/lib/cni/ptp", "usr/sbin/nft"},
			nil,
		},
		{
			"Docker's containerd.io, which Debian's runc would remove",
			[]string{"usr/bin/containerd", "usr/bin/ctr", "usr/bin/runc"},
			[]string{"containernetworking-plugins", "nftables"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for _, file := range test.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if got := missingPackages(root); !slices.Equal(got, test.want) {
				t.Errorf("missing: %q, want %q", got, test.want)
			}
		})
	}
}

// No service of the machine is restarted by what hooks of apt-get find out of date.
func TestAptCommand(t *testing.T) {
	cmd := aptCommand(t.Context(), "install", "-y", "runc")
	if !slices.Contains(cmd.Env, "NEEDRESTART_SUSPEND=1") {
		t.Error("needrestart, which apt-get runs on Ubuntu, would restart services")
	}
	if got := cmd.Args[len(cmd.Args)-3:]; !slices.Equal(got, []string{"install", "-y", "runc"}) {
		t.Errorf("the last arguments are %q", got)
	}
}
