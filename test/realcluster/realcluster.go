// Package realcluster has helpers for the tests on real clusters, in test/e2e and test/install.
package realcluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Patience limits everything that has no shorter limit, because machines are shared and slow.
const Patience = 2 * time.Minute

// Main connects to the cluster, runs the tests of m and returns the exit code. connect gets a directory for kubectl's
// cache, which is removed afterwards.
func Main(m *testing.M, connect func(cache string) error) (code int) {
	cache, err := os.MkdirTemp("", "metrics-server-e2e-")
	if err == nil {
		err = connect(cache)
	}
	code = 1
	if err == nil {
		code = m.Run()
	}
	if err = errors.Join(err, os.RemoveAll(cache)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// Config returns the configuration of clients for the cluster of KUBECONFIG, without a limit on requests.
func Config() (*rest.Config, error) {
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		return nil, errors.New("KUBECONFIG is not set: run these tests by `make e2e`, or see test/e2e/README.md")
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err == nil {
		config.QPS = -1
	}
	return config, err
}

// Run runs a program for at most Patience, and returns its standard output and standard error together.
func Run(program string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), Patience)
	defer stop()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %q: %w\n%s", filepath.Base(program), args, err, out)
	}
	return string(out), err
}

// Kubectl is a kubectl program with the directory of its cache.
type Kubectl struct{ Program, Cache string }

// Run runs kubectl, like the function Run.
func (k Kubectl) Run(args ...string) (string, error) {
	return Run(k.Program, append([]string{"--cache-dir=" + k.Cache}, args...)...)
}

// MustRun is like Run, for a command that must succeed.
func (k Kubectl) MustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := k.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Follow runs kubectl until a line of its standard output is enough, and then ends it. It returns an error
// if kubectl ends before, or if no line is enough within limit.
func (k Kubectl) Follow(limit time.Duration, enough func(line string) bool, args ...string) error {
	ctx, stop := context.WithTimeout(context.Background(), limit)
	defer stop()
	cmd := exec.CommandContext(ctx, k.Program, append([]string{"--cache-dir=" + k.Cache}, args...)...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	found := false
	for lines := bufio.NewScanner(out); !found && lines.Scan(); {
		found = enough(lines.Text())
	}
	stop()
	err = cmd.Wait()
	switch {
	case found:
		return nil // it was killed
	case err == nil:
		err = errors.New("it has ended")
	}
	return fmt.Errorf("%s %q, for at most %v: %w\n%s", filepath.Base(k.Program), args, limit, err, &problems)
}

// Available returns why an APIService is not Available, or nil.
func (k Kubectl) Available(name string) error {
	out, err := k.Run("get", "apiservice", name, "-o",
		`jsonpath={range .status.conditions[?(@.type=="Available")]}{.status} {.reason}: {.message}{end}`)
	if err != nil || strings.HasPrefix(out, "True") {
		return err
	}
	return fmt.Errorf("APIService %s: Available is %s", name, out)
}

// RolledOut returns nil if d has exactly the replicas that it should have, all available and of its newest
// template, or else an error with their numbers.
func RolledOut(d *appsv1.Deployment) error {
	s := d.Status
	if want := *d.Spec.Replicas; s.ObservedGeneration < d.Generation || s.Replicas != want || s.UpdatedReplicas != want ||
		s.AvailableReplicas != want {
		return fmt.Errorf(
			"deployment %s: %d replicas wanted, %d there, %d of them new, %d available", d.Name, want, s.Replicas,
			s.UpdatedReplicas, s.AvailableReplicas,
		)
	}
	return nil
}

// Poll calls f until it returns nil: four times a second in the first seconds, later once a second, because many tests
// wait at the same time. After the limit it returns the last error of f.
func Poll(limit time.Duration, f func() error) error {
	begun := time.Now()
	for {
		err := f()
		waited := time.Since(begun)
		switch {
		case err == nil:
			return nil
		case waited > limit:
			return fmt.Errorf("still not so after %v: %w", limit, err)
		}
		<-time.After(min(max(waited/20, 250*time.Millisecond), time.Second))
	}
}

// Within fails t if f does not return nil within the limit.
func Within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	begun := time.Now()
	if err := Poll(limit, f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%5.1f s until %s", time.Since(begun).Seconds(), what)
}
