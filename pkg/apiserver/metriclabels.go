package apiserver

import (
	"context"
	"net/http"
	"slices"

	"k8s.io/apiserver/pkg/endpoints/request"

	"metrics-server/pkg/api"
)

// requestLabels limits the labels of requests in metrics to what is served.
type requestLabels struct{ groups []*api.Group }

// of returns the request info for filters that count requests. The generic server labels the
// requests that it rejects, cuts off or aborts with the path, or the group, version and resource,
// that the client sent, and never deletes a series: anybody could exhaust memory with invented
// paths. Therefore all requests that are not served here get the same labels.
func (l requestLabels) of(info *request.RequestInfo) *request.RequestInfo {
	if !info.IsResourceRequest && (isProbe(info) || info.Path == "/metrics") ||
		slices.ContainsFunc(l.groups, func(g *api.Group) bool { return g.Has(info) }) {
		return info
	}
	return &request.RequestInfo{Verb: info.Verb, Path: "other"}
}

// fewLabels is a RequestInfoResolver that applies labels.
type fewLabels struct {
	request.RequestInfoResolver
	labels requestLabels
}

// NewRequestInfo implements request.RequestInfoResolver.
func (f fewLabels) NewRequestInfo(r *http.Request) (*request.RequestInfo, error) {
	info, err := f.RequestInfoResolver.NewRequestInfo(r)
	if err != nil {
		return nil, err
	}
	return f.labels.of(info), nil
}

type infoKey struct{}

// withFew wraps next in filter. The filter sees the request's info with few labels, next sees the
// original. Long-running requests skip the filter, which would pass them on anyway.
func (l requestLabels) withFew(
	next http.Handler, longRunning request.LongRunningRequestCheck, filter func(http.Handler) http.Handler,
) http.Handler {
	shown := filter(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := r.Context().Value(infoKey{}).(*request.RequestInfo); ok {
			r = r.WithContext(request.WithRequestInfo(r.Context(), info))
		}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, _ := request.RequestInfoFrom(r.Context())
		switch labels := l.of(info); {
		case labels == info:
			shown.ServeHTTP(w, r)
		case longRunning(r, info):
			next.ServeHTTP(w, r)
		default:
			ctx := context.WithValue(r.Context(), infoKey{}, info)
			shown.ServeHTTP(w, r.WithContext(request.WithRequestInfo(ctx, labels)))
		}
	})
}
