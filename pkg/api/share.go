package api

import (
	"math"
	"runtime/debug"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"metrics-server/pkg/fairshare"
)

// Lists in protobuf, and lists built from standard objects, are held in memory until their clients
// have read them, and watches hold what their clients know. The total of each is limited, because many
// clients, or a few slow ones, could otherwise take any amount of memory.
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

// newHeld counts the memory that all lists in flight, or all watches, hold, by user.
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
	all     *fairshare.Pool
	user    string
	refusal string // of a request that exceeds a limit
	size    int64
}

// newListShare returns a share of all for a list. The generic server indents the JSON of curl and of browsers, which is
// then not streamed, unless they say pretty=false.
func newListShare(all *fairshare.Pool, user string) *share {
	return &share{all: all, user: user, refusal: "too many large lists are in flight: retry, or request " +
		runtime.ContentTypeJSON + " with pretty=false in the query, which is streamed"}
}

// newWatchShare returns a share of all for a watch.
func newWatchShare(all *fairshare.Pool, user string) *share {
	return &share{all: all, user: user, refusal: "too many large watches are open: retry, or watch fewer objects, " +
		"such as those of one namespace"}
}

// take adds n bytes to what the request holds, or returns an error if that exceeds a limit. A
// request that is the only one to hold anything may take any amount, so that a list larger than the
// limit can be served, one at a time.
func (s *share) take(n int64) error {
	if s == nil {
		return nil
	}
	if !s.all.TakeOrAlone(s.user, n, s.size) {
		return apierrors.NewTooManyRequests(s.refusal, 1)
	}
	s.size += n
	return nil
}

// grow takes what is missing for the request to hold n bytes, or returns an error if that exceeds a limit.
func (s *share) grow(n int64) error {
	if s == nil || n <= s.size {
		return nil
	}
	return s.take(n - s.size)
}

// release gives back everything that was taken.
func (s *share) release() {
	if s == nil {
		return
	}
	s.all.Give(s.user, s.size)
	s.size = 0
}
