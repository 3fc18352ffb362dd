package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// One user gets three quarters of the places, and the rest is shared.
func TestInFlight(t *testing.T) {
	f := &inFlight{limit: 400, byUser: map[string]int{}}
	take := func(name string) (n int) {
		for f.enter(name) {
			n++
		}
		return n
	}
	if n := take("a"); n != 300 {
		t.Errorf("the first user gets %d places, want 300", n)
	}
	if n := take("b"); n != 75 {
		t.Errorf("the second user gets %d places, want 75", n)
	}
	for range 300 {
		f.leave("a")
	}
	if n := take("b"); n != 225 {
		t.Errorf("the second user gets %d places more, want 225", n)
	}
	others := 0
	for i := range 1000 {
		if f.enter(fmt.Sprint("user ", i)) {
			others++
		}
	}
	if others != 100 || f.all != 400 || take("b") != 0 {
		t.Errorf("%d other users get a place, want 100; %d places are taken", others, f.all)
	}
	for range 300 {
		f.leave("b")
	}
	for i := range others {
		f.leave(fmt.Sprint("user ", i))
	}
	if f.all != 0 || len(f.byUser) != 0 {
		t.Errorf("%d places are never given back, %d users are remembered", f.all, len(f.byUser))
	}
}

// However many requests of one user are in flight, the requests of others are answered, and the
// authorizer gets no more than the share of one user. Requesting paths below the probes, profiles
// or watches does not get around this, nor does impersonation.
func TestRequestsOfOneUserLeaveRoomForOthers(t *testing.T) {
	for name, tc := range map[string]struct{ path, impersonate string }{
		"path of nobody":   {path: "/x/%d"},
		"below a probe":    {path: "/livez/%d"},
		"below another":    {path: "/readyz/%d/x"},
		"profile":          {path: "/debug/pprof/%d"},
		"watch":            {path: "/apis/metrics.k8s.io/v1/namespaces/n%d/pods?watch=1"},
		"list":             {path: "/apis/metrics.k8s.io/v1/namespaces/n%d/pods"},
		"as somebody else": {path: "/x", impersonate: "user%d"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now, most atomic.Int64
				c := chainConfig()
				c.MaxRequestsInFlight = 40
				authenticate := func(r *http.Request) (*authenticator.Response, bool, error) {
					u := &user.DefaultInfo{Name: r.Header.Get("X-Test-User")}
					if u.Name == "root" {
						u.Groups = []string{user.SystemPrivilegedGroup}
					}
					return &authenticator.Response{User: u}, true, nil
				}
				authorize := func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
					if a.GetUser().GetName() != "many" {
						return authorizer.DecisionAllow, "", nil
					}
					most.Store(max(most.Load(), now.Add(1)))
					time.Sleep(time.Second) // an API server under load
					now.Add(-1)
					return authorizer.DecisionDeny, "", nil
				}
				c.Authentication.Authenticator = authenticator.RequestFunc(authenticate)
				c.Authorization.Authorizer = authorizer.AuthorizerFunc(authorize)
				h := testChain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), c)
				ask := func(who, path, impersonate string) int {
					r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
					r.Header.Set("X-Test-User", who)
					if impersonate != "" {
						r.Header.Set("Impersonate-User", impersonate)
					}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") != "1" {
						t.Errorf("too many requests: header %v", w.Header())
					}
					return w.Code
				}
				codes := make(chan int, 200)
				for i := range 200 {
					go func() {
						path, as := tc.path, tc.impersonate
						if as != "" {
							as = fmt.Sprintf(as, i)
						} else {
							path = fmt.Sprintf(path, i)
						}
						codes <- ask("many", path, as)
					}()
				}
				time.Sleep(time.Millisecond)
				for who, path := range map[string]string{
					"hpa": "/apis/metrics.k8s.io/v1/pods", "prometheus": "/metrics", "root": "/x", "": "/livez",
				} {
					if code := ask(who, path, ""); code != http.StatusOK {
						t.Errorf("GET %s as %q meanwhile: %d", path, who, code)
					}
				}
				got := map[int]int{}
				for range 200 {
					got[<-codes]++
				}
				want := map[int]int{http.StatusForbidden: 30, http.StatusTooManyRequests: 170}
				if !maps.Equal(got, want) {
					t.Errorf("answers by code: %v, want %v", got, want)
				}
				if most.Load() > 30 {
					t.Errorf("%d requests of one user were at the authorizer at the same time, want 30 at most", most.Load())
				}
				if code := ask("many", "/x", ""); code != http.StatusForbidden {
					t.Errorf("a request afterwards: %d", code)
				}
			})
		})
	}
}

// Without a limit no request is rejected.
func TestNoLimitOfRequests(t *testing.T) {
	h := http.NotFoundHandler()
	for _, limit := range []int{0, -1} {
		w := httptest.NewRecorder()
		withFairShares(h, limit, requestLabels{}).ServeHTTP(w,
			httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody))
		if w.Code != http.StatusNotFound {
			t.Errorf("limit %d: %d", limit, w.Code)
		}
	}
}
