package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestPidfd(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := openPidfd(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ended := make(chan struct{})
	go func() { waitPidfd(int(f.Fd())); close(ended) }()
	select {
	case <-ended:
		t.Error("the process runs, but the wait for its end is over")
	default:
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
}

func TestParseHierarchies(t *testing.T) {
	const (
		root    = "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
		unified = "44 31 0:39 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"
		cpu     = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup none rw,cpu,cpuacct\n"
		others  = "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup none rw,cpuset\n" +
			"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup none rw,memory\n" +
			"36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup none rw,pids\n"
		systemd = "43 31 0:38 / /sys/fs/cgroup/systemd rw - cgroup none rw,xattr,release_agent=/lib/agent,name=systemd\n"
	)
	for _, test := range []struct {
		name, mountinfo string
		want            []hierarchy
		wantErr         bool
	}{
		{"none", root, nil, true},
		{"version 1", root + cpu + others + systemd, []hierarchy{
			{"/sys/fs/cgroup/cpu,cpuacct", false, "cpu,cpuacct"},
			{"/sys/fs/cgroup/cpuset", false, "cpuset"},
			{"/sys/fs/cgroup/memory", false, "memory"},
			{"/sys/fs/cgroup/pids", false, "pids"},
			{"/sys/fs/cgroup/systemd", false, "xattr,none,name=systemd"},
		}, false},
		{"version 1 without a controller that the kubelet needs", root + cpu, nil, true},
		{
			"version 2", root + "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 none rw,nsdelegate\n",
			[]hierarchy{{"/sys/fs/cgroup", true, ""}},
			false,
		},
		{
			"version 2, systemd's of version 1", root + systemd + unified,
			[]hierarchy{{"/sys/fs/cgroup/unified", true, ""}},
			false,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseHierarchies([]byte(test.mountinfo))
			if (err != nil) != test.wantErr || !slices.Equal(got, test.want) {
				t.Errorf("got %+v, %v; want %+v, an error: %v", got, err, test.want, test.wantErr)
			}
		})
	}
}

// systemd enables only the controllers that a unit uses. The cluster enables the others that a kubelet needs.
func TestJoinCgroups(t *testing.T) {
	for enabled, want := range map[string]string{
		"cpuset cpu io memory pids\n": "cpuset cpu io memory pids\n",
		"cpu io memory pids\n":        "+cpuset",
		"cpuset memory pids\n":        "+cpu",
	} {
		root := t.TempDir()
		file := filepath.Join(root, "cgroup.subtree_control")
		write(t, file, enabled, 0o644)
		if err := joinCgroups([]hierarchy{{dir: root, v2: true}}, "node"); err != nil {
			t.Errorf("%q: %v", enabled, err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%q: %q is written (%v), want %q", enabled, got, err, want)
		}
		if _, err := os.Stat(filepath.Join(root, "node", "cgroup.procs")); err != nil {
			t.Errorf("%q: %v", enabled, err)
		}
	}
}
