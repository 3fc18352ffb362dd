package store

// table finds places by hashes of pods. A map would do the same, but nothing can be fetched from it ahead of the look-up: see fetch.
// The zero value is empty.
type table struct {
	slots []slot // a power of two, at most three quarters of it taken; a hash is at its home or in one of the slots that follow
	taken int    // also by what was deleted
	len   int
}

// slot is empty if its hash is 0. What was deleted has a hash and no place.
type slot struct {
	hash uint64
	place
}

// minSlots is the size of the smallest table.
const minSlots = 8

// home is the slot where the search for hash begins. Its lowest bits have chosen the table.
func (t *table) home(hash uint64) int { return int(hash/numTables) & (len(t.slots) - 1) }

// fetch has the processor fetch what get will read, and does not wait for it.
//
//go:noinline
func (t *table) fetch(hash uint64) uint64 { //nolint:unparam // without a result it would read nothing
	if len(t.slots) == 0 {
		return 0
	}
	return t.slots[t.home(hash)].hash
}

// find returns the slot that hash has, nil if it has none.
func (t *table) find(hash uint64) *slot {
	if len(t.slots) == 0 {
		return nil
	}
	for i := t.home(hash); ; i = (i + 1) & (len(t.slots) - 1) {
		switch s := &t.slots[i]; s.hash {
		case hash:
			return s
		case 0:
			return nil
		}
	}
}

// get returns the place of hash, or nowhere.
func (t *table) get(hash uint64) place {
	if s := t.find(hash); s != nil {
		return s.place
	}
	return place{}
}

// set makes p, which is somewhere, the place of hash.
func (t *table) set(hash uint64, p place) {
	if s := t.find(hash); s != nil {
		if s.layout == nil {
			t.len++
		}
		s.place = p
		return
	}
	if 4*(t.taken+1) > 3*len(t.slots) {
		t.resize()
	}
	t.insert(hash, p)
}

func (t *table) insert(hash uint64, p place) {
	i := t.home(hash)
	for t.slots[i].hash != 0 {
		i = (i + 1) & (len(t.slots) - 1)
	}
	t.slots[i] = slot{hash, p}
	t.taken++
	t.len++
}

// delete deletes the place of hash, if it has one.
func (t *table) delete(hash uint64) {
	s := t.find(hash)
	if s == nil || s.layout == nil {
		return
	}
	s.place = place{}
	if t.len--; len(t.slots) > minSlots && 8*t.len < len(t.slots) {
		t.resize()
	}
}

// resize makes t's size fit for what it has, and one more.
func (t *table) resize() {
	size := minSlots
	for size < 2*(t.len+1) {
		size *= 2
	}
	old := t.slots
	*t = table{slots: make([]slot, size)}
	for _, s := range old {
		if s.layout != nil {
			t.insert(s.hash, s.place)
		}
	}
}
