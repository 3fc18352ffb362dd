package server

import (
	"net/http"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/features"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
)

// handlerChain is what a request goes through on its way to next, the outermost filter last: genericapiserver.DefaultBuildHandlerChain
// without what serves nobody here and costs more than all the rest (BenchmarkHandlerChain). That is
//   - tracing, for there is nowhere to send traces, and the measurement of the filters themselves;
//   - the goroutine in which a request is left behind at its timeout, unless the client has set one: nothing waits in it but what ends
//     with the request's context, and the connection, which has deadlines of its own;
//   - what is off unless configured, and cannot be configured here: priority and fairness, CORS, HSTS, GOAWAY, Retry-After, routines;
//   - what is for servers whose paths come one by one while they run.
//
// TestFiltersOfTheGenericServer in test/repository fails when a new version has other filters.
func handlerChain(next http.Handler, c *genericapiserver.Config) http.Handler {
	h := filters.WithAuthorization(next, c.Authorization.Authorizer, c.Serializer)
	h = genericfilters.WithMaxInFlightLimit(h, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
	if c.FeatureGate.Enabled(features.ConstrainedImpersonation) {
		h = impersonation.WithConstrainedImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	} else {
		h = impersonation.WithImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	}
	h = filters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
	unauthorized := filters.WithFailedAuthenticationAudit(filters.Unauthorized(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	h = filters.WithAuthentication(h, c.Authentication.Authenticator, unauthorized, c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig)
	h = filters.WithWarningRecorder(h)
	h = genericfilters.WithTimeoutForNonLongRunningRequests(h, func(r *http.Request, info *request.RequestInfo) bool {
		return c.LongRunningFunc(r, info) || !strings.Contains(r.URL.RawQuery, "timeout=")
	})
	h = filters.WithRequestDeadline(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = genericfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	h = filters.WithCacheControl(h)
	h = genericfilters.WithHTTPLogging(h)
	h = filters.WithLatencyTrackers(h)
	h = filters.WithRequestInfo(h, c.RequestInfoResolver)
	h = filters.WithRequestReceivedTimestamp(h)
	h = genericfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	h = filters.WithAuditInit(h)
	// The connection has a moment more, to say that it took too long.
	return withDeadline(h, c.RequestTimeout+time.Second)
}

// withDeadline gives up on clients that do not read, and on those that do not send the body they have announced. Without a deadline such a
// one would keep its place among the requests in flight, and the memory of its answer, for as long as it likes.
func withDeadline(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, deadline := http.NewResponseController(w), time.Now().Add(timeout)
		// It has no deadlines only if it is no connection: in tests.
		_ = c.SetWriteDeadline(deadline)
		_ = c.SetReadDeadline(deadline)
		next.ServeHTTP(w, r)
	})
}
