package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inNamespaces makes cmd the first process of new namespaces. The cgroup namespace follows in setUp.
func inNamespaces(cmd *exec.Cmd) {
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWNET |
		unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
}

// childAttr: in a session of its own, so that no terminal's Ctrl-C reaches it, and gone with the supervisor.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// setUp makes the new namespaces a machine of their own. It returns containerd's snapshotter.
func (n *namespaces) setUp(config supervisorConfig) (snapshotter string, err error) {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return "", err
	}
	if n.Stage == 0 {
		if err := joinCgroups(hierarchies, n.Cgroup); err != nil {
			return "", err
		}
		// A cgroup namespace belongs to a thread. Executing this program again leaves only the thread
		// that is in it.
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return "", fmt.Errorf("new cgroup namespace: %w", err)
		}
		n.Stage = 1
		again, err := json.Marshal(config)
		if err != nil {
			return "", err
		}
		os.Setenv(supervisorEnv, string(again))
		return "", fmt.Errorf("execute itself: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	}

	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"hostname", func() error { return unix.Sethostname([]byte(n.Hostname)) }},
		{"private mounts", func() error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"/run", n.mountRun},
		{"/var", mountVar},
		{"/proc", mountProc},
		{"/sys", func() error { return mountSys(hierarchies) }},
		{"shared mounts", func() error { return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }},
		{"network", n.setUpNetwork},
	} {
		if err := s.do(); err != nil {
			return "", fmt.Errorf("set up %s: %w", s.what, err)
		}
	}
	return snapshotterFor(insideDir), nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// mkdirs makes base and the directories names below it.
func mkdirs(base string, names ...string) error {
	for _, name := range append(names, ".") {
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// mountRun mounts a tmpfs on /run that contains nothing of the host except the state directory and
// the programs.
func (n *namespaces) mountRun() error {
	run := filepath.Join(n.State, "mnt") // built aside: the state may lie below /run itself
	if err := errors.Join(mkdirs(run), mount("tmpfs", run, "tmpfs", 0, "mode=755")); err != nil {
		return err
	}
	if err := mkdirs(run, "cluster", "bin", "lock", "netns"); err != nil {
		return err
	}
	return errors.Join(
		mount(n.State, filepath.Join(run, "cluster"), "", unix.MS_BIND, ""),
		mount(n.Bin, filepath.Join(run, "bin"), "", unix.MS_BIND, ""),
		mount(run, "/run", "", unix.MS_MOVE, ""),
	)
}

// mountVar keeps what the kubelet, CNI and others write to /var in the state directory.
func mountVar() error {
	dir := filepath.Join(insideDir, "var")
	err := mkdirs(dir, "lib/kubelet/static-pods", "lib/cni", "log/pods", "log/containers", "tmp")
	// a node that was killed has it
	if link := os.Symlink("/run", filepath.Join(dir, "run")); !errors.Is(link, os.ErrExist) {
		err = errors.Join(err, link)
	}
	return errors.Join(err, mount(dir, "/var", "", unix.MS_BIND, ""))
}

// fakeSysctls apply to the whole machine, and the kubelet would set them. It sees files that
// already have the values that it wants.
var fakeSysctls = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0",
	"kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

func mountProc() error {
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	for name, value := range fakeSysctls {
		fake := filepath.Join(insideDir, "sysctl", strings.ReplaceAll(name, "/", "."))
		if err := writeFiles("/", map[string]string{fake: value + "\n"}); err != nil {
			return err
		}
		if err := mount(fake, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// mountSys shows the devices of this network namespace, and only the node's own cgroups.
func mountSys(hierarchies []hierarchy) error {
	if err := mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if len(hierarchies) == 1 && hierarchies[0].v2 {
		if err := mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
			return err
		}
		return delegateControllers("/sys/fs/cgroup")
	}
	if err := mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, h := range hierarchies {
		dir := "/sys/fs/cgroup/" + filepath.Base(h.dir)
		if err := errors.Join(mkdirs(dir), mount("cgroup", dir, "cgroup", 0, h.options)); err != nil {
			return err
		}
	}
	return nil
}

// delegateControllers lets the children of the cgroup at root use its controllers. A cgroup that does so may have no
// process of its own, hence the move to a leaf.
func delegateControllers(root string) error {
	leaf := filepath.Join(root, "init")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(b)) {
		err = errors.Join(err, os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0))
	}
	return err
}

// snapshotterFor says which of containerd's snapshotters works below dir: overlays do not stack everywhere.
func snapshotterFor(dir string) string {
	test := filepath.Join(dir, "overlay-test")
	defer os.RemoveAll(test)
	if mkdirs(test, "lower", "upper", "work", "merged") != nil {
		return "native"
	}
	at := func(name string) string { return filepath.Join(test, name) }
	if mount("overlay", at("merged"), "overlay", 0,
		"lowerdir="+at("lower")+",upperdir="+at("upper")+",workdir="+at("work")) != nil {
		return "native"
	}
	if unix.Unmount(at("merged"), 0) != nil {
		return "native"
	}
	return "overlayfs"
}

// hierarchy is one cgroup file system of the host.
type hierarchy struct {
	dir     string // where it is mounted
	v2      bool
	options string // version 1: what to mount it with again
}

func cgroupHierarchies() ([]hierarchy, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseHierarchies(b)
}

// kubeletControllers are those without which the kubelet does not start.
var kubeletControllers = []string{"cpu", "cpuset", "memory", "pids"}

// parseHierarchies finds the cgroup hierarchies in a mountinfo file: those of version 1 if any of
// them has a controller, because then they have all of them; otherwise that of version 2.
func parseHierarchies(mountinfo []byte) ([]hierarchy, error) {
	var v1, v2 []hierarchy
	controllers := map[string]bool{}
	for line := range bytes.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(string(line)), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch dir := left[4]; right[0] {
		case "cgroup2":
			v2 = append(v2, hierarchy{dir: dir, v2: true})
		case "cgroup":
			var options []string
			for option := range strings.SplitSeq(right[2], ",") {
				switch name, _, _ := strings.Cut(option, "="); name {
				case "rw", "ro", "release_agent":
				case "name":
					options = append(options, "none", option)
				default:
					options = append(options, option)
					controllers[option] = true
				}
			}
			v1 = append(v1, hierarchy{dir: dir, options: strings.Join(options, ",")})
		}
	}
	if controllers["cpu"] || controllers["memory"] {
		for _, name := range kubeletControllers {
			if !controllers[name] {
				return nil, fmt.Errorf("no cgroup hierarchy has the controller %q", name)
			}
		}
		return v1, nil
	}
	if len(v2) == 0 {
		return nil, errors.New("no cgroup file system is mounted")
	}
	return v2[:1], nil
}

// joinCgroups moves this process to a cgroup called name in each hierarchy.
func joinCgroups(hierarchies []hierarchy, name string) error {
	for _, h := range hierarchies {
		if h.v2 {
			if err := enableControllers(h.dir); err != nil {
				return err
			}
		}
		dir := filepath.Join(h.dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		// empty in a new one of version 1, which then takes no process
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if strings.Contains(h.options, "cpuset") {
				b, err := os.ReadFile(filepath.Join(h.dir, file))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, file), b, 0)
				}
				if err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// enableControllers enables kubeletControllers for the cgroups in dir, the root of cgroup v2, as runc on the host does:
// systemd enables only those that a unit uses, often just memory and pids.
func enableControllers(dir string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	enabled := strings.Fields(string(b))
	for _, controller := range kubeletControllers {
		if slices.Contains(enabled, controller) {
			continue
		}
		if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("enable the cgroup controller %q: %w", controller, err)
		}
	}
	return nil
}

// removeCgroups removes the cgroups called name or name-..., whose processes have ended.
func removeCgroups(name string) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return nil //nolint:nilerr // no cgroups, nothing to remove
	}
	for _, h := range hierarchies {
		others, _ := filepath.Glob(filepath.Join(h.dir, name+"-*"))
		for _, dir := range append(others, filepath.Join(h.dir, name)) {
			err = errors.Join(err, removeCgroup(dir))
		}
	}
	return err
}

// removeCgroup removes a cgroup and those below it, deepest first. The kernel makes and removes the files.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, retryBusy(func() error { return unix.Rmdir(dir) }))
}
