package servingcert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logged is a context with a logger, and a function that returns the log up to now.
func logged(t *testing.T) (context.Context, func() string) {
	t.Helper()
	log := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0)))
	return klog.NewContext(t.Context(), log), log.GetSink().(ktesting.Underlier).GetBuffer().String
}

// listener counts what the server is told.
type listener struct{ told int }

func (l *listener) Enqueue() { l.told++ }

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
	return Config{Client: a.client(t), Namespace: "kube-system", Secret: "serving", APIServices: []string{v1, v1beta1}, Fallback: fallback}
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
	ctx, cancel := context.WithCancel(ctx)
	k, done := New(c), make(chan struct{})
	go func() {
		defer close(done)
		if err := k.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	r := &replica{Keeper: k, stop: func() { cancel(); <-done }}
	t.Cleanup(r.stop)
	return r
}

// believes says whether a client that has only the bundle believes who serves cert.
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

// An installation that is new has a certificate that is verified as soon as the API server was asked.
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
		if l.told != 1 {
			t.Errorf("the server was told %d times, want once", l.told)
		}
		if diff := cmp.Diff([]string{"ca.crt", "ca.key", "note", "tls.crt", "tls.key"}, keyNames(a.data())); diff != "" {
			t.Errorf("keys of the Secret (-want +got):\n%s", diff)
		}
		if !strings.Contains(log(), "it was empty") {
			t.Errorf("the log does not say why the Secret was written:\n%s", log())
		}

		// From then on there is nothing to write and nothing to tell.
		before := a.asked()
		if err := k.pass(ctx); err != nil {
			t.Fatal(err)
		}
		before["get secrets"]++
		before["get apiservices"] += 2
		if diff := cmp.Diff(before, a.asked()); diff != "" || l.told != 1 {
			t.Errorf("the second pass told the server %d times; requests (-want +got):\n%s", l.told-1, diff)
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
	if err != nil || len(families) != 1 || families[0].GetName() != "metrics_server_serving_certificate_expiry_time_seconds" {
		t.Fatalf("metrics %v (%v)", families, err)
	}
	return families[0].GetMetric()[0].GetGauge().GetValue()
}

// For years, two replicas that start again now and then, are refused now and then and get in each other's way: at every moment a
// client that knows only what is published, or what was published a while ago, believes every replica.
func TestYears(t *testing.T) {
	for _, tc := range []struct {
		name                       string
		authority, certificate     time.Duration
		settle, period, delay, run time.Duration
	}{
		{"as in a cluster, with fewer passes", 5 * 365 * day, 365 * day, 7 * day, 2 * day, time.Second, 9 * 365 * day},
		{"hardly a moment without requests", 10 * time.Hour, 2 * time.Hour, 5 * time.Minute, 20 * time.Second, 4 * time.Second, 18 * time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
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

// check has clients ask every replica: one that has what is published, and one that has what was a while ago.
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
		if strings.Contains(log(), "cannot be kept") {
			t.Errorf("the log has a word of the conflict:\n%s", log())
		}
	})
}

// Whatever cannot be done, the server starts, serves what it has, says once what is amiss and does it when it can.
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
	for _, tc := range []struct {
		name   string
		fault  func(*fakeAPI)
		remedy string
		served bool // the certificate is served nevertheless
	}{
		{"everything is forbidden", fails(403, everything...), "ClusterRole system:metrics-server", false},
		{"the Secret cannot be read", fails(403, "get secrets"), "Role metrics-server-serving", false},
		{"the Secret cannot be written", fails(403, "update secrets"), "Role metrics-server-serving", false},
		{"the APIServices cannot be read", fails(403, "get apiservices"), "ClusterRole system:metrics-server", false},
		{"the APIServices cannot be written", fails(403, "patch apiservices"), "ClusterRole system:metrics-server", true},
		{"the Secret is immutable", fails(422, "update secrets"), "immutable", false},
		{"the API server fails", fails(500, everything...), "check that the API server runs", false},
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
				if n := strings.Count(log(), "cannot be kept"); n != 1 || !strings.Contains(log(), tc.remedy) {
					t.Errorf("the log says it %d times, want once, with %q in:\n%s", n, tc.remedy, log())
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
				if !strings.Contains(log(), "kept again") {
					t.Errorf("the log does not say that it works again:\n%s", log())
				}
			})
		})
	}
}

// What others do to the Secret and to the APIServices is mended at the next pass.
func TestMended(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(a *fakeAPI)
		same   bool   // certificate
		says   string // the log
	}{
		{"a bundle is wiped", func(a *fakeAPI) { a.services[v1].Spec.CABundle = nil }, true, "wrote the caBundle"},
		{"a bundle is replaced", func(a *fakeAPI) { a.services[v1beta1].Spec.CABundle = selfSigned.bundle() }, true, "wrote the caBundle"},
		{"verification is turned off", func(a *fakeAPI) {
			a.services[v1].Spec.CABundle, a.services[v1].Spec.InsecureSkipTLSVerify = nil, true
		}, true, "wrote the caBundle"},
		{"the APIServices are made anew", func(a *fakeAPI) {
			a.services = map[string]*apiService{v1: leadsTo(v1, "kube-system", "metrics-server"), v1beta1: leadsTo(v1beta1, "kube-system", "metrics-server")}
		}, true, "wrote the caBundle"},
		{"the Secret is wiped", func(a *fakeAPI) { a.secret.Data = nil }, true, "what was in it is put back"},
		{"the certificate is destroyed", func(a *fakeAPI) { a.secret.Data[certName] = []byte("x") }, true, "what was in it is put back"},
		{"the authority is destroyed", func(a *fakeAPI) { a.secret.Data[authoritiesName] = nil }, true, "what was in it is put back"},
		{"the Service has another name", func(a *fakeAPI) {
			for _, s := range a.services {
				s.Spec.Service.Name = "other"
			}
		}, false, "not other.kube-system.svc"},
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
					if err := believes(a.bundle(name), after, s.Spec.Service.Name+".kube-system.svc"); err != nil || s.Spec.InsecureSkipTLSVerify {
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

// A key that is removed is the administrator's way to a new authority: it is published, then used, and its predecessor goes.
func TestRenewedOnPurpose(t *testing.T) {
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
		if cert, _ := r.CurrentCertKeyContent(); !bytes.Equal(cert, before) || !bytes.Contains(w.api.bundle(v1), old) || len(w.api.bundle(v1)) < 2*len(old)-10 {
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

// An APIService that verifies nothing stays so until every replica has the certificate: some may still have one of their own.
func TestVerificationWaitsForReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.services[v1].Spec.InsecureSkipTLSVerify = true
		ctx, log := logged(t)
		r := start(t, ctx, a.config(t))
		time.Sleep(58 * time.Minute)
		cert, _ := r.CurrentCertKeyContent()
		if s := a.service(v1).Spec; !s.InsecureSkipTLSVerify || len(s.CABundle) > 0 {
			t.Error("it is verified too early")
		}
		if err := believes(a.bundle(v1beta1), cert, host); err != nil {
			t.Errorf("the other one: %v", err)
		}
		if n := strings.Count(log(), "insecureSkipTLSVerify"); n != 1 {
			t.Errorf("the log has %d words of it, want one:\n%s", n, log())
		}
		time.Sleep(4 * time.Minute)
		if err := believes(a.bundle(v1), cert, host); err != nil || a.service(v1).Spec.InsecureSkipTLSVerify {
			t.Errorf("after an hour: %v, insecure %v", err, a.service(v1).Spec.InsecureSkipTLSVerify)
		}
	})
}

// An APIService that leads to somebody else is not touched.
func TestElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		a.services[v1beta1] = leadsTo(v1beta1, "monitoring", "adapter")
		a.services[v1beta1].Spec.InsecureSkipTLSVerify = true
		ctx, log := logged(t)
		c := a.config(t)
		c.CertificateLife, c.Period = 10*day, time.Hour
		r := start(t, ctx, c)
		time.Sleep(3 * time.Hour)
		cert, _ := r.CurrentCertKeyContent()
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Error(err)
		}
		if err := believes(a.bundle(v1), cert, "adapter.monitoring.svc"); err == nil {
			t.Error("the certificate has a name of another namespace")
		}
		if s := a.service(v1beta1).Spec; !s.InsecureSkipTLSVerify || len(s.CABundle) > 0 {
			t.Errorf("it was touched: %+v", s)
		}
		if n := strings.Count(log(), "leads elsewhere"); n != 1 {
			t.Errorf("the log says so %d times, want once:\n%s", n, log())
		}

		// Nor are the Secret's contents when nothing leads here any more: another replica may know better.
		before := a.data()
		a.change(func() { clear(a.services) })
		time.Sleep(20 * day)
		if diff := cmp.Diff(before, a.data()); diff != "" {
			t.Error("the Secret was changed for nobody")
		}
		if n := strings.Count(log(), "no APIService leads here"); n != 1 {
			t.Errorf("the log says that nothing leads here %d times, want once:\n%s", n, log())
		}
		a.change(func() { a.services[v1] = leadsTo(v1, "kube-system", "metrics-server") })
		time.Sleep(2 * time.Hour)
		cert, _ = r.CurrentCertKeyContent()
		if err := believes(a.bundle(v1), cert, host); err != nil {
			t.Errorf("when one leads here again: %v", err)
		}
	})
}
