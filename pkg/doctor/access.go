package doctor

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// grant is what the server's service account gets of one object of deploy/.
type grant struct {
	by      string
	why     string
	instead string // of the grant, what helps as well
	lacking Status // what it is to be without it; "": Problem
	rights  []authorizationv1.ResourceAttributes
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
	grantEvents = grant{
		by: "Role default/metrics-server-events and its RoleBinding", why: "nodes that cannot be scraped get no Events that say so",
		instead: "give the server --node-events=false", lacking: Warning,
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "create", Namespace: metav1.NamespaceDefault, Resource: "events"},
			{Verb: "patch", Namespace: metav1.NamespaceDefault, Resource: "events"},
		},
	}
)

// grantSecret lets the server read and fill in the Secret of its serving certificate.
func grantSecret(namespace, name string) grant {
	return grant{
		by: "Role " + namespace + "/metrics-server-serving and its RoleBinding", why: "the server cannot keep its serving certificate (--serving-certificate-secret)",
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "get", Namespace: namespace, Resource: "secrets", Name: name},
			{Verb: "update", Namespace: namespace, Resource: "secrets", Name: name},
		},
	}
}

// grantCABundle lets the server write the authority of that certificate where the API server looks for it.
func grantCABundle() grant {
	g := grant{by: grantSelf.by, why: "the server cannot write the authority of its certificate (--serving-certificate-secret) into caBundle"}
	for _, version := range apiVersions {
		for _, verb := range []string{"get", "patch"} {
			g.rights = append(g.rights, authorizationv1.ResourceAttributes{Verb: verb, Group: "apiregistration.k8s.io", Resource: "apiservices", Name: version + "." + group})
		}
	}
	return g
}

// grants are those that the server needs with the arguments args, and the Secret of its serving certificate, "" without one.
func (e *examination) grants(namespace string, args []string) (all []grant, secret string) {
	all = []grant{grantSelf, grantDelegate, grantAuthReader}
	if e.flags.Kubelet.ClientCertFile == "" { // or else kubelets know it by that
		all = append(all, grantKubelets)
	}
	if secret, _ = flagValue(args, "serving-certificate-secret"); secret != "" {
		all = append(all, grantSecret(namespace, secret), grantCABundle())
	}
	events, given := flagValue(args, "node-events")
	if on, err := strconv.ParseBool(events); !given || err != nil || on {
		all = append(all, grantEvents)
	}
	return all, secret
}

// flagValue is what args last say of a flag. One without a value is given and "".
func flagValue(args []string, name string) (value string, given bool) {
	for i, a := range slices.Backward(args) {
		if rest, ok := strings.CutPrefix(a, "--"+name); ok {
			switch {
			case strings.HasPrefix(rest, "="):
				return rest[1:], true
			case rest == "" && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-"):
				return args[i+1], true
			case rest == "":
				return "", true
			}
		}
	}
	return "", false
}

// access asks whether the server's service account may do what the server does, and for the Secret that it may not make itself.
// The pod is nil if it is not known.
func (e *examination) access(ctx context.Context, namespace string, pod *corev1.Pod) {
	account := "metrics-server"
	var args []string
	if pod != nil {
		account, args = cmp.Or(pod.Spec.ServiceAccountName, "default"), commandLine(pod)
	}
	grants, secret := e.grants(namespace, args)
	if secret != "" {
		e.servingSecret(ctx, namespace, secret)
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
			l := Line{
				Check: checkAccess, Status: cmp.Or(g.lacking, Problem), Message: user + " may not " + strings.Join(missing, ", "),
				Cause: g.why, Remedy: "apply " + g.by + " of deploy/, whose subject must be that service account",
			}
			if g.instead != "" {
				l.Remedy += ", or " + g.instead
			}
			e.report.add(l)
		}
	}
	if fine {
		e.report.add(Line{Check: checkAccess, Status: OK, Message: user + " may do what the server does"})
	}
}

// servingSecret reports when the Secret of the serving certificate is missing. It does not ask for what is in it, a private key.
func (e *examination) servingSecret(ctx context.Context, namespace, name string) {
	what := "Secret " + namespace + "/" + name
	_, err := e.api.metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		e.report.add(Line{
			Check: checkAccess, Status: Problem, Message: what + " does not exist",
			Cause:  "the server keeps its serving certificate in it (--serving-certificate-secret) and may not create it; a server that starts without serves a certificate that no caBundle fits",
			Remedy: "apply the manifest of deploy/ again, or upgrade the chart's release: it has the Secret, empty, and the server fills it in",
		})
	case err != nil:
		e.report.add(unanswered(checkAccess, "whether "+what+" exists", err, "get secrets in "+namespace))
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
	switch {
	case r.Name != "" && r.Namespace != "":
		s += " " + r.Namespace + "/" + r.Name
	case r.Name != "":
		s += " " + r.Name
	case r.Namespace != "":
		s += " in " + r.Namespace
	}
	return s
}
