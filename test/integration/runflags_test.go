//go:build integration

package integration

import (
	"testing"
	"time"
)

// --shutdown-delay-duration is how long requests are answered after SIGTERM, while /readyz fails. With 0
// the server ends at once. --livez-grace-period does not delay /livez.
func TestRunFlags(t *testing.T) {
	for name, delay := range map[string]time.Duration{"no delay": 0, "a long delay": 8 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 1, 1)
			s := startServer(t, f, "--shutdown-delay-duration="+delay.String(), "--livez-grace-period=1s",
				"--max-requests-inflight=0", "--request-timeout=20s", "--strict-transport-security-directives=max-age=3600")
			s.ready(t)
			tok := reader(t)
			start := time.Now()
			s.terminate(t)
			ended := make(chan time.Duration)
			go func() {
				<-s.done
				ended <- time.Since(start)
			}()
			served, failed, took := 0, 0, time.Duration(0)
			for took == 0 {
				select {
				case took = <-ended:
				case <-time.After(200 * time.Millisecond):
					if _, err := s.items(podsPath, tok); err == nil {
						served++
					}
					if s.ok("/livez") == nil && s.ok("/readyz") != nil {
						failed++
					}
				}
			}
			if took < delay || took > delay+4*time.Second {
				t.Errorf("the server ended %v after SIGTERM, want %v and a little more", took, delay)
			}
			if delay > 0 && (served < 3 || failed < 3) {
				t.Errorf("%d lists were served and /readyz alone failed %d times, want at least 3 each", served, failed)
			}
			if s.err != nil {
				t.Errorf("the server ended with %v, want exit code 0", s.err)
			}
		})
	}
}
