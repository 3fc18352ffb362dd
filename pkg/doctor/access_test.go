package doctor

import (
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"metrics-server/pkg/kubeapi"
)

// manifest has the parts of an object of deploy/ that matter here, for every kind.
type manifest struct {
	rbacv1.RoleBinding `json:",inline"`
	Rules              []rbacv1.PolicyRule `json:"rules"`
}

// The rights that are checked are those that deploy/ grants for the arguments that it gives.
func TestRightsOfManifest(t *testing.T) {
	const base = "../../deploy/kustomize/base/"
	// The parts of Kubernetes' own roles that the server uses.
	roles := map[string][]rbacv1.PolicyRule{
		"ClusterRole/system:auth-delegator": {
			{Verbs: []string{"create"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}},
			{
				Verbs: []string{"create"}, APIGroups: []string{"authorization.k8s.io"},
				Resources: []string{"subjectaccessreviews"},
			},
		},
		"Role/extension-apiserver-authentication-reader": {
			{
				Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"},
				ResourceNames: []string{kubeapi.AuthenticationConfigMap},
			},
		},
	}
	objects := decodeAll[manifest](t, base+"rbac.yaml")
	for _, o := range objects {
		if len(o.Rules) > 0 {
			roles[o.Kind+"/"+o.Name] = o.Rules
		}
	}
	// These are granted in every namespace but needed in only one, because the namespace: of a
	// kustomization would move the Role that grants them.
	narrow := map[string]string{
		"create events": "create events in default", "patch events": "patch events in default",
		"get configmaps " + kubeapi.AuthenticationConfigMap:  "get configmaps kube-system/" + kubeapi.AuthenticationConfigMap,
		"list configmaps " + kubeapi.AuthenticationConfigMap: "", "watch configmaps " + kubeapi.AuthenticationConfigMap: "",
	}
	var granted []string
	for _, o := range objects {
		if len(o.Subjects) == 0 {
			continue
		}
		rules := roles[o.RoleRef.Kind+"/"+o.RoleRef.Name]
		if rules == nil {
			t.Errorf("%s %s is of a role that is not known here", o.Kind, o.Name)
		}
		for _, r := range rules {
			for _, right := range rightsOf(o.Namespace, r) {
				if needed, ok := narrow[right]; ok {
					right = needed
				}
				if right != "" {
					granted = append(granted, right)
				}
			}
		}
	}

	deployment := decodeAll[appsv1.Deployment](t, base+"deployment.yaml")[0]
	var asked []string
	e := &examination{}
	args, _ := commandLine(&corev1.Pod{Spec: deployment.Spec.Template.Spec})
	secret, _ := servingSecretOf(args)
	grants := e.grants(deployment.Namespace, args, secret)
	for _, g := range grants {
		for _, r := range g.rights {
			asked = append(asked, describe(r))
		}
	}
	slices.Sort(granted)
	slices.Sort(asked)
	// The server's own right to scrape kubelets is for the time without a token for them: a cluster
	// may do without it.
	if twice := slices.Index(granted, "get nodes/metrics"); twice < 0 || granted[twice+1] != granted[twice] {
		t.Errorf("granted: %q, want get nodes/metrics to the server and to the account for kubelets", granted)
	}
	granted = slices.Compact(granted)
	if d := cmp.Diff(granted, asked); d != "" {
		t.Errorf("rights that deploy/ grants (-) and that the doctor asks for (+):\n%s", d)
	}
}

// rightsOf returns what a rule permits in a namespace, in the words of describe.
func rightsOf(namespace string, rule rbacv1.PolicyRule) []string {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var all []string
	for _, verb := range rule.Verbs {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					all = append(all, describe(authorizationv1.ResourceAttributes{
						Verb: verb, Group: group, Resource: resource, Namespace: namespace, Name: name,
					}))
				}
			}
		}
	}
	return all
}

// decodeAll decodes the documents of a YAML file.
func decodeAll[T any](t *testing.T, file string) []T {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewYAMLOrJSONDecoder(f, 4096)
	var all []T
	for {
		var o T
		switch err := d.Decode(&o); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, o)
	}
}
