//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// classic is what users see when the way from the API server to us is broken.
const classic = "the server is currently unable to handle the request"

// TestAggregation breaks the path from the API server to the server, in the ways that users
// encounter. For each, docs/troubleshooting.md must have the line that leads to the cause.
func TestAggregation(t *testing.T) {
	t.Run("no-endpoints", noEndpoints)
	t.Run("connection-refused", func(t *testing.T) {
		breakService(t, `{"spec":{"ports":[{"name":"https","port":443,"protocol":"TCP","targetPort":9}]}}`,
			"FailedDiscoveryCheck: failing or missing response from https://", "connect: connection refused")
	})
	t.Run("no-match", func(t *testing.T) {
		breakService(
			t, `{"spec":{"selector":{"k8s-app":"nobody"}}}`, "MissingEndpoints: ", "have no addresses with port name",
		)
	})
	t.Run("no-route", noRoute)
	t.Run("other-port", func(t *testing.T) {
		breakAPIServices(t, `{"spec":{"service":{"port":4443}}}`, "ServicePortError: ", "is not listening on port 4443")
	})
	t.Run("no-service", func(t *testing.T) {
		breakAPIServices(t, `{"spec":{"service":{"name":"nobody"}}}`, "ServiceNotFound: ", "is not present")
	})
	t.Run("certificate", foreignBundle)
	t.Run("front-proxy", otherFrontProxy)
	t.Run("removed", removedAPIServices)
}

// noEndpoints takes all replicas out of the Service. Nothing is scaled and nothing crashes, and
// afterwards everything recovers by itself.
func noEndpoints(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, "web", workload("steady", "-cpu=40"))
	createHPA(t, ns, "web", 2, average(corev1.ResourceCPU, "40m"))
	waitActive(t, ns)
	eventually(t, "the autoscaler sees 40m", func() error {
		if v := seesAverage(getHPA(t, ns, "web"), corev1.ResourceCPU) * 1000; v < 38 || v > 42 {
			return fmt.Errorf("it sees %.1fm", v)
		}
		return nil
	})

	scaleServer(t, 0)
	t.Cleanup(func() { scaleServer(t, 1) })
	unavailable(t, "MissingEndpoints: ", "have no addresses with port name")
	patchHPA(
		t, ns, "web",
		`{"spec":{"metrics":[{"type":"Resource","resource":`+
			`{"name":"cpu","target":{"type":"AverageValue","averageValue":"20m"}}}]}}`,
	)
	eventually(t, "the autoscaler says that it has no metrics", func() error {
		h := getHPA(t, ns, "web")
		if err := hpaCondition(h, corev1.ConditionFalse); err != nil {
			return err
		}
		for _, c := range h.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive &&
				(c.Reason != "FailedGetResourceMetric" || !strings.Contains(c.Message, classic)) {
				return fmt.Errorf("%s: %s", c.Reason, c.Message)
			}
		}
		return nil
	})
	documented(t, "FailedGetResourceMetric")
	deleted, err := cluster.client.CoreV1().Namespaces().Create(
		t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-deleted-"}},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.client.CoreV1().Namespaces().Delete(t.Context(), deleted.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	always(t, "nothing scales without metrics", 20*time.Second, replicasAre(t, ns, "web", 1, 1))
	documented(t, "NamespaceDeletionDiscoveryFailure")

	begun := time.Now()
	scaleServer(t, 1)
	t.Logf("%.1f s from the scaling of the Deployment to the first usage", time.Since(begun).Seconds())
	waitReplicas(t, ns, "web", 2, 2)
	eventually(t, "the namespace that was deleted meanwhile is gone", func() error {
		_, err := cluster.client.CoreV1().Namespaces().Get(t.Context(), deleted.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there (%w)", err)
	})
}

// foreignBundle makes the API server trust another authority. The server would repair that within a
// minute, so it is prevented from that until users have seen the error.
func foreignBundle(t *testing.T) {
	config, err := cluster.client.CoreV1().ConfigMaps(serverNamespace).Get(
		t.Context(), "kube-root-ca.crt", metav1.GetOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mended(t) })
	withoutRight(t, "system:metrics-server", "apiservices")
	bundle := base64.StdEncoding.EncodeToString([]byte(config.Data["ca.crt"]))
	for _, version := range []string{"v1", "v1beta1"} {
		mustKubectl(
			t, "patch", "apiservice", version+".metrics.k8s.io", "--type=merge", "-p",
			`{"spec":{"caBundle":"`+bundle+`"}}`,
		)
	}
	unavailable(t, "FailedDiscoveryCheck: ", "tls: failed to verify certificate: x509: ")
}

// otherFrontProxy makes the server trust front proxies of another authority than the API server's,
// as happens when --requestheader-client-ca-file and --proxy-client-cert-file of the API servers do
// not match.
func otherFrontProxy(t *testing.T) {
	p := template(t).DeepCopy()
	const name, dir = "other-authority", "/etc/other-authority"
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}},
	}})
	c := server(p)
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: dir, ReadOnly: true})
	c.Args = append(c.Args, "--requestheader-client-ca-file="+dir+"/ca.crt")
	pod := rollOut(t, p, name, nil)
	unavailable(t, "FailedDiscoveryCheck: failing or missing response from https://", ": 401")
	const log = "Unable to authenticate the request"
	eventually(
		t, "its log says whom it does not believe",
		func() error { return logHas(pod, log, "x509: certificate signed by unknown authority") },
	)
	documented(t, log)
	says := []string{
		": 401", "does not trust the client certificate of the API server's aggregator", "--proxy-client-cert-file",
		"requestheader-client-ca-file",
	}
	if err := doctor(t).finds("apiservice", says...); err != nil {
		t.Error(err)
	}
}

// withoutRight removes the right to a resource from a ClusterRole until t has ended.
func withoutRight(t *testing.T, clusterRole, resource string) {
	t.Helper()
	roles := cluster.client.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), clusterRole, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	right := slices.IndexFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, resource) })
	if right < 0 {
		t.Fatalf("ClusterRole %s has no right to %s", clusterRole, resource)
	}
	without := role.DeepCopy()
	without.Rules = slices.Delete(without.Rules, right, right+1)
	if without, err = roles.Update(t.Context(), without, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		role.ResourceVersion = without.ResourceVersion
		if _, err := roles.Update(context.Background(), role, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// noRoute makes the Service lead to an address that nobody has.
func noRoute(t *testing.T) {
	ctx, core := context.Background(), cluster.client.CoreV1()
	const name = "metrics-server-nowhere"
	_, err := core.Services(serverNamespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 443}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := core.Services(serverNamespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	_, err = cluster.client.DiscoveryV1().EndpointSlices(serverNamespace).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}}, // reserved for documentation
		Ports:       []discoveryv1.EndpointPort{{Name: new("https"), Port: new(int32(443))}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // services with a selector only lose theirs by themselves
		_ = cluster.client.DiscoveryV1().EndpointSlices(serverNamespace).Delete(ctx, name, metav1.DeleteOptions{})
	})
	breakAPIServices(
		t, `{"spec":{"service":{"name":"`+name+`"}}}`,
		"FailedDiscoveryCheck: failing or missing response from https://",
	)
}

// breakService breaks the server's Service by a patch, waits until the APIServices report that, and
// repairs it.
func breakService(t *testing.T, patch string, says ...string) {
	t.Helper()
	before := mustKubectl(t, "get", "service", "-n", serverNamespace, serverName, "-o", "jsonpath={.spec}")
	mustKubectl(t, "patch", "service", "-n", serverNamespace, serverName, "--type=merge", "-p", patch)
	// Where kube-proxy leads them, connections that were there before would go on.
	mustKubectl(t, "delete", "pod", "-n", serverNamespace, "-l", serverLabel, "--wait=false")
	t.Cleanup(func() {
		mustKubectl(t, "patch", "service", "-n", serverNamespace, serverName, "--type=merge", "-p", `{"spec":`+before+`}`)
		mended(t)
	})
	unavailable(t, says...)
}

// breakAPIServices does the same with both APIServices.
func breakAPIServices(t *testing.T, patch string, says ...string) {
	t.Helper()
	for _, version := range []string{"v1", "v1beta1"} {
		mustKubectl(t, "patch", "apiservice", version+".metrics.k8s.io", "--type=merge", "-p", patch)
	}
	t.Cleanup(func() {
		for _, version := range []string{"v1", "v1beta1"} {
			mustKubectl(t, "patch", "apiservice", version+".metrics.k8s.io", "--type=merge",
				"-p", `{"spec":{"service":{"name":"`+serverName+`","port":443}}}`)
		}
		mended(t)
	})
	unavailable(t, says...)
}

// mended waits until everything works again, and no earlier pod of the server is left to which a
// connection of the API server may still lead.
func mended(t *testing.T) {
	t.Helper()
	eventually(t, "all is well again", func() error {
		return errors.Join(replaced(t, nil, 1), allWell(context.Background()))
	})
}

// unavailable waits until the condition of both APIServices contains all of says, and users see the
// classic line. The documentation must have all of it.
func unavailable(t *testing.T, says ...string) {
	t.Helper()
	var condition string
	eventually(t, "the APIServices say why they are not available", func() error {
		for _, version := range []string{"v1", "v1beta1"} {
			err := available(version)
			if err == nil {
				return errors.New("they are available")
			}
			condition = err.Error()
			for _, want := range says {
				if !strings.Contains(condition, want) {
					return err
				}
			}
		}
		return nil
	})
	t.Log(condition)
	eventually(t, "users see the classic line", func() error {
		out, err := kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
		if err == nil || !strings.Contains(out, classic) {
			return fmt.Errorf("kubectl says %q", out)
		}
		out, err = kubectl("top", "nodes")
		if err == nil || !strings.Contains(out, classic) && !strings.Contains(out, "Metrics API not available") {
			return fmt.Errorf("kubectl top says %q", out)
		}
		return nil
	})
	documented(t, append(says, classic, "Metrics API not available")...)
	if err := doctor(t).finds("apiservice", append(says, "v1.metrics.k8s.io is not available")...); err != nil {
		t.Error(err)
	}
}

// documented checks that docs/troubleshooting.md has these words of an error.
func documented(t *testing.T, words ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if !strings.Contains(string(b), strings.TrimSpace(w)) {
			t.Errorf("docs/troubleshooting.md does not have %q", w)
		}
	}
}

// removedAPIServices removes the APIServices while the server runs, and registers them again.
func removedAPIServices(t *testing.T) {
	before := strings.Join(serverPods(t), " ")
	addAgain := rememberAPIServices(t)
	t.Cleanup(func() {
		addAgain()
		mended(t)
		if after := strings.Join(serverPods(t), " "); after != before {
			t.Errorf("the server did not survive it: %s, then %s", before, after)
		}
	})
	mustKubectl(t, "delete", "apiservice", "v1.metrics.k8s.io", "v1beta1.metrics.k8s.io")
	eventually(t, "kubectl top says that there is no such API", func() error {
		out, err := kubectl("top", "nodes")
		if err == nil || !strings.Contains(out, "Metrics API not available") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
}

// rememberAPIServices returns a function that restores the APIServices as they are now. The server
// would need up to a minute to fill in their caBundle.
func rememberAPIServices(t *testing.T) (addAgain func()) {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.config)
	if err != nil {
		t.Fatal(err)
	}
	services := client.Resource(
		schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
	)
	var all []*unstructured.Unstructured
	for _, version := range []string{"v1", "v1beta1"} {
		s, err := services.Get(t.Context(), version+".metrics.k8s.io", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.SetResourceVersion("")
		s.SetUID("")
		all = append(all, s)
	}
	return func() {
		for _, s := range all {
			_, err := services.Create(context.Background(), s, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) { // only one of them was deleted
				t.Error(err)
			}
		}
	}
}
