package inventory

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// An API server without watch-list is asked for pages, at the start and later.
func TestPagedList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.streams = false
		for i := range 1203 {
			server.set(testPod("shop", fmt.Sprintf("web-%04d", i), nil))
		}
		r := run(t, config)
		pages := func() (sizes []int) {
			server.do(func() {
				for _, q := range server.requests {
					if q.resource == "pods" && q.query.Get("watch") == "" {
						sizes = append(sizes, q.items)
					}
				}
				server.requests = nil
			})
			return sizes
		}
		synctest.Wait()
		equal(t, "pages", []int{500, 500, 203}, pages())
		equal(t, "pods", 1203, r.Pods().Len())

		server.set(testPod("shop", "web-9999", nil))
		synctest.Wait()
		equal(t, "pods", 1204, r.Pods().Len())
		server.endWatches(true)
		settle(time.Minute)
		equal(t, "pages of the second list", []int{500, 500, 204}, pages())
		equal(t, "pods", 1204, r.Pods().Len())
		equal(t, "logged", []string(nil), r.logged())
	})
}

// A list whose second page has expired is still completed.
func TestPageExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.streams = false
		for i := range 600 {
			server.set(testPod("shop", fmt.Sprintf("web-%04d", i), nil))
		}
		server.fault = func(_ string, q url.Values) int {
			if q.Get("continue") != "" {
				return http.StatusGone
			}
			return 0
		}
		r := run(t, config)
		synctest.Wait()
		if err := r.PodsSynced(); err != nil {
			t.Error(err)
		}
		equal(t, "pods", 600, r.Pods().Len())
	})
}

// Whatever a relist finds, only real changes are reported, and readers see the old set or the new one.
func TestRelistAfterGone(t *testing.T) {
	for _, streams := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.streams = streams
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				server.set(testNode(name, nil))
			}
			for i := range 100 {
				server.set(testPod("shop", fmt.Sprintf("web-%02d", i), nil))
			}
			r := run(t, config)
			synctest.Wait()
			equal(t, "changes", []string{"+a", "+b", "+c", "+d", "+e"}, r.news())

			server.setDown(true)
			server.set(testNode("a", func(n *corev1.Node) { n.Status.Conditions = []corev1.NodeCondition{{Type: "Ready"}} }))
			server.remove(testNode("b", nil))
			server.set(testNode("c", func(n *corev1.Node) { n.UID = "another" }))
			server.set(testNode("d", func(n *corev1.Node) { n.Status.Addresses[0].Address = "10.0.0.9" }))
			server.set(testNode("f", nil))
			var gone []string
			for i := range 60 {
				pod := testPod("shop", fmt.Sprintf("web-%02d", i), map[string]string{"is": "new"})
				switch {
				case i < 49:
					server.remove(pod)
					gone = append(gone, "shop/"+pod.Name)
				case i < 51:
					pod.UID = "another"
					gone = append(gone, "shop/"+pod.Name)
					fallthrough
				default:
					server.set(pod)
				}
			}
			settle(time.Minute)
			equal(t, "nodes while the API server is away", 5, r.Nodes().Len())
			equal(t, "pods while the API server is away", 100, r.Pods().Len())
			server.endWatches(true)
			server.setDown(false)
			settle(time.Minute)
			equal(t, "changes", []string{"-b", "-c", "+c", "+d", "+f"}, r.news())
			equal(t, "nodes", []string{"/a", "/c", "/d", "/e", "/f"}, names(r.Nodes(), ""))
			equal(t, "pods", 51, r.Pods().Len())
			equal(t, "gone", gone, r.gonePods())
			if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	always := func(status int) func(*apiServer) {
		return func(s *apiServer) {
			s.do(func() { s.fault = func(string, url.Values) int { return status }; s.wake(true) })
		}
	}
	heal := func(s *apiServer) { s.do(func() { s.fault = nil }) }
	tests := []struct {
		name       string
		fail, heal func(*apiServer)
		want       []string // in the error
	}{
		{
			"down", func(s *apiServer) { s.setDown(true) }, func(s *apiServer) { s.setDown(false) },
			[]string{"connection refused", "lets requests to it through"},
		},
		{
			"forbidden", always(http.StatusForbidden), heal,
			[]string{"the test says so", "allow the service account to list and watch", "ClusterRole system:metrics-server"},
		},
		{
			"unauthorized", always(http.StatusUnauthorized), heal,
			[]string{"the test says so", "delete the pod", "--kubeconfig"},
		},
		{"too many requests", always(http.StatusTooManyRequests), heal, []string{"the test says so", "load"}},
		{
			"internal error", always(http.StatusInternalServerError), heal,
			[]string{"the test says so", "API server's own logs"},
		},
		{"watch forbidden", func(s *apiServer) {
			s.do(func() {
				s.fault = func(_ string, q url.Values) int {
					if q.Get("watch") != "" {
						return http.StatusForbidden
					}
					return 0
				}
				s.wake(true)
			})
		}, heal, nil}, // lists are still to be had
	}
	for _, test := range tests {
		for _, streams := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/streams=%v", test.name, streams), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server, config := newAPIServer(t)
					server.streams = streams
					server.set(testNode("a", nil))
					server.set(testPod("shop", "web", nil))
					// From the start: both say why.
					test.fail(server)
					r := run(t, config)
					settle(5 * time.Minute)
					begun := r.logged()
					if len(begun) != 2 || !strings.Contains(begun[0], `resource="nodes"`) ||
						!strings.Contains(begun[1], `resource="pods"`) {
						t.Errorf("logged %q, want a line each for nodes and pods", begun)
					}
					if test.want != nil && strings.Contains(strings.Join(begun, ""), "last known state") {
						t.Errorf("logged %q before any state was known", begun)
					}
					errs := []error{r.NodesSynced(), r.PodsSynced()}
					for i, resource := range []string{"nodes", "pods"} {
						if test.want == nil {
							if errs[i] != nil {
								t.Error(errs[i])
							}
							continue
						}
						for _, want := range append(test.want, "no complete list of "+resource+" yet, failing for ") {
							if errs[i] == nil || !strings.Contains(errs[i].Error(), want) {
								t.Errorf("%s: %v, which does not contain %q", resource, errs[i], want)
							}
						}
					}

					// It recovers, and says so once.
					again := func() {
						t.Helper()
						lines := r.logged()
						if len(lines) != 2 || !strings.HasPrefix(lines[0], `"Watching the API server works again" resource="nodes"`) {
							t.Errorf("logged %q, want a line each for nodes and pods", lines)
						}
					}
					test.heal(server)
					settle(time.Minute)
					again()
					if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
						t.Error(err)
					}
					equal(t, "pods", 1, r.Pods().Len())

					// Later: known objects are kept, and after the fault the changes that happened meanwhile are
					// seen.
					test.fail(server)
					settle(5 * time.Minute)
					if lines := r.logged(); len(lines) != 2 || !strings.Contains(lines[0], "last known state is kept") {
						t.Errorf("logged %q, want two lines, which say what is served meanwhile", lines)
					}
					equal(t, "nodes", []string{"/a"}, names(r.Nodes(), ""))
					equal(t, "pods", []string{"shop/web"}, names(r.Pods(), ""))
					if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
						t.Error(err)
					}
					server.set(testPod("shop", "web-2", nil))
					test.heal(server)
					settle(time.Minute)
					again()
					equal(t, "pods", []string{"shop/web", "shop/web-2"}, names(r.Pods(), ""))
					equal(t, "changes", []string{"+a"}, r.news())

					test.fail(server) // it stops at once while it waits to try again
					settle(5 * time.Minute)
				})
			})
		}
	}
}

// Errors at the end of watches now and then are normal, and are not logged.
func TestWatchEndsWithError(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusTooManyRequests, http.StatusGone} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			r := run(t, config)
			synctest.Wait()
			server.do(func() { server.lastWord = status })
			server.endWatches(false)
			server.set(testNode("a", nil))
			settle(time.Minute)
			equal(t, "changes", []string{"+a"}, r.news())
			equal(t, "logged", []string(nil), r.logged())
		})
	}
}

// It stops at once, also while it waits to try the very first request again.
func TestStopBeforeTheFirstList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.setDown(true)
		r := run(t, config)
		settle(time.Minute)
		r.stop()
	})
}

// Objects come and go while watches close and history is forgotten.
func TestChurn(t *testing.T) {
	for _, streams := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.streams = streams
			r := run(t, config)
			rnd := rand.New(rand.NewPCG(3, 4))
			for i := range 3000 {
				name := fmt.Sprint("x-", rnd.IntN(60))
				namespace := fmt.Sprint("ns-", rnd.IntN(3))
				switch n := rnd.IntN(100); {
				case n < 30:
					server.set(testNode(name, func(n *corev1.Node) { n.UID = types.UID(fmt.Sprint(rnd.IntN(2))) }))
				case n < 40:
					server.remove(testNode(name, nil))
				case n < 80:
					server.set(testPod(namespace, name, map[string]string{"app": fmt.Sprint(rnd.IntN(3))}))
				case n < 98:
					server.remove(testPod(namespace, name, nil))
				default:
					server.endWatches(rnd.IntN(2) == 0)
				}
				if i%10 == 0 {
					settle(time.Duration(rnd.IntN(1000)) * time.Millisecond)
				}
			}
			settle(time.Minute)

			known := map[string]bool{}
			for _, line := range r.news() {
				if line[0] == '+' {
					known[line[1:]] = true
				} else if delete(known, line[1:]); !strings.HasPrefix(line, "-") {
					t.Errorf("unexpected change %q", line)
				}
			}
			want := map[string]bool{}
			for _, o := range server.objects["nodes"] {
				want[o.GetName()] = true
			}
			equal(t, "nodes as reported", want, known)
			equal(t, "nodes", len(want), r.Nodes().Len())
			equal(t, "pods", len(server.objects["pods"]), r.Pods().Len())
			for _, o := range server.objects["pods"] {
				pod, _ := r.Pods().Get(o.GetNamespace(), o.GetName())
				equal(t, "labels of "+o.GetName(), o.GetLabels(), pod.Labels.Map())
			}
		})
	}
}
