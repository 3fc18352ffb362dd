package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	group = "metrics.k8s.io"

	// configName is the ConfigMap in which the API server says how it identifies itself and others.
	configName = "extension-apiserver-authentication"
	caKey      = "requestheader-client-ca-file"
)

// aggregation looks whether the API server can identify itself to the server, and asks the server something through it.
func (e *examination) aggregation(ctx context.Context) {
	config, err := e.api.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, configName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		config = &corev1.ConfigMap{}
		fallthrough
	case err == nil:
		e.report.add(judgeFrontProxy(config, e.flags.RequestHeaderCA, e.api.clock.now()))
	default:
		e.report.add(unanswered(checkAggregation, "the front proxy's authority", err,
			"get the ConfigMap kube-system/"+configName+" (Role extension-apiserver-authentication-reader)"))
	}
	e.aggregated(ctx)
}

func judgeFrontProxy(config *corev1.ConfigMap, given bool, now time.Time) Line {
	l := Line{
		Check: checkAggregation, Status: Problem,
		Remedy: "set --requestheader-client-ca-file, --proxy-client-cert-file, --proxy-client-key-file and the --requestheader-*-headers flags of every API server, as kubeadm does",
	}
	switch ca := config.Data[caKey]; {
	case ca != "" && hasValidCertificate([]byte(ca), now):
		return Line{Check: checkAggregation, Status: OK, Message: "the API server publishes the front proxy's authority"}
	case given:
		return Line{Check: checkAggregation, Status: OK, Message: "the API server publishes no valid authority of its front proxy, and the server has its own --requestheader-client-ca-file"}
	case ca != "":
		l.Message = "ConfigMap kube-system/" + configName + ": no certificate in " + caKey + " is valid now"
		l.Cause = "the front proxy's authority has expired"
		l.Remedy = "renew the front proxy's certificates and restart the API servers"
	default:
		l.Message = "ConfigMap kube-system/" + configName + " has no " + caKey
		l.Cause = "the API server runs without the flags of the aggregation layer, so the server cannot know by whom a request is passed on"
	}
	return l
}

// aggregated asks for the nodes' metrics through the aggregator, and goes on with what is served if it gets them.
func (e *examination) aggregated(ctx context.Context) {
	var err error
	for _, version := range apiVersions {
		root := "/apis/" + group + "/" + version
		var nodes []usage
		start := time.Now()
		err = e.api.usages(ctx, root+"/nodes", func(u usage) { nodes = append(nodes, u) })
		if err == nil {
			e.report.add(Line{
				Check: checkAggregation, Status: OK,
				Message: fmt.Sprintf("%s/nodes is answered through the API server in %v", root, time.Since(start).Round(time.Millisecond)),
			})
			e.served(ctx, root, nodes)
			return
		}
		if !apierrors.IsNotFound(err) {
			break
		}
	}
	if apierrors.IsForbidden(err) && !anonymous(err) {
		// Every authenticated user may ask what there is, and the server itself answers that.
		var list metav1.APIResourceList
		root := "/apis/" + group + "/v1beta1"
		discovery := e.api.get(ctx, root, &list)
		if discovery == nil || apierrors.IsForbidden(discovery) && !anonymous(discovery) {
			l := Line{Check: checkAggregation, Status: OK, Message: root + " is answered through the API server"}
			if discovery != nil {
				l = unanswered(checkAggregation, "the way through the API server", discovery, "get "+root+" (ClusterRole system:discovery)")
			}
			e.report.add(l, unanswered(checkServed, "which metrics are served", err, "list nodes.metrics.k8s.io and pods.metrics.k8s.io (ClusterRole system:aggregated-metrics-reader)"))
			return
		}
		err = discovery
	}
	if ctx.Err() != nil {
		e.report.add(unanswered(checkAggregation, "the way through the API server", ctx.Err(), ""))
		return
	}
	cause, remedy := explainAggregated(err)
	e.report.add(
		Line{Check: checkAggregation, Status: Problem, Message: "a request through the API server fails: " + err.Error(), Cause: cause, Remedy: remedy},
		Line{Check: checkServed, Status: Unknown, Message: "which metrics are served cannot be checked", Cause: "they cannot be asked for", Remedy: "see the checks of aggregation and apiservice above"},
	)
}

// anonymous says whether a server refused a request because it does not believe who made it.
func anonymous(err error) bool { return strings.Contains(err.Error(), "system:anonymous") }

func explainAggregated(err error) (cause, remedy string) {
	var status apierrors.APIStatus
	switch {
	case apierrors.IsUnauthorized(err), anonymous(err):
		return causeProxyID, remedyProxyID
	case apierrors.IsNotFound(err):
		return "nothing is registered for " + group + ", or what answers does not serve nodes", remedyInstall
	case apierrors.IsServiceUnavailable(err):
		return "the API server has nobody to pass the request on to, or does not reach it", "see the checks of apiservice above"
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), strings.Contains(err.Error(), "Client.Timeout"):
		return "no answer in time", remedyNetwork
	case errors.As(err, &status) && status.Status().Code >= http.StatusInternalServerError:
		return "the server, or the way to it, failed", "see the server's log and the checks of apiservice above"
	}
	return "the message is all that is known", "see the server's log and that of the API server"
}
