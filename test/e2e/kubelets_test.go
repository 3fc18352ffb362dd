//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	authenticationConfig = "extension-apiserver-authentication"
	frontProxyKey        = "requestheader-client-ca-file"

	nodePort  = "--kubelet-use-node-status-port"
	byAddress = "--kubelet-preferred-address-types=InternalIP"

	// nobody is a proxy that does not exist.
	nobody = "http://127.0.0.1:9"
)

// TestKubeletsOutOfReach rolls the server out with common mistakes that keep it from reaching any
// kubelet. The new pod never becomes ready, so the old one stays. The new pod reports the cause in
// its log, and so does the doctor that runs in it.
func TestKubeletsOutOfReach(t *testing.T) {
	installed := template(t)
	config := getConfigMap(t, authenticationConfig)
	inCluster := strings.Join(serviceAddresses(t), ",")
	var pod string
	var last []string
	for _, tc := range []struct {
		name string
		args []string          // replaces all arguments about kubelets
		env  map[string]string // in addition to that of the installation
		says []string          // the cause and the remedy
	}{
		{
			name: "unknown-authority",
			args: []string{nodePort, byAddress, "--kubelet-certificate-authority-text=" + config.Data[frontProxyKey]},
			says: []string{"x509: certificate signed by unknown authority", "serverTLSBootstrap"},
		},
		{
			name: "wrong-port", args: []string{"--kubelet-port=9", byAddress, "--kubelet-insecure-tls"},
			says: []string{"connection refused", "--kubelet-port"},
		},
		{
			name: "plain-http", args: []string{nodePort, byAddress, "--deprecated-kubelet-completely-insecure"},
			says: []string{"answer is 400 Bad Request", "--deprecated-kubelet-completely-insecure"},
		},
		{
			name: "names", args: []string{nodePort, "--kubelet-preferred-address-types=Hostname"},
			says: []string{"lookup ", "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname"},
		},
		{
			name: "proxy", args: []string{nodePort, byAddress},
			env:  map[string]string{"HTTPS_PROXY": nobody, "NO_PROXY": inCluster},
			says: []string{"through the proxy", "connection refused", "NO_PROXY"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			says := append(slices.Clone(tc.says), "begins to fail")
			pod, last = changedServer(t, installed, tc.name, tc.args, tc.env, says), tc.says
			documented(t, tc.says...)
			d := doctorIn(t, pod)
			if err := d.finds("nodes", tc.says...); err != nil {
				t.Error(err)
			}
			if err := nodesServed(t.Context()); err != nil {
				t.Errorf("the pod before does not go on: %v", err)
			}
		})
	}
	if t.Failed() || pod == "" {
		return
	}
	eventually(t, "the last of the pods says why it is not ready", func() error {
		return logHas(pod, append(slices.Clone(last), "The server is not ready")...)
	})
}

// TestStartWithoutAuthenticationConfig rolls the server out in a cluster without an authentication
// configuration. The server waits, and reports what it waits for.
func TestStartWithoutAuthenticationConfig(t *testing.T) {
	installed := template(t)
	for _, tc := range []struct {
		name   string
		env    map[string]string
		set    func(t *testing.T)
		says   []string // the cause and the remedy
		ready  string   // what /readyz says, to anybody
		doctor func(t *testing.T, pod string) error
	}{
		{
			name: "proxy", env: map[string]string{"HTTPS_PROXY": nobody}, set: func(*testing.T) {},
			says:  []string{"proxyconnect", "connection refused", "through the proxy 127.0.0.1:9", "NO_PROXY"},
			ready: "proxyconnect: connect: connection refused",
			doctor: func(t *testing.T, pod string) error {
				if err := doctor(t).finds("pods", pod, "HTTPS_PROXY", "NO_PROXY"); err != nil {
					return err
				}
				out, err := kubectl("exec", "-n", serverNamespace, pod, "--", "/metrics-server", "doctor")
				if err == nil {
					return fmt.Errorf("the doctor in the pod finds nothing wrong: %s", out)
				}
				return has(out, "through the proxy 127.0.0.1:9", "NO_PROXY")
			},
		},
		{
			name: "no-front-proxy", set: withoutFrontProxy,
			says: []string{
				authenticationConfig + " has no " + frontProxyKey, "--requestheader-client-ca-file",
				"--proxy-client-cert-file",
			},
			ready: authenticationConfig + " has no " + frontProxyKey,
			doctor: func(t *testing.T, pod string) error {
				says := []string{"has no " + frontProxyKey, "--requestheader-client-ca-file", "--proxy-client-cert-file"}
				if err := doctor(t).finds("aggregation", says...); err != nil {
					return err
				}
				return doctorIn(t, pod).finds("aggregation", says...)
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.set(t)
			pod := changedServer(
				t, installed, tc.name, nil, tc.env,
				append(slices.Clone(tc.says), "authentication configuration cannot be read"),
			)
			code, body, err := rawGet(
				cluster.config,
				fmt.Sprintf(
					"/api/v1/namespaces/%s/pods/https:%s:%d/proxy/readyz", serverNamespace, pod,
					server(installed).Ports[0].ContainerPort,
				),
				nil,
			)
			if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, tc.ready) {
				t.Errorf("/readyz does not say %q: %d %s (%v)", tc.ready, code, body, err)
			}
			if err := tc.doctor(t, pod); err != nil {
				t.Error(err)
			}
			documented(t, "authentication configuration cannot be read", tc.says[0])
			if err := nodesServed(t.Context()); err != nil {
				t.Errorf("the pod before does not go on: %v", err)
			}
		})
	}
}

// TestPortOfTheKubelet puts the server on the host network with the kubelet's port, as its manifest
// would if only hostNetwork were set. The container exits again and again, and reports the cause.
func TestPortOfTheKubelet(t *testing.T) {
	p := template(t).DeepCopy()
	p.Spec.HostNetwork = true
	c := server(p)
	c.Args = slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.HasPrefix(a, "--secure-port") })
	c.Args = append(c.Args, "--secure-port=10250")
	c.Ports[0].ContainerPort = 10250
	says := []string{
		"--secure-port 10250", "bind: address already in use", "on the host network, the kubelet uses 10250",
		"--secure-port=4443",
	}
	pod := rollOut(t, p, "port-of-the-kubelet", says)
	documented(t, "--secure-port 10250", "bind: address already in use", "--secure-port=4443")
	eventually(t, "the container has been restarted", func() error {
		if n := getPod(t, serverNamespace, pod).Status.ContainerStatuses[0].RestartCount; n == 0 {
			return errors.New("it has not")
		}
		return nil
	})
	if err := doctor(t).finds(
		"pods", pod, "kubelet listens on", "--secure-port, containerPort and the Service's targetPort", "4443",
	); err != nil {
		t.Error(err)
	}
	if err := nodesServed(t.Context()); err != nil {
		t.Errorf("the pod before does not go on: %v", err)
	}
}

// TestProxyWithExceptions follows the documents' advice about a proxy and about names: the server
// serves, and the doctor warns of the names, which cost a look-up each time.
func TestProxyWithExceptions(t *testing.T) {
	installed := template(t)
	nodes, err := cluster.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	direct := serviceAddresses(t)
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				direct = append(direct, a.Address)
			}
		}
	}
	args := []string{nodePort, "--kubelet-preferred-address-types=Hostname,InternalIP"}
	env := map[string]string{"HTTPS_PROXY": nobody, "NO_PROXY": strings.Join(append(direct, names(nodes)...), ",")}
	pod := changedServer(t, installed, "exceptions", args, env, nil)
	mended(t)
	d := doctorIn(t, pod)
	if err := d.warns("nodes", "not at the preferred address", "--kubelet-preferred-address-types"); err != nil ||
		d.code != 0 {
		t.Errorf("exit code %d, %v", d.code, err)
	}
}

func names(nodes *corev1.NodeList) (all []string) {
	for _, n := range nodes.Items {
		all = append(all, n.Name)
	}
	return all
}

// serviceAddresses returns the addresses at which pods find the API server.
func serviceAddresses(t *testing.T) []string {
	t.Helper()
	s, err := cluster.client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Spec.ClusterIPs
}

func getConfigMap(t *testing.T, name string) *corev1.ConfigMap {
	t.Helper()
	m, err := cluster.client.CoreV1().ConfigMaps(serverNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withoutFrontProxy changes the ConfigMap to what it is when API servers run without the
// aggregation flags. An API server with these flags would restore the key at once, so a policy
// forbids that.
func withoutFrontProxy(t *testing.T) {
	ctx, core := context.Background(), cluster.client.CoreV1().ConfigMaps(serverNamespace)
	admission := cluster.client.AdmissionregistrationV1()
	policies, bindings := admission.ValidatingAdmissionPolicies(), admission.ValidatingAdmissionPolicyBindings()
	before := getConfigMap(t, authenticationConfig)
	const name = "metrics-server-e2e.no-front-proxy"
	_, err := policies.Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
					ResourceNames: []string{authenticationConfig},
					RuleWithOperations: admissionregistrationv1.RuleWithOperations{
						Operations: []admissionregistrationv1.OperationType{
							admissionregistrationv1.Create, admissionregistrationv1.Update,
						},
						Rule: admissionregistrationv1.Rule{
							APIGroups:   []string{""},
							APIVersions: []string{"v1"},
							Resources:   []string{"configmaps"},
						},
					},
				}},
			},
			Validations: []admissionregistrationv1.Validation{{Expression: "!('" + frontProxyKey + "' in object.data)"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := policies.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		eventually(t, "the key is back", func() error {
			patch, err := json.Marshal(map[string]any{"data": before.Data})
			if err == nil {
				_, err = core.Patch(ctx, authenticationConfig, types.MergePatchType, patch, metav1.PatchOptions{})
			}
			return err
		})
	})
	_, err = bindings.Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	without := maps.Clone(before.Data)
	delete(without, frontProxyKey)
	eventually(t, "the API server publishes no front proxy", func() error {
		m := getConfigMap(t, authenticationConfig)
		m.Data = without
		if _, err := core.Update(ctx, m, metav1.UpdateOptions{}); err != nil {
			return err
		}
		time.Sleep(time.Second) // the policy takes a moment to take effect
		if m = getConfigMap(t, authenticationConfig); m.Data[frontProxyKey] != "" {
			return fmt.Errorf("the key is back")
		}
		return nil
	})
}

// template returns the pod template of the server's Deployment, which is restored when t has ended.
func template(t *testing.T) *corev1.PodTemplateSpec {
	t.Helper()
	d, err := cluster.client.AppsV1().Deployments(serverNamespace).Get(t.Context(), serverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := kubectl("logs", "-n", serverNamespace, "-l", serverLabel, "--prefix", "--tail=20")
			t.Log(out)
		}
		setTemplate(t, &d.Spec.Template)
		mended(t)
	})
	return &d.Spec.Template
}

// server returns the container of the template that runs the server.
func server(p *corev1.PodTemplateSpec) *corev1.Container {
	return &p.Spec.Containers[slices.IndexFunc(
		p.Spec.Containers, func(c corev1.Container) bool { return c.Name == serverName },
	)]
}

func setTemplate(t *testing.T, p *corev1.PodTemplateSpec) {
	t.Helper()
	patch, err := json.Marshal([]any{map[string]any{"op": "replace", "path": "/spec/template", "value": p}})
	if err == nil {
		_, err = cluster.client.AppsV1().Deployments(serverNamespace).Patch(
			context.Background(), serverName, types.JSONPatchType, patch, metav1.PatchOptions{},
		)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// changedServer rolls out the template with other arguments about kubelets, if there are any, and
// with more variables. It returns the name of the new pod when its log contains all of says.
func changedServer(
	t *testing.T, template *corev1.PodTemplateSpec, way string, args []string, env map[string]string,
	says []string,
) (pod string) {
	t.Helper()
	p := template.DeepCopy()
	// In some clusters, DNS knows the nodes.
	p.Spec.DNSPolicy, p.Spec.DNSConfig = corev1.DNSNone, &corev1.PodDNSConfig{Nameservers: []string{"127.0.0.1"}}
	c := server(p)
	if args != nil {
		kept := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.HasPrefix(a, "--kubelet-") })
		c.Args = slices.Concat(kept, args)
	}
	for name, value := range env {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
	}
	return rollOut(t, p, way, says)
}

// rollOut rolls out the template p, which it changes, and returns the name of the new pod when its
// log contains all of says.
func rollOut(t *testing.T, p *corev1.PodTemplateSpec, way string, says []string) (pod string) {
	t.Helper()
	const mark = "metrics-server-e2e/way" // distinguishes the pod from others that are ending
	p.Annotations = maps.Clone(p.Annotations)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[mark] = way
	setTemplate(t, p)
	eventually(t, "the new pod runs and says what is to be said", func() error {
		pods, err := cluster.client.CoreV1().Pods(serverNamespace).List(
			t.Context(), metav1.ListOptions{LabelSelector: serverLabel},
		)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool {
			return p.Annotations[mark] == way && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil
		})
		if i < 0 {
			return fmt.Errorf("there is none")
		}
		pod = pods.Items[i].Name
		return logHas(pod, says...)
	})
	return pod
}

// logHas returns which of words the log of one of the server's pods lacks.
func logHas(pod string, words ...string) error {
	log, err := kubectl("logs", "-n", serverNamespace, pod)
	if err != nil {
		return err
	}
	return has(log, words...)
}

// has returns which of words a text lacks.
func has(text string, words ...string) error {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("it does not say %q:\n%s", w, text)
		}
	}
	return nil
}
