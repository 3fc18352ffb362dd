package cluster

import "slices"

// order is a sorted list of entries. Only few of many change at a time, so they are merged into the sorted list.
type order[E any] struct {
	compare func(a, b E) int
	alive   func(E) bool // a dropped entry is not, and is never added again

	list, added []E
	dropped     bool
}

// all returns the entries, until the next call.
func (o *order[E]) all() []E {
	if o.dropped {
		dead := func(e E) bool { return !o.alive(e) }
		o.list, o.added, o.dropped = slices.DeleteFunc(o.list, dead), slices.DeleteFunc(o.added, dead), false
	}
	slices.SortFunc(o.added, o.compare)
	end, n := len(o.list), len(o.added)
	o.list = append(o.list, o.added...)
	for ; n > 0; n-- { // from the last: what comes after each moves to its final place
		e := o.added[n-1]
		at, _ := slices.BinarySearchFunc(o.list[:end], e, o.compare)
		copy(o.list[at+n:], o.list[at:end])
		o.list[at+n-1], end = e, at
	}
	clear(o.added)
	o.added = o.added[:0]
	return o.list
}

func (o *order[E]) add(e E) { o.added = append(o.added, e) }

// drop says that an entry is no longer alive.
func (o *order[E]) drop() { o.dropped = true }
