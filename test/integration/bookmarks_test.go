//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// withoutBookmarks drops the bookmarks of watches on their way, as some proxies do, or takes the
// annotation from them that says that a streamed list is complete.
func withoutBookmarks(api *flakyAPI, annotationOnly bool) apiFault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		// The filter needs lines: JSON, and not compressed.
		r.Header.Set("Accept-Encoding", "identity")
		var accept []string
		for media := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
			if !strings.Contains(media, "protobuf") {
				accept = append(accept, media)
			}
		}
		r.Header.Set("Accept", strings.Join(slices.Compact(accept), ","))
		api.forward.ServeHTTP(&bookmarkFilter{ResponseWriter: w, annotationOnly: annotationOnly}, r)
		return true
	}
}

// bookmarkFilter passes lines on.
type bookmarkFilter struct {
	http.ResponseWriter
	annotationOnly bool
	line           []byte
}

func (f *bookmarkFilter) Write(b []byte) (int, error) {
	f.line = append(f.line, b...)
	for {
		end := bytes.IndexByte(f.line, '\n')
		if end < 0 {
			return len(b), nil
		}
		line := f.line[:end+1]
		f.line = f.line[end+1:]
		if bytes.Contains(line, []byte(`"type":"BOOKMARK"`)) {
			if !f.annotationOnly {
				continue
			}
			line = bytes.ReplaceAll(line, []byte("k8s.io/initial-events-end"), []byte("example.com/nothing"))
		}
		if _, err := f.ResponseWriter.Write(line); err != nil {
			return 0, err
		}
	}
}

// Unwrap lets the proxy flush.
func (f *bookmarkFilter) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// Behind a proxy that drops the bookmarks of watches, the server falls back to list and watch after
// a while, and the log says why once for each resource.
func TestStreamedListsWithoutBookmarks(t *testing.T) {
	for name, annotationOnly := range map[string]bool{"no bookmark": false, "no annotation": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newFlakyAPI(t)
			api.fail(withoutBookmarks(api, annotationOnly))
			f := newFleet(t, 2, 3)
			f.api = api.url
			s := startServer(t, f)
			s.ready(t)
			front := s.asFrontProxy(t)
			eventually(t, "everything is served", func() error { return front.fresh(f, masters...) })
			said := strings.Join(linesWith(s.output(), "does not complete a streamed list"), "")
			for _, resource := range []string{`resource="nodes"`, `resource="pods"`} {
				if n := len(linesWith(said, resource)); n != 1 {
					t.Errorf("%d lines with %s in %q, want one", n, resource, said)
				}
			}

			// The watches that follow are in order.
			kubectl(t, "label", "node", f.nodes[0].name, "seen=late")
			eventually(t, "a new label is served", func() error {
				code, body, err := front.get(nodesPath+"?labelSelector=seen%3Dlate", "", masters...)
				if err == nil && (code != http.StatusOK || !strings.Contains(body, f.nodes[0].name)) {
					err = fmt.Errorf("%d: %.300s", code, body)
				}
				return errors.Join(err, s.ok("/readyz"))
			})
		})
	}
}
