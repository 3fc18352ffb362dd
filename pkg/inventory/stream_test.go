package inventory

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asked counts the requests for a resource since the last time: streamed lists, pages of lists, and watches.
func (s *apiServer) asked(resource string) (streams, pages, watches int) {
	s.do(func() {
		var others []request
		for _, q := range s.requests {
			switch {
			case q.resource != resource:
				others = append(others, q)
			case q.query.Get("sendInitialEvents") == "true":
				streams++
			case q.query.Get("watch") != "":
				watches++
			default:
				pages++
			}
		}
		s.requests = others
	})
	return streams, pages, watches
}

func (s *apiServer) expect(t *testing.T, when, resource string, streams, pages, watches int) {
	t.Helper()
	a, b, c := s.asked(resource)
	equal(t, when+": streams, pages and watches of "+resource, []int{streams, pages, watches}, []int{a, b, c})
}

// If an API server or a proxy accepts the request for a streamed list and does not complete it, the
// objects are listed and watched instead for an hour, and the log says so once.
func TestStreamsThatDoNotEnd(t *testing.T) {
	for _, tc := range []struct {
		fault string
		after time.Duration // until the list is complete
		cause error
	}{
		{"no bookmark", 10 * time.Second, errNoEnd},
		{"no annotation", 10 * time.Second, errNoEnd},
		{"hangs", 10 * time.Second, errNoEnd},
		{"busy", 10 * time.Second, errNoEnd},
		{"header", 30 * time.Second, errNotAccepted},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, config := newAPIServer(t)
				server.streamFault = tc.fault
				for i := range 4 {
					server.set(testNode(fmt.Sprint("n", i), nil))
					server.set(testPod("shop", fmt.Sprint("web-", i), nil))
				}
				r := run(t, config)
				settle(tc.after - time.Second)
				if r.NodesSynced() == nil || r.PodsSynced() == nil {
					t.Error("it is synced before the list was given up")
				}
				settle(2 * time.Second)
				if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
					t.Error(err)
				}
				for _, resource := range []string{"nodes", "pods"} {
					server.expect(t, "at the start", resource, 1, 1, 1)
				}
				lines := strings.Join(r.logged(), "\n")
				if strings.Count(lines, "Warning: The API server does not complete a streamed list") != 2 ||
					strings.Count(lines, tc.cause.Error()) != 2 ||
					!strings.Contains(lines, `resource="nodes"`) || !strings.Contains(lines, `resource="pods"`) ||
					!strings.Contains(lines, "KUBE_FEATURE_WatchListClient=false") {
					t.Errorf("logged %s, want one line each for nodes and pods", lines)
				}

				// It is watched as ever, and not listed again.
				server.set(testPod("shop", "web-9", nil))
				server.remove(testNode("n0", nil))
				settle(30 * time.Minute)
				equal(t, "nodes", []string{"/n1", "/n2", "/n3"}, names(r.Nodes(), ""))
				equal(t, "pods", 5, r.Pods().Len())
				server.expect(t, "later", "pods", 0, 0, 0)

				// The next list is not streamed, and one an hour later is. The line is not repeated.
				server.endWatches(true)
				settle(time.Minute)
				server.expect(t, "the next list", "pods", 0, 1, 2)
				settle(time.Hour)
				server.endWatches(true)
				settle(time.Minute)
				server.expect(t, "an hour later", "pods", 1, 1, 2)
				equal(t, "logged", []string(nil), r.logged())

				// When it works again, lists are streamed again.
				server.do(func() { server.streamFault = "" })
				settle(time.Hour)
				server.endWatches(true)
				settle(time.Minute)
				server.expect(t, "healed", "pods", 1, 0, 1)
				server.endWatches(true)
				settle(time.Minute)
				server.expect(t, "healed, the next list", "pods", 1, 0, 1)
				equal(t, "pods", 5, r.Pods().Len())
				equal(t, "logged", []string(nil), r.logged())
			})
		})
	}
}

// If an API server rejects streamed lists, with whatever status, objects are listed at once, and
// nothing is logged.
func TestStreamsThatAreRejected(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 405, 406, 410, 422, 500, 501, 502, 503, 504} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.fault = func(_ string, q url.Values) int {
				if q.Get("sendInitialEvents") != "" && len(server.requests) < 100 { // so that a loop ends
					return status
				}
				return 0
			}
			server.set(testPod("shop", "web", nil))
			r := run(t, config)
			settle(time.Minute) // client-go repeats some of these requests itself
			if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
				t.Errorf("not synced after status %d: %v", status, err)
			}
			if streams, pages, watches := server.asked("pods"); streams > 12 || pages != 1 || watches != 1 {
				t.Errorf("%d: %d streams, %d pages and %d watches, want one list and one watch", status, streams, pages, watches)
			}
			equal(t, "logged", []string(nil), r.logged())
		})
	}
}

// If a streamed list ends with an error, whatever the error is, a plain list follows.
func TestStreamsThatEndWithAnError(t *testing.T) {
	for _, status := range []int{401, 403, 410, 429, 500, 504} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.streamFault, server.lastWord = "error", status
			server.fault = func(string, url.Values) int {
				if len(server.requests) > 100 { // so that a loop ends
					return http.StatusUnprocessableEntity
				}
				return 0
			}
			for i := range 4 {
				server.set(testPod("shop", fmt.Sprint("web-", i), nil))
			}
			r := run(t, config)
			settle(5 * time.Second)
			if err := errors.Join(r.NodesSynced(), r.PodsSynced()); err != nil {
				t.Errorf("not synced after status %d: %v", status, err)
			}
			equal(t, "pods", 4, r.Pods().Len())
			server.expect(t, fmt.Sprint(status), "pods", 1, 1, 1)
			equal(t, "logged", []string(nil), r.logged())

			server.endWatches(true)
			settle(time.Minute)
			lines := r.logged()
			if len(lines) != 2 || !strings.Contains(lines[0], errCutOff.Error()+": the test ends this stream") {
				t.Errorf("%d: logged %q, want a line each for nodes and pods with the cause", status, lines)
			}
		})
	}
}

// A streamed list that makes progress is not given up, however long it takes.
func TestSlowStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.pause = 9 * time.Second
		for i := range 100 {
			server.set(testPod("shop", fmt.Sprintf("web-%03d", i), nil))
		}
		r := run(t, config)
		settle(100*9*time.Second + time.Second)
		if err := r.PodsSynced(); err != nil {
			t.Error(err)
		}
		equal(t, "pods", 100, r.Pods().Len())
		server.expect(t, "in the end", "pods", 1, 0, 0)
		equal(t, "logged", []string(nil), r.logged())
	})
}

// After a streamed list broke off once, the objects are listed, and the next list is streamed. If
// it breaks off every time, streaming is given up, so that it is not requested again and again
// without a pause.
func TestStreamBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.streamFault, server.pause = "cut", 2*time.Second
		for i := range 4 {
			server.set(testPod("shop", fmt.Sprint("web-", i), nil))
		}
		r := run(t, config)
		settle(time.Minute)
		server.expect(t, "at the start", "pods", 1, 1, 1)
		equal(t, "pods", 4, r.Pods().Len())
		equal(t, "logged", []string(nil), r.logged())

		server.endWatches(true)
		settle(time.Minute)
		server.expect(t, "the second time", "pods", 1, 1, 2)
		if lines := r.logged(); len(lines) != 2 || !strings.Contains(lines[0], errCutOff.Error()) {
			t.Errorf("logged %q, want a line each for nodes and pods with %q", lines, errCutOff)
		}
		server.endWatches(true)
		settle(time.Minute)
		server.expect(t, "the third time", "pods", 0, 1, 2)
		equal(t, "pods", 4, r.Pods().Len())
	})
}

// Watches that end at once do not cause endless lists. The log reports them once, and their end
// once.
func TestShortWatches(t *testing.T) {
	for _, streams := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.streams, server.short = streams, true
			server.set(testPod("shop", "web", nil))
			r := run(t, config)
			synctest.Wait()
			server.endWatches(false) // the one that began with a list, if there was one
			settle(10 * time.Minute)
			if err := r.PodsSynced(); err != nil {
				t.Error(err)
			}
			asked, pages, watches := server.asked("pods")
			if asked != 1 || pages > 1 || watches < 30 || watches > 60 {
				t.Errorf("streams=%v: %d streams, %d pages, %d watches in ten minutes, want one list and a watch every 10 to 15 s",
					streams, asked, pages, watches)
			}
			lines := r.logged()
			if len(lines) != 2 || !strings.Contains(lines[0], "watches end at once, again and again") ||
				!strings.Contains(lines[0], "look for a proxy") {
				t.Errorf("streams=%v: logged %q, want one line each for nodes and pods", streams, lines)
			}
			server.do(func() { server.short = false })
			server.set(testPod("shop", "web-2", nil))
			settle(time.Minute)
			equal(t, "pods", 2, r.Pods().Len())
			lines = r.logged()
			if len(lines) != 2 || !strings.Contains(lines[0], "works again") {
				t.Errorf("streams=%v: logged %q, want that watching works again", streams, lines)
			}
		})
	}
}

// If every watch ends with an error at once, the lists that follow become rarer, and the log says
// so.
func TestWatchesThatEndWithAnError(t *testing.T) {
	for _, status := range []int{410, 500} {
		synctest.Test(t, func(t *testing.T) {
			server, config := newAPIServer(t)
			server.streams, server.short, server.lastWord = false, true, status
			server.set(testPod("shop", "web", nil))
			r := run(t, config)
			settle(10 * time.Minute)
			if _, pages, _ := server.asked("pods"); pages > 30 {
				t.Errorf("%d: %d lists in ten minutes, want one every 20 s at most", status, pages)
			}
			lines := r.logged()
			if len(lines) != 2 || !strings.Contains(lines[0], errShortWatches.Error()) ||
				!strings.Contains(lines[0], "the test ends this watch") {
				t.Errorf("%d: logged %q, want one line each for nodes and pods with the cause", status, lines)
			}
			server.do(func() { server.short = false })
			server.set(testPod("shop", "web-2", nil))
			settle(time.Minute)
			equal(t, "pods", 2, r.Pods().Len())
			if lines = r.logged(); len(lines) != 2 || !strings.Contains(lines[0], "works again") {
				t.Errorf("%d: logged %q, want that watching works again", status, lines)
			}
		})
	}
}

// A list that begins again instead of ending is an error, and is not read for ever.
func TestEndlessList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.streams, server.endless = false, true
		for i := range 600 {
			server.set(testPod("shop", fmt.Sprintf("web-%03d", i), nil))
		}
		r := run(t, config)
		settle(time.Minute)
		if err := r.PodsSynced(); err == nil || !strings.Contains(err.Error(), errEndlessList.Error()) {
			t.Errorf("error %v, want %v", err, errEndlessList)
		}
		if _, pages, _ := server.asked("pods"); pages > 30 {
			t.Errorf("%d pages were asked for in a minute", pages)
		}
		server.do(func() { server.endless = false })
		settle(time.Minute)
		equal(t, "pods", 600, r.Pods().Len())
	})
}

// If lists have no version, a watch that follows another one could miss a deletion in between, so
// everything is listed again.
func TestListsWithoutVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, config := newAPIServer(t)
		server.streams, server.noVersion = false, true
		server.fault = func(string, url.Values) int { return 0 }
		server.set(testPod("shop", "a", nil))
		server.set(testPod("shop", "b", nil))
		r := run(t, config)
		settle(time.Minute)
		equal(t, "pods", []string{"shop/a", "shop/b"}, names(r.Pods(), ""))
		server.do(func() {
			server.change(testPod("shop", "a", nil), true)
			server.history = nil
			server.wake(true)
		})
		settle(time.Minute)
		equal(t, "pods", []string{"shop/b"}, names(r.Pods(), ""))
	})
}
