package api

import (
	"math"
	"runtime/debug"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Some lists are held in memory until their clients have read them: protobuf, and what is made of the standard objects.
// Many at once, or few slow clients, would take any amount of it, so all that is held together is limited.
const (
	// heldLimit is how much may be held, in bytes, where the memory limit of the process allows.
	heldLimit = 128 << 20
	// heldPart of the memory limit of the process is the other limit.
	heldPart = 8
	// standardObject and standardContainer are what an object of the standard encoders takes and what it takes for each container,
	// with the encoding that is made of it.
	standardObject, standardContainer = 4 << 10, 2 << 10
)

// maxCompressed is how many answers may be compressed at once, each of which takes about 1.2 MiB until it is read. More are sent
// as they are: that takes bandwidth, which a client that reads slowly does not need.
const maxCompressed = 32

// held is what all lists that are being answered hold together.
type held struct {
	mu   sync.Mutex
	size int64
}

// share is the part of one of them. A nil one takes what it wants.
type share struct {
	all  *held
	size int64
}

// take adds n bytes to what is held. If that is too much, it is for others to come first. One that is alone may
// take any amount: a list that is larger than the limit can be had, but only one at a time.
func (s *share) take(n int64) error {
	if s == nil {
		return nil
	}
	limit := int64(heldLimit)
	if most := debug.SetMemoryLimit(-1); most < math.MaxInt64 {
		limit = min(limit, most/heldPart)
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.all.size > s.size && s.all.size+n > limit {
		return apierrors.NewTooManyRequests("other lists that are being read take too much memory: come again, or ask for "+
			"application/json, which takes none", 1)
	}
	s.size += n
	s.all.size += n
	return nil
}

// release gives back all that was taken.
func (s *share) release() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.size -= s.size
	s.size = 0
}
