package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"metrics-server/hack/fleet/apiserver"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/kubelet/kubelettest"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// start starts an API server of 5 nodes with 8 pods each, and returns clients that prefer a content type.
func start(t *testing.T) (*cluster.Cluster, func(contentType string) (kubernetes.Interface, metadata.Interface)) {
	t.Helper()
	c := cluster.New(cluster.Config{Nodes: 5, Pods: 8, Containers: 2, Port: 10250, Now: time.Now()})
	s, err := apiserver.Start(apiserver.Config{Cluster: c, Token: "good", LoadToken: "load"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c, func(contentType string) (kubernetes.Interface, metadata.Interface) {
		config := &rest.Config{
			Host: s.URL(), BearerToken: "good", QPS: -1,
			TLSClientConfig: rest.TLSClientConfig{CAData: s.CA()},
			ContentConfig:   rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType},
		}
		if contentType == protobuf {
			config.AcceptContentTypes = protobuf + ",application/json"
		}
		return kubernetes.NewForConfigOrDie(config), metadata.NewForConfigOrDie(metadata.ConfigFor(config))
	}
}

var podResource = corev1.SchemeGroupVersion.WithResource("pods")

func TestList(t *testing.T) {
	_, clients := start(t)
	var first *corev1.PodList
	for _, contentType := range []string{"application/json", protobuf} {
		client, meta := clients(contentType)
		pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) != 40 || pods.ResourceVersion == "" || pods.Continue != "" {
			t.Fatalf("%s: %d pods at %q", contentType, len(pods.Items), pods.ResourceVersion)
		}
		if !slices.IsSortedFunc(pods.Items, func(a, b corev1.Pod) int {
			return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
		}) {
			t.Errorf("%s: pods are not sorted", contentType)
		}
		if first == nil {
			first = pods
		} else if d := cmp.Diff(first, pods); d != "" {
			t.Errorf("pods (-JSON +protobuf):\n%s", d)
		}

		partial, err := meta.Resource(podResource).List(t.Context(), metav1.ListOptions{Limit: 7, ResourceVersion: "0"})
		if err != nil || len(partial.Items) != 40 {
			t.Fatalf("%s: a list of metadata has %d pods, %v", contentType, len(partial.Items), err)
		}
		for i := range partial.Items {
			if d := cmp.Diff(first.Items[i].ObjectMeta, partial.Items[i].ObjectMeta); d != "" {
				t.Fatalf("%s: metadata (-whole +partial):\n%s", contentType, d)
			}
		}
		nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: "fleet/half=0"})
		if err != nil || len(nodes.Items) != 3 {
			t.Fatalf("%s: %d selected nodes, %v", contentType, len(nodes.Items), err)
		}
		on, err := client.CoreV1().Pods("").List(t.Context(),
			metav1.ListOptions{FieldSelector: "status.phase=Running,spec.nodeName=" + nodes.Items[0].Name})
		if err != nil || len(on.Items) != 8 {
			t.Errorf("%s: %d pods on a node, %v", contentType, len(on.Items), err)
		}
		app := first.Items[0].Labels["app"]
		of, err := client.CoreV1().Pods(first.Items[0].Namespace).List(t.Context(),
			metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil || len(of.Items) != 10 {
			t.Errorf("%s: %d pods of a workload, %v", contentType, len(of.Items), err)
		}
	}
}

func TestGet(t *testing.T) {
	c, clients := start(t)
	all, _ := c.Pods("")
	for _, contentType := range []string{"application/json", protobuf} {
		client, meta := clients(contentType)
		want := all[3]
		p, err := client.CoreV1().Pods(want.Namespace).Get(t.Context(), want.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p.Spec.NodeName != want.Machine.Name || string(p.UID) != want.UID() || len(p.Status.ContainerStatuses) != 2 {
			t.Errorf("%s: pod on %s with UID %s", contentType, p.Spec.NodeName, p.UID)
		}
		if _, err := meta.Resource(podResource).Namespace(want.Namespace).Get(t.Context(), want.Name,
			metav1.GetOptions{}); err != nil {
			t.Errorf("%s: %v", contentType, err)
		}
		n, err := client.CoreV1().Nodes().Get(t.Context(), want.Machine.Name, metav1.GetOptions{})
		if err != nil || n.Status.Addresses[0].Address != want.Machine.Addr.Addr().String() {
			t.Errorf("%s: node %v, %v", contentType, n.Status.Addresses, err)
		}
		config, err := client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication",
			metav1.GetOptions{})
		if err != nil || !strings.HasPrefix(config.Data["client-ca-file"], "-----BEGIN CERTIFICATE-----") {
			t.Errorf("%s: ConfigMap %v, %v", contentType, config.Data, err)
		}
		if _, err := client.CoreV1().Pods("nowhere").Get(t.Context(), "nobody",
			metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: an unknown pod: %v", contentType, err)
		}
		if _, err := client.CoreV1().Secrets("kube-system").List(t.Context(),
			metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: an unknown resource: %v", contentType, err)
		}
		if v, err := client.Discovery().ServerVersion(); err != nil || v.Major != "1" {
			t.Errorf("%s: version %v, %v", contentType, v, err)
		}
	}
}

// TestSizes compares the sizes with those of real objects.
func TestSizes(t *testing.T) {
	c, clients := start(t)
	client, meta := clients("application/json")
	p, _ := c.Pods("")
	size := func(what string, o any, err error, least, most int) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(o)
		if err != nil || len(b) < least || len(b) > most {
			t.Errorf("%s has %d bytes, want %d to %d, %v", what, len(b), least, most, err)
		}
	}
	whole, err := client.CoreV1().Pods(p[0].Namespace).Get(t.Context(), p[0].Name, metav1.GetOptions{})
	size("a pod", whole, err, 8_000, 14_000)
	partial, err := meta.Resource(podResource).Namespace(p[0].Namespace).Get(t.Context(), p[0].Name, metav1.GetOptions{})
	size("a pod's metadata", partial, err, 3_500, 6_500)
	node, err := client.CoreV1().Nodes().Get(t.Context(), p[0].Machine.Name, metav1.GetOptions{})
	size("a node", node, err, 10_000, 20_000)
}

// next returns the next event of w.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-time.After(2 * time.Minute):
		t.Fatal("no event")
	}
	panic("not reached")
}

func quiet(*cluster.Machine, []kubelettest.Pod) error { return nil }

func TestWatch(t *testing.T) {
	for _, contentType := range []string{"application/json", protobuf} {
		c, clients := start(t)
		client, meta := clients(contentType)
		list, err := meta.Resource(podResource).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		partial, err := meta.Resource(podResource).Watch(t.Context(),
			metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(partial.Stop)
		whole, err := client.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(whole.Stop)

		all, _ := c.Pods("")
		now := time.Now()
		if err := c.Restart(all[0], now, quiet); err != nil {
			t.Fatal(err)
		}
		restarted := c.Pod(all[0].Namespace, all[0].Name)
		if err := c.Delete(restarted, now, quiet); err != nil {
			t.Fatal(err)
		}
		if err := c.Replace(restarted, 2, 77, now, quiet); err != nil {
			t.Fatal(err)
		}
		for _, want := range []watch.EventType{watch.Modified, watch.Deleted, watch.Added} {
			e := next(t, partial)
			m, ok := e.Object.(*metav1.PartialObjectMetadata)
			if !ok || e.Type != want {
				t.Fatalf("%s: %s of %T, want %s", contentType, e.Type, e.Object, want)
			}
			f := next(t, whole)
			p, ok := f.Object.(*corev1.Pod)
			if !ok || f.Type != want || p.Name != m.Name || p.ResourceVersion != m.ResourceVersion {
				t.Fatalf("%s: %s of %T, want %s", contentType, f.Type, f.Object, want)
			}
			if want == watch.Modified && p.Status.ContainerStatuses[0].RestartCount != 1 {
				t.Errorf("%s: no restart", contentType)
			}
			if want == watch.Added && string(p.UID) == restarted.UID() {
				t.Errorf("%s: the replacement has the UID of the pod before", contentType)
			}
		}

		old, err := client.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "5"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(old.Stop)
		if e := next(t, old); e.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
			t.Errorf("%s: watch of an old version: %v", contentType, e)
		}
	}
}

func TestWatchList(t *testing.T) {
	_, clients := start(t)
	for _, contentType := range []string{"application/json", protobuf} {
		client, meta := clients(contentType)
		o := metav1.ListOptions{
			SendInitialEvents: new(true), AllowWatchBookmarks: true,
			ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		}
		whole := func(o metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Nodes().Watch(t.Context(), o)
		}
		partial := func(o metav1.ListOptions) (watch.Interface, error) {
			return meta.Resource(podResource).Watch(t.Context(), o)
		}
		config := func(o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = "metadata.name=extension-apiserver-authentication"
			return client.CoreV1().ConfigMaps("kube-system").Watch(t.Context(), o)
		}
		for _, tt := range []struct {
			what  string
			watch func(metav1.ListOptions) (watch.Interface, error)
			want  int
		}{{"nodes", whole, 5}, {"pods", partial, 40}, {"ConfigMaps", config, 1}} {
			w, err := tt.watch(o)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for {
				e := next(t, w)
				m := e.Object.(metav1.Object)
				if e.Type == watch.Bookmark {
					if m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" || m.GetResourceVersion() == "" {
						t.Errorf("%s, %s: bookmark %v", contentType, tt.what, m)
					}
					break
				}
				if e.Type != watch.Added {
					t.Fatalf("%s, %s: %s", contentType, tt.what, e.Type)
				}
				seen[m.GetName()] = true
			}
			w.Stop()
			if len(seen) != tt.want {
				t.Errorf("%s, %s: %v", contentType, tt.what, slices.Sorted(maps.Keys(seen)))
			}
		}
		if _, err := client.CoreV1().Nodes().Watch(t.Context(),
			metav1.ListOptions{SendInitialEvents: new(true)}); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: initial events without a match of versions: %v", contentType, err)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	c, clients := start(t)
	client, _ := clients(protobuf)
	w, err := client.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{ResourceVersion: "1000"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	nodes, _ := c.Nodes()
	c.Heartbeat(1, time.Now())
	e := next(t, w)
	if n := e.Object.(*corev1.Node); e.Type != watch.Modified || n.Name != nodes[1].Name {
		t.Errorf("%s of %s", e.Type, n.Name)
	}
}

func TestReviews(t *testing.T) {
	_, clients := start(t)
	for _, contentType := range []string{"application/json", protobuf} {
		client, _ := clients(contentType)
		for token, want := range map[string]bool{"load": true, "other": false} {
			r, err := client.AuthenticationV1().TokenReviews().Create(t.Context(),
				&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
			if err != nil || r.Status.Authenticated != want {
				t.Errorf("%s: review of token %q: %v, %v", contentType, token, r.Status, err)
			}
		}
		for user, want := range map[string]bool{apiserver.User: true, "other": false} {
			r, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(),
				&authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user}},
				metav1.CreateOptions{})
			if err != nil || r.Status.Allowed != want {
				t.Errorf("%s: review of user %q: %v, %v", contentType, user, r.Status, err)
			}
		}
	}
}

func TestUnauthorized(t *testing.T) {
	c := cluster.New(cluster.Config{Nodes: 1, Pods: 1, Containers: 1, Now: time.Now()})
	s, err := apiserver.Start(apiserver.Config{Cluster: c, Token: "good"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client := kubernetes.NewForConfigOrDie(&rest.Config{
		Host: s.URL(), BearerToken: "bad",
		TLSClientConfig: rest.TLSClientConfig{CAData: bytes.Clone(s.CA())},
	})
	if _, err := client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Error(err)
	}
}
