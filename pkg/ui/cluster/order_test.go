package cluster

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestOrder compares an order with a list that is sorted as a whole.
func TestOrder(t *testing.T) {
	type entry struct {
		n    int
		dead bool
	}
	o := order[*entry]{
		compare: func(a, b *entry) int { return cmp.Compare(a.n, b.n) },
		alive:   func(e *entry) bool { return !e.dead },
	}
	random := rand.New(rand.NewPCG(1, 2))
	entries := map[int]*entry{}
	for range 300 {
		for range random.IntN(6) {
			n := random.IntN(200)
			if e := entries[n]; e != nil {
				e.dead = true
				delete(entries, n)
				o.drop()
				continue
			}
			entries[n] = &entry{n: n}
			o.add(entries[n])
		}
		if random.IntN(3) == 0 {
			continue // dropped before it was ever listed
		}
		var got, want []int
		for _, e := range o.all() {
			got = append(got, e.n)
		}
		for n := range entries {
			want = append(want, n)
		}
		slices.Sort(want)
		if d := gocmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	}
}
