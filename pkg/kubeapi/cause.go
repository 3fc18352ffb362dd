package kubeapi

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Cause is why a request to the API server failed.
type Cause string

// The causes. All except Unreachable are answers, of the API server or of a proxy in front of it.
const (
	Unauthorized Cause = "unauthorized" // it does not accept the credentials
	Forbidden    Cause = "forbidden"    // a right is missing
	NotFound     Cause = "not found"    // the object does not exist
	Conflict     Cause = "conflict"     // the object has changed since it was read
	Invalid      Cause = "invalid"      // the object would be invalid
	Failing      Cause = "failing"      // any other error
	Unreachable  Cause = "unreachable"  // there was no answer
)

// CauseOf returns the cause of err, an error of a client of the API server.
func CauseOf(err error) Cause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return Unreachable
	}
	for _, c := range []struct {
		is    func(error) bool
		cause Cause
	}{
		{apierrors.IsUnauthorized, Unauthorized},
		{apierrors.IsForbidden, Forbidden},
		{apierrors.IsNotFound, NotFound},
		{apierrors.IsConflict, Conflict},
		{apierrors.IsInvalid, Invalid},
	} {
		if c.is(err) {
			return c.cause
		}
	}
	return Failing
}

// Remedy returns what an administrator can do about c, as a sentence without a full stop. Callers
// who know which right or object is missing can say more about Forbidden, NotFound and Invalid.
func (c Cause) Remedy() string {
	switch c {
	case Unauthorized:
		return "the API server does not accept the credentials: in a pod, " + RemedyOldToken +
			"; with --kubeconfig, renew the credentials in it"
	case Unreachable:
		return "check that the API server runs and that the network lets requests to it through"
	}
	return "see the API server's own logs and load"
}

const (
	// RemedyOldToken is the remedy for a pod whose token the API server does not accept.
	RemedyOldToken = "the service account was most likely deleted and created again after the pod had " +
		"started, which makes the pod's token invalid: delete the pod; its replacement gets a valid token"
	// RemedyFrontProxy is the remedy for an API server that publishes no authority of its front proxy.
	RemedyFrontProxy = "start every API server with the flags of the aggregation layer, as kubeadm does: " +
		"--requestheader-client-ca-file, --proxy-client-cert-file, --proxy-client-key-file and the " +
		"--requestheader-*-headers flags"
	// RemedyProxy is the remedy for a proxy between this program and the API server or the kubelets.
	RemedyProxy = "add the addresses of the API server ($KUBERNETES_SERVICE_HOST) and of the nodes to NO_PROXY, " +
		"one by one or as ranges such as 10.0.0.0/8, or remove HTTPS_PROXY"
)
