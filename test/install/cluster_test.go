//go:build e2e

package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"metrics-server/test/realcluster"
)

const patience = realcluster.Patience

// firstNumbers is how long an installation may take until everything is served.
const firstNumbers = time.Minute

const (
	namespace  = "kube-system"
	deployment = "metrics-server"
	serverPods = "k8s-app=metrics-server"                // of both manifests, the incumbent's and ours
	chartPods  = "app.kubernetes.io/name=metrics-server" // of the charts
)

// cluster is the cluster under test, and what can be installed.
var cluster struct {
	client   kubernetes.Interface
	metadata metadata.Interface
	nodes    []string
	kubectl  realcluster.Kubectl

	helm, doctor string // programs
	dist         string // directory with the files of a release
	image        string // of the server
	incumbent    string // directory of its Go module
}

func TestMain(m *testing.M) { os.Exit(realcluster.Main(m, connect)) }

// connect finds the cluster.
func connect(cache string) error {
	cluster.kubectl.Cache = cache
	for variable, value := range map[string]*string{
		"INSTALL_KUBECTL": &cluster.kubectl.Program, "INSTALL_HELM": &cluster.helm, "INSTALL_BINARY": &cluster.doctor,
		"INSTALL_DIST": &cluster.dist, "INSTALL_IMAGE": &cluster.image, "INSTALL_INCUMBENT": &cluster.incumbent,
	} {
		if *value = os.Getenv(variable); *value == "" {
			return fmt.Errorf("%s is not set: run these tests by `make e2e-install`", variable)
		}
	}
	config, err := realcluster.Config()
	if err != nil {
		return err
	}
	// There are kinds that are deprecated, and all kinds are looked at.
	config.WarningHandler = rest.NoWarnings{}
	if cluster.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if cluster.metadata, err = metadata.NewForConfig(config); err != nil {
		return err
	}
	nodes, err := cluster.client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		cluster.nodes = append(cluster.nodes, n.Name)
	}
	if len(cluster.nodes) != 2 {
		return fmt.Errorf("nodes %q, want two", cluster.nodes)
	}
	return nil
}

func kubectl(args ...string) (string, error) { return cluster.kubectl.Run(args...) }

func mustKubectl(t *testing.T, args ...string) string {
	t.Helper()
	return cluster.kubectl.MustRun(t, args...)
}

func mustHelm(t *testing.T, args ...string) {
	t.Helper()
	if _, err := realcluster.Run(cluster.helm, append(args, "-n", namespace)...); err != nil {
		t.Fatal(err)
	}
}

// leavesNothing fails t if, when everything else of t is over, the cluster has an object that it did not have before.
func leavesNothing(t *testing.T) {
	t.Helper()
	before, err := objects()
	if err != nil {
		t.Fatal(err)
	}
	if left := ofServer(before); len(left) > 0 {
		t.Fatalf("the cluster is not empty: %q", left)
	}
	t.Cleanup(func() {
		realcluster.Within(t, time.Minute, "nothing is left", func() error {
			after, err := objects()
			if err != nil {
				return err
			}
			after = slices.DeleteFunc(after, func(o string) bool { return slices.Contains(before, o) })
			if len(after) > 0 {
				return fmt.Errorf("%q are left", after)
			}
			view, err := kubectl("get", "clusterrole", "view", "-o", "yaml")
			if err == nil && strings.Contains(view, "metrics.k8s.io") {
				err = errors.New("the ClusterRole view still has rules for metrics.k8s.io")
			}
			return err
		})
	})
}

// ofServer are those of objects that an installation has made.
func ofServer(objects []string) []string {
	return slices.DeleteFunc(slices.Clone(objects), func(o string) bool { return !strings.Contains(o, "metrics") })
}

// objects returns all objects of the cluster, of every kind, except Events, which expire by themselves.
func objects() ([]string, error) {
	lists, err := cluster.client.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || r.Kind == "Event" {
				continue
			}
			found, err := cluster.metadata.Resource(gv.WithResource(r.Name)).List(context.Background(), metav1.ListOptions{})
			if err != nil {
				return nil, fmt.Errorf("list %s of %s: %w", r.Name, gv, err)
			}
			for _, o := range found.Items {
				all = append(all, strings.Join([]string{r.Name, gv.Group, o.Namespace, o.Name}, " "))
			}
		}
	}
	if len(all) < 50 {
		return nil, fmt.Errorf("%d objects are in the cluster, and every cluster has more: %q", len(all), all)
	}
	return all, nil
}

// usable returns what users lack: APIServices that are available, and the usage of all nodes and of
// the server's own pods in `kubectl top`.
func usable(pods string, versions ...string) error {
	for _, v := range versions {
		if err := cluster.kubectl.Available(v + ".metrics.k8s.io"); err != nil {
			return err
		}
	}
	if err := top(cluster.nodes, "nodes"); err != nil {
		return err
	}
	running, err := cluster.client.CoreV1().Pods(namespace).List(
		context.Background(), metav1.ListOptions{LabelSelector: pods},
	)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range running.Items {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("there is no pod with %s", pods)
	}
	return top(names, "pods", "-A")
}

// top returns which of names has no usage in `kubectl top`.
func top(names []string, args ...string) error {
	out, err := kubectl(append([]string{"top"}, args...)...)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !regexp.MustCompile(`(?m)(^| )` + regexp.QuoteMeta(name) + ` +[0-9]+m .*[0-9]Mi`).MatchString(out) {
			return fmt.Errorf("kubectl top %s has no usage of %s:\n%s", args, name, out)
		}
	}
	return nil
}

// rolledOut returns why not all running pods of the server have this image, in so many replicas.
func rolledOut(image string, replicas int32) error {
	d, err := cluster.client.AppsV1().Deployments(namespace).Get(context.Background(), deployment, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if got := d.Spec.Template.Spec.Containers[0].Image; got != image {
		return fmt.Errorf("the image is %s, want %s", got, image)
	}
	if got := *d.Spec.Replicas; got != replicas {
		return fmt.Errorf("deployment %s has %d replicas, want %d", d.Name, got, replicas)
	}
	if err := realcluster.RolledOut(d); err != nil {
		return err
	}
	return noneTerminating(d)
}

// noneTerminating returns which pod of d is terminating: it may still get requests.
func noneTerminating(d *appsv1.Deployment) error {
	pods, err := cluster.client.CoreV1().Pods(namespace).List(
		context.Background(), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)},
	)
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			return fmt.Errorf("%s is there", p.Name)
		}
	}
	return nil
}

// healthy checks that `metrics-server doctor` finds no problem.
func healthy(t *testing.T) {
	t.Helper()
	realcluster.Within(t, patience, "all is well, says the doctor", func() error {
		_, err := realcluster.Run(cluster.doctor, "doctor")
		return err
	})
}
