//go:build e2e

package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long anything here may take that has no shorter limit.
const patience = 2 * time.Minute

// firstNumbers is how long an installation may take until all is served.
const firstNumbers = time.Minute

const (
	namespace  = "kube-system"
	deployment = "metrics-server"
	serverPods = "k8s-app=metrics-server"                // of the manifests, theirs and ours
	chartPods  = "app.kubernetes.io/name=metrics-server" // of the charts
)

// cluster is the one under test, and what there is to install.
var cluster struct {
	client   kubernetes.Interface
	metadata metadata.Interface
	nodes    []string
	cache    string // of kubectl

	kubectl, helm, doctor string // programs
	dist                  string // directory with the files of a release
	image                 string // of the server
	incumbent             string // directory of its Go module
}

func TestMain(m *testing.M) {
	code := 1
	err := connect()
	if err == nil {
		code = m.Run()
		err = os.RemoveAll(cluster.cache)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// connect finds the cluster.
func connect() error {
	for variable, value := range map[string]*string{
		"INSTALL_KUBECTL": &cluster.kubectl, "INSTALL_HELM": &cluster.helm, "INSTALL_BINARY": &cluster.doctor,
		"INSTALL_DIST": &cluster.dist, "INSTALL_IMAGE": &cluster.image, "INSTALL_INCUMBENT": &cluster.incumbent,
	} {
		if *value = os.Getenv(variable); *value == "" {
			return fmt.Errorf("%s is not set: run these tests by `make e2e-install`", variable)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit
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
	cluster.cache, err = os.MkdirTemp("", "metrics-server-install-")
	return err
}

// run runs a program as at a terminal and returns what it printed.
func run(program string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %q: %w\n%s", filepath.Base(program), args, err, out)
	}
	return string(out), err
}

func kubectl(args ...string) (string, error) {
	return run(cluster.kubectl, append([]string{"--cache-dir=" + cluster.cache}, args...)...)
}

// mustKubectl is kubectl for what has to succeed.
func mustKubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := kubectl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustHelm(t *testing.T, args ...string) {
	t.Helper()
	if _, err := run(cluster.helm, append(args, "-n", namespace)...); err != nil {
		t.Fatal(err)
	}
}

// within fails t if f does not return nil in time.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	begun := time.Now()
	var err error
	for ; time.Since(begun) < limit; time.Sleep(250 * time.Millisecond) {
		if err = f(); err == nil {
			t.Logf("%5.1f s until %s", time.Since(begun).Seconds(), what)
			return
		}
	}
	t.Fatalf("%s: still not so after %v: %v", what, limit, err)
}

// leavesNothing fails t if there is anything in the cluster, when all else of t is over, that was not there before.
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
		within(t, time.Minute, "nothing is left", func() error {
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

// objects are all objects of the cluster, of whatever kind, but for Events, which end by themselves.
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

// usable says what is missing of what users want: APIServices that are available, and the usage of all nodes and of the
// server's own pods in `kubectl top`.
func usable(pods string, versions ...string) error {
	for _, v := range versions {
		out, err := kubectl("get", "apiservice", v+".metrics.k8s.io", "-o",
			`jsonpath={range .status.conditions[?(@.type=="Available")]}{.status} {.reason}: {.message}{end}`)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(out, "True") {
			return fmt.Errorf("APIService of %s: Available is %s", v, out)
		}
	}
	if err := top(cluster.nodes, "nodes"); err != nil {
		return err
	}
	running, err := cluster.client.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{LabelSelector: pods})
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

// top says which of names has no usage in `kubectl top`.
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

// rolledOut says why not all that runs of the server is of this image, in so many replicas.
func rolledOut(image string, replicas int32) error {
	d, err := cluster.client.AppsV1().Deployments(namespace).Get(context.Background(), deployment, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if got := d.Spec.Template.Spec.Containers[0].Image; got != image {
		return fmt.Errorf("the image is %s, want %s", got, image)
	}
	s := d.Status
	if s.ObservedGeneration < d.Generation || *d.Spec.Replicas != replicas || s.Replicas != replicas || s.UpdatedReplicas != replicas || s.AvailableReplicas != replicas {
		return fmt.Errorf("%d replicas are wanted, %d are there, %d of them new, %d available", replicas, s.Replicas, s.UpdatedReplicas, s.AvailableReplicas)
	}
	return noneTerminating(d)
}

// noneTerminating says which pod of d is on its way out: it may still be asked.
func noneTerminating(d *appsv1.Deployment) error {
	pods, err := cluster.client.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
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

// healthy has `metrics-server doctor` find no problem.
func healthy(t *testing.T) {
	t.Helper()
	within(t, patience, "all is well, says the doctor", func() error {
		_, err := run(cluster.doctor, "doctor")
		return err
	})
}
