package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// programs of a real node that are not built here, and the Debian packages that have them. Docker's own package
// containerd.io has runc in another directory, and would have to give way to Debian's package.
var hostPrograms = []struct {
	paths []string // any of them will do
	pkg   string
}{
	{[]string{"/usr/bin/containerd"}, "containerd"},
	{[]string{"/usr/bin/ctr"}, "containerd"},
	{[]string{"/usr/sbin/runc", "/usr/bin/runc"}, "runc"},
	{[]string{"/usr/lib/cni/ptp"}, "containernetworking-plugins"},
	{[]string{"/usr/sbin/nft"}, "nftables"},
}

// noKubelet says why a real kubelet cannot run here; nil if it can probably run.
func noKubelet() error {
	if os.Geteuid() != 0 {
		return errors.New("a kubelet needs root")
	}
	if _, err := cgroupHierarchies(); err != nil {
		return err
	}
	if missing := missingPackages("/"); len(missing) > 0 && !isDebian() {
		return fmt.Errorf("missing programs, and not on Debian or Ubuntu to install them: %s", strings.Join(missing, ", "))
	}
	return nil
}

// missingPackages returns the packages of the programs that are not below root.
func missingPackages(root string) (packages []string) {
	for _, p := range hostPrograms {
		found := slices.ContainsFunc(p.paths, func(path string) bool {
			_, err := os.Stat(filepath.Join(root, path))
			return err == nil
		})
		if !found && !slices.Contains(packages, p.pkg) {
			packages = append(packages, p.pkg)
		}
	}
	return packages
}

func isDebian() bool {
	_, err := exec.LookPath("apt-get")
	_, err2 := os.Stat("/etc/debian_version")
	return err == nil && err2 == nil
}

// installPackages installs what a real node needs and lacks. No package is removed, not even one that conflicts. No
// service is started or enabled: apt runs where systemd cannot be seen, so the packages' scripts believe that there is
// none.
func installPackages(ctx context.Context) error {
	packages := missingPackages("/")
	if len(packages) == 0 {
		return nil
	}
	sayf("A real node needs Debian packages that are not installed: %s.", strings.Join(packages, " "))
	sayf("Installing them with apt-get; no service is started or enabled.")
	install := append([]string{"install", "-y", "--no-install-recommends", "--no-remove"}, packages...)
	for _, args := range [][]string{{"update"}, install} {
		err := step("apt-get "+args[0], func(*progress) error { return apt(ctx, args...) })
		if err != nil {
			return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
		}
	}
	if slices.Contains(packages, "containerd") {
		// The package has its service started with the machine from now on: undo that.
		err := os.Remove("/etc/systemd/system/multi-user.target.wants/containerd.service")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("disable the service containerd: %w", err)
		}
	}
	if left := missingPackages("/"); len(left) > 0 {
		return fmt.Errorf("installed, but their programs are not where Debian has them: %s", strings.Join(left, ", "))
	}
	return nil
}

func apt(ctx context.Context, args ...string) error {
	if out, err := aptCommand(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// aptCommand returns a command that runs apt-get without questions and without needrestart. On Ubuntu, needrestart
// restarts services whose libraries have changed, after every apt-get, with their init scripts if it sees no systemd.
func aptCommand(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"-o", "DPkg::Lock::Timeout=60"}, args...)
	hide := `if [ -d /run/systemd ]; then mount -t tmpfs none /run/systemd; fi && exec apt-get "$@"`
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", hide, "sh"}, args...)...)
	killGroup(cmd)
	// apt is asked to stop, not killed: a killed dpkg would have to be repaired by hand.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGINT) }
	cmd.WaitDelay = 0
	cmd.SysProcAttr.Unshareflags = unix.CLONE_NEWNS
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1")
	return cmd
}

// retryBusy repeats f while it says that something is still in use.
func retryBusy(f func() error) error {
	var err error
	for range 100 {
		if err = f(); !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := sleep(context.Background(), 20*time.Millisecond); err != nil {
			return err
		}
	}
	return err
}

// processStart says when a process started, in a form that is only good for comparing; "" if there is none.
func processStart(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may contain anything. Of the fields behind it, state is the first, start time the 20th.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// openPidfd refers to a process that may end, and waitPidfd waits until it has.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func waitPidfd(fd int) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return
		}
	}
}
