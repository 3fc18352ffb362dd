package app

import (
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

// gogc is the percentage that is set.
func gogc() int {
	percent := debug.SetGCPercent(-1)
	debug.SetGCPercent(percent)
	return percent
}

func TestSaveMemory(t *testing.T) {
	defer debug.SetGCPercent(gogc())
	for env, want := range map[string]int{"": garbage, "77": 77} {
		t.Setenv("GOGC", env)
		debug.SetGCPercent(77)
		if ours := saveMemory(); ours != (env == "") || gogc() != want {
			t.Errorf("GOGC=%q: %v, %d %%, want %d", env, ours, gogc(), want)
		}
	}
}

func TestSpendMemory(t *testing.T) {
	defer debug.SetGCPercent(gogc())
	for name, tt := range map[string]struct {
		start time.Duration
		want  int // after longStart
	}{
		"a short start": {time.Second, garbage},
		"a long start":  {time.Minute, startGarbage},
	} {
		synctest.Test(t, func(t *testing.T) {
			debug.SetGCPercent(garbage)
			started := make(chan struct{})
			time.AfterFunc(tt.start, func() { close(started) })
			go spendMemory(t.Context(), started)
			for _, moment := range []struct {
				when string
				wait time.Duration
				want int
			}{
				{"at once", 0, garbage},
				{"after a while", longStart + time.Millisecond, tt.want},
				{"in the end", tt.start, garbage},
			} {
				time.Sleep(moment.wait)
				synctest.Wait()
				if got := gogc(); got != moment.want {
					t.Errorf("%s, %s: %d, want %d", name, moment.when, got, moment.want)
				}
			}
		})
	}
}
