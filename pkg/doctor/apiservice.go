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
)

// apiService is the part of an APIService that is of interest. Its Go types have a module of their own, with many others.
type apiService struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		Service               *serviceRef
		InsecureSkipTLSVerify bool
		CABundle              []byte
	}
	Status struct{ Conditions []metav1.Condition }
}

// serviceRef names the Service that an APIService leads to.
type serviceRef struct {
	Namespace, Name string
	Port            int32
}

func (r serviceRef) String() string { return r.Namespace + "/" + r.Name }

// apiVersions are those of metrics.k8s.io, the preferred one first.
var apiVersions = []string{"v1", "v1beta1"}

const (
	remedyInstall = "apply the manifests of metrics-server as a whole (deploy/)"
	remedyNetwork = "let the control plane reach the server's port on pods (10250 in deploy/): see firewalls, network policies and the CNI. An API server that reaches nodes but no pods needs hostNetwork: true with a free --secure-port; one that does not reach Service addresses needs kube-proxy or --enable-aggregator-routing=true"
	remedyProxy   = "exempt the cluster's own addresses from the API server's proxy: its NO_PROXY needs the ranges of Services and pods, .svc and .cluster.local"
	remedyTrust   = "with --serving-certificate-secret the server mends that within a minute, or its log says what hinders it; with tls.type helm of the chart: upgrade once with tls.helm.lookup=false, which makes a new certificate; "
	causeProxyID  = "the server does not believe the certificate that the API server's aggregator shows it, so it takes every request for an anonymous one"
	remedyProxyID = "compare --proxy-client-cert-file of the API server with requestheader-client-ca-file in ConfigMap kube-system/extension-apiserver-authentication: that authority must have signed it, and --requestheader-allowed-names must be empty or name it. If the flags are right, or --requestheader-client-ca-file is set, see that all API servers have the same"
)

// apiServices looks at both APIServices and returns the Service that they lead to, if that could be read.
func (e *examination) apiServices(ctx context.Context) (ref serviceRef, known bool) {
	var found []*apiService
	var failed error
	for _, version := range apiVersions {
		s := &apiService{}
		switch err := e.api.get(ctx, "/apis/apiregistration.k8s.io/v1/apiservices/"+version+"."+group, s); {
		case err == nil:
			found = append(found, s)
		case apierrors.IsNotFound(err):
			found = append(found, nil)
		default:
			failed = err
		}
	}
	if failed != nil {
		e.report.add(unanswered(checkAPIService, "the APIServices of "+group, failed, "get apiservices.apiregistration.k8s.io"))
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

// judgeAPIServices is given one for each of apiVersions, nil if it is not there.
func judgeAPIServices(found []*apiService, now time.Time) []Line {
	if !slices.ContainsFunc(found, func(s *apiService) bool { return s != nil }) {
		return []Line{{
			Check: checkAPIService, Status: Problem, Message: "no APIService of " + group + " is registered",
			Cause: "metrics-server is not installed, or only a part of it", Remedy: remedyInstall,
		}}
	}
	var lines []Line
	owners := map[string]bool{}
	for i, s := range found {
		if s == nil {
			lines = append(lines, missingAPIService(apiVersions[i]))
			continue
		}
		lines = append(lines, judgeAPIService(s, now)...)
		if s.Spec.Service != nil {
			owners[s.Spec.Service.String()] = true
		}
	}
	if len(owners) > 1 {
		lines = append(lines, Line{
			Check: checkAPIService, Status: Problem, Message: "v1 and v1beta1 of " + group + " lead to different Services",
			Cause:  "two programs serve the group: an older installation, or an adapter of another monitoring system",
			Remedy: "keep one: let both APIServices name the same Service, and remove the other program",
		})
	}
	return lines
}

func missingAPIService(version string) Line {
	l := Line{
		Check: checkAPIService, Status: Warning, Message: version + "." + group + " is not registered",
		Cause:  "the manifest is older than the server: it registers only v1beta1, which kubectl top and autoscalers can do with",
		Remedy: "apply the APIService " + version + "." + group + " of deploy/",
	}
	if version != "v1" {
		l.Status = Problem
		l.Cause = "only a part of metrics-server is installed; kubectl top and autoscalers of many releases ask for this version alone"
	}
	return l
}

func judgeAPIService(s *apiService, now time.Time) []Line {
	name, ref := s.Metadata.Name, s.Spec.Service
	if ref == nil {
		return []Line{{
			Check: checkAPIService, Status: Problem, Message: name + " leads to no Service",
			Cause: "it says that the API server itself serves the group, which it does not", Remedy: "delete it (kubectl delete apiservice " + name + ") and apply that of deploy/",
		}}
	}
	var lines []Line
	if !strings.Contains(ref.Name, "metrics-server") {
		lines = append(lines, Line{
			Check: checkAPIService, Status: Warning, Message: fmt.Sprintf("%s leads to the Service %s", name, ref),
			Cause: "by its name that is another program than metrics-server, such as an adapter of a monitoring system", Remedy: "if that is not intended, remove the other program and apply the APIServices of deploy/",
		})
	}
	trust, problem := judgeTrust(s, now)
	if problem != nil {
		lines = append(lines, *problem)
	}
	i := slices.IndexFunc(s.Status.Conditions, func(c metav1.Condition) bool { return c.Type == "Available" })
	switch {
	case i < 0:
		return append(lines, Line{
			Check: checkAPIService, Status: Problem, Message: name + " has no condition Available",
			Cause: "it was made a moment ago, or the API server's aggregator does not run", Remedy: "try again; if it stays so, see the API server's log for \"available_controller\"",
		})
	case s.Status.Conditions[i].Status == metav1.ConditionTrue:
		return append(lines, Line{Check: checkAPIService, Status: OK, Message: fmt.Sprintf("%s is available, by Service %s, %s", name, ref, trust)})
	}
	c := s.Status.Conditions[i]
	cause, remedy := explainUnavailable(c.Reason, c.Message)
	return append(lines, Line{
		Check: checkAPIService, Status: Problem, Message: fmt.Sprintf("%s is not available: %s: %s", name, c.Reason, c.Message),
		Cause: cause, Remedy: remedy,
	})
}

// judgeTrust says how the API server verifies the server.
func judgeTrust(s *apiService, now time.Time) (text string, problem *Line) {
	name := s.Metadata.Name
	switch {
	case s.Spec.InsecureSkipTLSVerify:
		return "whose certificate is not verified (insecureSkipTLSVerify)", nil
	case len(s.Spec.CABundle) == 0:
		return "whose certificate is verified by the API server's system authorities (no caBundle)", nil
	}
	if !hasValidCertificate(s.Spec.CABundle, now) {
		problem = &Line{
			Check: checkAPIService, Status: Problem, Message: name + " has a caBundle in which no certificate is valid now",
			Cause: "it has expired, or is no PEM", Remedy: remedyTrust + "with another --tls-cert-file: write the authority that signs that certificate into caBundle",
		}
	}
	return "whose certificate is verified by caBundle", problem
}

// hasValidCertificate says whether a certificate in PEM is valid at that time.
func hasValidCertificate(data []byte, now time.Time) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && now.After(c.NotBefore) && now.Before(c.NotAfter) {
			return true
		}
	}
	return false
}

// unavailable are the reasons for which an APIService is not available, the first that fits holds.
var unavailable = []struct {
	reason        string   // "": any
	says          []string // of which the message has one; nil: any message
	cause, remedy string
}{
	{
		reason: "MissingEndpoints",
		cause:  "no pod of the server is ready, or the Service's selector or port name is not that of the pods",
		remedy: "see the checks of service and pods below",
	},
	{
		reason: "EndpointsNotFound",
		cause:  "the Service selects no pod",
		remedy: "see the checks of service and pods below; compare the Service's selector with the pods' labels",
	},
	{
		reason: "ServiceNotFound",
		cause:  "the APIService names a Service that does not exist: it is left over from another installation, often in another namespace",
		remedy: remedyInstall + ", or delete the APIService",
	},
	{
		reason: "ServicePortError",
		cause:  "the APIService names another port than the Service has",
		remedy: "make spec.service.port of the APIService that of the Service (443 in deploy/)",
	},
	{
		says:   []string{"proxyconnect", "Proxy Authentication Required", "from proxy"},
		cause:  "the API server sends the request through a proxy (HTTPS_PROXY)",
		remedy: remedyProxy,
	},
	{
		says:   []string{"connection refused"},
		cause:  "nothing listens on the address and port in the message: the Service's targetPort, the containerPort and --secure-port are not the same, or the server does not run",
		remedy: "make the three the same",
	},
	{
		says:   []string{"x509:", "tls: "},
		cause:  "the APIService has a caBundle (or none, and no insecureSkipTLSVerify), and the server's certificate is not signed by it or does not name the Service",
		remedy: remedyTrust + "else: give it a certificate for NAME.NAMESPACE.svc by that authority (--tls-cert-file, --tls-private-key-file), or remove caBundle and set insecureSkipTLSVerify: true",
	},
	{
		says:   []string{"deadline exceeded", "i/o timeout", "Client.Timeout", "no route to host", "network is unreachable", "TLS handshake timeout", "connection reset", "EOF", ": 502", ": 504"},
		cause:  "there is no way from the control plane to the address in the message",
		remedy: remedyNetwork,
	},
	{
		says:   []string{"no such host"},
		cause:  "the API server's DNS does not know the name in the message",
		remedy: "point the APIService at a Service with a cluster IP, or let the control plane's DNS know the name",
	},
	{
		says:   []string{": 401", ": 403", "Unauthorized", "forbidden", "Forbidden"},
		cause:  causeProxyID,
		remedy: remedyProxyID + "; a proxy between them (HTTPS_PROXY of the API server) may answer so too",
	},
	{
		says:   []string{": 404"},
		cause:  "what answers does not serve this version of the API: an older server, or another program",
		remedy: "let the Service select pods of this metrics-server only, or delete the APIService",
	},
	{
		says:   []string{": 500", ": 503"},
		cause:  "the server answers, but is not ready or overloaded",
		remedy: "see its log, and the check of pods below",
	},
}

// explainUnavailable returns cause and remedy for the condition Available of an APIService that is not true.
func explainUnavailable(reason, message string) (cause, remedy string) {
	for _, u := range unavailable {
		said := u.says == nil || slices.ContainsFunc(u.says, func(s string) bool { return strings.Contains(message, s) })
		if said && cmp.Or(u.reason, reason) == reason {
			return u.cause, u.remedy
		}
	}
	return "the message is all that the API server says", "see the API server's log and that of the server"
}
