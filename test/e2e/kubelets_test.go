//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestKubeletsOutOfReach rolls the server out with flags by which it reaches no kubelet, in ways that people meet. The pod that cannot
// serve is never ready, so that the one before goes on, and it says why, in its log and by the doctor in it.
func TestKubeletsOutOfReach(t *testing.T) {
	foreign, err := cluster.client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string // in the place of all about kubelets
		says []string // the cause and the remedy
	}{
		{
			"unknown-authority",
			[]string{"--kubelet-use-node-status-port", "--kubelet-certificate-authority-text=" + foreign.Data["requestheader-client-ca-file"]},
			[]string{"x509: certificate signed by unknown authority", "serverTLSBootstrap"},
		},
		{"wrong-port", []string{"--kubelet-port=9", "--kubelet-insecure-tls"}, []string{"connection refused", "--kubelet-port"}},
		{"plain-http", []string{"--kubelet-use-node-status-port", "--deprecated-kubelet-completely-insecure"}, []string{"400", "--deprecated-kubelet-completely-insecure"}},
	} {
		t.Run(tc.name, func(t *testing.T) { outOfReach(t, tc.args, tc.says) })
	}
}

func outOfReach(t *testing.T, args, says []string) {
	deployments := cluster.client.AppsV1().Deployments(serverNamespace)
	d, err := deployments.Get(t.Context(), serverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := d.Spec.Template.Spec.Containers[0].Args
	t.Cleanup(func() {
		patchServer(t, argsPatch(t, before))
		mended(t)
	})
	kept := slices.DeleteFunc(slices.Clone(before), func(a string) bool {
		return strings.HasPrefix(a, "--kubelet-") && !strings.HasPrefix(a, "--kubelet-preferred-address-types")
	})
	patch := argsPatch(t, slices.Concat(kept, args))
	if _, err := deployments.Patch(t.Context(), serverName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	var pod string
	eventually(t, "the new pod says why it is not ready", func() error {
		if pod = unreadyServerPod(t); pod == "" {
			return fmt.Errorf("there is none")
		}
		log, err := kubectl("logs", "-n", serverNamespace, pod)
		if err != nil {
			return err
		}
		return has(log, append(slices.Clone(says), "not ready")...)
	})
	out, err := kubectl("exec", "-n", serverNamespace, pod, "--", "/metrics-server", "doctor")
	if err == nil {
		t.Error("the doctor in the pod finds nothing wrong")
	}
	if err := has(out, append(slices.Clone(says), "problem  nodes")...); err != nil {
		t.Errorf("the doctor: %v", err)
	}
	if err := nodesServed(t.Context()); err != nil {
		t.Errorf("the pod before does not go on: %v", err)
	}
}

// has says which of words a text does not have.
func has(text string, words ...string) error {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("it does not say %q:\n%s", w, text)
		}
	}
	return nil
}

func argsPatch(t *testing.T, args []string) string {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{
		"containers": []any{map[string]any{"name": serverName, "args": args}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(patch)
}

// unreadyServerPod is the server's pod that is running and not ready, "" if there is none.
func unreadyServerPod(t *testing.T) string {
	t.Helper()
	pods, err := cluster.client.CoreV1().Pods(serverNamespace).List(context.Background(), metav1.ListOptions{LabelSelector: serverLabel})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse
		}) {
			return p.Name
		}
	}
	return ""
}
