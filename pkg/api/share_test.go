package api

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestShare checks that a list larger than the limit is served if it is the only one.
func TestShare(t *testing.T) {
	all := newHeld()
	a, b := &share{all: all}, &share{all: all}
	for range 3 {
		if err := a.take(heldLimit); err != nil {
			t.Errorf("the only list: %v", err)
		}
	}
	if err := b.take(1); !apierrors.IsTooManyRequests(err) {
		t.Errorf("a second list: %v, want TooManyRequests", err)
	}
	a.release()
	if err := b.take(2 * heldLimit); err != nil {
		t.Errorf("the only list after the release: %v", err)
	}
	if err := a.take(1); !apierrors.IsTooManyRequests(err) {
		t.Errorf("a second list after the release: %v, want TooManyRequests", err)
	}
	b.release()
	a.release()
	if size, _ := all.Taken(); size != 0 {
		t.Errorf("%d bytes were not released", size)
	}
}

// TestShareOfOneUser checks that one user cannot hold all memory: some remains for others.
func TestShareOfOneUser(t *testing.T) {
	all := newHeld()
	const piece = heldLimit / 64
	take := func(user string, most int) (pieces int, of []*share) {
		for range most {
			s := &share{all: all, user: user}
			if s.take(piece) != nil {
				break
			}
			pieces, of = pieces+1, append(of, s)
		}
		return pieces, of
	}
	n, many := take("many", 64)
	if n != 48 {
		t.Errorf("one user holds %d of 64 pieces, want 48", n)
	}
	m, few := take("few", 64)
	if m != 12 {
		t.Errorf("another holds %d pieces meanwhile, want 12", m)
	}
	for _, s := range append(many, few...) {
		s.release()
	}
	if size, _ := all.Taken(); size != 0 {
		t.Errorf("%d bytes were not released", size)
	}
}
