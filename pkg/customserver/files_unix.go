//go:build unix

package customserver

import (
	"math"
	"syscall"
)

// openFiles returns how many files and connections the process may have open. Go has raised the soft limit to the
// hard one.
func openFiles() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(limit.Cur)
}
