//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubelet/kubelettest"
)

// masters are the headers of a request that the aggregator forwards for a user who may do
// everything. The API server is not asked about this user.
var masters = []string{"X-Remote-User", "root", "X-Remote-Group", "system:masters"}

// refused returns an error if path is answered: it must not be for whoever has that token or these headers.
func (s *metricsServer) refused(path, token string, header ...string) error {
	code, body, err := s.get(path, token, header...)
	if err == nil && (code < 400 || strings.Contains(body, "usage")) {
		err = fmt.Errorf("%s is answered with %d: %.200s", path, code, body)
	}
	return err
}

// allowed returns an error if path is not answered.
func (s *metricsServer) allowed(path, token string, header ...string) error {
	code, body, err := s.get(path, token, header...)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s is answered with %d: %.200s", path, code, body)
	}
	return err
}

// fresh returns an error unless all of f's nodes and pods are served with recent samples. The limit
// of fifteen resolutions is longer than any machine is late, and shorter than the time for which
// the sample of a node that is no longer scraped is served.
func (s *metricsServer) fresh(f *fleet, header ...string) error {
	nodes, err := s.items(nodesPath, "", header...)
	if err != nil {
		return err
	}
	pods, err := s.items(podsPath, "", header...)
	if err != nil {
		return err
	}
	for _, n := range f.nodes {
		i, ok := nodes["/"+n.name]
		if age := time.Since(i.Timestamp.Time); !ok || age > 15*time.Second {
			return fmt.Errorf("node %s is served: %v, its sample is %v old", n.name, ok, age)
		}
		for _, c := range n.says.Containers() {
			i, ok := pods[c.Namespace+"/"+c.Pod]
			if age := time.Since(i.Timestamp.Time); !ok || age > 15*time.Second {
				return fmt.Errorf("pod %s is served: %v, its sample is %v old", c.Pod, ok, age)
			}
		}
	}
	return nil
}

// This server waits for an API server that is down when it starts, or that rejects its requests.
// The probes tell the kubelet to let it live and to send no traffic, all other requests are
// rejected, and the log names each cause once.
func TestStartBeforeTheAPIServer(t *testing.T) {
	t.Parallel()
	api := newFlakyAPI(t)
	f := newFleet(t, 1, 2)
	f.api = api.url
	tok := reader(t)
	api.down()
	s := startServer(t, f)
	front := s.asFrontProxy(t)
	waits := func(cause string, lines int) func() error {
		return func() error {
			errs := []error{
				s.ok("/livez"), s.ok("/healthz"),
				s.refused(podsPath, tok), s.refused("/metrics", tok), front.refused(podsPath, "", masters...),
			}
			code, body, err := s.get("/readyz", "")
			if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(body, cause)) {
				err = fmt.Errorf("/readyz: %d %s", code, body)
			}
			if said := linesWith(s.output(), "remedy="); len(said) != lines || !strings.Contains(said[lines-1], cause) {
				errs = append(errs, fmt.Errorf("%d lines of log, want %d that ends with %s: %q", len(said), lines, cause, said))
			}
			return errors.Join(append(errs, err)...)
		}
	}
	hold(t, "while it is down", 10*time.Second, waits("connection refused", 1))

	api.fail(at(answer(http.StatusForbidden, "Forbidden"), apiConfigMaps))
	api.up(t)
	eventually(t, "while it forbids", waits("Forbidden", 2))
	hold(t, "while it forbids", 5*time.Second, waits("Forbidden", 2))
	if said := linesWith(s.output(), "metrics-server-auth-reader"); len(said) != 1 {
		t.Errorf("no remedy: %q", said)
	}

	api.fail(nil)
	s.ready(t)
	if err := s.refused(podsPath, "", masters...); err != nil {
		t.Errorf("the headers of a front proxy are believed from anybody: %v", err)
	}
	eventually(t, "whoever may read is answered", func() error {
		return errors.Join(s.allowed(podsPath, tok), front.fresh(f, masters...))
	})
	if said := linesWith(s.output(), "The API server answers"); len(said) != 1 {
		t.Errorf("the log says %q, want once that the API server answers", said)
	}
}

// A server that is still waiting ends as it should.
func TestStopBeforeTheAPIServer(t *testing.T) {
	t.Parallel()
	api := newFlakyAPI(t)
	f := newFleet(t, 0, 0)
	f.api = api.url
	api.down()
	s := startServer(t, f)
	s.terminate(t)
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatal("still running")
	}
	if s.err != nil {
		t.Errorf("ended with %v, want exit code 0", s.err)
	}
}

// While the API server is away, the known objects are served with fresh samples. Users who were
// authorized recently remain authorized for as long as decisions are cached (10 s). No other users
// get access.
func TestAPIServerGoesAway(t *testing.T) {
	t.Parallel()
	api := newFlakyAPI(t)
	f := newFleet(t, 2, 2)
	f.api = api.url
	known, unknown := reader(t), bound(t, "latecomer", "system:aggregated-metrics-reader")
	s := startServer(t, f)
	s.ready(t)
	front := s.asFrontProxy(t)
	user := []string{"X-Remote-User", "system:serviceaccount:default:reader"}
	eventually(t, "before", func() error {
		return errors.Join(s.allowed(podsPath, known), front.allowed(podsPath, "", user...), front.fresh(f, masters...))
	})

	asked := time.Now()
	if err := errors.Join(s.allowed(podsPath, known), front.allowed(podsPath, "", user...)); err != nil {
		t.Fatal(err)
	}
	before := len(s.output())
	api.down()
	if err := s.allowed(podsPath, known); err != nil && time.Since(asked) < 5*time.Second {
		t.Errorf("a decision is not kept: %v", err)
	}
	served := make(chan error, 1)
	go func() { // while other requests are refused only after the API server was asked several times
		var err error
		end := time.Now().Add(40 * time.Second)
		for ; err == nil && time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
			err = errors.Join(front.fresh(f, masters...), s.ok("/livez"), s.ok("/readyz"))
		}
		served <- err
	}()
	away := true
	for away {
		select {
		case err := <-served:
			if err != nil {
				t.Fatalf("while the API server is away: %v", err)
			}
			away = false
		default:
			errs := []error{
				s.refused(podsPath, unknown),
				front.refused(podsPath, "", "X-Remote-User", "system:serviceaccount:default:latecomer"),
			}
			if time.Since(asked) > 20*time.Second { // twice as long as decisions are kept
				errs = append(errs, s.refused(podsPath, known), front.refused(podsPath, "", user...))
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
		}
	}
	if said := linesWith(s.output()[before:], "Watching the API server fails"); len(said) != 2 {
		t.Errorf("the log says %q, want a line each for nodes and pods", said)
	}

	f.addPod(t, "default", "born-meanwhile", f.nodes[0].name)
	gone := f.nodes[1].says.Containers()[0]
	deletePod(gone.Namespace, gone.Pod)
	api.up(t)
	eventually(t, "afterwards", func() error {
		if _, body, err := s.get("/apis/metrics.k8s.io/v1/namespaces/default/pods/born-meanwhile", known); err != nil ||
			!strings.Contains(body, "no kubelet lists it") {
			return fmt.Errorf("the pod that was born: %s %w", body, err)
		}
		pods, err := s.items(podsPath, known)
		if _, there := pods[gone.Namespace+"/"+gone.Pod]; there {
			err = errors.New("the pod that is gone is served")
		}
		return errors.Join(err, s.allowed(podsPath, unknown), front.allowed(podsPath, "", user...))
	})
	eventually(t, "the log says that it is back", func() error {
		if said := linesWith(s.output()[before:], "Watching the API server works again"); len(said) != 2 {
			return fmt.Errorf("%q", said)
		}
		return nil
	})
}

// Whatever the API server answers to lists and watches, the known objects are still served, and
// changes during the fault are correct in the end.
func TestAPIServerFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		fault apiFault
		heals bool // by itself, while the fault goes on
	}{
		{"429", answer(http.StatusTooManyRequests, "TooManyRequests"), false},
		{"429-retry-after", answer(http.StatusTooManyRequests, "TooManyRequests", "Retry-After", "1"), false},
		{"500", answer(http.StatusInternalServerError, "InternalError"), false},
		{"silence", hang, false},
		{"short-watches", shortWatches, true},
		{"410", gone(false), true},
		{"410-event", gone(true), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			api := newFlakyAPI(t)
			f := newFleet(t, 2, 2)
			f.api = api.url
			s := startServer(t, f)
			s.ready(t)
			front := s.asFrontProxy(t)
			eventually(t, "before", func() error { return front.fresh(f, masters...) })

			api.fail(at(tc.fault, apiNodes, apiPods))
			hold(t, "meanwhile", 4*time.Second, func() error { return front.fresh(f, masters...) })
			// A node leaves with its pods, a pod leaves, and a node with a pod comes.
			left, kept := f.nodes[1], f.nodes[0].says.Containers()
			if err := cluster.client.CoreV1().Nodes().Delete(t.Context(), left.name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			deletePod(kept[0].Namespace, kept[0].Pod)
			came := f.newNode(t, 7, 1)
			if !tc.heals {
				time.Sleep(3 * time.Second)
			}
			api.cut() // those that hang count when they end
			if tc.name != "short-watches" {
				eventually(t, "the fault is met", func() error {
					if api.failed() == 0 {
						return errors.New("no request was answered by it")
					}
					return nil
				})
			}
			if !tc.heals {
				api.fail(nil)
			}
			eventually(t, "afterwards", func() error {
				nodes, err := front.items(nodesPath, "", masters...)
				if _, there := nodes["/"+left.name]; there || err != nil {
					return fmt.Errorf("the node that left is served: %v, %w", there, err)
				}
				pods, err := front.items(podsPath, "", masters...)
				if _, there := pods[kept[0].Namespace+"/"+kept[0].Pod]; there || err != nil {
					return fmt.Errorf("the pod that left is served: %v, %w", there, err)
				}
				for _, c := range left.says.Containers() {
					if _, there := pods[c.Namespace+"/"+c.Pod]; there {
						return fmt.Errorf("pod %s of the node that left is served", c.Pod)
					}
				}
				return front.fresh(&fleet{nodes: []*fakeNode{came}}, masters...)
			})
		})
	}
}

// A node and its pods that are recreated under their names while watches are cut are not served with what was said of
// those before them: the new labels never stand with the old usage.
func TestRecreatedWhileWatchesAreCut(t *testing.T) {
	t.Parallel()
	api := newFlakyAPI(t)
	f := newFleet(t, 1, 2)
	f.api = api.url
	s := startServer(t, f)
	s.ready(t)
	front := s.asFrontProxy(t)
	eventually(t, "before", func() error { return front.fresh(f, masters...) })

	api.fail(at(answer(http.StatusInternalServerError, "InternalError"), apiNodes, apiPods))
	// Another machine takes the name of the first one, and the pods those of the pods there.
	old := f.nodes[0]
	old.server.Close()
	before := map[string]bool{cpu(old.says.NanoCores()): true}
	anew := &fakeNode{name: old.name}
	started := time.Now().Add(-30 * time.Second)
	var pods []kubelettest.Pod
	for _, c := range old.says.Containers() {
		before[cpu(c.NanoCores)] = true
		if c.Name == "c0" {
			deletePod(c.Namespace, c.Pod)
			pods = append(
				pods,
				kubelettest.Pod{Namespace: c.Namespace, Name: c.Pod, Seed: hash(c.Pod), Started: []time.Time{started, started}},
			)
		}
	}
	if err := cluster.client.CoreV1().Nodes().Delete(t.Context(), old.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	anew.says = kubelettest.NewNode(
		kubelettest.NodeConfig{Seed: hash(f.name) + 99, List: pods, Boot: started, RequestTime: true},
	)
	f.labels["made"] = "anew"
	f.serve(t, anew, false)
	f.register(t, anew)

	// right counts the objects that are served as the new ones. Until the pods are seen, their names
	// suffice, because the new kubelet lists no others.
	right := func() (n int, err error) {
		for _, path := range []string{nodesPath, podsPath} {
			items, err := front.items(path+"?labelSelector=fleet%3D"+f.name, "", masters...)
			if err != nil {
				return 0, err
			}
			for _, i := range items {
				isNew := i.Metadata.Labels["made"] == "anew"
				for _, usage := range append(i.Containers, containerUsage{Usage: i.Usage}) {
					u := usage.Usage["cpu"]
					if isNew && before[u] {
						return 0, fmt.Errorf("%s with labels %v is served with cpu %s", i.Metadata.Name, i.Metadata.Labels, u)
					}
				}
				if isNew {
					n++
				}
			}
		}
		return n, nil
	}
	hold(t, "meanwhile", 3*time.Second, func() error {
		n, err := right()
		if n > 0 {
			err = errors.New("the test does not hide what it does")
		}
		return err
	})
	// The pods are seen first. What the old machine said of them is still there, and must not become theirs.
	api.fail(at(answer(http.StatusInternalServerError, "InternalError"), apiNodes))
	eventually(t, "the pods are seen", func() error {
		_, body, err := front.get(
			"/apis/metrics.k8s.io/v1/namespaces/"+pods[0].Namespace+"/pods/"+pods[0].Name, "",
			masters...)
		if err == nil && !strings.Contains(body, "no kubelet lists it") {
			err = errors.New(body)
		}
		if _, wrong := right(); wrong != nil {
			t.Fatal(wrong)
		}
		return err
	})
	api.fail(nil)
	eventually(t, "afterwards", func() error {
		n, err := right()
		if err != nil {
			t.Fatal(err)
		}
		if n != 3 {
			return fmt.Errorf("%d objects are served as the new ones, want a node and 2 pods", n)
		}
		return nil
	})
}

// cpu is how a usage is written.
func cpu(nanoCores uint64) string {
	return resource.NewScaledQuantity(int64(nanoCores), resource.Nano).String()
}

// If the API server cannot say who sends a request or what they may do, the request is rejected,
// whatever the API server answers instead.
func TestReviewsFail(t *testing.T) {
	t.Parallel()
	api := newFlakyAPI(t)
	f := newFleet(t, 1, 1)
	f.api = api.url
	s := startServer(t, f)
	s.ready(t)
	front := s.asFrontProxy(t)
	type failing struct {
		name  string
		fault apiFault

		token string
		where atomic.Pointer[string] // the path of the reviews that fail
		asked atomic.Int64           // how many of them
	}
	users := []*failing{
		{name: "401", fault: answer(http.StatusUnauthorized, "Unauthorized")},
		{name: "403", fault: answer(http.StatusForbidden, "Forbidden")},
		{name: "429", fault: answer(http.StatusTooManyRequests, "TooManyRequests", "Retry-After", "1")},
		{name: "500", fault: answer(http.StatusInternalServerError, "InternalError")},
		{name: "silence", fault: hang},
		{name: "reset", fault: func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }},
		{name: "empty", fault: func(http.ResponseWriter, *http.Request) bool { return true }},
		{name: "nonsense", fault: text("allowed: true")},
		{name: "no-token-verdict", fault: text(`{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{}}`)},
		{
			name: "no-access-verdict",
			fault: text(
				`{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"evaluationError":"no"}}`,
			),
		},
	}
	for _, u := range users { // each with an account of its own, so that no decision is remembered from another
		u.token = bound(t, "reviewed-"+u.name, "system:aggregated-metrics-reader")
		u.where.Store(new(""))
	}
	api.fail(at(func(w http.ResponseWriter, r *http.Request) bool {
		review, err := io.ReadAll(r.Body)
		if err != nil {
			return true
		}
		r.Body = io.NopCloser(bytes.NewReader(review))
		for _, u := range users {
			if *u.where.Load() == r.URL.Path &&
				(bytes.Contains(review, []byte(u.token)) || bytes.Contains(review, []byte("reviewed-"+u.name))) {
				u.asked.Add(1)
				return u.fault(w, r)
			}
		}
		return false
	}, apiTokens, apiPermissions))
	for _, u := range users {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			s, front := *s, *front
			s.http, front.http = withPatience(s.http), withPatience(front.http)
			user := []string{"X-Remote-User", "system:serviceaccount:default:reviewed-" + u.name}
			u.where.Store(new(apiTokens))
			if err := s.refused(podsPath, u.token); err != nil {
				t.Errorf("TokenReview: %v", err)
			}
			if u.asked.Swap(0) == 0 {
				t.Error("no TokenReview was asked for")
			}
			u.where.Store(new(apiPermissions))
			done := make(chan error)
			go func() { done <- front.refused(podsPath, "", user...) }()
			if err := errors.Join(s.refused(podsPath, u.token), <-done); err != nil {
				t.Errorf("SubjectAccessReview: %v", err)
			}
			if u.asked.Load() == 0 {
				t.Error("no SubjectAccessReview was asked for")
			}
			// The fault was the reason for the rejection.
			u.where.Store(new(""))
			eventually(t, "afterwards", func() error {
				return errors.Join(s.allowed(podsPath, u.token), front.allowed(podsPath, "", user...))
			})
		})
	}
}

// withPatience returns c with a timeout for requests that the server delays.
func withPatience(c *http.Client) *http.Client {
	return &http.Client{Transport: c.Transport, Timeout: patience}
}

// text answers with that text and without an error.
func text(body string) apiFault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
		return true
	}
}
