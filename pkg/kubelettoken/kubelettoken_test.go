package kubelettoken

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"metrics-server/pkg/sharedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var account = types.NamespacedName{Namespace: "kube-system", Name: "kubelets"}

// What a fakeAPI answers a request with: a code, or one of these.
const (
	granted = http.StatusCreated
	down    = 0  // the connection is refused
	html    = -1 // 404 of something in the API server's place
	hangs   = -2
)

// fakeAPI is an API server with one service account, as an http.RoundTripper.
type fakeAPI struct {
	mu       sync.Mutex
	token    int  // what a request for a token is answered with
	right    bool // of the account to nodes/metrics
	review   int  // what a review of that is answered with
	ownRight bool // the server's own
	own      int  // what a review of that is answered with
	life     int64
	asked    []time.Time // for a token
}

// working is an API server on which deploy/ is applied.
func working() *fakeAPI {
	return &fakeAPI{token: granted, right: true, review: granted, ownRight: true, own: granted, life: 3600}
}

func (a *fakeAPI) change(f func(a *fakeAPI)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *fakeAPI) requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func (a *fakeAPI) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: "http://api.test", Transport: a, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RoundTrip implements http.RoundTripper.
func (a *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	code, answer, err := a.answer(r)
	if err != nil {
		return nil, err
	}
	contentType := "application/json"
	switch {
	case code == down:
		return nil, errors.New("connection refused")
	case code == hangs:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case code == html:
		answer, code, contentType = "<html>", http.StatusNotFound, "text/html"
	case code != granted:
		answer = metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Message: "no",
			Code: int32(code),
			Reason: map[int]metav1.StatusReason{
				401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound,
				500: metav1.StatusReasonInternalError, 503: metav1.StatusReasonServiceUnavailable,
			}[code],
		}
	}
	body, err := json.Marshal(answer)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {contentType}}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, err
}

// answer returns a's response to r, the code first.
func (a *fakeAPI) answer(r *http.Request) (code int, answer any, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	code = http.StatusMethodNotAllowed
	switch r.Method + " " + r.URL.Path {
	case "POST /api/v1/namespaces/kube-system/serviceaccounts/kubelets/token":
		a.asked = append(a.asked, time.Now())
		code = a.token
		answer = authenticationv1.TokenRequest{
			Spec:   authenticationv1.TokenRequestSpec{ExpirationSeconds: &a.life},
			Status: authenticationv1.TokenRequestStatus{Token: fmt.Sprintf("token-%d", len(a.asked))},
		}
	case "POST /apis/authorization.k8s.io/v1/subjectaccessreviews":
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			return 0, nil, err
		}
		code = a.review
		review.Status.Allowed = a.right && review.Spec.User == "system:serviceaccount:kube-system:kubelets" &&
			isNodeMetrics(review.Spec.ResourceAttributes)
		answer = review
	case "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
		var review authorizationv1.SelfSubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			return 0, nil, err
		}
		code = a.own
		review.Status.Allowed = a.ownRight && isNodeMetrics(review.Spec.ResourceAttributes)
		answer = review
	}
	return code, answer, nil
}

func isNodeMetrics(r *authorizationv1.ResourceAttributes) bool {
	return r != nil && *r == authorizationv1.ResourceAttributes{Verb: "get", Resource: "nodes", Subresource: "metrics"}
}

// running is a Source at work, with what it logs.
type running struct {
	*Source
	log func() string
}

// inBubble runs test in a synctest bubble with a Source of a at work.
func inBubble(t *testing.T, a *fakeAPI, test func(t *testing.T, s *running)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		logger := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0)))
		s := New(Config{Client: a.client(t), Account: account})
		sharedtest.Start(t, klog.NewContext(t.Context(), logger), s.Run)
		test(t, &running{s, logger.GetSink().(ktesting.Underlier).GetBuffer().String})
	})
}

// shown describes what a kubelet would be shown now, or within the given time.
func (s *running) shown(t *testing.T, within time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	switch token, own, err := s.Token(ctx); {
	case err != nil:
		return "error: " + err.Error()
	case own != s.Own() || own && token != "":
		t.Errorf("own %v (%v) and token %q", own, s.Own(), token)
		return ""
	case own:
		return "own"
	default:
		return token
	}
}

// Tokens of any lifetime are replaced in time, at half of their lifetime at the earliest.
func TestRenewal(t *testing.T) {
	for _, life := range []int64{3600, 600, 86400} {
		a := working()
		a.life = life
		inBubble(t, a, func(t *testing.T, s *running) {
			whole := time.Duration(life) * time.Second
			for end := time.Now().Add(20 * whole); time.Now().Before(end); time.Sleep(whole / 50) {
				if got, want := s.shown(t, time.Second), fmt.Sprintf("token-%d", a.requests()); got != want {
					t.Fatalf("%q is shown, want %q", got, want)
				}
			}
			var asked []time.Time
			a.change(func(a *fakeAPI) { asked = slices.Clone(a.asked) })
			var apart []time.Duration
			for i := 1; i < len(asked); i++ {
				apart = append(apart, asked[i].Sub(asked[i-1]))
			}
			same := true
			for _, d := range apart {
				same = same && d == apart[0]
				if d < whole/2 || d > whole*6/10 {
					t.Errorf("a token that lives %v was renewed after %v", whole, d)
				}
			}
			if same {
				t.Errorf("renewals are all %v apart: replicas that started together stay together", apart[0])
			}
			if n := strings.Count(s.log(), "\n"); n != 1 {
				t.Errorf("%d lines are logged, want one:\n%s", n, s.log())
			}
		})
	}
}

// While the API server does not answer at start-up, the server's own credentials are not shown; once it
// answers, the account's token is.
func TestOutageShowsNothing(t *testing.T) {
	for name, broken := range map[string]func(a *fakeAPI){
		"down":                  func(a *fakeAPI) { a.token = down },
		"hangs":                 func(a *fakeAPI) { a.token = hangs },
		"500":                   func(a *fakeAPI) { a.token = http.StatusInternalServerError },
		"503":                   func(a *fakeAPI) { a.token = http.StatusServiceUnavailable },
		"401":                   func(a *fakeAPI) { a.token = http.StatusUnauthorized },
		"a load balancer's 404": func(a *fakeAPI) { a.token = html },
		"forbids everything": func(a *fakeAPI) {
			a.token, a.review, a.own = http.StatusForbidden, http.StatusForbidden, http.StatusForbidden
		},
		"forbids, and the review fails": func(a *fakeAPI) {
			a.token, a.own = http.StatusForbidden,
				http.StatusInternalServerError
		},
		"grants nothing to the server":      func(a *fakeAPI) { a.token, a.ownRight = http.StatusForbidden, false },
		"has neither account nor own right": func(a *fakeAPI) { a.token, a.ownRight = http.StatusNotFound, false },
		"empty token":                       func(a *fakeAPI) { a.life = 0 },
	} {
		a := working()
		broken(a)
		inBubble(t, a, func(t *testing.T, s *running) {
			for end := time.Now().Add(time.Hour); time.Now().Before(end); {
				if got := s.shown(t, 10*time.Second); !strings.HasPrefix(got,
					"error: no token of service account kube-system/kubelets: ") {
					t.Fatalf("%s: %q is shown", name, got)
				}
			}
			if n := a.requests(); n > 170 {
				t.Errorf("%s: the API server was asked %d times in an hour", name, n)
			}
			if n := strings.Count(s.log(), "There is no token to show to kubelets"); n != 1 || !strings.Contains(s.log(),
				"remedy=") {
				t.Errorf("%s: logged %d times, want once, with a remedy:\n%s", name, n, s.log())
			}
			a.change(func(a *fakeAPI) {
				a.token, a.review, a.own, a.right, a.ownRight, a.life = granted, granted, granted, true, true, 3600
			})
			if got, want := s.shown(t, maxRetry*2), fmt.Sprintf("token-%d", a.requests()); got != want {
				t.Errorf("%s: it works, and %q is shown, want %q", name, got, want)
			}
		})
	}
}

// An API server may refuse for a few seconds after its own start, before it knows all roles: that is no
// reason to fall back.
func TestRefusalAtTheStart(t *testing.T) {
	for _, code := range []int{http.StatusForbidden, http.StatusNotFound} {
		a := working()
		a.token = code
		inBubble(t, a, func(t *testing.T, s *running) {
			time.AfterFunc(confirmation-confirmationRetry, func() { a.change(func(a *fakeAPI) { a.token = granted }) })
			if got := s.shown(t, time.Minute); !strings.HasPrefix(got, "token-") {
				t.Errorf("%d: %q is shown", code, got)
			}
		})
		// Refusals with an outage between them are not one long refusal.
		a = working()
		a.token = code
		inBubble(t, a, func(t *testing.T, s *running) {
			for range 10 {
				time.Sleep(confirmation / 2)
				a.change(func(a *fakeAPI) { a.token = down })
				time.Sleep(maxRetry * 2)
				a.change(func(a *fakeAPI) { a.token = code })
				time.Sleep(confirmation / 4)
				if s.Own() {
					t.Fatalf("%d: the server's own credentials are shown", code)
				}
			}
		})
	}
}

// While the API server refuses tokens, the server shows its own credentials and logs it, until the
// cause is gone.
func TestFallback(t *testing.T) {
	for name, tt := range map[string]struct {
		broken func(a *fakeAPI)
		remedy string
	}{
		"no right to tokens": {
			func(a *fakeAPI) { a.token = http.StatusForbidden },
			"apply the Role metrics-server-kubelets",
		},
		"no account": {func(a *fakeAPI) { a.token = http.StatusNotFound }, "--kubelet-service-account"},
		"account without its right": {
			func(a *fakeAPI) { a.right = false },
			"bind the ClusterRole system:metrics-server-kubelets",
		},
	} {
		a := working()
		tt.broken(a)
		inBubble(t, a, func(t *testing.T, s *running) {
			start := time.Now()
			if got := s.shown(t, time.Minute); got != "own" {
				t.Fatalf("%s: %q is shown, want the server's own credentials", name, got)
			}
			if waited := time.Since(start); waited < confirmation || waited > confirmation+2*confirmationRetry {
				t.Errorf("%s: waited for %v, want about %v", name, waited, confirmation)
			}
			before := a.requests()
			time.Sleep(time.Hour)
			if n := a.requests() - before; n < 50 || n > 70 {
				t.Errorf("%s: asked %d times in an hour, want about once a minute", name, n)
			}
			if n := strings.Count(s.log(), "Warning: "); n != 1 || !strings.Contains(s.log(), tt.remedy) ||
				!strings.Contains(s.log(), "kube-system/kubelets") {
				t.Errorf("%s: %d warnings, want one that says %q and names the account:\n%s", name, n, tt.remedy, s.log())
			}
			// An outage does not change what is shown, and the log reports it.
			a.change(func(a *fakeAPI) { a.token = down })
			time.Sleep(10 * time.Minute)
			if !s.Own() {
				t.Errorf("%s: an outage ends the fallback", name)
			}
			a.change(func(a *fakeAPI) { a.token, a.right = granted, true })
			time.Sleep(2 * time.Minute)
			if got := s.shown(t, time.Second); !strings.HasPrefix(got, "token-") {
				t.Errorf("%s: the cause is gone, and %q is shown", name, got)
			}
			if !strings.Contains(s.log(), "Kubelets are shown tokens of the service account") {
				t.Errorf("%s: the log does not say that it is over:\n%s", name, s.log())
			}
		})
	}
}

// If neither the account nor the server may get nodes/metrics, kubelets are shown the account's token,
// which permits less. They may authorize by other means.
func TestNobodyHasTheRight(t *testing.T) {
	a := working()
	a.right, a.ownRight = false, false
	inBubble(t, a, func(t *testing.T, s *running) {
		time.Sleep(time.Hour)
		if got := s.shown(t, time.Second); !strings.HasPrefix(got, "token-") {
			t.Errorf("%q is shown", got)
		}
		if n := strings.Count(s.log(), "\n"); n != 1 || !strings.Contains(s.log(),
			"bind the ClusterRole system:metrics-server-kubelets") {
			t.Errorf("%d lines, want one with the remedy:\n%s", n, s.log())
		}
	})
}

// If renewals fail, the current token is shown until it expires.
func TestFailedRenewal(t *testing.T) {
	for name, tt := range map[string]struct {
		broken func(a *fakeAPI)
		after  string // what is shown when the token has expired: a prefix
	}{
		"down": {
			func(a *fakeAPI) { a.token = down },
			"error: no token of service account kube-system/kubelets: ",
		},
		"500": {
			func(a *fakeAPI) { a.token = http.StatusInternalServerError },
			"error: no token of service account kube-system/kubelets: ",
		},
		"no right to tokens": {func(a *fakeAPI) { a.token = http.StatusForbidden }, "own"},
		"no right to tokens, and no own right": {
			func(a *fakeAPI) { a.token, a.ownRight = http.StatusForbidden, false },
			"error: no token of service account kube-system/kubelets: ",
		},
	} {
		a := working()
		inBubble(t, a, func(t *testing.T, s *running) {
			start := time.Now()
			if got := s.shown(t, time.Second); got != "token-1" {
				t.Fatalf("%s: %q is shown", name, got)
			}
			a.change(tt.broken)
			for time.Since(start) < 59*time.Minute {
				if got := s.shown(t, time.Second); got != "token-1" {
					t.Fatalf("%s: after %v %q is shown", name, time.Since(start), got)
				}
				time.Sleep(time.Minute)
			}
			time.Sleep(time.Until(start.Add(lifetime + time.Second)))
			if got := s.shown(t, 2*maxRetry); !strings.HasPrefix(got, tt.after) {
				t.Errorf("%s: the token has expired and %q is shown, want %q", name, got, tt.after)
			}
			for _, want := range []string{"cannot be renewed; it is shown until it expires", "remedy="} {
				if n := strings.Count(s.log(), want); n < 1 || n > 2 {
					t.Errorf("%s: %q is logged %d times:\n%s", name, want, n, s.log())
				}
			}
			a.change(func(a *fakeAPI) { a.token, a.ownRight = granted, true })
			if time.Sleep(2 * time.Minute); s.shown(t, time.Second) != fmt.Sprintf("token-%d", a.requests()) {
				t.Errorf("%s: it works again, and %q is shown", name, s.shown(t, time.Second))
			}
		})
	}
}

// Deleting the account invalidates its tokens; once it is created again, a new token is shown.
func TestDeletedAccount(t *testing.T) {
	a := working()
	inBubble(t, a, func(t *testing.T, s *running) {
		time.Sleep(10 * time.Minute)
		// Deleted and recreated: the first kubelet that notices causes a renewal of the token.
		s.Refused("token-1")
		if time.Sleep(time.Second); s.shown(t, time.Second) != "token-2" {
			t.Errorf("a kubelet refuses the token, and %q is shown", s.shown(t, time.Second))
		}
		// Deleted: the tokens that it had granted are invalid.
		time.Sleep(10 * time.Minute)
		a.change(func(a *fakeAPI) { a.token = http.StatusNotFound })
		s.Refused("token-2")
		if time.Sleep(confirmation + 2*confirmationRetry); s.shown(t, time.Second) != "own" {
			t.Errorf("the account is gone, and %q is shown", s.shown(t, time.Second))
		}
	})
}

// A kubelet that refuses every token for a day causes few requests.
func TestKubeletThatRejectsEveryToken(t *testing.T) {
	a := working()
	inBubble(t, a, func(t *testing.T, s *running) {
		for range 24 * 60 * 6 {
			s.Refused(s.shown(t, time.Second))
			s.Refused("one that was never granted")
			time.Sleep(10 * time.Second)
		}
		if n := a.requests(); n > 24*8 {
			t.Errorf("the API server was asked %d times in a day", n)
		}
		// Nor does it make a server ask faster while the API server does not answer: a minute after
		// the latest time to renew a token, it asks twice or three times a minute.
		for before := a.requests(); a.requests() == before; {
			time.Sleep(time.Second)
		}
		a.change(func(a *fakeAPI) { a.token = down })
		time.Sleep(lifetime*6/10 + time.Minute)
		before := a.requests()
		for range 60 {
			s.Refused(s.shown(t, time.Second))
			time.Sleep(time.Second)
		}
		if n := a.requests() - before; n > 4 {
			t.Errorf("a server that does not answer was asked %d times in a minute", n)
		}
	})
}

// If the API server does not review the account's rights, the token is shown.
func TestReviewsThatFail(t *testing.T) {
	for _, code := range []int{down, http.StatusForbidden, http.StatusInternalServerError} {
		a := working()
		a.review = code
		inBubble(t, a, func(t *testing.T, s *running) {
			if got := s.shown(t, time.Second); got != "token-1" {
				t.Errorf("%d: %q is shown", code, got)
			}
		})
	}
}

func TestTokenEndsWithItsContext(t *testing.T) {
	a := working()
	a.token = hangs
	inBubble(t, a, func(t *testing.T, s *running) {
		start := time.Now()
		got := s.shown(t, 3*time.Second)
		if !strings.Contains(got, "the API server has not answered yet") || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %q", time.Since(start), got)
		}
	})
}

func TestRemedies(t *testing.T) {
	seen := map[string]string{}
	for _, code := range []int{down, html, 401, 403, 404} {
		a := working()
		a.token = code
		_, _, err := Request(t.Context(), a.client(t), account)
		var e *Error
		if !errors.As(err, &e) || e.Account != account {
			t.Fatalf("%d: error %v, want an *Error of the account", code, err)
		}
		if got, want := Refusal(err), code == 403 || code == 404; got != want {
			t.Errorf("%d: a refusal %v, want %v", code, got, want)
		}
		seen[e.Remedy()] += fmt.Sprint(code, " ")
	}
	const remedy = "check that the API server runs and that the network lets requests to it through"
	if len(seen) != 4 || seen[remedy] != "0 -1 " {
		t.Errorf("remedies: %q", seen)
	}
}
