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
)

// manifest is what is of interest in an object of deploy/, whatever its kind.
type manifest struct {
	rbacv1.RoleBinding `json:",inline"`
	Rules              []rbacv1.PolicyRule `json:"rules"`
}

// The rights that are asked for are those that deploy/ grants to the arguments that it gives.
func TestRightsOfManifest(t *testing.T) {
	const base = "../../deploy/kustomize/base/"
	// What Kubernetes itself has of these, as far as the server uses it.
	roles := map[string][]rbacv1.PolicyRule{
		"ClusterRole/system:auth-delegator": {
			{Verbs: []string{"create"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}},
			{Verbs: []string{"create"}, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}},
		},
		"Role/extension-apiserver-authentication-reader": {
			{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{configName}},
		},
	}
	objects := decodeAll[manifest](t, base+"rbac.yaml")
	for _, o := range objects {
		if len(o.Rules) > 0 {
			roles[o.Kind+"/"+o.Name] = o.Rules
		}
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
			granted = append(granted, rightsOf(o.Namespace, r)...)
		}
	}

	deployment := decodeAll[appsv1.Deployment](t, base+"deployment.yaml")[0]
	var asked []string
	e := &examination{}
	grants, _ := e.grants(deployment.Namespace, commandLine(&corev1.Pod{Spec: deployment.Spec.Template.Spec}))
	for _, g := range grants {
		for _, r := range g.rights {
			asked = append(asked, describe(r))
		}
	}
	slices.Sort(granted)
	slices.Sort(asked)
	if d := cmp.Diff(granted, asked); d != "" {
		t.Errorf("rights that deploy/ grants (-) and that the doctor asks for (+):\n%s", d)
	}
}

// rightsOf says what a rule permits in a namespace, as describe does.
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
					all = append(all, describe(authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace, Name: name}))
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
