// Package kubelettoken keeps a token that is safe to show to kubelets: that of a service account
// which may do nothing but get nodes/metrics. The server's own token would let anybody who answers
// at a kubelet's address act as the server.
//
// A Source requests short-lived tokens by TokenRequest and renews them long before they expire. If
// a renewal fails, the current token stays in use until it expires. If the API server refuses
// tokens because the account or a right is missing, the caller is told to show its own credentials
// instead, provided that they may get nodes/metrics. The Source goes on asking, and returns to the
// account's token as soon as one is granted. An API server that does not answer never causes this
// fallback.
//
// All methods of a Source are safe for concurrent use.
package kubelettoken

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"metrics-server/pkg/kubeapi"
)

// Config configures a Source.
type Config struct {
	// Client uses the server's own credentials, which may create tokens of Account and
	// SubjectAccessReviews.
	Client  kubernetes.Interface
	Account types.NamespacedName
}

const (
	// lifetime is the requested lifetime of a token. The API server may grant another one.
	lifetime = time.Hour
	// passTimeout limits all requests of one pass together.
	passTimeout = 15 * time.Second
	// firstRetry is the first delay while the API server does not answer. It doubles up to
	// maxRetry.
	firstRetry, maxRetry = time.Second, 30 * time.Second
	// confirmation is how long the API server must refuse before the fallback: while it starts, it
	// refuses what it allows a moment later. Meanwhile it is asked every confirmationRetry.
	confirmation, confirmationRetry = 10 * time.Second, 2 * time.Second
	// fallbackRetry is the interval of requests while the API server refuses.
	fallbackRetry = time.Minute
	// patience is the age at which a token that a kubelet rejects is renewed. It doubles with each
	// such renewal in a row, up to patience << maxForced, because the kubelet itself may be at
	// fault.
	patience  = time.Minute
	maxForced = 5
)

// Source provides the token. Use New to make one.
type Source struct {
	config  Config
	current atomic.Pointer[state]
	refused chan string // a token that a kubelet rejected

	// Only Run uses these.
	retry        time.Duration // the next delay while the API server does not answer
	refusedSince time.Time     // when the API server began to refuse; zero while it does not
	forced       int           // consecutive renewals that were caused by kubelets
	lastLogged   string        // the situation that was logged last
}

// state is what kubelets are shown. It is immutable.
type state struct {
	token          string // "": none was granted
	grantedAt      time.Time
	until          time.Time     // when token expires
	minRejectedAge time.Duration // the age at which token is renewed if a kubelet rejects it
	own            bool          // the caller's own credentials are shown; token is ""
	err            error         // of the last attempt; nil if it succeeded
	replaced       chan struct{} // closed when another state becomes current
}

func (s *state) valid(now time.Time) bool { return s.token != "" && now.Before(s.until) }

var errNotYet = errors.New("the API server has not answered yet")

// New returns a Source, which has no token until Run has requested one.
func New(c Config) *Source {
	s := &Source{config: c, refused: make(chan string, 1), retry: firstRetry}
	s.current.Store(&state{err: &Error{c.Account, errNotYet}, replaced: make(chan struct{})})
	return s
}

// Token returns the token to show, or own if the caller's own credentials are to be shown instead.
// It waits for either until ctx ends; the error is then an *Error.
func (s *Source) Token(ctx context.Context) (token string, own bool, err error) {
	for {
		c := s.current.Load()
		if c.own || c.valid(time.Now()) {
			return c.token, c.own, nil
		}
		select {
		case <-c.replaced:
		case <-ctx.Done():
			if c.err == nil { // the token expired, and a renewal is in progress
				return "", false, &Error{s.config.Account, errNotYet}
			}
			return "", false, c.err
		}
	}
}

// Own reports whether the caller's own credentials are shown at present.
func (s *Source) Own() bool { return s.current.Load().own }

// Refused reports that a kubelet rejected token, which may have become invalid. The token is
// renewed, unless it is too young.
func (s *Source) Refused(token string) {
	c := s.current.Load()
	if c.token != token || time.Since(c.grantedAt) < c.minRejectedAge {
		return
	}
	select {
	case s.refused <- token:
	default: // it was reported already
	}
}

// Run keeps the token current until ctx ends. It returns nil: requests that fail are repeated.
func (s *Source) Run(ctx context.Context) error {
	for {
		delay := time.After(s.pass(ctx))
	wait:
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-delay:
				s.forced = 0
				break wait
			case token := <-s.refused:
				// While requests fail, kubelets must not cause more of them.
				if c := s.current.Load(); c.token == token && c.err == nil {
					s.forced = min(s.forced+1, maxForced)
					break wait
				}
			}
		}
	}
}

// pass requests a token once and returns the delay until the next request.
func (s *Source) pass(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	now := time.Now()
	token, life, err := Request(ctx, s.config.Client, s.config.Account)
	usable := err == nil
	if usable {
		err = s.checkRight(ctx)
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return 0 // Run ends
	case err == nil:
		s.refusedSince = time.Time{}
		s.granted(token, now, life)
		s.logOnce(ctx, nil, "Kubelets are shown tokens of the service account for kubelets")
		return time.Duration(float64(life) * (0.5 + 0.1*rand.Float64()))
	case !Refusal(err):
		s.refusedSince = time.Time{}
		return s.failed(ctx, err)
	}

	// The API server refuses. The fallback makes sense only if kubelets accept the own credentials.
	allowed, ownErr := s.ownRight(ctx)
	switch {
	case ownErr != nil:
		return s.failed(ctx, ownErr)
	case !allowed && usable:
		// Kubelets decide: they may authorize by other means than the API server.
		s.granted(token, now, life)
		s.logOnce(ctx, err, "Kubelets are shown a token that they will refuse, unless they authorize by other "+
			"means than the API server")
		return fallbackRetry
	case !allowed:
		return s.failed(ctx, err)
	}
	if s.refusedSince.IsZero() {
		s.refusedSince = now
	}
	current := s.current.Load()
	if now.Sub(s.refusedSince) < confirmation || apierrors.IsForbidden(err) && current.valid(now) {
		// A token that was granted outlives the right to request it, but not its account.
		delay := s.failed(ctx, err)
		if !current.valid(now) || !apierrors.IsForbidden(err) {
			delay = confirmationRetry
		}
		return delay
	}
	s.replace(&state{own: true, err: err})
	s.logOnce(ctx, err, "Warning: Kubelets are shown this server's own credentials, which let whoever answers in a "+
		"kubelet's place act as this server")
	return time.Duration(float64(fallbackRetry) * (0.9 + 0.2*rand.Float64()))
}

// granted makes token the one that is shown.
func (s *Source) granted(token string, grantedAt time.Time, life time.Duration) {
	s.retry = firstRetry
	s.replace(&state{
		token: token, grantedAt: grantedAt, until: grantedAt.Add(life), minRejectedAge: patience << s.forced,
	})
}

// failed records err, leaves unchanged what is shown, and returns the delay until the next attempt.
func (s *Source) failed(ctx context.Context, err error) time.Duration {
	before := s.current.Load()
	next := *before
	next.err = err
	s.replace(&next)
	switch {
	case before.own:
		// This was logged when it began.
	case before.valid(time.Now()):
		s.logOnce(ctx, err, "The token that kubelets are shown cannot be renewed; it is shown until it expires, and "+
			"renewals are retried", "expires", before.until)
	default:
		s.logOnce(ctx, err, "There is no token to show to kubelets: they are not scraped until the API server grants one; "+
			"the request is retried")
	}
	delay := s.retry
	s.retry = min(2*s.retry, maxRetry)
	return time.Duration(float64(delay) * (0.8 + 0.4*rand.Float64()))
}

func (s *Source) replace(next *state) {
	next.replaced = make(chan struct{})
	close(s.current.Swap(next).replaced)
}

// logOnce logs the situation once while it lasts.
func (s *Source) logOnce(ctx context.Context, err error, situation string, keysAndValues ...any) {
	key := situation
	if err != nil {
		key += string(apierrors.ReasonForError(err)) + remedy(err)
	}
	if s.lastLogged == key {
		return
	}
	s.lastLogged = key
	log := klog.FromContext(ctx).WithValues("serviceAccount", s.config.Account)
	if err == nil {
		log.Info(situation, keysAndValues...)
		return
	}
	log.Error(err, situation, append(keysAndValues, "remedy", remedy(err))...)
}

// checkRight returns an error if the account may not get nodes/metrics. It sends the same review as
// kubelets do.
func (s *Source) checkRight(ctx context.Context) error {
	namespace := s.config.Account.Namespace
	review, err := s.config.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx,
		&authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:serviceaccount:" + namespace + ":" + s.config.Account.Name,
				Groups: []string{
					"system:serviceaccounts", "system:serviceaccounts:" + namespace,
					"system:authenticated",
				},
				ResourceAttributes: nodeMetrics(),
			},
		}, metav1.CreateOptions{})
	// If the review fails, the token is shown, which does no harm.
	if err != nil || review.Status.Allowed {
		return nil //nolint:nilerr // see above
	}
	return &Error{s.config.Account, errNoRight}
}

// ownRight reports whether the server itself may get nodes/metrics.
func (s *Source) ownRight(ctx context.Context) (bool, error) {
	review, err := s.config.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
		&authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: nodeMetrics()},
		}, metav1.CreateOptions{})
	if err != nil {
		return false, &Error{s.config.Account, fmt.Errorf("ask the API server whether this server itself may get "+
			"nodes/metrics: %w", err)}
	}
	return review.Status.Allowed, nil
}

func nodeMetrics() *authorizationv1.ResourceAttributes {
	return &authorizationv1.ResourceAttributes{Verb: "get", Resource: "nodes", Subresource: "metrics"}
}

// Request requests a token of account once. It returns the lifetime instead of the expiry because
// the clocks of this machine and of the API server may differ. The error is an *Error.
func Request(ctx context.Context, client kubernetes.Interface, account types.NamespacedName) (token string,
	life time.Duration, err error,
) {
	seconds := int64(lifetime / time.Second)
	r, err := client.CoreV1().ServiceAccounts(account.Namespace).CreateToken(ctx, account.Name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}},
		metav1.CreateOptions{})
	switch {
	case err != nil:
	case r.Status.Token == "":
		err = errors.New("the API server granted an empty token")
	case r.Spec.ExpirationSeconds == nil || *r.Spec.ExpirationSeconds <= 0:
		err = errors.New("the API server granted a token without a lifetime")
	default:
		return r.Status.Token, time.Duration(*r.Spec.ExpirationSeconds) * time.Second, nil
	}
	return "", 0, &Error{account, err}
}

var errNoRight = errors.New("it may not get nodes/metrics")

// Error says why there is no token of Account to show to kubelets.
type Error struct {
	Account types.NamespacedName
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("no token of service account %s: %v", e.Account, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Remedy is what an administrator can do about it: a sentence without a full stop.
func (e *Error) Remedy() string { return remedy(e) }

// Refusal reports whether err is an answer of the API server that will not change until an
// administrator acts. An answer of a proxy or a load balancer is not one.
func Refusal(err error) bool {
	cause := causeOf(err)
	return errors.Is(err, errNoRight) || cause == kubeapi.Forbidden || cause == kubeapi.NotFound
}

// causeOf returns the cause of err. An answer that is not from the API server counts as none.
func causeOf(err error) kubeapi.Cause {
	if apierrors.IsUnexpectedServerError(err) {
		return kubeapi.Unreachable
	}
	return kubeapi.CauseOf(err)
}

func remedy(err error) string {
	cause := causeOf(err)
	switch {
	case errors.Is(err, errNoRight):
		return "bind the ClusterRole system:metrics-server-kubelets of deploy/, which allows get on nodes/metrics, to " +
			"this service account"
	case cause == kubeapi.Forbidden:
		return "apply the Role metrics-server-kubelets of deploy/ and its RoleBinding, which let the server create " +
			"serviceaccounts/token for this service account"
	case cause == kubeapi.NotFound:
		return "create this service account as deploy/ has it, or name another one with --kubelet-service-account"
	}
	return cause.Remedy()
}
