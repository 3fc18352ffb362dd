package apiserver

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/features"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"metrics-server/pkg/api"
)

// handlerChain wraps next, which serves groups, in the filters that every request passes, the
// outermost last. The filters are those of genericapiserver.DefaultBuildHandlerChain, in the same
// order, without tracing, the latency measurement of each filter, and what cannot be configured here
// (priority and fairness, Retry-After at shutdown, the grace period of watches, routines, paths that
// are installed while the server runs). Only requests with a timeout of their own get the goroutine
// that is abandoned at the timeout: handlers only wait for things that end with the request's
// context, and for the connection, which has its own deadlines.
//
// Brings: withFairShares between authentication and impersonation, where DefaultBuildHandlerChain
// has no hook: a user's share must be known before the API server is asked what the user may do.
// Costs: a list of filters to review with each release.
// Guard: TestFiltersOfTheGenericServer in test/repository fails when a release has other filters;
// TestHandlerChain compares the answers with those of the standard chain.
// Remove when: the standard chain can be given a filter there.
func handlerChain(next http.Handler, c *genericapiserver.Config, groups ...*api.Group) http.Handler {
	labels := requestLabels{groups}
	h := filters.WithAuthorization(next, c.Authorization.Authorizer, c.Serializer)
	h = labels.withFew(h, c.LongRunningFunc, func(h http.Handler) http.Handler {
		return genericfilters.WithMaxInFlightLimit(
			h, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
	})
	if c.FeatureGate.Enabled(features.ConstrainedImpersonation) {
		h = impersonation.WithConstrainedImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	} else {
		h = impersonation.WithImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	}
	h = withFairShares(h, c.MaxRequestsInFlight, labels)
	h = filters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
	unauthorized := filters.WithFailedAuthenticationAudit(
		filters.Unauthorized(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	h = filters.WithAuthentication(h, c.Authentication.Authenticator, unauthorized,
		c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig)
	h = genericfilters.WithCORS(h, c.CorsAllowedOriginList, nil, nil, nil, "true")
	h = filters.WithWarningRecorder(h)
	h = labels.withFew(h, withoutTimeout(c.LongRunningFunc), func(h http.Handler) http.Handler {
		return genericfilters.WithTimeoutForNonLongRunningRequests(h, withoutTimeout(c.LongRunningFunc))
	})
	h = filters.WithRequestDeadline(
		h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	h = genericfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	if c.SecureServing != nil && !c.SecureServing.DisableHTTP2 && c.GoawayChance > 0 {
		h = genericfilters.WithProbabilisticGoaway(h, c.GoawayChance)
	}
	h = filters.WithCacheControl(h)
	h = genericfilters.WithHSTS(h, c.HSTSDirectives)
	h = genericfilters.WithHTTPLogging(h)
	h = filters.WithLatencyTrackers(h)
	h = withDeadline(h, c.RequestTimeout+time.Second) // the extra second leaves time to send the timeout error
	h = filters.WithRequestInfo(h, c.RequestInfoResolver)
	h = filters.WithRequestReceivedTimestamp(h)
	h = genericfilters.WithPanicRecovery(h, fewLabels{c.RequestInfoResolver, labels})
	return filters.WithAuditInit(h)
}

// withoutTimeout reports whether a request is long-running or sets no timeout of its own.
func withoutTimeout(longRunning request.LongRunningRequestCheck) request.LongRunningRequestCheck {
	return func(r *http.Request, info *request.RequestInfo) bool {
		return longRunning(r, info) || !strings.Contains(r.URL.RawQuery, "timeout=")
	}
}

// maxProfile bounds the duration of a profile.
const maxProfile = time.Hour

// profileDuration returns the duration of the profile that r asks for, which extends its deadline.
func profileDuration(r *http.Request) time.Duration {
	if !strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		return 0
	}
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if err != nil || !(seconds > 0) { // also rejects NaN
		return 0
	}
	return time.Duration(min(seconds, maxProfile.Seconds()) * float64(time.Second))
}

// withDeadline sets a deadline for clients that do not read the response, or do not send the body
// that they announced. Without one, such a client could occupy a place among the requests in
// flight, and the memory of its response, indefinitely. Profiles may take longer, and a watch has the
// timeout for each piece instead, unless a body was announced, which neither has.
func withDeadline(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		deadline := time.Now().Add(timeout)
		if r.ContentLength == 0 {
			deadline = deadline.Add(profileDuration(r))
			if info, ok := request.RequestInfoFrom(r.Context()); ok && info.Verb == "watch" {
				deadline = time.Time{} // also removes the deadline of the connection's previous request
				w = withPatience(w, timeout)
				defer func() {
					if r.Context().Err() == nil { // the client is there, and gets the end of the answer
						_ = c.SetWriteDeadline(time.Now().Add(timeout))
					}
				}()
			}
		}
		// Only the response writers of tests do not support deadlines.
		_ = c.SetWriteDeadline(deadline)
		_ = c.SetReadDeadline(deadline)
		next.ServeHTTP(w, r)
	})
}
