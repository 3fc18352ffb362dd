package demand

import (
	"strings"
	"testing"
	"testing/synctest"
)

// testTarget returns the target of a text NAMESPACE/KIND/NAME.
func testTarget(text string) target {
	parts := strings.Split(text, "/")
	return target{namespace: parts[0], Reference: Reference{APIVersion: "x/v1", Kind: parts[1], Name: parts[2]}}
}

// TestFairQueue checks in which order targets are taken, and how many of a namespace and of a resource.
func TestFairQueue(t *testing.T) {
	for _, tt := range []struct {
		name           string
		waiting, taken string // taken is all that eight workers get
	}{
		{"namespaces take turns", "a/X/1 a/X/2 a/X/3 b/Y/1 c/Z/1", "a/X/1 b/Y/1 c/Z/1 a/X/2 a/X/3"},
		{"resources of a namespace take turns", "a/X/1 a/X/2 a/X/3 a/Y/1", "a/X/1 a/Y/1 a/X/2 a/X/3"},
		{"half of all workers for one namespace", "a/1/1 a/2/2 a/3/3 a/4/4 a/5/5 a/6/6", "a/1/1 a/2/2 a/3/3 a/4/4"},
		{"half of all workers for one resource", "a/X/1 b/X/1 c/X/1 d/X/1 e/X/1", "a/X/1 b/X/1 c/X/1 d/X/1"},
		{
			"half of the rest for the next",
			"a/X/1 a/X/2 a/X/3 a/X/4 a/X/5 b/Y/1 b/Y/2 b/Y/3 c/Z/1 c/Z/2 d/X/1 d/U/1",
			"a/X/1 b/Y/1 c/Z/1 d/X/1 a/X/2 b/Y/2 c/Z/2",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newFairQueue(8)
				taken := make(chan target, 8)
				for text := range strings.FieldsSeq(tt.waiting) {
					q.add(testTarget(text))
					q.add(testTarget(text))
				}
				go func() {
					for range 8 {
						if next, ok := q.get(); ok {
							taken <- next
						}
					}
				}()
				synctest.Wait()
				q.close()
				synctest.Wait()
				close(taken)
				var got []string
				for next := range taken {
					got = append(got, strings.Join([]string{next.namespace, next.Kind, next.Name}, "/"))
				}
				if text := strings.Join(got, " "); text != tt.taken {
					t.Errorf("got %s, want %s", text, tt.taken)
				}
			})
		})
	}
}

// TestFairQueueGivesBack checks that a worker that is done makes room for another target, and that a target which is
// added meanwhile is not given to two workers.
func TestFairQueueGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newFairQueue(2)
		first, second := testTarget("a/X/1"), testTarget("a/X/2")
		q.add(first)
		if got, ok := q.get(); !ok || got != first {
			t.Fatalf("got %v, %v, want the first target", got, ok)
		}
		q.add(second)
		q.add(first)
		taken := make(chan target, 3)
		go func() {
			for next, ok := q.get(); ok; next, ok = q.get() {
				taken <- next
				q.done(next)
			}
			close(taken)
		}()
		synctest.Wait()
		if len(taken) != 0 {
			t.Errorf("%v is taken while the namespace has its share", <-taken)
		}
		q.done(first)
		synctest.Wait()
		q.close()
		var got []string
		for next := range taken {
			got = append(got, next.Name)
		}
		if text := strings.Join(got, " "); text != "2 1" {
			t.Errorf("got %s", text)
		}
		if n, _ := q.namespaces.Taken(); n != 0 || len(q.lines.lines) != 0 || len(q.waiting) != 0 || len(q.taken) != 0 {
			t.Errorf("left behind: %d workers, %v", n, q.lines.order)
		}
	})
}
