package doctor

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRightsIssues(t *testing.T) {
	checkIssues(t, map[string]issue{
		"no nodes/metrics": {
			broken: func(c *fakeCluster) {
				c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = p.Spec.Containers[0].Args[:2] })
				c.denied["get nodes/metrics"] = true
			},
			want: Line{
				Check: checkAccess, Status: Problem, Message: "may not get nodes/metrics", Cause: "403",
				Remedy: "ClusterRole system:metrics-server",
			},
		},
		"no account for kubelets": {
			broken: func(c *fakeCluster) {
				c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = p.Spec.Containers[0].Args[:2] })
			},
			want: Line{
				Check: checkAccess, Status: Warning, Message: "kubelets are shown the server's own token",
				Cause: "--kubelet-service-account is not given", Remedy: "apply the current manifest",
			},
		},
		"account for kubelets is gone": {
			broken: func(c *fakeCluster) { delete(c.objects, pathKubelets) },
			want: Line{Check: checkAccess, Status: Warning, Message: "ServiceAccount kube-system/metrics-server-kubelets " +
				"does not exist", Cause: "it uses its own token", Remedy: "apply the current manifest"},
		},
		"no right to tokens for kubelets": {
			broken: func(c *fakeCluster) {
				c.denied["create serviceaccounts/token kube-system/metrics-server-kubelets"] = true
			},
			want: Line{
				Check: checkAccess, Status: Warning, Message: "metrics-server may not create serviceaccounts/token " +
					"kube-system/metrics-server-kubelets", Cause: "it uses its own token",
				Remedy: "Role kube-system/metrics-server-kubelets",
			},
		},
		"account for kubelets has no right": {
			broken: func(c *fakeCluster) { c.denied["kubelets: get nodes/metrics"] = true },
			want: Line{
				Check: checkAccess, Status: Warning, Message: "metrics-server-kubelets may not get nodes/metrics",
				Cause: "that kubelets accept", Remedy: "ClusterRole system:metrics-server-kubelets",
			},
		},
		"no lists": {broken: func(c *fakeCluster) { c.denied["list nodes"], c.denied["watch pods"] = true, true }, want: Line{
			Check: checkAccess, Status: Problem, Message: "may not list nodes, watch pods", Cause: "cannot find out which " +
				"nodes", Remedy: "ClusterRole system:metrics-server",
		}},
		"no auth-delegator": {
			broken: func(c *fakeCluster) { c.denied["create tokenreviews.authentication.k8s.io"] = true },
			want: Line{
				Check: checkAccess, Status: Problem, Message: "may not create tokenreviews", Cause: "rejects all of them",
				Remedy: "auth-delegator",
			},
		},
		"no auth-reader": {
			broken: func(c *fakeCluster) {
				c.denied["get configmaps kube-system/extension-apiserver-authentication"] = true
			},
			want: Line{
				Check: checkAccess, Status: Problem, Message: "may not get configmaps", Cause: "front proxy",
				Remedy: "metrics-server-auth-reader",
			},
		},
		"no right to the serving Secret": {
			broken: func(c *fakeCluster) { c.denied["update secrets kube-system/metrics-server-serving"] = true },
			want: Line{
				Check: checkAccess, Status: Problem, Message: "may not update secrets kube-system/metrics-server-serving",
				Cause: "serving certificate", Remedy: "Role kube-system/metrics-server-serving",
			},
		},
		"no right to the APIServices": {
			broken: func(c *fakeCluster) {
				c.denied["patch apiservices.apiregistration.k8s.io v1.metrics.k8s.io"] = true
			},
			want: Line{
				Check: checkAccess, Status: Problem,
				Message: "may not patch apiservices.apiregistration.k8s.io v1.metrics.k8s.io", Cause: "caBundle",
				Remedy: "ClusterRole system:metrics-server",
			},
		},
		"no right to events": {
			broken: func(c *fakeCluster) { c.denied["create events in default"] = true },
			want: Line{
				Check: checkAccess, Status: Warning, Message: "may not create events in default", Cause: "cannot scrape",
				Remedy: "or give the server --node-events=false",
			},
		},
		"no serving Secret": {
			broken: func(c *fakeCluster) { delete(c.objects, pathSecret) },
			want: Line{
				Check: checkAccess, Status: Problem, Message: "Secret kube-system/metrics-server-serving does not exist",
				Cause: "may not create it", Remedy: "apply the current manifest",
			},
		},
		"serving Secret may not be read": {
			broken: func(c *fakeCluster) { c.forbid(pathSecret) },
			want: Line{
				Check: checkAccess, Status: Unknown, Message: "whether Secret kube-system/metrics-server-serving exists",
				Cause: "get secrets", Remedy: "get secrets in kube-system",
			},
		},
	})
}

// In a pod the server's account may not read metrics, but it may request discovery, which shows
// that the path works.
func TestNoRightToMetrics(t *testing.T) {
	c := newCluster(t)
	c.forbid(pathNodeUsage)
	r := c.run()
	if len(find(r, Line{Check: checkAggregation, Status: OK, Message: pathDiscovery + " is served"})) != 1 ||
		len(find(r, Line{Check: checkServed, Status: Unknown, Cause: "list nodes.metrics.k8s.io"})) != 1 {
		t.Error(text(t, r))
	}
	c.refuse(pathDiscovery, 503, metav1.StatusReasonServiceUnavailable, "unable to handle the request")
	if r := c.run(); len(find(r, Line{Check: checkAggregation, Status: Problem, Message: "unable to handle"})) != 1 {
		t.Error(text(t, r))
	}
}

// TestNoRightToKubelets checks that kubelets which the user may not ask are not said to fail.
func TestNoRightToKubelets(t *testing.T) {
	c := newCluster(t)
	c.forbid(proxyPath("n1"), proxyPath("n2"))
	r := c.run()
	const none = "0 of 2 kubelets give samples"
	unasked := Line{Check: checkNodes, Status: Unknown, Message: none, Cause: "could not be asked"}
	if len(find(r, unasked)) != 1 || r.Status != Unknown {
		t.Error(text(t, r))
	}
	c.refuse(proxyPath("n2"), 503, metav1.StatusReasonServiceUnavailable, "dial tcp: connection refused")
	if r := c.run(); len(find(r, Line{Check: checkNodes, Status: Warning, Message: none})) != 1 {
		t.Error(text(t, r))
	}
}

// Without any rights everything is unknown, each line says which right is missing, and the exit
// code is not a failure.
func TestNoRights(t *testing.T) {
	c := newCluster(t)
	c.forbid(versionPath, pathV1, pathV1beta1, pathService, pathSlices, pathServerPods, pathDeploys, pathEvents,
		pathConfig, pathReviews, pathNodes, pathAllPods, pathNodeUsage, pathPodUsage, pathDiscovery, pathScalers)
	r := c.run()
	if r.ExitCode() != 0 || r.Status != Unknown {
		t.Errorf("exit code %d, status %s:\n%s", r.ExitCode(), r.Status, text(t, r))
	}
	for check, right := range map[string]string{
		checkAPIService:  "get apiservices.apiregistration.k8s.io",
		checkService:     "get services and list endpointslices in kube-system",
		checkPods:        "list pods in kube-system",
		checkAggregation: "get the ConfigMap kube-system/extension-apiserver-authentication",
		checkAccess:      "create subjectaccessreviews.authorization.k8s.io",
		checkNodes:       "list nodes",
		checkServed:      "list nodes.metrics.k8s.io",
		checkAutoscalers: "list horizontalpodautoscalers.autoscaling",
	} {
		if len(find(r, Line{Check: check, Status: Unknown, Cause: "the right to " + right, Remedy: "may " + right})) == 0 {
			t.Errorf("%s: no line wants %q:\n%s", check, right, text(t, r))
		}
	}
}

// TestIncumbent checks that kubernetes-sigs/metrics-server is not said to lack what only this program needs. The
// remedies would keep it from starting.
func TestIncumbent(t *testing.T) {
	for image, incumbent := range map[string]bool{
		"registry.k8s.io/metrics-server/metrics-server:v0.8.0":                      true,
		"rancher/mirrored-metrics-server:v0.7.2":                                    true,
		"mirror.example:5000/bitnami/metrics-server:0.8.0-debian-12-r3@sha256:0123": true,
		"mirror.example:5000/metrics-server":                                        false,
		"metrics-server:v1.0.0":                                                     false,
		"metrics-server:v0.0.0-1000-g0123456789ab":                                  false,
	} {
		c := newCluster(t)
		c.pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = image
			p.Spec.Containers[0].Args = []string{"--secure-port=10250", "--metric-resolution=15s"}
		})
		c.denied["create events in default"] = true
		r := c.run()
		own := strings.Contains(text(t, r), "--kubelet-service-account is not given") &&
			strings.Contains(text(t, r), "--node-events=false") && strings.Contains(text(t, r), "-- /metrics-server doctor")
		if named := len(find(r, Line{Check: checkAccess, Status: OK, Message: image})) == 1; named != incumbent ||
			own == incumbent || (r.Status == Unknown) != incumbent {
			t.Errorf("%s\n%s", image, text(t, r))
		}
	}
}

// TestUnknownLocation checks that nothing is reported as missing if the server's location is only a guess: the roles
// view, edit and admin do not allow reading APIServices.
func TestUnknownLocation(t *testing.T) {
	for _, reviews := range []bool{false, true} {
		c := newCluster(t)
		c.forbid(pathV1, pathV1beta1)
		if !reviews {
			c.forbid(pathReviews)
		}
		c.denied["list nodes"] = true
		delete(c.objects, pathService)
		c.objects[pathServerPods] = &corev1.PodList{}
		r := c.run()
		unknown := Line{
			Check: checkService, Status: Unknown, Message: "kube-system/metrics-server does not exist", Cause: "cannot be read",
			Remedy: "--namespace and --service",
		}
		if len(find(r, unknown)) != 1 || r.ExitCode() != 0 {
			t.Errorf("exit code %d\n%s", r.ExitCode(), text(t, r))
		}
	}
}

// Rights that the server needs only with a flag are checked only with this flag.
func TestRightsByFlags(t *testing.T) {
	c := newCluster(t)
	c.pod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Args = []string{"--secure-port=10250", "--node-events=false"}
	})
	delete(c.objects, pathSecret)
	for _, right := range []string{
		"get secrets kube-system/metrics-server-serving", "get apiservices.apiregistration.k8s.io v1.metrics.k8s.io",
		"create events in default", "patch events in default",
	} {
		c.denied[right] = true
	}
	if r := c.run(); len(find(r, Line{Check: checkAccess, Status: OK})) != 1 {
		t.Error(text(t, r))
	}
	// Without the flag, a server uses the Secret of deploy/ only if it exists, and needs the rights
	// only then.
	c = newCluster(t)
	c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = []string{"--secure-port=10250"} })
	c.denied["update secrets kube-system/metrics-server-serving"] = true
	lacking := Line{
		Check: checkAccess, Status: Problem, Message: "may not update secrets kube-system/metrics-server-serving",
	}
	if r := c.run(); len(find(r, lacking)) != 1 {
		t.Error(text(t, r))
	}
	for _, args := range [][]string{
		{"--secure-port=10250", "--serving-certificate-secret="},
		{"--secure-port=10250", "--tls-cert-file=a", "--tls-private-key-file=b"},
	} {
		c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = args })
		if r := c.run(); len(find(r, Line{Check: checkAccess, Status: OK})) != 1 {
			t.Errorf("%q: want that access is in order in\n%s", args, text(t, r))
		}
	}
}

// TestCredentialsShownToKubelets makes the doctor ask kubelets directly, with credentials that are
// worth more than the ones that the server shows them.
func TestCredentialsShownToKubelets(t *testing.T) {
	const own, weak = "Bearer token", "Bearer weak"
	for name, tt := range map[string]struct {
		change func(c *fakeCluster)
		shown  string // "": no kubelet is asked
		want   Line
	}{
		"a token for kubelets": {func(*fakeCluster) {}, weak, Line{Check: checkAccess, Status: OK}},
		"none may be requested": {
			func(c *fakeCluster) { c.forbid(pathToken) }, own,
			Line{
				Check: checkAccess, Status: Warning, Message: "kubelets are shown this command's own credentials",
				Cause: "forbidden", Remedy: "Role metrics-server-kubelets",
			},
		},
		"its account is gone": {
			func(c *fakeCluster) { delete(c.objects, pathToken) }, own,
			Line{
				Check: checkAccess, Status: Warning, Message: "kubelets are shown this command's own credentials",
				Cause: "not found", Remedy: "--kubelet-service-account",
			},
		},
		"the API server fails": {
			func(c *fakeCluster) { c.refuse(pathToken, 500, metav1.StatusReasonInternalError, "out of order") }, "",
			Line{
				Check: checkNodes, Status: Unknown, Message: "kubelets cannot be asked", Cause: "out of order",
				Remedy: "API server",
			},
		},
		"the server shows its own": {
			func(c *fakeCluster) {
				c.pod(func(p *corev1.Pod) { p.Spec.Containers[0].Args = p.Spec.Containers[0].Args[:2] })
			}, own,
			Line{
				Check: checkAccess, Status: Warning, Message: "kubelets are shown the server's own token",
				Cause: "--kubelet-service-account", Remedy: "apply",
			},
		},
	} {
		c := newCluster(t)
		c.objects[pathToken].(*authenticationv1.TokenRequest).Status.Token = "weak"
		c.config.Direct = true
		var mu sync.Mutex
		shown := map[string]bool{}
		for _, k := range c.kubelet {
			k.Authenticate = false
			k.OnRequest = func(r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				shown[r.Header.Get("Authorization")] = true
			}
		}
		tt.change(c)
		r := c.run()
		want := map[string]bool{}
		if tt.shown != "" {
			want[tt.shown] = true
		}
		if d := cmp.Diff(want, shown); d != "" {
			t.Errorf("%s: shown to kubelets (-want +got):\n%s", name, d)
		}
		if len(find(r, tt.want)) == 0 {
			t.Errorf("%s: no line like %+v in\n%s", name, tt.want, text(t, r))
		}
	}
}

func TestFlagValue(t *testing.T) {
	for _, tc := range []struct {
		args  []string
		value string
		given bool
	}{
		{nil, "", false},
		{[]string{"--flags=a", "flag", "-flag"}, "", false},
		{[]string{"--flag=a", "--flag=b=c", "--other"}, "b=c", true},
		{[]string{"--flag", "a"}, "a", true},
		{[]string{"--flag", "--other"}, "", true},
		{[]string{"--flag"}, "", true},
		{[]string{"--flag="}, "", true},
	} {
		if value, given := flagValue(tc.args, "flag"); value != tc.value || given != tc.given {
			t.Errorf("%v: got %q, %t, want %q, %t", tc.args, value, given, tc.value, tc.given)
		}
	}
}
