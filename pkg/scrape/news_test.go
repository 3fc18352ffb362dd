package scrape

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// One failure is not told, a second one in a row is, once, and so is the end of that.
func TestNewsOfFailingNodes(t *testing.T) {
	bubble("news", t, func(t *testing.T) {
		var failing atomic.Bool
		var news []string
		s := run(t, Config{
			Sink:      &store{},
			OnFailing: func(node string, s NodeStatus) { news = append(news, fmt.Sprint(node, " fails: ", s.Err)) },
			OnRecovered: func(node string, after time.Duration) {
				news = append(news, fmt.Sprint(node, " recovered: ", after > 2*period))
			},
		})
		once := true
		s.Add("blinks", &kubelet{t: t, fault: func() error {
			defer func() { once = false }()
			if once {
				return refusedError{"blinks"}
			}
			return nil
		}})
		s.Add("down", &kubelet{t: t, fault: func() error {
			if failing.Load() {
				return refusedError{"down"}
			}
			return nil
		}})
		wait(time.Minute)
		failing.Store(true)
		wait(5 * time.Minute)
		failing.Store(false)
		wait(5 * time.Minute)
		want := []string{"down fails: node down: connection refused", "down recovered: true"}
		if d := cmp.Diff(want, news); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}
