package app

import (
	"runtime/debug"
	"testing"
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
		if saveMemory(garbage); gogc() != want {
			t.Errorf("GOGC=%q: %d %%, want %d", env, gogc(), want)
		}
	}
}
