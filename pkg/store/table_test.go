package store

import (
	"math/rand/v2"
	"testing"
)

// len is how many pods have a place.
func (x *index) len() int {
	n := 0
	for i := range x.pods {
		n += x.pods[i].len
	}
	return n
}

// A table does what a map does, also with hashes that want the same slot, and takes what its size asks for.
func TestTableIsAMap(t *testing.T) {
	var table table
	model := map[uint64]place{}
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 200_000 {
		hash := 1 + random.Uint64N(4000)*numTables>>(random.UintN(3)*4) // many have one home
		if grow := step/20_000%2 == 0; random.UintN(10) < 7 == grow {
			p := place{&layout{}, uint16(step), 2}
			table.set(hash, p)
			model[hash] = p
		} else {
			table.delete(hash)
			delete(model, hash)
		}
		if got := table.get(hash); got != model[hash] {
			t.Fatalf("step %d: %d is at %v, want %v", step, hash, got, model[hash])
		}
		if table.len != len(model) {
			t.Fatalf("step %d: length %d, want %d", step, table.len, len(model))
		}
		if slots := len(table.slots); 4*table.taken > 3*slots || slots > minSlots && slots > 8*max(1, table.len) {
			t.Fatalf("step %d: %d slots, %d taken, for %d", step, slots, table.taken, table.len)
		}
	}
	for hash := range uint64(4001 * numTables) {
		table.fetch(hash)
		if got := table.get(hash + 1); got != model[hash+1] {
			t.Fatalf("%d is at %v, want %v", hash+1, got, model[hash+1])
		}
	}
	for hash := range model {
		table.delete(hash)
	}
	if table.len != 0 || len(table.slots) > minSlots {
		t.Errorf("%d slots are left for %d", len(table.slots), table.len)
	}
}
