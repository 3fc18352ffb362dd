package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/kubelet/kubelettest"
)

// fakeCluster is an API server whose answers are objects by their paths, and the kubelets behind
// it.
type fakeCluster struct {
	t  *testing.T
	ca *kubelettest.CA

	mu      sync.Mutex
	objects map[string]any    // by path; a *metav1.Status is an error; a func() []byte makes a kubelet's answer
	denied  map[string]bool   // rights that the server's account lacks, in the words of describe
	skew    time.Duration     // of the API server's clock
	hangs   map[string]func() // paths that are not answered, and what a request for them triggers
	nodes   []*corev1.Node    // what /api/v1/nodes has
	kubelet map[string]*kubelettest.Kubelet
	server  map[string]*kubelettest.Server
	flags   Flags
	config  Config
}

const (
	pathV1         = "/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io"
	pathV1beta1    = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
	pathService    = "/api/v1/namespaces/kube-system/services/metrics-server"
	pathSlices     = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
	pathServerPods = "/api/v1/namespaces/kube-system/pods"
	pathDeploys    = "/apis/apps/v1/namespaces/kube-system/deployments"
	pathEvents     = "/api/v1/namespaces/kube-system/events"
	pathConfig     = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
	pathAccount    = "/api/v1/namespaces/kube-system/serviceaccounts/metrics-server"
	pathKubelets   = "/api/v1/namespaces/kube-system/serviceaccounts/metrics-server-kubelets"
	pathToken      = pathKubelets + "/token"
	pathSecret     = "/api/v1/namespaces/kube-system/secrets/metrics-server-serving"
	pathReviews    = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
	pathNodes      = "/api/v1/nodes"
	pathAllPods    = "/api/v1/pods"
	pathWeb        = "/api/v1/namespaces/default/pods/web"
	pathNodeUsage  = "/apis/metrics.k8s.io/v1/nodes"
	pathPodUsage   = "/apis/metrics.k8s.io/v1/pods"
	pathDiscovery  = "/apis/metrics.k8s.io/v1beta1"
	pathScalers    = "/apis/autoscaling/v2/horizontalpodautoscalers"
)

// proxyPath is where the API server has the metrics of a node.
func proxyPath(node string) string { return "/api/v1/nodes/" + node + "/proxy/metrics/resource" }

func registered(version string) *apiService {
	s := &apiService{Metadata: metav1.ObjectMeta{Name: version + ".metrics.k8s.io"}}
	s.Spec.InsecureSkipTLSVerify = true
	s.Spec.Service = &serviceRef{"kube-system", "metrics-server", 443}
	s.Status.Conditions = []metav1.Condition{{Type: "Available", Status: "True", Reason: "Passed"}}
	return s
}

func serverPod(name string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "kube-system", Name: name, UID: "u", Labels: map[string]string{"k8s-app": "metrics-server"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", ServiceAccountName: "metrics-server",
			Containers: []corev1.Container{{
				Name: "metrics-server", Image: "registry.example/metrics-server:v1", Args: []string{
					"--secure-port=10250",
					"--serving-certificate-secret=metrics-server-serving", "--kubelet-service-account=metrics-server-kubelets",
				},
				Ports: []corev1.ContainerPort{{Name: "https", ContainerPort: 10250}},
			}},
		},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "metrics-server", Ready: true}},
		},
	}
}

// newCluster returns a cluster of two nodes in which everything works. Its kubelets require the
// token.
func newCluster(t *testing.T) *fakeCluster {
	t.Helper()
	c := &fakeCluster{
		t: t, ca: kubelettest.NewCA("cluster"),
		denied: map[string]bool{}, hangs: map[string]func(){},
		kubelet: map[string]*kubelettest.Kubelet{}, server: map[string]*kubelettest.Server{},
	}
	now := metav1.Now()
	old := metav1.NewTime(now.Add(-time.Hour))
	usageOf := func(namespace, name string) map[string]any {
		return map[string]any{
			"metadata": map[string]any{"namespace": namespace, "name": name}, "timestamp": now, "window": "15s",
		}
	}
	c.objects = map[string]any{
		versionPath: map[string]string{"major": "1", "minor": "37", "gitVersion": "v1.37.2"},
		pathV1:      registered("v1"),
		pathV1beta1: registered("v1beta1"),
		pathService: &corev1.Service{
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"k8s-app": "metrics-server"},
				Ports:    []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromString("https")}},
			},
		},
		pathSlices: &discoveryv1.EndpointSliceList{Items: []discoveryv1.EndpointSlice{{
			Ports: []discoveryv1.EndpointPort{{Name: new("https")}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			}},
		}}},
		pathServerPods: &corev1.PodList{Items: []corev1.Pod{serverPod("metrics-server-1")}},
		pathDeploys:    &appsv1.DeploymentList{},
		pathEvents:     &corev1.EventList{},
		pathConfig: &corev1.ConfigMap{Data: map[string]string{
			kubeapi.FrontProxyCAKey: string(kubelettest.NewCA("front-proxy").PEM()),
		}},
		pathKubelets: &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{
			APIVersion: "meta.k8s.io/v1",
			Kind:       "PartialObjectMetadata",
		}},
		// The token that the fake kubelets want.
		pathToken: &authenticationv1.TokenRequest{
			Spec:   authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))},
			Status: authenticationv1.TokenRequestStatus{Token: "token"},
		},
		pathSecret: &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{
			APIVersion: "meta.k8s.io/v1",
			Kind:       "PartialObjectMetadata",
		}},
		pathNodeUsage: map[string]any{"kind": "NodeMetricsList", "items": []any{usageOf("", "n1"), usageOf("", "n2")}},
		pathPodUsage:  map[string]any{"items": []any{usageOf("default", "web")}, "kind": "PodMetricsList"},
		pathDiscovery: &metav1.APIResourceList{},
		pathAllPods: &metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadataList"},
			Items: []metav1.PartialObjectMetadata{
				{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", CreationTimestamp: old}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "young", CreationTimestamp: now}},
			},
		},
		pathWeb: podStatus(ran(time.Hour)),
		pathScalers: &autoscalingv2.HorizontalPodAutoscalerList{
			Items: []autoscalingv2.HorizontalPodAutoscaler{scaler("web", "", "")},
		},
	}
	for _, name := range []string{"n1", "n2"} {
		c.addNode(name)
	}
	api := httptest.NewServer(c)
	t.Cleanup(api.Close)
	config := &rest.Config{Host: api.URL, BearerToken: "token"}
	c.flags = Flags{
		Kubelet: kubelet.Config{
			Rest: config, CAData: c.ca.PEM(), Port: 10250, UseNodeStatusPort: true,
			AddressTypes: []string{"InternalIP", "Hostname"},
		},
		Timeout: time.Minute, Resolution: 15 * time.Second, Port: 10250,
		OpenPaths: []string{"/healthz", "/readyz", "/livez"},
	}
	c.config = Config{
		Rest: config, Version: "v1.0.0", Namespace: "kube-system", Service: "metrics-server",
		Flags: func([]string) (Flags, error) { return c.flags, nil },
	}
	return c
}

// podStatus returns a pod whose containers have these states.
func podStatus(states ...corev1.ContainerState) *corev1.Pod {
	p := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	for _, s := range states {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{State: s})
	}
	return p
}

// ran is the state of a container that has been running for d.
func ran(d time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Now().Add(-d))}}
}

// crashed is the state of a container that waits to be restarted.
func crashed() corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
}

func scaler(name, reason, message string) autoscalingv2.HorizontalPodAutoscaler {
	h := autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	status := corev1.ConditionTrue
	if reason != "" {
		status = corev1.ConditionFalse
	}
	h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{
		Type: autoscalingv2.ScalingActive, Status: status, Reason: reason, Message: message,
	}}
	return h
}

// addNode adds a node with a kubelet that answers directly and through the API server.
func (c *fakeCluster) addNode(name string) {
	c.t.Helper()
	says := kubelettest.NewNode(kubelettest.NodeConfig{
		Seed: uint64(len(name)), Pods: 3, Boot: time.Now().Add(-time.Hour), RequestTime: true,
	})
	k := &kubelettest.Kubelet{Answer: says.Append, Authenticate: true}
	k.SetToken("token")
	server, err := kubelettest.Serve(k, kubelettest.ServerConfig{Certificate: c.ca.Server("127.0.0.1")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(server.Close)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	node.Status.NodeInfo.KubeletVersion = "v1.37.2"
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: server.Host()}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(server.Port())
	c.kubelet[name], c.server[name] = k, server
	c.nodes = append(c.nodes, node)
	c.objects[proxyPath(name)] = func() []byte { return says.Append(nil, time.Now()) }
}

// plainError is an answer that is passed on from a kubelet.
type plainError struct {
	code int
	text string
}

// listensAt has the server's pod listen where a node's kubelet should.
func (c *fakeCluster) listensAt(node string) {
	c.pod(func(p *corev1.Pod) { p.Status.PodIP = c.server[node].Host() })
	c.flags.Port = c.server[node].Port()
}

// refuse makes the API server answer with an error at path.
func (c *fakeCluster) refuse(path string, code int32, reason metav1.StatusReason, message string) {
	c.objects[path] = &metav1.Status{Code: code, Reason: reason, Message: message}
}

func (c *fakeCluster) forbid(paths ...string) {
	for _, p := range paths {
		c.refuse(p, http.StatusForbidden, metav1.StatusReasonForbidden, `nodes/proxy is forbidden: User "u" cannot do that`)
	}
}

// unavailable makes both APIServices unavailable.
func (c *fakeCluster) unavailable(reason, message string) {
	for _, path := range []string{pathV1, pathV1beta1} {
		c.objects[path].(*apiService).Status.Conditions = []metav1.Condition{{
			Type: "Available", Status: "False", Reason: reason, Message: message,
		}}
	}
	c.refuse(pathNodeUsage, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the server is "+
		"currently unable to handle the request")
}

// pod changes the server's pod.
func (c *fakeCluster) pod(change func(*corev1.Pod)) {
	change(&c.objects[pathServerPods].(*corev1.PodList).Items[0])
}

// ServeHTTP answers as the API server.
func (c *fakeCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	object, hangs := c.objects[r.URL.Path], c.hangs[r.URL.Path]
	w.Header().Set("Date", time.Now().Add(c.skew).UTC().Format(http.TimeFormat))
	if r.URL.Path == pathNodes {
		if status, ok := object.(*metav1.Status); ok {
			object = status
		} else {
			object = c.nodeList(r)
		}
	}
	if r.URL.Path == pathReviews && object == nil {
		object = c.review(r)
	}
	c.mu.Unlock()
	if hangs != nil {
		hangs()
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch o := object.(type) {
	case nil:
		object = &metav1.Status{
			Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: r.URL.Path + " not found",
		}
	case plainError:
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(o.code)
		_, _ = io.WriteString(w, o.text)
		return
	case func() []byte:
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(o())
		return
	}
	if status, ok := object.(*metav1.Status); ok {
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		status.Status = metav1.StatusFailure
		w.WriteHeader(int(status.Code))
	}
	if err := json.NewEncoder(w).Encode(object); err != nil {
		c.t.Error(err)
	}
}

// nodeList answers with two nodes at a time.
func (c *fakeCluster) nodeList(r *http.Request) *corev1.NodeList {
	from := 0
	if token := r.URL.Query().Get("continue"); token != "" {
		if _, err := fmt.Sscan(token, &from); err != nil {
			c.t.Error(err)
		}
	}
	list := &corev1.NodeList{}
	for _, n := range c.nodes[from:min(from+2, len(c.nodes))] {
		list.Items = append(list.Items, *n)
	}
	if from+2 < len(c.nodes) {
		list.Continue = fmt.Sprint(from + 2)
	}
	return list
}

func (c *fakeCluster) review(r *http.Request) any {
	var review authorizationv1.SubjectAccessReview
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = runtime.DecodeInto(clientgoscheme.Codecs.UniversalDeserializer(), b, &review)
	}
	if err != nil {
		c.t.Error(err)
		return nil
	}
	if path := review.Spec.NonResourceAttributes; path != nil {
		if review.Spec.User != "system:anonymous" {
			c.t.Errorf("reviewed the access of %q to %s, want that of system:anonymous", review.Spec.User, path.Path)
		}
		review.Status.Allowed = !c.denied[path.Verb+" "+path.Path]
		return &review
	}
	switch right := describe(*review.Spec.ResourceAttributes); review.Spec.User {
	case "system:serviceaccount:kube-system:metrics-server":
		review.Status.Allowed = !c.denied[right]
	case "system:serviceaccount:kube-system:metrics-server-kubelets":
		review.Status.Allowed = right == "get nodes/metrics" && !c.denied["kubelets: "+right]
	default:
		c.t.Errorf("access of %q is asked for", review.Spec.User)
	}
	return &review
}

func (c *fakeCluster) run() *Report {
	c.t.Helper()
	r, err := Run(c.t.Context(), c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func text(t *testing.T, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// find returns the lines with these beginnings of their parts: message, cause and remedy need only
// contain them.
func find(r *Report, want Line) []Line {
	return slices.DeleteFunc(slices.Clone(r.Checks), func(l Line) bool {
		return l.Check != want.Check || l.Status != want.Status || !strings.Contains(l.Message, want.Message) ||
			!strings.Contains(l.Cause, want.Cause) || !strings.Contains(l.Remedy, want.Remedy)
	})
}
