package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
)

// apiService has the fields of an APIService that are read here. Importing its Go type would add a
// module.
type apiService struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		Service               *serviceRef
		InsecureSkipTLSVerify bool
		CABundle              []byte
	}
	Status struct{ Conditions []metav1.Condition }
}

// serviceRef names the Service to which an APIService sends requests.
type serviceRef struct {
	Namespace, Name string
	Port            int32
}

func (r serviceRef) String() string { return r.Namespace + "/" + r.Name }

const (
	remedyInstall     = "apply all manifests of metrics-server (deploy/)"
	remedyServicePort = "set spec.service.port of the APIService to the Service's port (443 in deploy/)"
	remedyNetwork     = "let the control plane reach the server's port on pods (10250 in deploy/): check firewalls, " +
		"network policies and the CNI. If the API server can reach nodes but not pods, set hostNetwork: true and a free " +
		"--secure-port; if it cannot reach Service addresses, run kube-proxy on the control plane or set " +
		"--enable-aggregator-routing=true"
	remedyProxy = "exclude the cluster's addresses from the API server's proxy: add the ranges of Services and pods, " +
		".svc and .cluster.local to its NO_PROXY"
	remedyTrust = "let the server manage its certificate: pass --serving-certificate-secret=metrics-server-serving (a " +
		"patch that replaces all args drops it) and apply the Secret and the roles of deploy/; the server then writes " +
		"caBundle within a minute, or logs why it cannot. With the chart's tls.type=helm: upgrade once with " +
		"tls.helm.lookup=false, which creates a new certificate. "
	// CauseFrontProxy is why a server rejects all requests that the API server forwards.
	CauseFrontProxy = "the server does not trust the client certificate of the API server's aggregator, so it treats " +
		"every request as anonymous"
	// RemedyFrontProxy is the remedy for it.
	RemedyFrontProxy = "check that the authority in " + kubeapi.FrontProxyCAKey + " of ConfigMap " +
		"kube-system/" + kubeapi.AuthenticationConfigMap + " signed the API server's --proxy-client-cert-file, and that " +
		"--requestheader-allowed-names is empty or has its common name. If both are right, or the server has its own " +
		"--requestheader-client-ca-file, check that all API servers use the same files"
)

// apiServices checks both APIServices and returns the Service to which they send requests, if that
// could be read.
func (e *examination) apiServices(ctx context.Context) (ref serviceRef, known bool) {
	var found []*apiService
	var failed error
	for _, name := range kubeapi.MetricsAPIServices() {
		s := &apiService{}
		switch err := e.api.get(ctx, kubeapi.APIServicePath(name), s); {
		case err == nil:
			found = append(found, s)
		case apierrors.IsNotFound(err):
			found = append(found, nil)
		default:
			failed = err
		}
	}
	if failed != nil {
		e.guessed = true
		e.report.add(Unanswered(checkAPIService, "the APIServices of "+kubeapi.MetricsGroup+" cannot be checked", failed,
			"get apiservices.apiregistration.k8s.io"))
		return serviceRef{}, false
	}
	e.report.add(judgeAPIServices(found, e.api.clock.now())...)
	for _, s := range found {
		if s != nil && s.Spec.Service != nil {
			return *s.Spec.Service, true
		}
	}
	return serviceRef{}, false
}

// judgeAPIServices takes one APIService for each of kubeapi.MetricsAPIServices, nil if it does not exist.
func judgeAPIServices(found []*apiService, now time.Time) []Line {
	if !slices.ContainsFunc(found, func(s *apiService) bool { return s != nil }) {
		return []Line{NewLine(checkAPIService, Problem, "no APIService of "+kubeapi.MetricsGroup+" is registered",
			"metrics-server is not installed, or only in part", remedyInstall)}
	}
	var lines []Line
	owners := map[string]bool{}
	for i, s := range found {
		if s == nil {
			lines = append(lines, missingAPIService(kubeapi.MetricsAPIServices()[i]))
			continue
		}
		lines = append(lines, judgeAPIService(s, now)...)
		if s.Spec.Service != nil {
			owners[s.Spec.Service.String()] = true
		}
	}
	if len(owners) > 1 {
		lines = append(lines, NewLine(checkAPIService, Problem,
			"v1 and v1beta1 of "+kubeapi.MetricsGroup+" point to different Services",
			"two programs serve the API group, for example an older installation or the adapter of a monitoring system",
			"point both APIServices to the same Service, and remove the other program"))
	}
	return lines
}

func missingAPIService(name string) Line {
	l := NewLine(checkAPIService, Warning, name+" is not registered",
		"the installed manifest registers only v1beta1, which is enough for kubectl top and autoscalers",
		"apply the APIService "+name+" of deploy/")
	if !strings.HasPrefix(name, "v1.") {
		l.Status = Problem
		l.Cause = "metrics-server is installed only in part; kubectl top and the autoscalers of many releases request only " +
			"this version"
	}
	return l
}

func judgeAPIService(s *apiService, now time.Time) []Line {
	name, ref := s.Metadata.Name, s.Spec.Service
	if ref == nil {
		return []Line{NewLine(checkAPIService, Problem, name+" points to no Service",
			"an APIService without a Service means that the API server itself serves the API, which it does not",
			"delete it (kubectl delete apiservice "+name+") and apply the one of deploy/")}
	}
	var lines []Line
	if !strings.Contains(ref.Name, "metrics-server") {
		lines = append(lines, NewLine(checkAPIService, Warning, fmt.Sprintf("%s points to the Service %s", name, ref),
			"its name suggests a program other than metrics-server, such as the adapter of a monitoring system",
			"if this is not intended, find out who changed the APIService, remove the other program, and apply the "+
				"APIServices of deploy/"))
	}
	trust, problem := judgeTrust(s, now)
	if problem != nil {
		lines = append(lines, *problem)
	}
	i := slices.IndexFunc(s.Status.Conditions, func(c metav1.Condition) bool { return c.Type == "Available" })
	switch {
	case i < 0:
		return append(lines, NewLine(checkAPIService, Problem, name+" has no condition Available",
			"it was created a moment ago, or the API server's aggregator does not run",
			"try again; if the condition is still missing, search the API server's log for \"available_controller\""))
	case s.Status.Conditions[i].Status == metav1.ConditionTrue:
		return append(lines, OKLine(checkAPIService, fmt.Sprintf("%s is available through Service %s, %s", name, ref, trust)))
	}
	c := s.Status.Conditions[i]
	cause, remedy := explainUnavailable(c.Reason, c.Message)
	return append(lines, NewLine(checkAPIService, Problem, fmt.Sprintf("%s is not available: %s: %s", name, c.Reason,
		c.Message), cause, remedy))
}

// judgeTrust describes how the API server verifies the server's certificate.
func judgeTrust(s *apiService, now time.Time) (text string, problem *Line) {
	name := s.Metadata.Name
	switch {
	case s.Spec.InsecureSkipTLSVerify:
		return "whose certificate is not verified (insecureSkipTLSVerify is set; without it the server writes caBundle)", nil
	case len(s.Spec.CABundle) == 0:
		return "whose certificate is verified against the API server's system authorities (no caBundle)", nil
	}
	if !hasValidCertificate(s.Spec.CABundle, now) {
		problem = new(NewLine(checkAPIService, Problem, name+" has a caBundle without a valid certificate",
			causeNoCertificate, remedyTrust+"With your own --tls-cert-file: put the authority that signed it into caBundle"))
	}
	return "whose certificate is verified against caBundle", problem
}

const causeNoCertificate = "its certificates have expired or are not valid yet, or it is not PEM"

// hasValidCertificate reports whether data has a PEM certificate that is valid at now. If not, causeNoCertificate says
// why.
func hasValidCertificate(data []byte, now time.Time) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && now.After(c.NotBefore) && now.Before(c.NotAfter) {
			return true
		}
	}
	return false
}

// unavailable lists why an APIService is not available. The first entry that matches applies.
var unavailable = []struct {
	reason        string   // the condition's reason; "" matches any
	says          []string // the message has one of these; nil matches any message
	cause, remedy string
}{
	{
		reason: "MissingEndpoints",
		cause:  "no pod of the server is ready, or the Service's selector or port name does not match the pods",
		remedy: "see the checks service and pods below",
	},
	{
		reason: "EndpointsNotFound",
		cause:  "the Service selects no pod",
		remedy: "see the checks service and pods below; compare the Service's selector with the pods' labels",
	},
	{
		reason: "ServiceNotFound",
		cause: "the APIService names a Service that does not exist; it is probably left over from another installation, " +
			"often in another namespace",
		remedy: remedyInstall + ", or delete the APIService",
	},
	{
		reason: "ServicePortError",
		cause:  "the APIService names a port that the Service does not have",
		remedy: remedyServicePort,
	},
	{
		says:   []string{"proxyconnect", "Proxy Authentication Required", "from proxy"},
		cause:  "the API server sends the request through a proxy (HTTPS_PROXY)",
		remedy: remedyProxy,
	},
	{
		says: []string{"connection refused"},
		cause: "nothing listens at the address and port in the message: the Service's targetPort, the containerPort and " +
			"--secure-port differ, or the server does not run",
		remedy: "set targetPort, containerPort and --secure-port to the same port; if they are the same, see the check " +
			"pods below",
	},
	{
		says: []string{"certificate has expired or is not yet valid"},
		cause: "the server's certificate has expired or is not valid yet, or a clock is wrong: the message has the API " +
			"server's time",
		remedy: remedyTrust + "With your own certificate (--tls-cert-file): renew it. If it is valid, synchronize the " +
			"clocks (NTP)",
	},
	{
		says: []string{"x509:", "tls: "},
		cause: "the API server does not trust the server's certificate: caBundle (or, without one, the system's " +
			"authorities) did not sign it, or it does not name the Service",
		remedy: remedyTrust + "With your own certificate: have that authority sign one for NAME.NAMESPACE.svc " +
			"(--tls-cert-file, --tls-private-key-file), or remove caBundle and set insecureSkipTLSVerify: true",
	},
	{
		says: []string{
			"deadline exceeded", "i/o timeout", "Client.Timeout", "no route to host", "network is unreachable",
			"TLS handshake timeout", "connection reset", "EOF", ": 502", ": 504",
		},
		cause:  "the control plane cannot reach the address in the message",
		remedy: remedyNetwork,
	},
	{
		says:   []string{"no such host"},
		cause:  "the API server's DNS cannot resolve the name in the message",
		remedy: "point the APIService to a Service with a cluster IP, or add the name to the control plane's DNS",
	},
	{
		says:   []string{": 401", ": 403", "Unauthorized", "forbidden", "Forbidden"},
		cause:  CauseFrontProxy,
		remedy: RemedyFrontProxy + ". A proxy between the two (HTTPS_PROXY of the API server) can cause the same answer",
	},
	{
		says:   []string{": 404"},
		cause:  "whatever answers does not serve this version of the API: an older server, or another program",
		remedy: "let the Service select only pods of this metrics-server, or delete the APIService",
	},
	{
		says:   []string{": 500", ": 503"},
		cause:  "the server answers, but is not ready or is overloaded",
		remedy: "see the server's log and the check pods below",
	},
}

// explainUnavailable returns the cause and the remedy for an APIService whose condition Available
// is not true.
func explainUnavailable(reason, message string) (cause, remedy string) {
	for _, u := range unavailable {
		said := u.says == nil || slices.ContainsFunc(u.says, func(s string) bool { return strings.Contains(message, s) })
		if said && cmp.Or(u.reason, reason) == reason {
			return u.cause, u.remedy
		}
	}
	return "the API server gives no reason beyond this message", "see the logs of the API server and of metrics-server"
}
