package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// inFlight shares the places for requests in flight among users.
//
// A user may take another place while it holds fewer than fairPart times the number of free places.
// A single user can therefore take three quarters of all places, and two users three sevenths each.
// Some places always remain for others: a client whose requests are slow neither delays them nor
// makes them fail.
type inFlight struct {
	limit int

	mu sync.Mutex
	// all is the sum of byUser. Invariant: all <= limit.
	all    int
	byUser map[string]int // requests in flight; no value is 0
}

const fairPart = 3

// enter takes a place for a request of the named user and reports whether it got one.
func (f *inFlight) enter(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byUser[name] >= fairPart*(f.limit-f.all) {
		return false
	}
	f.all++
	f.byUser[name]++
	return true
}

// leave releases a place taken by enter.
func (f *inFlight) leave(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all--
	if f.byUser[name]--; f.byUser[name] == 0 {
		delete(f.byUser, name)
	}
}

// withFairShares rejects requests for which inFlight has no place. Probes, which must be answered
// at once, and members of system:masters are exempt, as in the generic server. Watches and
// profiles, which the generic server's own limit ignores, take a place; a watch only until it is
// authorized (see watches).
func withFairShares(next http.Handler, limit int, labels requestLabels) http.Handler {
	if limit <= 0 {
		return next
	}
	f := &inFlight{limit: limit, byUser: map[string]int{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, _ := request.RequestInfoFrom(r.Context())
		who, ok := request.UserFrom(r.Context())
		if !ok || info == nil || isProbe(info) || slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
			next.ServeHTTP(w, r)
			return
		}
		if !f.enter(who.GetName()) {
			changes := !slices.Contains([]string{"get", "list", "watch"}, info.Verb)
			shown := labels.of(info)
			metrics.RecordDroppedRequest(r, shown, metrics.APIServerComponent, changes)
			metrics.RecordRequestTermination(r, shown, metrics.APIServerComponent, http.StatusTooManyRequests)
			w.Header().Set("Retry-After", "1")
			http.Error(w, fmt.Sprintf("Too many requests of user %q are in flight: try again later.", who.GetName()),
				http.StatusTooManyRequests)
			return
		}
		leave := sync.OnceFunc(func() { f.leave(who.GetName()) })
		defer leave()
		if info.Verb == "watch" {
			r = r.WithContext(context.WithValue(r.Context(), placeKey{}, place{who.GetName(), leave}))
		}
		next.ServeHTTP(w, r)
	})
}
