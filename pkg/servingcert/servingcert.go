// Package servingcert keeps the serving certificate, and the authority that signs it, in a Secret that all replicas
// share, and has the aggregator verify it: the caBundle of the APIServices that lead here names the authority. Both
// are renewed long before they end. A successor of the authority is published first and signs only after a while, and its
// predecessor is believed for as long after that, so that no request fails.
//
// A Keeper is a dynamiccertificates.CertKeyContentProvider. Until the Secret has a certificate, and while it has never
// been readable, it provides a fallback. All its methods may be called at any time.
package servingcert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// Config is what a Keeper is made of. A duration that is zero has its default.
type Config struct {
	// Client may get and update the Secret, and get and patch the APIServices.
	Client kubernetes.Interface
	// Namespace is that of the Secret, which must exist, and of the Services that lead here.
	Namespace, Secret string
	APIServices       []string
	Fallback          dynamiccertificates.CertKeyContentProvider // required
	Registerer        prometheus.Registerer                      // nil: no metrics

	AuthorityLife   time.Duration // 5 years
	CertificateLife time.Duration // a year
	// Settle is how long a change of the authority is left alone, so that every replica and every aggregator has it: an hour.
	Settle time.Duration
	// Period is how often the Secret and the APIServices are looked at: a minute.
	Period time.Duration
}

const (
	day         = 24 * time.Hour
	passTimeout = 15 * time.Second // of all requests of a pass together
	firstRetry  = time.Second
)

// setDefaults fills in what c leaves open.
func (c *Config) setDefaults() {
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{
		{&c.AuthorityLife, 5 * 365 * day},
		{&c.CertificateLife, 365 * day},
		{&c.Settle, time.Hour},
		{&c.Period, time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.standard
		}
	}
}

// Keeper keeps one Secret and provides what is in it. Make it with New.
type Keeper struct {
	config   Config
	serving  atomic.Pointer[identity] // what is provided; nil: the fallback
	fallback dynamiccertificates.CertKeyContentProvider

	mu        sync.Mutex
	listeners []dynamiccertificates.Listener

	// Of Run alone.
	published published
	said      map[string]string // what the log has of each thing, so that it is said once
}

// New returns a Keeper that provides c.Fallback until Run has found something better.
func New(c Config) *Keeper {
	c.setDefaults()
	k := &Keeper{config: c, fallback: c.Fallback, said: map[string]string{}}
	promauto.With(c.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "metrics_server_serving_certificate_expiry_time_seconds",
		Help: "Time when the serving certificate that is kept in a Secret ends, in seconds since 1970; 0 while another one is served.",
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

// serve provides s from now on.
func (k *Keeper) serve(ctx context.Context, s *identity) {
	before := k.serving.Swap(s)
	if before != nil && bytes.Equal(before.certPEM, s.certPEM) {
		return
	}
	klog.FromContext(ctx).Info("serving the certificate of the Secret", "secret", klog.KRef(k.config.Namespace, k.config.Secret), "names", s.leaf.DNSNames, "until", s.leaf.NotAfter)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.listeners {
		l.Enqueue()
	}
}

// Run keeps the Secret and the APIServices until ctx ends. It never fails: what cannot be done is tried again.
func (k *Keeper) Run(ctx context.Context) error {
	retry := wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.2, Steps: 10, Cap: k.config.Period}
	backoff := retry
	for {
		// Replicas that began together need not go on together.
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
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// pass looks at everything once, and mends what is to be mended.
func (k *Keeper) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	// The Secret is read last. As a patch is refused if its APIService has changed since it was read, nobody's
	// patch can undo that of a replica which knows of a newer Secret.
	services, err := k.services(ctx)
	current, secretErr := k.keep(ctx, services)
	if secretErr != nil || current == nil {
		return errors.Join(err, secretErr)
	}
	k.serve(ctx, current)
	return errors.Join(err, k.publish(ctx, services, current))
}

// keep returns what the Secret has, after it was brought to what it is to have, or nil if that is no certificate. While nobody
// leads here it changes nothing.
func (k *Keeper) keep(ctx context.Context, services []*apiService) (*identity, error) {
	secrets := k.config.Client.CoreV1().Secrets(k.config.Namespace)
	secret, err := secrets.Get(ctx, k.config.Secret, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get secret %s/%s: %w", k.config.Namespace, k.config.Secret, err)
	}
	now := time.Now()
	found, why := parse(secret.Data)
	if len(services) == 0 {
		if found.unusable(now) == nil {
			return found, nil
		}
		return nil, nil
	}
	if last := k.serving.Load(); last != nil && found.unusable(now) != nil && last.unusable(now) == nil {
		// Others may still serve what this replica knows: to put that back costs nobody a request.
		found, why = last, append(why, "what was in it is put back")
	}
	next, reasons, err := k.config.next(found, serverNames(services), k.published.settled(now, found, services, k.config.Settle), now)
	if err != nil {
		return nil, err
	}
	data := next.data()
	if holds(secret.Data, data) {
		return next, nil
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, data)
	if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return nil, fmt.Errorf("update secret %s/%s: %w", k.config.Namespace, k.config.Secret, err)
	}
	klog.FromContext(ctx).Info("wrote the Secret of the serving certificate", "secret", klog.KObj(secret), "why", append(why, reasons...))
	return next, nil
}

// holds says whether all of want is in data.
func holds(data, want map[string][]byte) bool {
	for key, value := range want {
		if !bytes.Equal(data[key], value) {
			return false
		}
	}
	return true
}

// news says whether what is to be said of a thing is not what was said of it last. Of "" there is nothing to say.
func (k *Keeper) news(thing, text string) bool {
	before := k.said[thing]
	k.said[thing] = text
	return text != "" && text != before
}

// failed logs a failed pass, or that passes succeed again.
func (k *Keeper) failed(ctx context.Context, err error) {
	log := klog.FromContext(ctx)
	switch {
	case err == nil:
		if k.said["failure"] != "" {
			log.Info("the serving certificate is kept again", "secret", klog.KRef(k.config.Namespace, k.config.Secret))
		}
		k.news("failure", "")
	case apierrors.IsConflict(err):
		log.V(2).Info("somebody else was faster", "err", err) // and what it wrote is read next
	case k.news("failure", string(apierrors.ReasonForError(err))+remedy(err)):
		log.Error(err, "the serving certificate cannot be kept; what is served stays, and trying goes on", "remedy", remedy(err))
	default:
		log.V(2).Info("the serving certificate still cannot be kept", "err", err)
	}
}

// remedy is what an administrator can do about a failed pass.
func remedy(err error) string {
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return "give the service account the Role metrics-server-serving and the ClusterRole system:metrics-server, as deploy/ has them"
	case apierrors.IsNotFound(err):
		return "create the Secret, empty, as deploy/ has it, or leave --serving-certificate-secret out"
	case apierrors.IsInvalid(err):
		return "if the Secret is immutable, delete it and apply deploy/ again"
	}
	return "check that the API server runs and that it can be reached from here"
}

var _ dynamiccertificates.CertKeyContentProvider = (*Keeper)(nil)
