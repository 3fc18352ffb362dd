//go:build !linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

var errNotLinux = errors.New("a kubelet needs Linux")

func noKubelet() error                      { return errNotLinux }
func installPackages(context.Context) error { return errNotLinux }
func inNamespaces(*exec.Cmd)                {}
func removeCgroups(string) error            { return nil }
func join(node, []node) error               { return errNotLinux }
func leave(node, []node) error              { return errNotLinux }
func openPidfd(int) (*os.File, error)       { return nil, errNotLinux }
func waitPidfd(int)                         {}

func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func (*namespaces) setUp(supervisorConfig) (string, error) { return "", errNotLinux }

// processStart says when a process started, in a form that is only good for comparing; "" if there is none.
func processStart(pid int) string {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
