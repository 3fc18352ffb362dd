package app

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

const mib = 1 << 20

func TestGarbagePercent(t *testing.T) {
	for name, tt := range map[string]struct {
		percent     int
		made, alive uint64 // MiB
		want        int
	}{
		"nothing is made":              {20, 0, 200, 20},
		"and was before":               {60, 0, 200, 20},
		"little is made":               {20, 2, 200, 20},
		"as much as before":            {30, 8, 200, 30},
		"about as much":                {30, 8, 190, 31},
		"more":                         {30, 10, 200, 37},
		"much more: it rises slowly":   {20, 100, 200, 30},
		"and goes on":                  {30, 100, 200, 45},
		"up to the most":               {45, 100, 200, 60},
		"less":                         {60, 10, 200, 37},
		"nothing is known to be alive": {20, 1, 0, 30},
	} {
		if got := garbagePercent(tt.percent, tt.made*mib, tt.alive*mib); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// gogc is the percentage that is set.
func gogc() int {
	percent := debug.SetGCPercent(-1)
	debug.SetGCPercent(percent)
	return percent
}

func TestPaceCollector(t *testing.T) {
	defer debug.SetGCPercent(gogc())
	for name, tt := range map[string]struct {
		start       time.Duration // until the first scrapes are over
		early, long int           // percent until longStart, and after it
	}{
		"a short start": {time.Second, leastGarbage, leastGarbage},
		"a long start":  {time.Minute, leastGarbage, startGarbage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", "")
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				debug.SetGCPercent(77)
				started := make(chan struct{})
				time.AfterFunc(tt.start, func() { close(started) })
				go paceCollector(ctx, started)
				check := func(when string, want int) {
					t.Helper()
					synctest.Wait()
					if got := gogc(); got != want {
						t.Errorf("%s: %d, want %d", when, got, want)
					}
				}
				check("at once", tt.early)
				time.Sleep(longStart + time.Millisecond)
				check("after a while", tt.long)
				time.Sleep(tt.start)
				check("after the start", leastGarbage)

				var kept []byte
				for range 20 {
					kept = make([]byte, 64*mib) // garbage
					time.Sleep(paceEvery)
				}
				_ = kept[0]
				check("when much is made", mostGarbage)
				time.Sleep(2 * paceEvery)
				check("when nothing is", leastGarbage)
			})
		})
	}
}

func TestPaceCollectorHeedsGOGC(t *testing.T) {
	defer debug.SetGCPercent(gogc())
	t.Setenv("GOGC", "77")
	debug.SetGCPercent(77)
	paceCollector(t.Context(), nil) // it returns
	if got := gogc(); got != 77 {
		t.Errorf("%d, want 77", got)
	}
}
