package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
)

// allowedNamesKey is the key of kubeapi.AuthenticationConfigMap with the common names that the front
// proxy may have.
const allowedNamesKey = "requestheader-allowed-names"

// aggregation checks whether the API server publishes its front proxy's authority, and sends a
// request through the aggregator.
func (e *examination) aggregation(ctx context.Context) {
	config, err := e.api.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, kubeapi.AuthenticationConfigMap,
		metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		config = &corev1.ConfigMap{}
		fallthrough
	case err == nil:
		e.report.add(judgeFrontProxy(config, e.flags.RequestHeaderCA, e.api.clock.now()))
	default:
		e.report.add(Unanswered(checkAggregation, "the front proxy's authority cannot be checked", err,
			"get the ConfigMap kube-system/"+kubeapi.AuthenticationConfigMap+
				" (Role extension-apiserver-authentication-reader)"))
	}
	e.aggregated(ctx, allowedNames(config))
}

// allowedNames returns the common names that the API server's front proxy may have; nil if any is
// allowed or they are unknown.
func allowedNames(config *corev1.ConfigMap) (names []string) {
	if config != nil {
		_ = json.Unmarshal([]byte(config.Data[allowedNamesKey]), &names) // without a list, any name is allowed
	}
	return names
}

func judgeFrontProxy(config *corev1.ConfigMap, given bool, now time.Time) Line {
	const name = "ConfigMap kube-system/" + kubeapi.AuthenticationConfigMap
	l := Line{Check: checkAggregation, Status: Problem, Remedy: kubeapi.RemedyFrontProxy}
	switch ca := config.Data[kubeapi.FrontProxyCAKey]; {
	case ca != "" && hasValidCertificate([]byte(ca), now):
		return OKLine(checkAggregation, "the API server publishes the front proxy's authority")
	case given:
		return OKLine(checkAggregation, "the API server publishes no valid authority for its front proxy; the server uses "+
			"its own --requestheader-client-ca-file")
	case ca != "":
		l.Message = name + " has no valid certificate in " + kubeapi.FrontProxyCAKey
		l.Cause = causeNoCertificate
		l.Remedy = "renew the front proxy's certificates and restart the API servers"
	default:
		l.Message = name + " has no " + kubeapi.FrontProxyCAKey
		l.Cause = "the API server runs without the flags of the aggregation layer, so the server cannot verify who " +
			"forwards requests to it"
	}
	return l
}

// aggregated requests the nodes' metrics through the aggregator. If they are served, it also checks
// what is served.
func (e *examination) aggregated(ctx context.Context, allowed []string) {
	var failed error // of the first version that is registered
	var at string
	for _, version := range kubeapi.MetricsVersions() {
		root := "/apis/" + kubeapi.MetricsGroup + "/" + version
		var nodes []usage
		start := time.Now()
		err := e.api.usages(ctx, root+"/nodes", func(u usage) { nodes = append(nodes, u) })
		if err == nil {
			if failed != nil && !apierrors.IsNotFound(failed) {
				e.report.add(aggregationFails(at, failed, allowed))
			}
			e.report.add(OKLine(checkAggregation, fmt.Sprintf("%s/nodes is served through the API server in %v", root,
				time.Since(start).Round(time.Millisecond))))
			e.served(ctx, root, nodes)
			return
		}
		if failed == nil || apierrors.IsNotFound(failed) {
			failed, at = err, root+"/nodes"
		}
		if apierrors.IsForbidden(err) || errors.Is(err, context.DeadlineExceeded) {
			break // the other version would take as long, or is denied as well
		}
	}
	if apierrors.IsForbidden(failed) && !DistrustsFrontProxy(failed) {
		// Every authenticated user may use discovery, which the server itself answers.
		var list metav1.APIResourceList
		root := "/apis/" + kubeapi.MetricsGroup + "/v1beta1"
		discovery := e.api.get(ctx, root, &list)
		if discovery == nil || apierrors.IsForbidden(discovery) && !DistrustsFrontProxy(discovery) {
			l := OKLine(checkAggregation, root+" is served through the API server")
			if discovery != nil {
				l = Unanswered(checkAggregation, "requests through the API server cannot be checked", discovery,
					"get "+root+" (ClusterRole system:discovery)")
			}
			e.report.add(l, Unanswered(checkServed, "the served metrics cannot be checked", failed,
				"list nodes.metrics.k8s.io and pods.metrics.k8s.io (ClusterRole system:aggregated-metrics-reader)"))
			return
		}
		failed, at = discovery, root
	}
	if ctx.Err() != nil {
		e.report.add(Unanswered(checkAggregation, "requests through the API server cannot be checked", ctx.Err(), ""))
		return
	}
	e.report.add(aggregationFails(at, failed, allowed),
		NewLine(checkServed, Unknown, "the served metrics cannot be checked",
			"requests through the API server fail", "see the checks aggregation and apiservice above"),
	)
}

// aggregationFails returns the line for a failed request for the path at. allowed has the common names that the front
// proxy may have.
func aggregationFails(at string, err error, allowed []string) Line {
	cause, remedy := explainAggregated(err)
	if cause == CauseFrontProxy && len(allowed) > 0 {
		cause += "; only the common names " + strings.Join(allowed, ", ") + " are allowed"
	}
	return NewLine(checkAggregation, Problem, "a request for "+at+" through the API server fails: "+err.Error(), cause,
		remedy)
}

// DistrustsFrontProxy reports whether err, the answer to a request through the API server, comes from a server that
// does not accept the API server's credentials. CauseFrontProxy and RemedyFrontProxy explain it.
func DistrustsFrontProxy(err error) bool {
	return apierrors.IsUnauthorized(err) ||
		apierrors.IsForbidden(err) && strings.Contains(err.Error(), "system:anonymous")
}

func explainAggregated(err error) (cause, remedy string) {
	var status apierrors.APIStatus
	switch {
	case DistrustsFrontProxy(err):
		return CauseFrontProxy, RemedyFrontProxy
	case apierrors.IsNotFound(err):
		return "no APIService is registered for " + kubeapi.MetricsGroup + ", or the program behind it does not serve nodes",
			remedyInstall
	case apierrors.IsServiceUnavailable(err):
		return "the API server cannot forward the request: no server is available, or it cannot be reached",
			"see the check apiservice above"
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err),
		strings.Contains(err.Error(), "Client.Timeout"):
		return "the server did not answer in time", remedyNetwork
	case errors.As(err, &status) && status.Status().Code >= http.StatusInternalServerError:
		return "the server failed, or the connection to it", "see the server's log and the check apiservice above"
	}
	return "the error gives no further reason", "see the logs of the API server and of metrics-server"
}
