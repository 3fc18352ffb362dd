package fairshare

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// fill takes single pieces for owner until it gets no more, and returns how many it got.
func fill(p *Pool, owner string) (n int) {
	for p.Take(owner, 1) {
		n++
	}
	return n
}

func TestSharesOfSuccessiveOwners(t *testing.T) {
	for _, tt := range []struct {
		part int64
		want []int
	}{
		{3, []int{750, 188, 47, 12, 3}},
		{1, []int{500, 250, 125, 63, 31}},
	} {
		p := New(tt.part, Fixed(1000))
		for i, want := range tt.want {
			if got := fill(p, fmt.Sprint(i)); got != want {
				t.Errorf("part %d: owner %d gets %d, want %d", tt.part, i, got, want)
			}
		}
	}
}

func TestWhatIsGivenBackIsFree(t *testing.T) {
	p := New(3, Fixed(100))
	a := fill(p, "a")
	b := fill(p, "b")
	p.Give("a", int64(a))
	if got := fill(p, "b"); got == 0 || b+got != a {
		t.Errorf("b has %d after a gave back everything, want %d", b+got, a)
	}
	p.Give("b", int64(a))
	if taken, limit := p.Taken(); taken != 0 || limit != 100 || len(p.by) != 0 {
		t.Errorf("%d of %d are taken by %d owners, want nothing", taken, limit, len(p.by))
	}
}

func TestTheLimitMayFall(t *testing.T) {
	limit := int64(100)
	p := New(3, func() int64 { return limit })
	p.Take("a", 60)
	limit = 50
	if p.Take("a", 1) || p.Take("b", 1) {
		t.Error("more is given than the limit allows")
	}
	p.Give("a", 30)
	if !p.Take("b", 1) {
		t.Error("nothing is given although there is something")
	}
}

func TestAlone(t *testing.T) {
	p := New(3, Fixed(100))
	if !p.TakeOrAlone("a", 300, 0) || !p.TakeOrAlone("a", 300, 300) {
		t.Error("the only one does not get what it needs")
	}
	if p.TakeOrAlone("a", 1, 0) {
		t.Error("another part of the same owner gets more than the limit")
	}
	if p.Take("b", 1) {
		t.Error("another owner gets more than the limit")
	}
}

// TestTakenAgain checks for how long an owner that has more than its share may take again what it gave back, although
// it gives and takes a little all the time.
func TestTakenAgain(t *testing.T) {
	for minutes := range 15 {
		synctest.Test(t, func(t *testing.T) {
			p := New(3, Fixed(100)).Remember(5 * time.Minute)
			p.Take("a", 70)
			p.Give("a", 10)
			p.Take("b", 25) // 15 are left, so the share of a is 45
			for range minutes {
				time.Sleep(time.Minute)
				p.Give("a", 1)
				if !p.Take("a", 1) {
					t.Errorf("after %d minutes, a cannot take again what it has just given back", minutes)
				}
			}
			if got := p.Take("a", 5); minutes < 5 && !got || minutes >= 10 && got {
				t.Errorf("after %d minutes, a takes again what it gave back: %v", minutes, got)
			}
			if p.Take("a", 10) {
				t.Error("a takes more than it gave back")
			}
		})
	}
}
