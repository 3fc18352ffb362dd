//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"metrics-server/pkg/doctor"
)

// examine runs the doctor with a kubeconfig for f's nodes. It returns its report and its exit code.
func examine(f *fleet, kubeconfig string, args ...string) (*doctor.Report, int, error) {
	cmd := exec.Command(
		cluster.binary,
		append(
			[]string{"doctor", "--output=json", "--kubeconfig=" + cluster.path(kubeconfig), "--node-selector=fleet=" + f.name},
			args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code, err = exit.ExitCode(), nil
	}
	if err != nil {
		return nil, 0, err
	}
	r := &doctor.Report{}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, code, fmt.Errorf("exit code %d: %w\n%s%s", code, err, out, stderr.String())
	}
	return r, code, nil
}

// worst is the worst status of the lines of a check, "" if there is none.
func worst(r *doctor.Report, check string) (status doctor.Status) {
	rank := map[doctor.Status]int{doctor.OK: 1, doctor.Unknown: 2, doctor.Warning: 3, doctor.Problem: 4}
	for _, l := range r.Checks {
		if l.Check == check && rank[l.Status] > rank[status] {
			status = l.Status
		}
	}
	return status
}

func TestDoctor(t *testing.T) {
	f := newFleet(t, 2, 2)
	s := startServer(t, f)
	s.ready(t)
	s.aggregate(t, nil)
	serverPod(t, f)

	expect := func(r *doctor.Report, code, wantCode int, want map[string]doctor.Status) {
		t.Helper()
		for check, status := range want {
			if got := worst(r, check); got != status {
				t.Errorf("%s is %q, want %q", check, got, status)
			}
		}
		if code != wantCode {
			t.Errorf("exit code %d, want %d", code, wantCode)
		}
		if t.Failed() {
			text, _ := json.MarshalIndent(r, "", "  ")
			t.Fatalf("%s", text)
		}
	}

	// In a pod: with the rights of the server's account. Without --kubelet-service-account, access has a warning.
	r, code, err := examine(f, f.name+".kubeconfig", "--kubelets=direct", "--kubelet-preferred-address-types=InternalIP")
	if err != nil {
		t.Fatal(err)
	}
	expect(r, code, 0, map[string]doctor.Status{
		"apiservice": doctor.OK, "service": doctor.Unknown, "pods": doctor.OK, "aggregation": doctor.OK,
		"access": doctor.Warning, "nodes": doctor.OK, "served": doctor.Unknown, "autoscalers": doctor.Unknown,
		"versions": doctor.OK,
	})
	for _, n := range r.Nodes {
		if n.Certificate == nil || !n.Certificate.Trusted || n.Containers != 4 || n.NewestSample == nil {
			t.Errorf("node %+v", n)
		}
	}

	// An administrator's terminal. This API server prefers the names of nodes for kubelets, and
	// nothing resolves them.
	r, code, err = examine(f, "admin.kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	expect(r, code, 1, map[string]doctor.Status{
		"apiservice": doctor.OK, "service": doctor.OK, "pods": doctor.OK, "aggregation": doctor.OK,
		"access": doctor.Warning, "nodes": doctor.Problem, "served": doctor.OK, "autoscalers": doctor.OK,
	})

	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the doctor sees that the server has gone", func() error {
		r, code, err := examine(f, "admin.kubeconfig")
		if err == nil &&
			(code != 1 || worst(r, "apiservice") != doctor.Problem || worst(r, "aggregation") != doctor.Problem) {
			err = fmt.Errorf(
				"exit code %d, apiservice is %q, aggregation %q", code, worst(r, "apiservice"), worst(r, "aggregation"),
			)
		}
		return err
	})

	// There is nobody to ask.
	if err := cluster.writeKubeconfig("nobody.kubeconfig", "https://127.0.0.1:1", &clientcmdapi.AuthInfo{}); err != nil {
		t.Fatal(err)
	}
	if _, code, err := examine(f, "nobody.kubeconfig"); code != 2 {
		t.Errorf("exit code %d without an API server, want 2 (%v)", code, err)
	}
}

// serverPod makes the object of a pod in which the server could run, with the flags that this one has.
func serverPod(t *testing.T, f *fleet) {
	t.Helper()
	pods := cluster.client.CoreV1().Pods("kube-system")
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: f.name, Labels: map[string]string{"k8s-app": "metrics-server"}},
		Spec: corev1.PodSpec{
			NodeName: f.nodes[0].name, ServiceAccountName: "metrics-server",
			Containers: []corev1.Container{{Name: "metrics-server", Image: "none", Args: []string{
				"--kubelet-use-node-status-port", "--kubelet-certificate-authority=" + cluster.path("ca.crt"),
			}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deletePod("kube-system", f.name) })
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
