//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// diagnosis has the parts of the doctor's report that these tests check.
type diagnosis struct {
	code   int
	Status string
	Checks []check
}

type check struct{ Check, Status, Message, Cause, Remedy string }

// doctor runs `metrics-server doctor` as an administrator at a terminal does.
func doctor(t *testing.T) diagnosis {
	t.Helper()
	return diagnose(t, []string{"doctor"}, serverBinary())
}

// doctorHPA makes it explain an autoscaler.
func doctorHPA(t *testing.T, namespace, name string) diagnosis {
	t.Helper()
	return diagnose(t, []string{"doctor", "hpa", namespace + "/" + name}, serverBinary())
}

func serverBinary() string { return cmp.Or(os.Getenv("E2E_BINARY"), "../../bin/metrics-server") }

// doctorIn runs it in a pod of the server.
func doctorIn(t *testing.T, pod string) diagnosis {
	t.Helper()
	return diagnose(
		t, []string{"doctor"}, cluster.kubectls[0], "--cache-dir="+cluster.cache, "exec", "-n", serverNamespace, pod, "--",
		"/metrics-server",
	)
}

func diagnose(t *testing.T, command []string, server ...string) diagnosis {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, server[0], slices.Concat(server[1:], command, []string{"-o", "json"})...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if _, exit := errors.AsType[*exec.ExitError](err); err != nil && !exit {
		t.Fatal(err)
	}
	d := diagnosis{code: cmd.ProcessState.ExitCode()}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return d
}

// finds checks whether the doctor found a problem of a check that contains all of says, and gave it
// a cause and a remedy.
func (d diagnosis) finds(check string, says ...string) error {
	if err := d.has("problem", check, says); err != nil {
		return err
	}
	if d.code != 1 {
		return fmt.Errorf("exit code %d, want 1", d.code)
	}
	return nil
}

// warns is like finds, for a warning.
func (d diagnosis) warns(check string, says ...string) error { return d.has("warning", check, says) }

func (d diagnosis) has(status, check string, says []string) error {
	for _, c := range d.Checks {
		if c.Check == check && c.Status == status && c.Cause != "" && c.Remedy != "" &&
			has(c.Message+"\n"+c.Cause+"\n"+c.Remedy, says...) == nil {
			return nil
		}
	}
	return fmt.Errorf("the doctor found no %s of %s that says %q: %+v", status, check, says, d)
}

// TestDoctor examines a healthy cluster, from a terminal and from the server's pod, and a cluster
// in which the server lacks its rights. Other tests run the doctor on what they break.
func TestDoctor(t *testing.T) {
	eventually(t, "all is well, says the doctor at a terminal", func() error {
		if d := doctor(t); d.code != 0 || d.Status == "problem" {
			return fmt.Errorf("%+v", d)
		}
		return nil
	})
	out := mustKubectl(t, "exec", "-n", serverNamespace, "deploy/"+serverName, "--", "/metrics-server", "doctor")
	t.Log("\n" + out)
	for _, want := range []string{"ok       nodes", "0 problems"} {
		if !strings.Contains(out, want) {
			t.Errorf("the doctor in the pod does not say %q:\n%s", want, out)
		}
	}

	bindings := cluster.client.RbacV1().ClusterRoleBindings()
	for name, says := range map[string][]string{
		"system:metrics-server":                {"may not", "list nodes"},
		"metrics-server:system:auth-delegator": {"may not", "subjectaccessreviews"},
	} {
		before, err := bindings.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := bindings.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		before.ResourceVersion, before.UID = "", ""
		eventually(t, "the doctor misses "+name, func() error { return doctor(t).finds("access", says...) })
		if _, err := bindings.Create(context.Background(), before, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mended(t)
}
