package doctor

import (
	"context"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// grant is what the server's service account gets of one object of deploy/.
type grant struct {
	by     string
	why    string
	rights []authorizationv1.ResourceAttributes
}

var (
	grantSelf = grant{
		by: "ClusterRole system:metrics-server and its ClusterRoleBinding", why: "the server does not learn which nodes and pods there are",
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "list", Resource: "nodes"},
			{Verb: "watch", Resource: "nodes"},
			{Verb: "get", Resource: "pods"},
			{Verb: "list", Resource: "pods"},
			{Verb: "watch", Resource: "pods"},
		},
	}
	grantKubelets = grant{
		by: "ClusterRole system:metrics-server and its ClusterRoleBinding", why: "kubelets answer the server with 403",
		rights: []authorizationv1.ResourceAttributes{{Verb: "get", Resource: "nodes", Subresource: "metrics"}},
	}
	grantDelegate = grant{
		by: "ClusterRoleBinding metrics-server:system:auth-delegator", why: "the server cannot find out who asks it and what that one may do, so it refuses everybody",
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"},
			{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
		},
	}
	grantAuthReader = grant{
		by: "RoleBinding kube-system/metrics-server-auth-reader", why: "the server does not know the API server's front proxy, and does not start without",
		rights: []authorizationv1.ResourceAttributes{{Verb: "get", Namespace: metav1.NamespaceSystem, Resource: "configmaps", Name: configName}},
	}
)

// access asks whether the server's service account may do what the server does.
func (e *examination) access(ctx context.Context, namespace, account string) {
	grants := []grant{grantSelf, grantKubelets, grantDelegate, grantAuthReader}
	if e.flags.Kubelet.ClientCertFile != "" {
		grants = []grant{grantSelf, grantDelegate, grantAuthReader} // kubelets know the server by its certificate
	}
	user := "system:serviceaccount:" + namespace + ":" + account
	fine := true
	for _, g := range grants {
		var missing []string
		for _, right := range g.rights {
			review, err := e.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:               user,
					Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
					ResourceAttributes: &right,
				},
			}, metav1.CreateOptions{})
			if err != nil {
				e.report.add(unanswered(checkAccess, "what "+user+" may do", err, "create subjectaccessreviews.authorization.k8s.io"))
				return
			}
			if !review.Status.Allowed {
				missing = append(missing, describe(right))
			}
		}
		if len(missing) > 0 {
			fine = false
			e.report.add(Line{
				Check: checkAccess, Status: Problem, Message: user + " may not " + strings.Join(missing, ", "),
				Cause: g.why, Remedy: "apply " + g.by + " of deploy/, whose subject must be that service account",
			})
		}
	}
	if fine {
		e.report.add(Line{Check: checkAccess, Status: OK, Message: user + " may do what the server does"})
	}
}

// describe says what a right is: "get nodes/metrics".
func describe(r authorizationv1.ResourceAttributes) string {
	s := r.Verb + " " + r.Resource
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Subresource != "" {
		s += "/" + r.Subresource
	}
	if r.Name != "" {
		s += " " + r.Namespace + "/" + r.Name
	}
	return s
}
