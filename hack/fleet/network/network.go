// Package network gives the fleet a separate network, in which every address of 10.0.0.0/8 leads to
// this machine, because metrics servers refuse to scrape pods at loopback addresses. The kernel
// removes the network when the last process in it ends, for whatever reason.
package network

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable is set in the environment of the processes in the network.
const variable = "FLEET_NETWORK"

// Inside reports whether this process is in the network.
func Inside() bool { return os.Getenv(variable) != "" }

// Run runs this program again, in a new network, with some arguments and the same input and output.
// It waits for that process and returns its exit code. Signals that end programs are handled by
// that process.
func Run(args ...string) (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, denied(err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		err = nil
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 { // a signal
		code = 1
	}
	return code, err
}

// denied adds to err, with which the system denied a network namespace or the rights in it, what the user can do. Since
// 23.10, Ubuntu lets users create namespaces, but AppArmor denies them the rights in these.
func denied(err error) error {
	return fmt.Errorf("simulated pods need a network namespace, which this system does not allow: %w: run as root, or "+
		"allow unprivileged user namespaces (on Ubuntu: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)", err)
}

// SetUp makes the addresses of the network lead to this machine. The kernel makes a whole prefix local if the
// loopback device has an address of it.
func SetUp() error {
	if !Inside() {
		return errors.New("not in a network of its own")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	do := func(device string, request uint, set func(*unix.Ifreq) error) error {
		r, err := unix.NewIfreq(device)
		if err == nil {
			err = set(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, request, r)
		}
		if err != nil {
			err = fmt.Errorf("set up the device %s of the network namespace: %w", device, err)
		}
		if errors.Is(err, unix.EPERM) {
			err = denied(err)
		}
		return err
	}
	address := func(a, b, c, d byte) func(*unix.Ifreq) error {
		return func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{a, b, c, d}) }
	}
	up := func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	}
	for _, step := range []func() error{
		func() error { return do("lo", unix.SIOCSIFFLAGS, up) }, // the kernel adds 127.0.0.1
		func() error { return do("lo:pods", unix.SIOCSIFADDR, address(10, 255, 255, 254)) },
		func() error { return do("lo:pods", unix.SIOCSIFNETMASK, address(255, 0, 0, 0)) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
