package api

import (
	"math"
	"runtime/debug"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metrics-server/pkg/fairshare"
)

// Lists in protobuf, and lists built from standard objects, are held in memory until their clients
// have read them. The total is limited, because many clients, or a few slow ones, could otherwise
// take any amount of memory.
const (
	// heldLimit is the limit in bytes, unless 1/heldPart of the memory limit of the process is
	// less.
	heldLimit = 128 << 20
	heldPart  = 8
)

// maxCompressed is how many answers may be compressed at once. Each takes about 1.2 MiB until it is
// read. Any others are sent uncompressed, which costs bandwidth only.
const maxCompressed = 32

// fairPart limits what one user may hold to this multiple of the free memory: at most three
// quarters of the total, so that some always remains for others.
const fairPart = 3

// newHeld counts the memory that all lists in flight hold, by user.
func newHeld() *fairshare.Pool {
	return fairshare.New(fairPart, func() int64 {
		if most := debug.SetMemoryLimit(-1); most < math.MaxInt64 {
			return min(heldLimit, most/heldPart)
		}
		return heldLimit
	})
}

// share is what one request holds. A nil share has no limit.
type share struct {
	all  *fairshare.Pool
	user string
	size int64
}

// take adds n bytes to what the request holds, or returns an error if that exceeds a limit. A
// request that is the only one to hold anything may take any amount, so that a list larger than the
// limit can be served, one at a time.
func (s *share) take(n int64) error {
	if s == nil {
		return nil
	}
	if !s.all.TakeOrAlone(s.user, n, s.size) {
		return apierrors.NewTooManyRequests(
			"too many large lists are in flight: retry, or request application/json, which is streamed", 1)
	}
	s.size += n
	return nil
}

// release gives back everything that was taken.
func (s *share) release() {
	s.all.Give(s.user, s.size)
	s.size = 0
}
