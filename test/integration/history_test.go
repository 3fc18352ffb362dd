//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/history"
	"metrics-server/pkg/history/historyclient"
)

// TestHistory reads the history through the aggregator of a real kube-apiserver, as users with
// different rights.
func TestHistory(t *testing.T) {
	f := newFleet(t, 2, 2)
	namespace, pod := f.nodes[0].says.Containers()[0].Namespace, f.nodes[0].says.Containers()[0].Pod
	// With the real metadata of a Deployment's pod, as watched from the API server.
	_, err := cluster.client.CoreV1().Pods(namespace).Patch(t.Context(), pod, types.MergePatchType, []byte(
		`{"metadata":{"labels":{"pod-template-hash":"5d9f"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",`+
			`"name":"web-5d9f","uid":"93b0b1c7-5d3f-4f0b-8f0c-7f4f1b1d0001","controller":true}]}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, f, "--history=1h")
	s.aggregate(t, nil)
	s.ready(t)

	everything := reader(t)
	inNamespace := token(t, namespace, "tenant")
	_, err = cluster.client.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "tenant-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:aggregated-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "tenant"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stranger := token(t, "default", "stranger")
	fetch := func(token, version string, q history.Query) (*history.Answer, error) {
		q.Last = time.Hour
		client, err := kubernetes.NewForConfig(&rest.Config{
			Host: cluster.admin.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		return historyclient.Fetch(ctx, client.CoreV1().RESTClient(), version, q)
	}

	all := history.Query{}
	eventually(t, "a minute is recorded in which all pods have a usage", func() error {
		a, err := fetch(everything, "v1", all)
		if err != nil {
			return err
		}
		for _, series := range a.Series {
			if series.Key == (history.Key{Kind: "Deployment", Namespace: namespace, Name: "web"}) &&
				slices.Equal(series.Pods, []history.Value{1}) && len(series.Missing) == 0 && series.CPU[0] > 0 &&
				series.Memory[0] > 0 {
				return nil
			}
		}
		return fmt.Errorf("%d points: %+v", a.Points, a.Series)
	})
	for _, version := range []string{"v1", "v1beta1"} {
		a, err := fetch(everything, version, history.Query{Nodes: true})
		if err != nil || len(a.Series) != 2 || a.Series[0].Name != f.nodes[0].name || a.Series[0].CPU[0] <= 0 {
			t.Errorf("%s: nodes: %+v, %v", version, a, err)
		}
	}

	// A tenant sees its namespace only.
	a, err := fetch(inNamespace, "v1", history.Query{Namespace: namespace})
	if err != nil || len(a.Series) == 0 {
		t.Errorf("the tenant's namespace: %+v, %v", a, err)
	} else {
		for _, series := range a.Series {
			if series.Namespace != namespace && series.Name != namespace {
				t.Errorf("the tenant sees %+v", series.Key)
			}
		}
	}
	for _, tt := range []struct {
		who, token string
		q          history.Query
	}{
		{"the tenant", inNamespace, all},
		{"the tenant", inNamespace, history.Query{Nodes: true}},
		{"the tenant", inNamespace, history.Query{Namespace: "default"}},
		{"a stranger", stranger, all},
		{"a stranger", stranger, history.Query{Nodes: true}},
		{"a stranger", stranger, history.Query{Namespace: namespace}},
	} {
		if a, err := fetch(tt.token, "v1", tt.q); !apierrors.IsForbidden(err) {
			t.Errorf("%s gets %+v: %+v, %v", tt.who, tt.q, a, err)
		}
	}

	// Without the flag, the answer names it.
	without := startServer(t, f)
	code, body, err := without.get(podsPath+"?history=1h", everything)
	if err != nil || code != 404 || !strings.Contains(body, "--history=DURATION") {
		t.Errorf("without --history: %d %s %v", code, body, err)
	}
	var none *history.NoHistoryError
	if _, err := fetch(everything, "v2", all); !errors.As(err, &none) {
		t.Errorf("a version that does not exist: %v", err)
	}
}
