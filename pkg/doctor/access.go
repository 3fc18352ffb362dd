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
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/pkg/kubeapi"
)

// grant is a set of rights that an object of deploy/ grants to a service account.
type grant struct {
	by      string // the objects that grant the rights
	without string // what happens without them
	instead string // an alternative to the grant
	lacking Status // of the line if a right is missing; "" is Problem
	account string // that needs the rights; "" is the server's
	rights  []authorizationv1.ResourceAttributes
}

// Objects of deploy/ that grant rights to the server.
const (
	byClusterRole = "ClusterRole system:metrics-server and its ClusterRoleBinding"
	byAuthReader  = "RoleBinding kube-system/metrics-server-auth-reader"
)

var (
	grantSelf = grant{
		by: byClusterRole, without: "the server cannot find out which nodes and pods exist",
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "list", Resource: "nodes"},
			{Verb: "watch", Resource: "nodes"},
			{Verb: "get", Resource: "pods"},
			{Verb: "list", Resource: "pods"},
			{Verb: "watch", Resource: "pods"},
		},
	}
	grantKubelets = grant{
		by: byClusterRole, without: "kubelets answer the server with 403",
		rights: []authorizationv1.ResourceAttributes{{Verb: "get", Resource: "nodes", Subresource: "metrics"}},
	}
	grantDelegate = grant{
		by:      "ClusterRoleBinding metrics-server:system:auth-delegator",
		without: "the server cannot authenticate and authorize its clients, so it rejects all of them",
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"},
			{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
		},
	}
	grantAuthReader = grant{
		by:      byClusterRole + ", or " + byAuthReader,
		without: "the server cannot read how the API server's front proxy identifies itself, and does not start",
		rights: []authorizationv1.ResourceAttributes{{
			Verb: "get", Namespace: metav1.NamespaceSystem, Resource: "configmaps", Name: kubeapi.AuthenticationConfigMap,
		}},
	}
	grantEvents = grant{
		by: byClusterRole, without: "the server cannot record Events on nodes that it cannot scrape",
		instead: "give the server --node-events=false", lacking: Warning,
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "create", Namespace: metav1.NamespaceDefault, Resource: "events"},
			{Verb: "patch", Namespace: metav1.NamespaceDefault, Resource: "events"},
		},
	}
)

// grantTokens lets the server request tokens of the account for kubelets.
func grantTokens(namespace, account string) grant {
	return grant{
		by: "Role " + namespace + "/metrics-server-kubelets and its RoleBinding", lacking: Warning,
		without: withoutTokens,
		rights: []authorizationv1.ResourceAttributes{{
			Verb: "create", Namespace: namespace, Resource: "serviceaccounts",
			Subresource: "token", Name: account,
		}},
	}
}

// grantAccount lets the account for kubelets read their metrics.
func grantAccount(account string) grant {
	return grant{
		by: "ClusterRole system:metrics-server-kubelets and its ClusterRoleBinding", account: account, lacking: Warning,
		without: withoutTokens,
		rights:  grantKubelets.rights,
	}
}

// withoutTokens is what a server does that gets no usable token of the account for kubelets.
const withoutTokens = "the server cannot get a token of --kubelet-service-account that kubelets accept: it uses " +
	"its own token if that may get nodes/metrics, and otherwise scrapes no kubelet"

// grantSecret lets the server read and write the Secret of its serving certificate.
func grantSecret(namespace, name string) grant {
	return grant{
		by:      "Role " + namespace + "/metrics-server-serving and its RoleBinding",
		without: "the server cannot store its serving certificate (--serving-certificate-secret)",
		rights: []authorizationv1.ResourceAttributes{
			{Verb: "get", Namespace: namespace, Resource: "secrets", Name: name},
			{Verb: "update", Namespace: namespace, Resource: "secrets", Name: name},
		},
	}
}

// grantCABundle lets the server write its certificate's authority into the APIServices.
func grantCABundle() grant {
	g := grant{
		by: byClusterRole,
		without: "the server cannot write the authority of its certificate (--serving-certificate-secret) into caBundle of " +
			"the APIServices",
	}
	for _, name := range kubeapi.MetricsAPIServices() {
		for _, verb := range []string{"get", "patch"} {
			g.rights = append(g.rights, authorizationv1.ResourceAttributes{
				Verb: verb, Group: "apiregistration.k8s.io", Resource: "apiservices", Name: name,
			})
		}
	}
	return g
}

// servingSecretOf returns the Secret in which a server with the arguments args stores its serving
// certificate, "" for none, and whether it uses the Secret only if that exists.
func servingSecretOf(args []string) (name string, optional bool) {
	name, given := flagValue(args, "serving-certificate-secret")
	_, cert := flagValue(args, "tls-cert-file")
	_, key := flagValue(args, "tls-private-key-file")
	if given || cert || key {
		return name, false
	}
	return kubeapi.ServingSecret, true // in a pod, the server uses it without the flag
}

// grants returns the grants that a server needs with the arguments args. secret is the Secret of
// its serving certificate, "" if it uses none.
func (e *examination) grants(namespace string, args []string, secret string) (all []grant) {
	all = []grant{grantSelf, grantDelegate, grantAuthReader}
	account, _ := flagValue(args, "kubelet-service-account")
	switch {
	case e.flags.Kubelet.ClientCertFile != "": // kubelets authenticate that certificate
	case account != "":
		all = append(all, grantTokens(namespace, account), grantAccount(account))
	default:
		all = append(all, grantKubelets)
	}
	if secret != "" {
		all = append(all, grantSecret(namespace, secret), grantCABundle())
	}
	events, given := flagValue(args, "node-events")
	if on, err := strconv.ParseBool(events); (!given || err != nil || on) && !e.incumbent {
		all = append(all, grantEvents)
	}
	return all
}

// flagValue returns the last value of a flag in args, and whether the flag is given. A flag without
// a value has the value "".
func flagValue(args []string, name string) (value string, given bool) {
	for i, a := range slices.Backward(args) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(a), "--"+name); ok {
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

// access checks the rights of the server's service accounts, and whether the objects exist that the
// server may not create. pod is nil if it is unknown.
func (e *examination) access(ctx context.Context, namespace string, pod *corev1.Pod) {
	if e.elsewhere && pod == nil {
		return // it is not known which account is the server's
	}
	account := "metrics-server"
	var args []string
	if pod != nil && !strings.Contains(e.where.Name, program) && !runsServer(pod) {
		e.foreign = true
		e.report.add(NewLine(checkAccess, Unknown, "the rights of pod "+pod.Namespace+"/"+pod.Name+" cannot be checked",
			"it seems to run a program other than metrics-server, which needs other rights",
			"none, if that program serves "+kubeapi.MetricsGroup+" on purpose; otherwise see the check apiservice above"))
		return
	}
	if e.incumbent = pod != nil && isIncumbent(pod); e.incumbent {
		e.report.add(OKLine(checkAccess, "image "+serverContainer(pod).Image+" is one of kubernetes-sigs/metrics-server, "+
			"which has neither this command nor the flags --serving-certificate-secret, --kubelet-service-account and "+
			"--node-events"))
	}
	if pod != nil {
		account = cmp.Or(pod.Spec.ServiceAccountName, "default")
		args, _ = commandLine(pod)
	}
	secret, optional := "", false
	if pod != nil && !e.incumbent {
		secret, optional = servingSecretOf(args)
	}
	if secret != "" && !e.servingSecret(ctx, namespace, secret, optional) {
		secret = ""
	}
	grants := e.grants(namespace, args, secret)
	if pod != nil && !e.incumbent {
		e.kubeletAccount(ctx, namespace, args)
	}
	server := "system:serviceaccount:" + namespace + ":" + account
	fine := true
	for _, g := range grants {
		user := server
		if g.account != "" {
			user = "system:serviceaccount:" + namespace + ":" + g.account
		}
		var missing []string
		for _, right := range g.rights {
			review, err := e.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User: user,
					Groups: []string{
						"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated",
					},
					ResourceAttributes: &right,
				},
			}, metav1.CreateOptions{})
			if err != nil {
				e.report.add(Unanswered(checkAccess, "the rights of "+user+" cannot be checked", err,
					"create subjectaccessreviews.authorization.k8s.io"))
				return
			}
			if !review.Status.Allowed {
				missing = append(missing, describe(right))
			}
		}
		if len(missing) > 0 {
			fine = false
			l := NewLine(checkAccess, cmp.Or(g.lacking, Problem), user+" may not "+strings.Join(missing, ", "),
				"without this right, "+g.without,
				"apply the "+g.by+" of deploy/; the binding's subject must be this service account")
			if g.instead != "" {
				l.Remedy += "; or " + g.instead
			}
			e.report.add(l)
		}
	}
	if fine {
		e.report.add(OKLine(checkAccess, server+" has all rights that the server needs"))
	}
}

// servingSecret reports a missing Secret of the serving certificate, unless the Secret is optional,
// and returns whether the server uses it. It reads only the Secret's metadata, as the data has a
// private key.
func (e *examination) servingSecret(ctx context.Context, namespace, name string, optional bool) bool {
	what := "Secret " + namespace + "/" + name
	secrets := e.api.metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace)
	_, err := secrets.Get(ctx, name, metav1.GetOptions{})
	switch {
	case optional:
		return err == nil
	case apierrors.IsNotFound(err):
		e.report.add(NewLine(checkAccess, Problem, what+" does not exist",
			"the server stores its serving certificate in this Secret (--serving-certificate-secret) and may not "+
				"create it; without it, the server serves a certificate that matches no caBundle",
			"apply the current manifest of deploy/, or upgrade the chart's release: both have the empty Secret, which "+
				"the server fills"))
	case err != nil:
		e.report.add(Unanswered(checkAccess, "whether "+what+" exists cannot be checked", err, "get secrets in "+namespace))
	}
	return true
}

// kubeletAccount finds out which account's token a server with the arguments args shows to
// kubelets, and reports it if it is the server's own or does not exist.
func (e *examination) kubeletAccount(ctx context.Context, namespace string, args []string) {
	if e.flags.Kubelet.ClientCertFile != "" || e.flags.Kubelet.PlainHTTP {
		return // a client certificate is useless without its key, and over plain HTTP no credentials are sent
	}
	name, _ := flagValue(args, "kubelet-service-account")
	if name == "" {
		e.report.add(NewLine(checkAccess, Warning, "kubelets are shown the server's own token",
			"--kubelet-service-account is not given; whoever answers in a kubelet's place can use the token to act as "+
				"the server",
			"apply the current manifest of deploy/, or upgrade the chart's release: both have an account for kubelets "+
				"that may only get nodes/metrics"))
		return
	}
	e.tokensOf = types.NamespacedName{Namespace: namespace, Name: name}
	if e.config.Direct {
		return // the request for its token fails if it does not exist
	}
	accounts := e.api.metadata.Resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts")).Namespace(namespace)
	_, err := accounts.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		e.report.add(NewLine(checkAccess, Warning, "ServiceAccount "+e.tokensOf.String()+" does not exist",
			withoutTokens, "apply the current manifest of deploy/, or upgrade the chart's release"))
	case err != nil:
		e.report.add(Unanswered(checkAccess, "whether ServiceAccount "+e.tokensOf.String()+" exists cannot be checked", err,
			"get serviceaccounts in "+namespace))
	}
}

// describe returns a right as text, such as "get nodes/metrics".
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
