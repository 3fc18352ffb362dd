package demand

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"metrics-server/pkg/kubeapi"
)

func TestTargets(t *testing.T) {
	farms := schema.GroupResource{Group: "example.com", Resource: "farms"}
	for _, tt := range []struct {
		name   string
		target Reference
		scale  any
		cause  Cause
		want   string
	}{
		{
			"no such kind",
			Reference{APIVersion: "example.com/v1", Kind: "Barn"},
			nil, NoTarget,
			"the API server has no kind Barn in example.com/v1",
		},
		{"no version", Reference{APIVersion: "a/b/c", Kind: "Farm"}, nil, NoTarget, `"a/b/c" is not an API version`},
		{
			"no such object",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			nil, NoTarget,
			`Farm "x" does not exist`,
		},
		{
			"no scale",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			apierrors.NewGenericServerResponse(http.StatusNotFound, "get", farms, "x", "404 page not found", 0, true),
			NoScale, "farms.example.com has no scale subresource",
		},
		{
			"no rights",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			apierrors.NewForbidden(farms, "x",
				errors.New("no")),
			Forbidden, `has no right to get farms.example.com/scale, so the pods of Farm "x" are not known: ` +
				`create a ClusterRole that allows it, with label ` + kubeapi.ScaleReaderLabel,
		},
		{
			"no pod selector",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			"", NoSelector,
			"labelSelectorPath",
		},
		{
			"bad selector",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			"a in", NoSelector,
			"invalid pod selector",
		},
		{
			"cluster-wide",
			Reference{APIVersion: "example.com/v1", Kind: "Planet", Name: "x"},
			nil, NoTarget,
			"is cluster-scoped",
		},
		{
			"overload",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			apierrors.NewTooManyRequests("later",
				1), Failing,
			"fails to get farms.example.com/scale with reason TooManyRequests",
		},
		{
			"unreachable",
			Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"},
			errors.New("dial from port 4711"),
			Failing, "check that the API server runs",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, nil)
				c.mu.Lock()
				c.scales["farms/x"] = tt.scale
				c.mu.Unlock()
				h := testHPA("web", metrics(podsMetric("a")))
				h.Spec.ScaleTargetRef = tt.target
				c.must(c.client.AutoscalingV2().HorizontalPodAutoscalers("shop").Create(t.Context(), h, metav1.CreateOptions{}))
				c.expect("metric a by web: ! ")
				for _, w := range c.Wants("shop") {
					if w.Err.cause != tt.cause || !strings.Contains(w.Err.Error(), tt.want) {
						t.Errorf("got cause %s and %v, want %s and %q", w.Err.cause, w.Err, tt.cause, tt.want)
					}
				}
				_, err := c.Find(PodsRequest("shop", labels.Everything(), "a", labels.Everything()))
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Find: got %v, want %q", err, tt.want)
				}
				calls := c.calls
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if c.calls != calls {
					t.Errorf("reported %d times although nothing has changed", c.calls)
				}
				// 0.5 s, 1 s, 2 s ... and then every 48 to 60 s, or every 8 to 10 s.
				most := 20
				if tt.cause == NoTarget {
					most = 80
				}
				if c.mu.Lock(); len(c.asked) > most {
					t.Errorf("the scale was requested %d times, want at most %d", len(c.asked), most)
				}
				c.mu.Unlock()
			})
		})
	}
}

// TestVersionOfReference checks that the version of a reference does not matter, even if it is not served.
func TestVersionOfReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testHPA("web", metrics(podsMetric("a"), objectMetric("b", "apps/v1beta1", "Deployment", "web")))
		h.Spec.ScaleTargetRef.APIVersion = "apps/v1beta2"
		c := start(t, nil, h, pod("web-1", "web"))
		c.expect("metric a of pods with app=web by web: web-1", "metric b of deployments.apps web by web: web-1")
	})
}

// farmMapper knows farms in the version that was served at the last Reset.
type farmMapper struct {
	meta.RESTMapper
	served string
	resets int
}

func (m *farmMapper) Reset() {
	version := schema.GroupVersion{Group: "example.com", Version: m.served}
	known := meta.NewDefaultRESTMapper([]schema.GroupVersion{version})
	known.Add(version.WithKind("Farm"), meta.RESTScopeNamespace)
	m.RESTMapper = known
	m.resets++
}

// TestVersionIsRemoved checks that the scale is read in another version once the discovered one is no longer served,
// and that discovery is not repeated all the time.
func TestVersionIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &farmMapper{served: "v1"}
		m.Reset()
		client := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
		client.PrependReactor("get", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if r := a.GetResource(); r.Version != m.served {
				return true, nil, apierrors.NewGenericServerResponse(http.StatusNotFound, "get", r.GroupResource(), "x",
					"404 page not found", 0, true)
			}
			return true, scaledTo{1, "app=web"}.object(), nil
		})
		r := &scaleReader{dynamic: client, mapper: m}
		farm := target{
			namespace: "shop", Reference: Reference{APIVersion: "example.com/v1", Kind: "Farm", Name: "x"}, scale: true,
		}
		for _, step := range []struct {
			served string
			after  time.Duration
			ok     bool
			resets int
		}{
			{"v1", 0, true, 1},
			{"v2", 0, true, 2},
			{"v3", mapperRefresh / 2, false, 2},
			{"v3", mapperRefresh / 2, true, 3},
		} {
			m.served = step.served
			time.Sleep(step.after)
			found := r.resolve(t.Context(), farm)
			if ok := found.err == nil; ok != step.ok || !ok && found.err.cause != NoScale || m.resets != step.resets {
				t.Errorf("%+v: got error %v after %d resets", step, found.err, m.resets)
			}
		}
	})
}

// TestTargetRecovers checks that a failure is noticed to be over, and that a selector which is known outlasts one.
func TestTargetRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, pod("web-1", "web"), pod("db-1", "db"))
		set := func(s any) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.scales["deployments/web"] = s
		}
		set(nil)
		c.must(c.client.AutoscalingV2().HorizontalPodAutoscalers("shop").Create(t.Context(), testHPA("web",
			metrics(podsMetric("a"))), metav1.CreateOptions{}))
		c.expect(`metric a by web: ! Deployment "web" does not exist`)
		set("app=web")
		time.Sleep(2 * time.Second)
		c.expect("metric a of pods with app=web by web: web-1")
		set(errors.New("down"))
		time.Sleep(10 * time.Minute)
		c.expect("metric a of pods with app=web by web: web-1")
		set("app=db")
		time.Sleep(2 * time.Minute)
		c.expect("metric a of pods with app=db by web: db-1")
	})
}

// TestTargetIsCreatedLate checks that a target is found within 10 s after it was created, however long that took.
func TestTargetIsCreatedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testHPA("web", metrics(podsMetric("a")))
		h.Spec.ScaleTargetRef.Name = "late"
		c := start(t, nil, pod("web-1", "web"), h)
		time.Sleep(time.Hour + 10*time.Second)
		c.mu.Lock()
		c.scales["deployments/late"] = "app=web"
		c.mu.Unlock()
		time.Sleep(10 * time.Second)
		settle()
		c.expect("metric a of pods with app=web by web: web-1")
	})
}

// TestSelectorChanges checks that a request for other pods has the target read again at once, but not all the time.
func TestSelectorChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, pod("web-1", "web"), pod("db-1", "db"), testHPA("web", metrics(podsMetric("a"))))
		time.Sleep(10 * time.Second)
		asked := func() int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.asked)
		}
		find := func(metric, app string) error {
			_, err := c.Find(PodsRequest("shop", labels.SelectorFromSet(labels.Set{"app": app}), metric, labels.Everything()))
			return err
		}
		before := asked()
		if find("a", "web") != nil || find("b", "db") == nil {
			t.Error("a is known, and b is not")
		}
		settle()
		if n := asked() - before; n != 0 {
			t.Errorf("the target was read %d times without a reason", n)
		}
		c.mu.Lock()
		c.scales["deployments/web"] = "app=db"
		c.mu.Unlock()
		if find("a", "db") == nil {
			t.Error("the change is known before it was read")
		}
		settle()
		if err := find("a", "db"); err != nil {
			t.Error(err)
		}
		before = asked()
		for range 50 {
			_ = find("a", "cache")
			time.Sleep(time.Second)
		}
		if n := asked() - before; n < 8 || n > 11 {
			t.Errorf("the target was read %d times in 50 s, want 8 to 11", n)
		}
	})
}

// TestRecreatedDuringARead checks that a Want is resolved if its HPA was deleted and created again while the scale
// of the target was being read.
func TestRecreatedDuringARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, testHPA("web", metrics(podsMetric("a"))), pod("web-1", "web"))
		slow := make(chan struct{})
		c.mu.Lock()
		c.delay = slow
		c.mu.Unlock()
		time.Sleep(scaleRefresh) // the next read has begun
		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
		c.must(nil, hpas.Delete(t.Context(), "web", metav1.DeleteOptions{}))
		c.must(hpas.Create(t.Context(), testHPA("web", metrics(podsMetric("a"))), metav1.CreateOptions{}))
		c.expect("metric a by web: ! Deployment \"web\" is still being read")
		close(slow)
		settle()
		c.expect("metric a of pods with app=web by web: web-1")
	})
}

// setScale makes s the scale of a target: a selector, a scaledTo, an error, or nil if it does not exist.
func (c *cluster) setScale(key string, s any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scales[key] = s
}

// asks returns how often scales were asked for.
func (c *cluster) asks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// TestRecreatedWithAnotherSelector checks that a Deployment which is deleted and created again with another selector is
// noticed by the end of its pods, whether the old one or none is found at first: a request for a metric of type Object
// does not say that the pods have changed.
func TestRecreatedWithAnotherSelector(t *testing.T) {
	for _, meanwhile := range []any{"app=web", nil} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, nil, testHPA("web", metrics(objectMetric("a", "apps/v1", "Deployment", "web"))), pod("web-1", "web"))
			c.expect("metric a of deployments.apps web by web: web-1")
			time.Sleep(time.Second)
			pods := c.client.CoreV1().Pods("shop")
			c.setScale("deployments/web", meanwhile)
			c.must(nil, pods.Delete(t.Context(), "web-1", metav1.DeleteOptions{}))
			time.Sleep(5 * time.Second)
			c.setScale("deployments/web", "app=new")
			c.must(pods.Create(t.Context(), pod("new-1", "new"), metav1.CreateOptions{}))
			time.Sleep(10 * time.Second)
			synctest.Wait()
			c.expect("metric a of deployments.apps web by web: new-1")
		})
	}
}

// TestScaledToZero checks that a target without pods is retried only while it should have some.
func TestScaledToZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, testHPA("web", metrics(podsMetric("a"))), pod("web-1", "web"))
		c.setScale("deployments/web", scaledTo{0, "app=web"})
		c.must(nil, c.client.CoreV1().Pods("shop").Delete(t.Context(), "web-1", metav1.DeleteOptions{}))
		time.Sleep(10*time.Minute - time.Second)
		if n := c.asks(); n < 6 || n > 8 { // first, at the end of the pod, and every 2 minutes
			t.Errorf("asked %d times in 10 minutes with no replicas, want 6 to 8", n)
		}
		c.setScale("deployments/web", "app=web")
		time.Sleep(3 * time.Minute)
		before := c.asks()
		time.Sleep(10 * time.Minute)
		if n := c.asks() - before; n < 55 || n > 76 { // every 8 to 10 s
			t.Errorf("asked %d times in 10 minutes with replicas and without pods, want 55 to 76", n)
		}
	})
}

// TestSelectorOfObjectMetricChanges checks that the selector of a custom resource whose old pods stay is noticed within
// two syncs of the controller, at no cost while nobody asks.
func TestSelectorOfObjectMetricChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, pod("a-1", "a"), pod("b-1", "b"))
		c.setScale("farms/x", "app=a")
		c.must(c.client.AutoscalingV2().HorizontalPodAutoscalers("shop").Create(t.Context(),
			testHPA("web", metrics(objectMetric("m", "example.com/v1", "Farm", "x"))), metav1.CreateOptions{}))
		c.expect("metric m of farms.example.com x by web: a-1")
		time.Sleep(time.Minute)
		if n := c.asks(); n != 1 {
			t.Errorf("asked %d times without a request, want once", n)
		}
		c.setScale("farms/x", "app=b")
		r := ObjectRequest("shop", schema.GroupResource{Group: "example.com", Resource: "farms"}, "x", "m",
			labels.Everything())
		for range 3 {
			if _, err := c.Find(r); err != nil {
				t.Error(err)
			}
			time.Sleep(15 * time.Second)
		}
		c.expect("metric m of farms.example.com x by web: b-1")
		if n := c.asks(); n != 3 {
			t.Errorf("asked %d times, want one read for 30 s of requests", n)
		}
	})
}

// TestVersionIsEdited checks that the selector of an object is still confirmed when only the version in the first of
// two references to it has changed.
func TestVersionIsEdited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil, pod("a-1", "a"), pod("b-1", "b"))
		c.setScale("farms/x", "app=a")
		refers := func(name, version string) *autoscalingv2.HorizontalPodAutoscaler {
			return testHPA(name, metrics(objectMetric("m", "example.com/"+version, "Farm", "x")))
		}
		hpas := c.client.AutoscalingV2().HorizontalPodAutoscalers("shop")
		c.must(hpas.Create(t.Context(), refers("first", "v1beta1"), metav1.CreateOptions{}))
		c.must(hpas.Create(t.Context(), refers("second", "v1"), metav1.CreateOptions{}))
		c.must(hpas.Update(t.Context(), refers("first", "v1"), metav1.UpdateOptions{}))
		c.expect("metric m of farms.example.com x by first,second: a-1")
		time.Sleep(scaleConfirm)
		c.setScale("farms/x", "app=b")
		if _, err := c.Find(ObjectRequest("shop", schema.GroupResource{Group: "example.com", Resource: "farms"}, "x", "m",
			labels.Everything())); err != nil {
			t.Error(err)
		}
		settle()
		c.expect("metric m of farms.example.com x by first,second: b-1")
	})
}

// TestRequestForMissingTarget checks that the request of the controller, which has read the scale, is taken as a sign
// that a missing target exists by now.
func TestRequestForMissingTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := testHPA("web", metrics(podsMetric("a")))
		h.Spec.ScaleTargetRef.Name = "late"
		c := start(t, nil, pod("web-1", "web"), h)
		time.Sleep(time.Minute)
		for before := c.asks(); c.asks() == before; {
			time.Sleep(time.Second / 10)
		}
		time.Sleep(scaleReread) // the next retry is due in 3 s at the earliest
		c.setScale("deployments/late", "app=web")
		if _, err := c.Find(PodsRequest("shop", labels.SelectorFromSet(labels.Set{"app": "web"}), "a",
			labels.Everything())); err == nil {
			t.Error("found before it was read")
		}
		settle()
		c.expect("metric a of pods with app=web by web: web-1")
	})
}

// TestManyFailingTargets checks with 1,000 targets which are missing, or must not be read, that the requests are
// bounded, that a new target is not delayed by them, and when one that comes back is seen.
func TestManyFailingTargets(t *testing.T) {
	const many, namespaces = 1000, 50
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no"))
	for name, failure := range map[string]any{"missing": nil, "forbidden": forbidden} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := func(namespace, name string) *autoscalingv2.HorizontalPodAutoscaler {
					h := testHPA(name, metrics(podsMetric("a")))
					h.Namespace, h.Spec.ScaleTargetRef.Name = namespace, name
					return h
				}
				var objects []runtime.Object
				for i := range many {
					objects = append(objects, in(fmt.Sprintf("n%d", i%namespaces), fmt.Sprintf("t%d", i)))
				}
				c := start(t, nil)
				c.mu.Lock()
				for i := range many {
					c.scales[fmt.Sprintf("deployments/t%d", i)] = failure
				}
				c.mu.Unlock()
				resolved := func(namespace string) bool {
					return slices.ContainsFunc(c.Wants(namespace), func(w *Want) bool { return w.Err == nil })
				}
				created := func(namespace, name string) time.Duration {
					c.setScale("deployments/"+name, "app=web")
					c.must(c.client.AutoscalingV2().HorizontalPodAutoscalers(namespace).Create(t.Context(), in(namespace, name),
						metav1.CreateOptions{}))
					began := time.Now()
					for !resolved(namespace) && time.Since(began) < time.Hour {
						time.Sleep(time.Second / 10)
					}
					return time.Since(began)
				}
				for i, o := range objects {
					if err := c.client.Tracker().Add(o); err != nil {
						t.Fatal(err)
					}
					if i%50 == 0 {
						synctest.Wait() // a fake watch holds no more than 100 events
					}
				}
				// One among them, behind all others.
				if after := created("one", "one"); after > 10*time.Second {
					t.Errorf("a target that was created with %d others that fail is resolved after %v, want 10 s", many, after)
				}
				// The first retries of each come soon, but no more than so many together.
				for minute := range 6 {
					before := c.asks()
					time.Sleep(time.Minute)
					n, most := c.asks()-before, (firstPerSecond+againPerSecond)*60
					if minute > 0 {
						most = againPerSecond*60 + 1
					}
					if minute > 3 {
						most = retriesPerSecond * 60 * 5 / 4
					}
					if n > most || n < 300 {
						t.Errorf("minute %d: %d requests, want at most %d", minute, n, most)
					}
				}
				if after := created("two", "two"); after > time.Second {
					t.Errorf("a new target is resolved after %v while %d others fail, want 1 s", after, many)
				}
				began := time.Now()
				c.setScale("deployments/t7", "app=web")
				for !resolved("n7") && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
				}
				if after := time.Since(began); after > 75*time.Second {
					t.Errorf("a target that came back is seen after %v", after)
				}
			})
		})
	}
}

// farmFor is hpaFor a custom resource.
func farmFor(namespace, name, farm string) *autoscalingv2.HorizontalPodAutoscaler {
	h := hpaFor(namespace, name, farm)
	h.Spec.ScaleTargetRef.APIVersion, h.Spec.ScaleTargetRef.Kind = "example.com/v1", "Farm"
	return h
}

// resolvedAfter creates h, and returns how long it takes until its metric can be served.
func (c *cluster) resolvedAfter(h *autoscalingv2.HorizontalPodAutoscaler) time.Duration {
	c.t.Helper()
	began := time.Now()
	if _, err := c.client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).Create(c.t.Context(), h,
		metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	for time.Since(began) < time.Hour {
		synctest.Wait()
		if slices.ContainsFunc(c.Wants(h.Namespace), func(w *Want) bool { return w.Err == nil }) {
			break
		}
		time.Sleep(time.Second / 10)
	}
	return time.Since(began)
}

// TestHangingResource checks that 400 targets of a resource whose scale hangs, in as many
// namespaces, delay neither a new target of another resource, nor one that was missing.
func TestHangingResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scales := map[string]any{"deployments/web": "app=web"}
		objects := []runtime.Object{hpaFor("waiting", "web", "late")}
		for i := range 400 {
			name := fmt.Sprintf("t%d", i)
			scales["farms/"+name] = hanging
			objects = append(objects, farmFor("of-"+name, name, name))
		}
		c := startWith(t, nil, scales, objects...)
		if after := c.resolvedAfter(hpaFor("new", "web", "web")); after > time.Second {
			t.Errorf("the first read of another resource takes %v", after)
		}
		time.Sleep(5 * time.Minute) // many of them were read once, and are read again
		if after := c.resolvedAfter(hpaFor("newer", "web", "web")); after > time.Second {
			t.Errorf("the first read of another resource takes %v after some time", after)
		}
		c.setScale("deployments/late", "app=web")
		began := time.Now()
		for c.Wants("waiting")[0].Err != nil && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		// 15 a second of 401 that fail are retried.
		if after := time.Since(began); after > 30*time.Second {
			t.Errorf("a target that was missing is seen after %v", after)
		}
	})
}

// TestManyTargetsOfOneNamespace checks that they do not delay those of others.
func TestManyTargetsOfOneNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scales := map[string]any{"deployments/web": "app=web"}
		var objects []runtime.Object
		for i := range 2000 {
			name := fmt.Sprintf("t%d", i)
			scales["deployments/"+name] = "app=web"
			objects = append(objects, hpaFor("many", name, name))
		}
		c := startWith(t, nil, scales, objects...)
		if n := c.asks(); n > 500 {
			t.Fatalf("%d targets are read already, want at most 500", n)
		}
		if after := c.resolvedAfter(hpaFor("new", "web", "web")); after > time.Second {
			t.Errorf("the first read of another namespace takes %v", after)
		}
		time.Sleep(20 * time.Second)
		if n := len(c.Wants("many")); n != 1 {
			t.Errorf("%d Wants of the pods of all targets, want 1", n)
		}
	})
}

// TestTimeoutOfSlowTargets checks that a target whose last read timed out gets less time, and that
// one which answers slowly is read nevertheless.
func TestTimeoutOfSlowTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startWith(t, nil, map[string]any{"deployments/web": hanging}, hpaFor("shop", "web", "web"))
		time.Sleep(20*time.Second - time.Second)
		if n := c.asks(); n != 4 { // after 10, 12.5, 15.5 and 19.5 s
			t.Errorf("%d requests were sent in 20 s of time-outs, want 4", n)
		}
		c.setScale("deployments/web", slowly(5*time.Second))
		time.Sleep(time.Minute)
		c.expect("metric a of pods with app=web")
	})
}
