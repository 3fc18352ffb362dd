package servingcert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"metrics-server/pkg/sharedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logged is a context with a logger, and a function that returns the log up to now.
func logged(t *testing.T) (context.Context, func() string) {
	t.Helper()
	log := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0)))
	return klog.NewContext(t.Context(), log), log.GetSink().(ktesting.Underlier).GetBuffer().String
}

// listener counts its notifications.
type listener struct{ notified int }

func (l *listener) Enqueue() { l.notified++ }

// replica is a Keeper that runs.
type replica struct {
	*Keeper
	stop func()
}

func (a *fakeAPI) config(t *testing.T) Config {
	t.Helper()
	fallback, err := dynamiccertificates.NewStaticCertKeyContent("fallback", selfSigned.certPEM, selfSigned.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Client: a.client(t), Namespace: "kube-system", Secret: "serving", APIServices: []string{v1, v1beta1},
		Fallback: fallback,
	}
}

// selfSigned is an identity of 1999 to 2099, for tests inside and outside of bubbles.
var selfSigned = func() *identity {
	c := Config{AuthorityLife: 100 * 365 * day, CertificateLife: 100 * 365 * day, Settle: time.Hour}
	i, _, err := c.next(&identity{}, []string{"localhost"}, false, time.Date(1999, 6, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		panic(err)
	}
	return i
}()

// start runs a Keeper until the test ends or stop is called.
func start(t *testing.T, ctx context.Context, c Config) *replica {
	t.Helper()
	k := New(c)
	return &replica{Keeper: k, stop: sharedtest.Start(t, ctx, k.Run)}
}

// believes reports whether a client that has only the bundle trusts the server of cert.
func believes(bundle, cert []byte, name string) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	chain, err := certutil.ParseCertsPEM(cert)
	if err != nil {
		return err
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
	return err
}

// A new installation has a certificate that can be verified as soon as the API server was asked.
func TestNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.secret.Data = map[string][]byte{"note": []byte("not ours")}
		ctx, log := logged(t)
		c := a.config(t)
		registry := prometheus.NewRegistry()
		c.Registerer = registry
		k := New(c)
		l := &listener{}
		k.AddListener(l)
		if cert, _ := k.CurrentCertKeyContent(); !bytes.Equal(cert, selfSigned.certPEM) {
			t.Error("before anything is known, not the fallback is served")
		}
		if got := gauge(t, registry); got != 0 {
			t.Errorf("metric %v while the fallback is served, want 0", got)
		}
		if err := k.pass(ctx); err != nil {
			t.Fatal(err)
		}
		cert, key := k.CurrentCertKeyContent()
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{v1, v1beta1} {
			if err := believes(a.bundle(name), cert, host); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if diff := cmp.Diff([]string{host}, pair.Leaf.DNSNames); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		if got, want := gauge(t, registry), float64(time.Now().Add(365*day).Unix()); got != want {
			t.Errorf("metric %v, want %v", got, want)
		}
		if l.notified != 1 {
			t.Errorf("the server was notified %d times, want once", l.notified)
		}
		if diff := cmp.Diff([]string{"ca.crt", "ca.key", "note", "tls.crt", "tls.key"}, keyNames(a.data())); diff != "" {
			t.Errorf("keys of the Secret (-want +got):\n%s", diff)
		}
		if !strings.Contains(log(), "it was empty") {
			t.Errorf("the log does not say why the Secret was written:\n%s", log())
		}

		// From then on nothing is written and nothing is logged.
		before := a.asked()
		if err := k.pass(ctx); err != nil {
			t.Fatal(err)
		}
		before["get secrets"]++
		before["get apiservices"] += 2
		if diff := cmp.Diff(before, a.asked()); diff != "" || l.notified != 1 {
			t.Errorf("the second pass notified the server %d times; requests (-want +got):\n%s", l.notified-1, diff)
		}

		// Another replica serves the same.
		other := New(a.config(t))
		if err := other.pass(ctx); err != nil {
			t.Fatal(err)
		}
		if otherCert, _ := other.CurrentCertKeyContent(); !bytes.Equal(otherCert, cert) {
			t.Error("the second replica serves another certificate")
		}
	})
}

func gauge(t *testing.T, r *prometheus.Registry) float64 {
	t.Helper()
	families, err := r.Gather()
	for _, f := range families {
		if f.GetName() == "metrics_server_serving_certificate_expiry_time_seconds" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("metrics %v (%v)", families, err)
	return 0
}

// states are the APIServices' by the metric.
func states(t *testing.T, r *prometheus.Registry) map[string]string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range families {
		if f.GetName() != "metrics_server_apiservices" {
			continue
		}
		for _, m := range f.GetMetric() {
			name := m.GetLabel()[0].GetValue()
			if all[name] != "" || m.GetGauge().GetValue() != 1 {
				t.Errorf("%s is in two states, or in one of %v", name, m)
			}
			all[name] = m.GetLabel()[1].GetValue()
		}
	}
	return all
}

// Two replicas run for years. Now and then they restart, are denied requests, or conflict with each
// other. At every moment each of them is trusted by a client that knows only what is published, or
// was published a while ago.
func TestYearsOfRotation(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                       string
		authority, certificate     time.Duration
		settle, period, delay, run time.Duration
	}{
		{"as in a cluster, with fewer passes", 5 * 365 * day, 365 * day, 7 * day, 2 * day, time.Second, 9 * 365 * day},
		{
			"hardly a moment without requests", 10 * time.Hour, 2 * time.Hour, 5 * time.Minute, 20 * time.Second,
			4 * time.Second, 18 * time.Hour,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWatcher(t, tc.settle/2)
				c := w.api.config(t)
				c.AuthorityLife, c.CertificateLife, c.Settle, c.Period = tc.authority, tc.certificate, tc.settle, tc.period
				random := rand.New(rand.NewPCG(1, 2))
				var mu sync.Mutex
				w.api.before = func(string, string) int {
					mu.Lock()
					delay, fails := time.Duration(random.Int64N(int64(tc.delay))), random.IntN(20) == 0
					mu.Unlock()
					time.Sleep(delay)
					if fails {
						return 500
					}
					return 0
				}
				ctx, log := logged(t)
				for range 2 {
					w.replace(-1, start(t, ctx, c))
				}
				for n, end := 0, time.Now().Add(tc.run); time.Now().Before(end); n++ {
					time.Sleep(tc.period)
					w.check()
					if n%97 == 96 { // one of them starts again
						at := n % 2
						w.replicas[at].stop()
						w.replace(at, start(t, ctx, c))
					}
				}
				for _, r := range w.replicas { // so that w changes no more
					r.stop()
				}
				// Two thirds of a life, a twentieth more, and some time to settle.
				lives := func(life time.Duration) int {
					return int(float64(tc.run) / (float64(life)*0.72 + 3*float64(tc.settle)))
				}
				if got, want := len(w.certificates), lives(tc.certificate); got < want || got > 2*want {
					t.Errorf("%d certificates were served, want %d or somewhat more", got, want)
				}
				if got, want := len(w.authorities), lives(tc.authority); got < want || got > 2*want {
					t.Errorf("%d authorities were published, want %d or somewhat more", got, want)
				}
				if w.most > 2 {
					t.Errorf("%d authorities were published at a time, want no more than an authority and its successor", w.most)
				}
				if t.Failed() {
					t.Log(log())
				}
			})
		})
	}
}

// watcher is the aggregator of a client that must never fail.
type watcher struct {
	t   *testing.T
	api *fakeAPI
	lag time.Duration

	mu                        sync.Mutex
	replicas                  []*replica
	history                   []event // what was published
	certificates, authorities map[string]bool
	most                      int // authorities at a time
}

type event struct {
	at     time.Time
	bundle []byte
}

func newWatcher(t *testing.T, lag time.Duration) *watcher {
	w := &watcher{t: t, api: newAPI(), lag: lag, certificates: map[string]bool{}, authorities: map[string]bool{}}
	w.api.wrote = func() { w.published(w.api.services[v1].Spec.CABundle) }
	return w
}

func (w *watcher) replace(at int, r *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.AddListener(w)
	if at < 0 {
		w.replicas = append(w.replicas, r)
	} else {
		w.replicas[at] = r
	}
}

// Enqueue implements dynamiccertificates.Listener: what is served has changed.
func (w *watcher) Enqueue() { w.check() }

func (w *watcher) published(bundle []byte) {
	w.mu.Lock()
	if n := len(w.history); len(bundle) > 0 && (n == 0 || !bytes.Equal(w.history[n-1].bundle, bundle)) {
		w.history = append(w.history, event{time.Now(), bytes.Clone(bundle)})
		all, _ := certutil.ParseCertsPEM(bundle)
		w.most = max(w.most, len(all))
		for _, c := range all {
			w.authorities[string(c.Raw)] = true
		}
	}
	w.mu.Unlock()
	w.check()
}

// check has clients connect to every replica: one with the current bundle, and one with the bundle
// of a while ago.
func (w *watcher) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.history) == 0 {
		return // nobody can ask yet
	}
	newest, late := len(w.history)-1, len(w.history)-1
	for late > 0 && time.Since(w.history[late].at) < w.lag {
		late--
	}
	for n, r := range w.replicas {
		cert, _ := r.CurrentCertKeyContent()
		if bytes.Equal(cert, selfSigned.certPEM) {
			continue // it has just started, and is not ready
		}
		w.certificates[string(cert)] = true
		for _, at := range []int{newest, late} {
			if err := believes(w.history[at].bundle, cert, host); err != nil {
				w.t.Errorf("%v: replica %d, bundle of %v: %v", time.Now(), n, w.history[at].at, err)
			}
		}
	}
}

// Two replicas that find the Secret empty at the same moment end with one authority.
func TestNeverTwoAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		both := make(chan struct{})
		a.before = func(verb, _ string) int {
			if verb == "update" { // both have read
				select {
				case both <- struct{}{}:
				case <-both:
				}
			}
			return 0
		}
		ctx, log := logged(t)
		one, other := start(t, ctx, a.config(t)), start(t, ctx, a.config(t))
		time.Sleep(5 * time.Second)
		cert, _ := one.CurrentCertKeyContent()
		otherCert, _ := other.CurrentCertKeyContent()
		if !bytes.Equal(cert, otherCert) {
			t.Error("they serve different certificates")
		}
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Error(err)
		}
		if got := a.asked()["update secrets"]; got != 2 {
			t.Errorf("%d updates of the Secret, want that of the winner and that of the loser", got)
		}
		if strings.Contains(log(), "cannot be maintained") {
			t.Errorf("the log has a word of the conflict:\n%s", log())
		}
	})
}

// Whatever fails, the server starts, serves what it has, logs the cause once, and catches up when it can.
func TestFaults(t *testing.T) {
	fails := func(code int, what ...string) func(a *fakeAPI) {
		return func(a *fakeAPI) {
			a.before = func(verb, resource string) int {
				if slices.Contains(what, verb+" "+resource) {
					return code
				}
				return 0
			}
		}
	}
	everything := []string{"get secrets", "update secrets", "get apiservices", "patch apiservices"}
	const rights = "the Role and the ClusterRole for the serving certificate"
	for _, tc := range []struct {
		name   string
		fault  func(*fakeAPI)
		remedy string
		served bool // the certificate is served nevertheless
	}{
		{"everything is forbidden", fails(403, everything...), rights, false},
		{"the Secret cannot be read", fails(403, "get secrets"), rights, false},
		{"the Secret cannot be written", fails(403, "update secrets"), rights, false},
		{"the APIServices cannot be read", fails(403, "get apiservices"), rights, false},
		{"the APIServices cannot be written", fails(403, "patch apiservices"), rights, true},
		{"the token is invalid", fails(401, everything...), "delete the pod", false},
		{"the Secret is immutable", fails(422, "update secrets"), "immutable", false},
		{"the API server fails", fails(500, everything...), "the API server's own logs", false},
		{"there is no Secret", func(a *fakeAPI) { a.secret = nil }, "create the Secret", false},
		{"the API server is silent", func(a *fakeAPI) {
			a.before = func(string, string) int { time.Sleep(20 * time.Second); return 0 }
		}, "check that the API server runs", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				secret := a.secret
				tc.fault(a)
				ctx, log := logged(t)
				r := start(t, ctx, a.config(t))
				time.Sleep(time.Hour)
				cert, _ := r.CurrentCertKeyContent()
				if served := !bytes.Equal(cert, selfSigned.certPEM); served != tc.served {
					t.Errorf("the Secret's certificate is served: %v, want %v", served, tc.served)
				}
				if n := strings.Count(log(), "cannot be maintained"); n != 1 || !strings.Contains(log(), tc.remedy) {
					t.Errorf("the log says it %d times, want once, with %q in:\n%s", n, tc.remedy, log())
				}
				if strings.Contains(log(), "err=<") { // klog writes a value of several lines so
					t.Errorf("the log shows an error of several lines:\n%s", log())
				}
				total := 0
				for _, n := range a.asked() {
					total += n
				}
				if total > 5*75 {
					t.Errorf("%d requests in an hour of faults", total)
				}

				a.change(func() { a.before, a.secret = func(string, string) int { return 0 }, secret })
				time.Sleep(3 * time.Minute)
				cert, _ = r.CurrentCertKeyContent()
				if err := believes(a.bundle(v1), cert, host); err != nil {
					t.Errorf("when the fault has gone: %v", err)
				}
				if !strings.Contains(log(), "maintained again") {
					t.Errorf("the log does not say that it works again:\n%s", log())
				}
			})
		})
	}
}

// A replica that starts while the Secret cannot be written serves the certificate in it, although it is due for
// renewal, and restores a caBundle.
func TestUnwritableSecret(t *testing.T) {
	for _, code := range []int{403, 409, 422, 500} {
		for _, optional := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, optional: %v", code, optional), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAPI()
					ctx, log := logged(t)
					c := a.config(t)
					c.Optional = optional
					if err := New(c).pass(ctx); err != nil {
						t.Fatal(err)
					}
					a.change(func() {
						a.before = func(verb, _ string) int {
							if verb == "update" {
								return code
							}
							return 0
						}
					})
					time.Sleep(365 * day * 3 / 4)
					r := start(t, ctx, c)
					for _, when := range []string{"after the start", "after the caBundle was wiped"} {
						time.Sleep(70 * time.Second)
						cert, _ := r.CurrentCertKeyContent()
						if err := believes(a.bundle(v1), cert, host); err != nil {
							t.Errorf("%s: %v\n%s", when, err, log())
						}
						a.change(func() { a.services[v1].Spec.CABundle = nil })
					}
					want := 1
					if code == 409 { // another replica was faster
						want = 0
					}
					if n := strings.Count(log(), "cannot be maintained"); n != want {
						t.Errorf("the log says %d times that the certificate cannot be maintained, want %d:\n%s", n, want, log())
					}
				})
			})
		}
	}
}

// A failure that begins while another one lasts is logged, even if both have the same reason. None is repeated until
// everything has worked once.
func TestFurtherFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		ctx, log := logged(t)
		start(t, ctx, a.config(t))
		time.Sleep(time.Minute)
		const patch, update = "patch apiservices", "update secrets"
		for _, step := range []struct {
			name, denied string
			fails        string
			code, lines  int
			says         string
		}{
			{"an APIService cannot be written", "", patch, 403, 1, "patch APIService " + v1 + ": "},
			{"the other one cannot be read, either", v1beta1, patch, 403, 2, "get APIService " + v1beta1 + ": "},
			{"it can be read again", "", patch, 403, 2, ""},
			{"again it cannot", v1beta1, patch, 403, 2, ""},
			{"the Secret cannot be written, either", v1beta1, update, 422, 3, "if the Secret is immutable"},
			{"everything works", "", "nothing", 0, 3, "maintained again"},
			{"again the APIService cannot be written", "", patch, 403, 4, ""},
		} {
			a.change(func() {
				a.services[v1].Spec.CABundle = nil // so that there is something to patch
				if step.fails == update {
					delete(a.secret.Data, certName)
				}
				a.denied = step.denied
				a.before = func(verb, resource string) int {
					if verb+" "+resource == step.fails {
						return step.code
					}
					return 0
				}
			})
			time.Sleep(5 * time.Minute)
			if n := strings.Count(log(), "cannot be maintained"); n != step.lines || !strings.Contains(log(), step.says) {
				t.Errorf("%s: %d lines about failures, want %d and %q in:\n%s", step.name, n, step.lines, step.says, log())
			}
		}
	})
}

// An APIService that must not be read does not take the certificate from the others: they get the
// caBundle, and the certificate is renewed with all names that it had. A new authority waits, but not
// until the certificate has expired.
func TestOneIsUnreadable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.denied = v1beta1
		a.services[v1beta1].Spec.Service.Name = "other"
		ctx, log := logged(t)
		c := a.config(t)
		registry := prometheus.NewRegistry()
		c.Registerer = registry
		c.CertificateLife = 12 * time.Hour
		r := start(t, ctx, c)
		serves := func(when string, names map[string]string) (cert []byte) {
			t.Helper()
			cert, _ = r.CurrentCertKeyContent()
			for name, host := range names {
				if err := believes(a.bundle(name), cert, host); err != nil {
					t.Errorf("%s: %s: %v\n%s", when, name, err, log())
				}
			}
			return cert
		}
		one := map[string]string{v1: host}
		both := map[string]string{v1: host, v1beta1: "other.kube-system.svc"}
		time.Sleep(time.Minute)
		serves("a new installation", one)
		if diff := cmp.Diff(map[string]string{v1: "verified", v1beta1: "unknown"}, states(t, registry)); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		time.Sleep(day)
		serves("after the life of the first certificate", one)
		if n := strings.Count(log(), "cannot be maintained"); n != 1 || !strings.Contains(log(), "get APIService "+v1beta1) {
			t.Errorf("the log says it %d times, want once, with the name of the APIService:\n%s", n, log())
		}

		a.change(func() { a.denied = "" })
		time.Sleep(2 * time.Hour)
		serves("once it can be read", both)
		a.change(func() { a.denied = v1beta1 })
		time.Sleep(day)
		before := serves("after the life of a certificate with both names", both)

		old := a.bundle(v1)
		a.change(func() { delete(a.secret.Data, authorityKeyName) })
		time.Sleep(2 * time.Hour)
		if after := serves("with a new authority", both); !bytes.Equal(after, before) || bytes.Equal(a.bundle(v1), old) {
			t.Errorf("the new authority signs, or is not published:\n%s", log())
		}
		a.change(func() { a.denied = "" })
		time.Sleep(2 * time.Hour)
		if after := serves("when all have the new authority", both); bytes.Equal(after, before) {
			t.Errorf("the new authority does not sign:\n%s", log())
		}

		a.change(func() { a.denied = v1beta1 })
		a.change(func() { delete(a.secret.Data, authorityKeyName) })
		before = serves("before another authority", both)
		chain, err := certutil.ParseCertsPEM(before)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(chain[0].NotAfter) - time.Hour)
		if after := serves("while another authority waits", one); bytes.Equal(after, before) {
			t.Errorf("the certificate is not renewed an hour before its end:\n%s", log())
		}
	})
}

// Changes that others make to the Secret and to the APIServices are repaired at the next pass.
func TestDamageIsRepaired(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(a *fakeAPI)
		same   bool   // certificate
		says   string // the log
	}{
		{"a bundle is wiped", func(a *fakeAPI) { a.services[v1].Spec.CABundle = nil }, true, "Wrote the caBundle"},
		{
			"a bundle is replaced", func(a *fakeAPI) { a.services[v1beta1].Spec.CABundle = selfSigned.bundle() }, true,
			"Replaced the caBundle",
		},
		{"the APIServices are made anew", func(a *fakeAPI) {
			a.services = map[string]*apiService{
				v1:      leadsTo(v1, "kube-system", "metrics-server"),
				v1beta1: leadsTo(v1beta1, "kube-system", "metrics-server"),
			}
		}, true, "Wrote the caBundle"},
		{"the Secret is wiped", func(a *fakeAPI) { a.secret.Data = nil }, true, "its previous contents are restored"},
		{
			"the certificate is destroyed", func(a *fakeAPI) { a.secret.Data[certName] = []byte("x") }, true,
			"its previous contents are restored",
		},
		{
			"the authority is destroyed", func(a *fakeAPI) { a.secret.Data[authoritiesName] = nil }, true,
			"its previous contents are restored",
		},
		{"the Service has another name", func(a *fakeAPI) {
			for _, s := range a.services {
				s.Spec.Service.Name = "other"
			}
		}, false, "not other.kube-system.svc"},
		{"the Service has another name, which the log says", func(a *fakeAPI) {
			for _, s := range a.services {
				s.Spec.Service.Name = "other"
			}
		}, false, "points to another Service of this namespace than before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				ctx, log := logged(t)
				r := start(t, ctx, a.config(t))
				time.Sleep(2 * time.Hour)
				before, _ := r.CurrentCertKeyContent()
				said := len(log())
				a.change(func() { tc.change(a) })
				time.Sleep(70 * time.Second)
				after, _ := r.CurrentCertKeyContent()
				if same := bytes.Equal(before, after); same != tc.same {
					t.Errorf("the certificate is the same: %v, want %v", same, tc.same)
				}
				for _, name := range []string{v1, v1beta1} {
					s := a.service(name)
					if err := believes(a.bundle(name), after, s.Spec.Service.Name+".kube-system.svc"); err != nil ||
						s.Spec.InsecureSkipTLSVerify {
						t.Errorf("%s: %v, insecure %v", name, err, s.Spec.InsecureSkipTLSVerify)
					}
				}
				if news := log()[said:]; !strings.Contains(news, tc.says) {
					t.Errorf("the log does not say %q:\n%s", tc.says, news)
				}
			})
		})
	}
}

// An administrator who wants a new authority removes its key from the Secret. The new one is
// published, then used, and its predecessor is removed.
func TestNewAuthorityOnPurpose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatcher(t, 20*time.Minute)
		ctx, log := logged(t)
		r := start(t, ctx, w.api.config(t))
		w.replace(-1, r)
		time.Sleep(time.Minute)
		before, _ := r.CurrentCertKeyContent()
		old := w.api.bundle(v1)
		w.api.change(func() { delete(w.api.secret.Data, authorityKeyName) })
		time.Sleep(50 * time.Minute)
		if cert, _ := r.CurrentCertKeyContent(); !bytes.Equal(cert, before) || !bytes.Contains(w.api.bundle(v1), old) ||
			len(w.api.bundle(v1)) < 2*len(old)-10 {
			t.Errorf("before the new authority has settled, it is used or the old one is gone:\n%s", log())
		}
		time.Sleep(15 * time.Minute)
		after, _ := r.CurrentCertKeyContent()
		if bytes.Equal(after, before) || !bytes.Contains(w.api.bundle(v1), old) {
			t.Errorf("when it has settled, it is not used, or the old one is gone:\n%s", log())
		}
		time.Sleep(65 * time.Minute)
		if bytes.Contains(w.api.bundle(v1), old) {
			t.Errorf("the old authority is still published:\n%s", log())
		}
		if err := believes(w.api.bundle(v1), after, host); err != nil {
			t.Error(err)
		}
	})
}

// An APIService with insecureSkipTLSVerify is left alone, so that the manifest with this field can
// be applied again. Once the field is gone, the caBundle is written at once, because until then the
// API server rejects this server.
func TestUnverifiedIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.services[v1].Spec.InsecureSkipTLSVerify = true
		a.services[v1].Metadata.ManagedFields = managed("helm", "insecureSkipTLSVerify")
		ctx, log := logged(t)
		c := a.config(t)
		registry := prometheus.NewRegistry()
		c.Registerer = registry
		r := start(t, ctx, c)
		time.Sleep(2 * time.Hour)
		cert, _ := r.CurrentCertKeyContent()
		if s := a.service(v1).Spec; !s.InsecureSkipTLSVerify || len(s.CABundle) > 0 {
			t.Errorf("it was touched: %+v", s)
		}
		if err := believes(a.bundle(v1beta1), cert, host); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if n := strings.Count(log(), "does not verify this server"); n != 1 || !strings.Contains(log(), `setBy="helm"`) ||
			!strings.Contains(log(), "kubectl patch apiservice "+v1) {
			t.Errorf("the log says it %d times, want once, with who set it and how to go on:\n%s", n, log())
		}
		if diff := cmp.Diff(map[string]string{v1: "unverified", v1beta1: "verified"}, states(t, registry)); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}

		before := a.asked()
		time.Sleep(time.Hour)
		after := a.asked()
		if n := after["get apiservices"] - before["get apiservices"]; n > 3600+2*70 {
			t.Errorf("APIServices were read %d times in an hour, want the unverified one once a second", n)
		}
		if n := after["get secrets"] - before["get secrets"]; n > 70 {
			t.Errorf("the Secret was read %d times in an hour, want once a minute", n)
		}
		a.change(func() { a.services[v1].Spec.InsecureSkipTLSVerify = false })
		time.Sleep(pollPeriod)
		synctest.Wait()
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Errorf("once the field is gone: %v", err)
		}
		// Turned off again, as for the way back to another server, it stays off.
		a.change(func() { a.services[v1].Spec.InsecureSkipTLSVerify, a.services[v1].Spec.CABundle = true, nil })
		time.Sleep(2 * time.Hour)
		if s := a.service(v1).Spec; !s.InsecureSkipTLSVerify || len(s.CABundle) > 0 {
			t.Errorf("it was turned on again: %+v", s)
		}
		if n := strings.Count(log(), "does not verify this server"); n != 2 {
			t.Errorf("the log says it %d times, want twice:\n%s", n, log())
		}
	})
}

// The log names another program that keeps writing a caBundle of its own, once. It does not name a
// program that did so once, nor this server's own renewal.
func TestRivals(t *testing.T) {
	t.Parallel()
	const warning = "keeps writing another caBundle"
	replace := func(a *fakeAPI) {
		a.change(func() {
			a.services[v1].Spec.CABundle = selfSigned.bundle()
			a.services[v1].Metadata.ManagedFields = managed("cert-manager-cainjector", "caBundle")
		})
		time.Sleep(70 * time.Second)
	}
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		ctx, log := logged(t)
		r := start(t, ctx, a.config(t))
		time.Sleep(time.Hour)
		replace(a)
		time.Sleep(2 * day)
		replace(a)
		if strings.Contains(log(), warning) {
			t.Errorf("a caBundle that is replaced twice in two days is taken for a fight:\n%s", log())
		}
		for range 5 {
			replace(a)
		}
		cert, _ := r.CurrentCertKeyContent()
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Errorf("it was not written again: %v", err)
		}
		names := strings.Contains(log(), `setBy="cert-manager-cainjector"`)
		helps := strings.Contains(log(), "cert-manager.io/inject-ca-from")
		if n := strings.Count(log(), warning); n != 1 || !names || !helps {
			t.Errorf("the log says it %d times, want once, with who and what to do:\n%s", n, log())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		for _, s := range a.services {
			s.Metadata.ManagedFields = managed("metrics-server", "caBundle")
		}
		ctx, log := logged(t)
		c := a.config(t)
		c.AuthorityLife, c.CertificateLife, c.Settle, c.Period = day, 12*time.Hour, 10*time.Minute, 5*time.Minute
		start(t, ctx, c)
		time.Sleep(10 * day)
		if strings.Contains(log(), warning) {
			t.Errorf("renewals are taken for a fight:\n%s", log())
		}
		if n := strings.Count(log(), "Replaced the caBundle"); n < 10 {
			t.Errorf("%d renewals prove nothing", n)
		}
	})
}

// managed returns the managed fields that the API server records for a client that set a field of
// the specification.
func managed(manager, field string) []managedField {
	m := managedField{Manager: manager}
	m.FieldsV1.Spec = map[string]json.RawMessage{"f:" + field: []byte("{}")}
	return []managedField{m}
}

// An APIService that led here and now leads elsewhere is left alone, but reported loudly: it may be
// an attack.
func TestLedElsewhere(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, to string
		change   func(s *apiService)
	}{
		{"another namespace", "service default/evil", func(s *apiService) {
			s.Spec.Service.Namespace, s.Spec.Service.Name = "default", "evil"
			s.Spec.InsecureSkipTLSVerify, s.Spec.CABundle = true, nil
		}},
		{
			"the API server itself", "the API server itself",
			func(s *apiService) { s.Spec.Service, s.Spec.CABundle = nil, nil },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				ctx, log := logged(t)
				c := a.config(t)
				registry := prometheus.NewRegistry()
				c.Registerer = registry
				r := start(t, ctx, c)
				time.Sleep(10 * time.Minute)
				if diff := cmp.Diff(map[string]string{v1: "verified", v1beta1: "verified"}, states(t, registry)); diff != "" {
					t.Errorf("states before (-want +got):\n%s", diff)
				}
				a.change(func() {
					s := a.services[v1]
					// A copy of the Service: a reader may still hold the one before.
					to := *s.Spec.Service
					s.Spec.Service = &to
					s.Metadata.ManagedFields = managed("kubectl-patch", "service")
					tc.change(s)
				})
				led := a.service(v1).Spec
				time.Sleep(70 * time.Second)
				if diff := cmp.Diff(led, a.service(v1).Spec); diff != "" {
					t.Errorf("it was touched (-before +after):\n%s", diff)
				}
				const said = "An APIService that pointed to this server points to another one"
				for _, want := range []string{
					said, tc.to, `setBy="kubectl-patch"`, "kubectl patch apiservice " + v1,
					`\"namespace\":\"kube-system\",\"name\":\"metrics-server\"`,
				} {
					if !strings.Contains(log(), want) {
						t.Errorf("the log does not say %q:\n%s", want, log())
					}
				}
				if got := states(t, registry)[v1]; got != "elsewhere" {
					t.Errorf("state %q, want elsewhere", got)
				}
				time.Sleep(6 * time.Hour)
				if n := strings.Count(log(), said); n < 6 || n > 8 {
					t.Errorf("the log says it %d times in six hours, want once an hour", n)
				}
				a.change(func() { a.services[v1] = leadsTo(v1, "kube-system", "metrics-server") })
				time.Sleep(pollPeriod)
				synctest.Wait()
				cert, _ := r.CurrentCertKeyContent()
				if err := believes(a.bundle(v1), cert, host); err != nil || states(t, registry)[v1] != "verified" {
					t.Errorf("when it leads here again: %v, state %s", err, states(t, registry)[v1])
				}
			})
		})
	}
}

// Without a Secret there is no CA that could be published, so an APIService that skips verification is
// read no more often than the others.
func TestNoSecretNoPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.secret = nil
		a.services[v1].Spec.InsecureSkipTLSVerify = true
		ctx, _ := logged(t)
		c := a.config(t)
		c.Optional = true
		start(t, ctx, c)
		time.Sleep(time.Hour)
		if n := a.asked()["get apiservices"]; n > 2*70 {
			t.Errorf("APIServices were read %d times in an hour, want each once a minute", n)
		}
	})
}

// A Secret that was not configured is used if it exists and may be read. If not, that is no
// failure.
func TestOptional(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(a *fakeAPI)
		served bool
		fails  bool
	}{
		{"it is there", func(*fakeAPI) {}, true, false},
		{"it is absent", func(a *fakeAPI) { a.secret = nil }, false, false},
		{"it is forbidden", func(a *fakeAPI) { a.before = func(string, string) int { return 403 } }, false, false},
		{"it may not be written", func(a *fakeAPI) {
			a.before = func(verb, _ string) int {
				if verb == "update" {
					return 403
				}
				return 0
			}
		}, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				secret := a.secret
				tc.before(a)
				ctx, log := logged(t)
				c := a.config(t)
				c.Optional = true
				r := start(t, ctx, c)
				time.Sleep(time.Hour)
				cert, _ := r.CurrentCertKeyContent()
				if served := !bytes.Equal(cert, selfSigned.certPEM); served != tc.served {
					t.Errorf("the Secret's certificate is served: %v, want %v", served, tc.served)
				}
				if err := believes(a.bundle(v1), cert, host); (err == nil) != tc.served {
					t.Errorf("a client that believes the caBundle: %v", err)
				}
				fallbacks, failures := 0, 0
				switch {
				case tc.fails:
					failures = 1
				case !tc.served:
					fallbacks = 1
				}
				if n := strings.Count(log(), "self-signed certificate"); n != fallbacks {
					t.Errorf("the log says %d times that the fallback is served, want %d:\n%s", n, fallbacks, log())
				}
				if n := strings.Count(log(), "cannot be maintained"); n != failures {
					t.Errorf("the log says %d times that something fails, want %d:\n%s", n, failures, log())
				}
				a.change(func() { a.before, a.secret = func(string, string) int { return 0 }, secret })
				time.Sleep(70 * time.Second)
				cert, _ = r.CurrentCertKeyContent()
				if err := believes(a.bundle(v1), cert, host); err != nil {
					t.Errorf("once it can be used: %v\n%s", err, log())
				}
				a.change(func() { a.before = func(string, string) int { return 403 } }) // as an API server that starts may
				time.Sleep(70 * time.Second)
				if later, _ := r.CurrentCertKeyContent(); !bytes.Equal(later, cert) {
					t.Error("another certificate is served while the Secret may not be read for a while")
				}
				if n := strings.Count(log(), "self-signed certificate"); n != fallbacks {
					t.Errorf("the log says that the fallback is served, although it is not:\n%s", log())
				}
				if n := strings.Count(log(), "cannot be maintained"); n != failures+1 {
					t.Errorf("the log says %d times that something fails, want %d:\n%s", n, failures+1, log())
				}
			})
		})
	}
}

// An APIService that leads elsewhere is left alone: to another namespace, or, for a server that knows its
// Service, to another Service.
func TestElsewhere(t *testing.T) {
	t.Run("another namespace", func(t *testing.T) { leavesAlone(t, "monitoring", "") })
	t.Run("another Service", func(t *testing.T) { leavesAlone(t, "kube-system", "metrics-server") })
}

func leavesAlone(t *testing.T, namespace, service string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.services[v1beta1] = leadsTo(v1beta1, namespace, "adapter")
		a.services[v1beta1].Spec.InsecureSkipTLSVerify = true
		ctx, log := logged(t)
		c := a.config(t)
		c.CertificateLife, c.Period, c.Service = 10*day, time.Hour, service
		r := start(t, ctx, c)
		time.Sleep(3 * time.Hour)
		cert, _ := r.CurrentCertKeyContent()
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Error(err)
		}
		if err := believes(a.bundle(v1), cert, "adapter."+namespace+".svc"); err == nil {
			t.Error("the certificate has the name of another Service")
		}
		if s := a.service(v1beta1).Spec; !s.InsecureSkipTLSVerify || len(s.CABundle) > 0 {
			t.Errorf("it was touched: %+v", s)
		}
		if n := strings.Count(log(), "points to another server and is left alone"); n != 1 {
			t.Errorf("the log says so %d times, want once:\n%s", n, log())
		}

		// The Secret's contents are kept, too, when nothing leads here any more: another replica may know
		// better.
		before := a.data()
		a.change(func() { clear(a.services) })
		time.Sleep(20 * day)
		if diff := cmp.Diff(before, a.data()); diff != "" {
			t.Error("the Secret was changed although no APIService leads here")
		}
		if n := strings.Count(log(), "No APIService points to this server"); n != 1 {
			t.Errorf("the log says that no APIService points here %d times, want once:\n%s", n, log())
		}
		a.change(func() { a.services[v1] = leadsTo(v1, "kube-system", "metrics-server") })
		time.Sleep(2 * time.Hour)
		cert, _ = r.CurrentCertKeyContent()
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Errorf("when one leads here again: %v", err)
		}
	})
}

// A server that knows its Service has a certificate before an APIService leads to it, so that one patch can make one
// lead here and trust it. It does not change it when the APIService does.
func TestCertificateInAdvance(t *testing.T) {
	for service, want := range map[string]bool{"metrics-server": true, "": false} {
		t.Run(fmt.Sprintf("Service %q", service), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI()
				clear(a.services)
				a.services[v1] = leadsTo(v1, "monitoring", "adapter")
				ctx, _ := logged(t)
				c := a.config(t)
				c.Service = service
				first := start(t, ctx, c)
				second := start(t, ctx, c)
				time.Sleep(5 * time.Second)
				if got := len(a.data()[authoritiesName]) > 0; got != want {
					t.Fatalf("the Secret has an authority: %v, want %v", got, want)
				}
				if !want {
					return
				}
				advance := a.data()
				a.change(func() {
					a.services[v1] = leadsTo(v1, "kube-system", "metrics-server")
					a.services[v1].Spec.CABundle = advance[authoritiesName]
				})
				for range 60 {
					for _, r := range []*replica{first, second} {
						cert, _ := r.CurrentCertKeyContent()
						if err := believes(a.bundle(v1), cert, host); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(2 * time.Minute)
				}
				if diff := cmp.Diff(advance, a.data()); diff != "" {
					t.Errorf("the Secret has changed (-before +after):\n%s", diff)
				}
			})
		})
	}
}
