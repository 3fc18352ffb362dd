// Package servingcert maintains the serving certificate and the authority (CA) that signs it in a Secret
// that all replicas share, and writes the authority into the caBundle of the APIServices that point here,
// so that the aggregator verifies the certificate. Both are renewed long before they expire. A new
// authority is published first and signs only after a while, and its predecessor remains trusted for as
// long after that, so that no request fails.
//
// A Keeper is a dynamiccertificates.CertKeyContentProvider. It provides a fallback until the Secret has
// been read and contains a certificate. All its methods are safe for concurrent use.
package servingcert

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"metrics-server/pkg/kubeapi"
)

// Config configures a Keeper. A zero duration means its default.
type Config struct {
	// Client may get and update the Secret, and get and patch the APIServices.
	Client kubernetes.Interface
	// Namespace contains the Secret, which must exist, and the Services of this server.
	Namespace, Secret string
	// Service is the only Service of this server. If it is empty, every Service in Namespace is one.
	// Another adapter may have the APIServices of a group, in the same namespace, and must not be
	// given a certificate for it.
	Service string
	// Optional means that nobody asked for the Secret: if it is absent or may not be read, the fallback
	// is served, which is not a failure, unless the Secret has been used before.
	Optional    bool
	APIServices []string
	Fallback    dynamiccertificates.CertKeyContentProvider // required
	Registerer  prometheus.Registerer                      // nil: no metrics

	AuthorityLife   time.Duration // 5 years
	CertificateLife time.Duration // a year
	// Settle is how long a new authority is published before it signs, so that every replica and
	// every aggregator has it: an hour.
	Settle time.Duration
	// Period is how often the Secret and the APIServices are checked: a minute.
	Period time.Duration
}

const (
	day         = 24 * time.Hour
	passTimeout = 15 * time.Second // of all requests of a pass together
	firstRetry  = time.Second
	// pollPeriod is how often an APIService that may suddenly need the caBundle is read between passes.
	pollPeriod = time.Second
)

// setDefaults sets the zero fields of c to their defaults.
func (c *Config) setDefaults() {
	c.AuthorityLife = cmp.Or(c.AuthorityLife, 5*365*day)
	c.CertificateLife = cmp.Or(c.CertificateLife, 365*day)
	c.Settle = cmp.Or(c.Settle, time.Hour)
	c.Period = cmp.Or(c.Period, time.Minute)
}

// Keeper maintains one Secret and provides the certificate in it. Create it with New.
type Keeper struct {
	config   Config
	serving  atomic.Pointer[identity] // what is provided; nil: the fallback
	fallback dynamiccertificates.CertKeyContentProvider

	mu        sync.Mutex
	listeners []dynamiccertificates.Listener

	apiServices *prometheus.GaugeVec // 1 for each APIService in its state

	// Only Run uses the fields that follow.
	published published
	logged    map[string]string // the last text about each subject, so that it is logged once
	failures  map[failure]bool  // logged since the last pass that succeeded
	states    map[string]string // of each APIService
	led       map[string]string // the Service of this namespace to which each APIService led last
	rivals    map[string]rival  // of each APIService
}

// New returns a Keeper that provides c.Fallback until Run has a certificate.
func New(c Config) *Keeper {
	c.setDefaults()
	k := &Keeper{
		config: c, fallback: c.Fallback, logged: map[string]string{}, failures: map[failure]bool{},
		states: map[string]string{}, led: map[string]string{}, rivals: map[string]rival{},
	}
	k.apiServices = promauto.With(c.Registerer).NewGaugeVec(prometheus.GaugeOpts{
		Name: "metrics_server_apiservices",
		Help: "1 for each APIService of this server in its state: verified or unverified (points to this server), " +
			"elsewhere, absent, unknown.",
	}, []string{"apiservice", "state"})
	for _, name := range c.APIServices {
		k.observe(name, stateUnknown)
	}
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metrics_server_serving_certificate_expiry_time_seconds",
		Help: "Time when the serving certificate that is kept in a Secret expires, in seconds since 1970; 0 while another " +
			"one is served.",
	}, func() float64 {
		if s := k.serving.Load(); s != nil {
			return float64(s.leaf.NotAfter.Unix())
		}
		return 0
	})
	return k
}

// Name implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) Name() string { return "secret " + k.config.Namespace + "/" + k.config.Secret }

// CurrentCertKeyContent implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) CurrentCertKeyContent() (cert, key []byte) {
	if s := k.serving.Load(); s != nil {
		return s.certPEM, s.keyPEM
	}
	return k.fallback.CurrentCertKeyContent()
}

// AddListener implements dynamiccertificates.Notifier.
func (k *Keeper) AddListener(l dynamiccertificates.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners = append(k.listeners, l)
}

// serve makes k provide s.
func (k *Keeper) serve(ctx context.Context, s *identity) {
	before := k.serving.Swap(s)
	if before != nil && bytes.Equal(before.certPEM, s.certPEM) {
		return
	}
	klog.FromContext(ctx).Info("Serving the certificate in the Secret",
		"secret", klog.KRef(k.config.Namespace, k.config.Secret), "names", s.leaf.DNSNames, "until", s.leaf.NotAfter)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.listeners {
		l.Enqueue()
	}
}

// Run maintains the Secret and the APIServices until ctx ends. It always returns nil: failures are
// logged and retried.
func (k *Keeper) Run(ctx context.Context) error {
	retry := wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.2, Steps: 10, Cap: k.config.Period}
	backoff := retry
	for ctx.Err() == nil {
		// Jitter, so that replicas that started together spread out.
		delay := time.Duration(float64(k.config.Period) * (0.9 + 0.2*rand.Float64()))
		err := k.pass(ctx)
		if ctx.Err() == nil {
			k.failed(ctx, err)
		}
		if err != nil {
			delay = backoff.Step()
		} else {
			backoff = retry
		}
		k.wait(ctx, delay)
	}
	return nil
}

// wait returns when the next pass is due: after delay, or as soon as an APIService no longer skips
// verification or no longer points to another server. The API server then rejects this server until a
// pass writes the caBundle. Without a Secret, no pass writes one.
func (k *Keeper) wait(ctx context.Context, delay time.Duration) {
	var poll []string // names of APIServices
	for name, state := range k.states {
		_, ledHere := k.led[name]
		if k.logged["optional"] == "" && (state == stateUnverified || state == stateElsewhere && ledHere) {
			poll = append(poll, name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, delay)
	defer cancel()
	for len(poll) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollPeriod):
		}
		for _, name := range poll {
			if state := k.stateOf(k.get(ctx, name, "0")); state != k.states[name] && state != stateUnknown {
				return
			}
		}
	}
	<-ctx.Done()
}

// pass checks everything once and repairs what differs.
func (k *Keeper) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	// The Secret is read last. A patch is rejected if its APIService has changed since it was read, so
	// no patch can undo that of a replica that has read a newer Secret.
	services, err := k.services(ctx)
	secrets := k.config.Client.CoreV1().Secrets(k.config.Namespace)
	secret, secretErr := secrets.Get(ctx, k.config.Secret, metav1.GetOptions{})
	unused := k.serving.Load() == nil // otherwise the certificate in it is still served
	if k.config.Optional && unused && (apierrors.IsNotFound(secretErr) || apierrors.IsForbidden(secretErr)) {
		if k.news("optional", string(apierrors.ReasonForError(secretErr))) {
			klog.FromContext(ctx).Info("Warning: The server serves a self-signed certificate: --serving-certificate-secret is "+
				"not set, and the Secret that it names by default cannot be used. The API server accepts this certificate only "+
				"for APIServices with insecureSkipTLSVerify: true. To have it verified, apply the Secret and the roles of deploy/",
				"secret", klog.KRef(k.config.Namespace, k.config.Secret), "reason", secretErr)
		}
		return nil
	}
	k.news("optional", "")
	if secretErr != nil {
		return errors.Join(err, &requestError{"get secret " + k.config.Namespace + "/" + k.config.Secret, secretErr})
	}
	current, keepErr := k.keep(ctx, secret, services, err == nil)
	err = errors.Join(err, keepErr)
	if current == nil {
		return err
	}
	k.serve(ctx, current)
	return errors.Join(err, k.publish(ctx, services, current))
}

// keep updates secret where necessary and returns its contents, or nil if it has no certificate. If the update fails,
// keep returns the error, and also the previous contents if their certificate is still valid, since clients accept it
// until it expires. keep changes nothing while no APIService points here, except that it fills an empty Secret if
// Config.Service says what to make a certificate for: a user can then have an APIService point here and trust it in
// one step.
//
// If the services are not complete, others that could not be read may point here, too: the certificate keeps
// the names that it has, and no authority takes over from another one.
func (k *Keeper) keep(
	ctx context.Context, secret *corev1.Secret, services []*apiService, complete bool,
) (*identity, error) {
	now := time.Now()
	found, why := parse(secret.Data)
	names := serverNames(services)
	if len(services) == 0 {
		if found.unusable(now) == nil {
			return found, nil
		}
		if k.config.Service == "" || !isEmpty(secret.Data) {
			return nil, nil
		}
		names = []string{serverName(k.config.Service, k.config.Namespace)}
	}
	if last := k.serving.Load(); last != nil && found.unusable(now) != nil && last.unusable(now) == nil {
		// Other replicas may still serve the identity that this one knows: restoring it makes no
		// request fail.
		found, why = last, append(why, "its previous contents are restored")
	}
	if !complete && found.leaf != nil {
		names = append(names, found.leaf.DNSNames...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	settled := complete && k.published.settled(now, found, services, k.config.Settle)
	next, reasons, err := k.config.next(found, names, settled, now)
	if err != nil {
		return nil, err
	}
	data := next.data()
	if containsAll(secret.Data, data) {
		return next, nil
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, data)
	secrets := k.config.Client.CoreV1().Secrets(k.config.Namespace)
	if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		err = &requestError{"update secret " + k.config.Namespace + "/" + k.config.Secret, err}
		if found.unusable(now) != nil {
			return nil, err
		}
		return found, err
	}
	klog.FromContext(ctx).Info("Wrote the Secret of the serving certificate",
		"secret", klog.KObj(secret), "why", append(why, reasons...))
	return next, nil
}

func containsAll(data, want map[string][]byte) bool {
	for key, value := range want {
		if !bytes.Equal(data[key], value) {
			return false
		}
	}
	return true
}

// news reports whether text differs from the text that was last logged about a subject, and remembers
// it. An empty text is never news.
func (k *Keeper) news(subject, text string) bool {
	before := k.logged[subject]
	k.logged[subject] = text
	return text != "" && text != before
}

// oneLineError is an error with a text of one line: errors.Join gives each error a line of its own.
type oneLineError struct{ error }

func (e oneLineError) Error() string { return strings.ReplaceAll(e.error.Error(), "\n", "; ") }
func (e oneLineError) Unwrap() error { return e.error }

type requestError struct {
	request string // such as "get APIService v1.metrics.k8s.io"
	err     error
}

func (e *requestError) Error() string { return e.request + ": " + e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// failure identifies what is wrong with a pass, without the parts of an error that differ at each attempt.
type failure struct {
	request string // "" if it was not a request that failed
	reason  metav1.StatusReason
	remedy  string
}

// failuresOf returns the failures in err, except conflicts with another replica.
func failuresOf(err error) (all []failure) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			all = append(all, failuresOf(one)...)
		}
		return all
	}
	if apierrors.IsConflict(err) {
		return nil
	}
	f := failure{reason: apierrors.ReasonForError(err), remedy: remedy(err)}
	if of, ok := errors.AsType[*requestError](err); ok {
		f.request = of.request
	}
	return []failure{f}
}

// failed logs a failed pass, or that passes succeed again. Until then each failure is logged once.
func (k *Keeper) failed(ctx context.Context, err error) {
	log := klog.FromContext(ctx)
	if err == nil {
		if len(k.failures) > 0 {
			log.Info("The serving certificate is maintained again", "secret", klog.KRef(k.config.Namespace, k.config.Secret))
		}
		clear(k.failures)
		return
	}
	failures := failuresOf(err)
	var remedies []string // of those that are not logged yet
	for _, f := range failures {
		if !k.failures[f] && !slices.Contains(remedies, f.remedy) {
			remedies = append(remedies, f.remedy)
		}
		k.failures[f] = true
	}
	switch {
	case len(failures) == 0:
		log.V(2).Info("Another replica was faster: reading what it wrote", "err", err)
	case len(remedies) > 0:
		log.Error(oneLineError{err}, "The serving certificate cannot be maintained: the current one stays in use, and the "+
			"server retries", "remedy", strings.Join(remedies, "; "))
	default:
		log.V(2).Info("The serving certificate still cannot be maintained", "err", oneLineError{err})
	}
}

// remedy returns what an administrator can do about a failure.
func remedy(err error) string {
	const renamed = ". If a kustomization adds a prefix or suffix to names, give --serving-certificate-secret the name " +
		"that the Secret has then"
	cause := kubeapi.CauseOf(err)
	switch cause {
	case kubeapi.Forbidden:
		return "give the service account the Role and the ClusterRole for the serving certificate, as deploy/ has them" +
			renamed
	case kubeapi.NotFound:
		return "create the Secret, empty, as deploy/ has it" + renamed
	case kubeapi.Invalid:
		return "if the Secret is immutable, delete it and apply deploy/ again"
	}
	return cause.Remedy()
}

var _ dynamiccertificates.CertKeyContentProvider = (*Keeper)(nil)
