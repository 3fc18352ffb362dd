package ui

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"metrics-server/pkg/ui/cluster"
)

// Limits of the parameters of a table.
const (
	defaultCount = 60
	maxCount     = 200
	maxFilter    = 200 // bytes
)

// onlyProblems is the filter that keeps the rows with problems.
const onlyProblems = "problem"

// table says how objects of type T become rows.
type table[T, Row any] struct {
	name    string             // in the URL
	source  cluster.SourceName // that the objects are from
	objects func(*state) []*T
	columns map[string]column[T]
	sort    string   // the default column
	more    []string // parameters besides those of all tables

	namespace func(*T) string
	texts     func(*T) texts
	problem   func(*state, *T) bool
	// belongs says whether an object belongs to the node and the workload of a view; nil if it has no such parameters.
	belongs func(*T, *view) bool
	row     func(*state, *T) Row
}

// texts are searched for the words of a filter.
type texts struct {
	names [3]string // of objects, which are always in lower case
	other [2]string // kinds and states, of which there are few
}

// column is a key that rows are sorted by: a text or a number.
type column[T any] struct {
	text   func(*T) string // "": unknown
	number func(*state, *T) float64
}

// view says which rows of a table are wanted, and in which order.
type view struct {
	table, sort                       string
	desc                              bool
	filter, namespace, node, workload string
}

// order is the result of a view.
type order struct {
	total int     // objects in the namespace
	rows  []int32 // the places of the objects that match
}

// read answers the request for a table.
func (t *table[T, Row]) read(r *request) (any, uint64, *failure) {
	v, offset, count, err := t.parse(r.URL.Query())
	if err != nil {
		return nil, 0, err
	}
	o := t.order(r.state, v)
	objects := t.objects(r.state)
	first := min(offset, len(o.rows))
	a := Table[Row]{Matched: len(o.rows), Offset: first, Rows: []Row{}}
	if r.snapshot.WasRead(t.source) {
		a.Total = &o.total
	}
	for _, i := range o.rows[first:min(first+count, len(o.rows))] {
		a.Rows = append(a.Rows, t.row(r.state, objects[i]))
	}
	return a, 0, nil
}

// parse reads the parameters of a table.
func (t *table[T, Row]) parse(q url.Values) (v view, offset, count int, err *failure) {
	known := append([]string{"sort", "desc", "filter", "namespace", "offset", "count"}, t.more...)
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if !slices.Contains(known, name) {
			return v, 0, 0, badRequest(fmt.Sprintf("%q is not a parameter of this table", name),
				"use "+strings.Join(known, ", "))
		}
		if len(q[name]) > 1 {
			return v, 0, 0, badRequest(fmt.Sprintf("%s is given %d times", name, len(q[name])), "give it once")
		}
	}
	v = view{
		table: t.name, sort: cmp.Or(q.Get("sort"), t.sort), namespace: q.Get("namespace"), node: q.Get("node"),
		workload: q.Get("workload"), filter: strings.Join(strings.Fields(strings.ToLower(q.Get("filter"))), " "),
	}
	by, ok := t.columns[v.sort]
	if !ok {
		return v, 0, 0, badRequest(fmt.Sprintf("%q is not a column of this table", v.sort),
			"sort by "+strings.Join(slices.Sorted(maps.Keys(t.columns)), ", "))
	}
	switch desc := q.Get("desc"); desc {
	case "":
		v.desc = by.number != nil
	case "0", "1":
		v.desc = desc == "1"
	default:
		return v, 0, 0, badRequest(fmt.Sprintf("desc is %q", desc), "give 0 or 1")
	}
	if len(v.filter) > maxFilter {
		return v, 0, 0, badRequest("the filter is too long", fmt.Sprintf("give at most %d bytes", maxFilter))
	}
	if _, _, ok := strings.Cut(v.workload, "/"); v.workload != "" && (!ok || v.namespace == "") {
		return v, 0, 0, badRequest("the workload is not complete", "give workload=KIND/NAME, and its namespace")
	}
	if offset, err = number(q, "offset", 0, 0, math.MaxInt32); err != nil {
		return v, 0, 0, err
	}
	count, err = number(q, "count", defaultCount, 1, maxCount)
	return v, offset, count, err
}

// number reads a parameter.
func number(q url.Values, name string, fallback, least, most int) (int, *failure) {
	text := q.Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, badRequest(fmt.Sprintf("%s is %q", name, text), fmt.Sprintf("give a number from %d to %d", least, most))
	}
	return n, nil
}

// order returns the order of a view. It is kept with the state, because the page asks for the same order again, or for
// another part of it.
func (t *table[T, Row]) order(s *state, v view) order {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.orders[v]; ok {
		return o
	}
	if len(s.orders) == maxOrders {
		clear(s.orders)
	}
	o := t.sorted(s, v)
	s.orders[v] = o
	return o
}

// sorted returns the objects that match, sorted.
func (t *table[T, Row]) sorted(s *state, v view) (o order) {
	objects := t.objects(s)
	m := matcher{words: strings.Fields(v.filter), lower: map[string]string{}}
	o.rows = make([]int32, 0, len(objects))
	for i, one := range objects {
		if v.namespace != "" && t.namespace(one) != v.namespace {
			continue
		}
		o.total++
		if t.belongs != nil && !t.belongs(one, &v) {
			continue
		}
		if v.filter == onlyProblems {
			if !t.problem(s, one) {
				continue
			}
		} else if !m.matches(t.texts(one)) {
			continue
		}
		o.rows = append(o.rows, int32(i)) //nolint:gosec // there are not that many objects
	}
	by := t.columns[v.sort]
	if by.text != nil {
		sortBy(o.rows, v.desc, func(i int32) string { return by.text(objects[i]) }, func(s string) bool { return s == "" })
	} else {
		sortBy(o.rows, v.desc, func(i int32) float64 { return by.number(s, objects[i]) }, math.IsNaN)
	}
	return o
}

// sortBy sorts rows, which are in the order of their names, by a key. Unknown keys are last, and equal keys stay in the
// order of the names.
func sortBy[Key cmp.Ordered](rows []int32, desc bool, key func(int32) Key, unknown func(Key) bool) {
	type keyed struct {
		key Key
		row int32
	}
	var (
		known = make([]keyed, 0, len(rows))
		last  []int32
	)
	for _, row := range rows {
		if k := key(row); unknown(k) {
			last = append(last, row)
		} else {
			known = append(known, keyed{k, row})
		}
	}
	slices.SortFunc(known, func(a, b keyed) int {
		c := cmp.Compare(a.key, b.key)
		if desc {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.row, b.row))
	})
	for i := range known {
		rows[i] = known[i].row
	}
	copy(rows[len(known):], last)
}

// matcher looks for words, which are in lower case.
type matcher struct {
	words []string
	lower map[string]string // texts in lower case
}

// matches reports whether each word is in one of the texts, whatever their case.
func (m *matcher) matches(t texts) bool {
	for _, word := range m.words {
		has := func(text string) bool { return strings.Contains(text, word) }
		if !slices.ContainsFunc(t.names[:], has) &&
			!slices.ContainsFunc(t.other[:], func(text string) bool { return has(m.lowered(text)) }) {
			return false
		}
	}
	return true
}

func (m *matcher) lowered(text string) string {
	lower, ok := m.lower[text]
	if !ok {
		lower = strings.ToLower(text)
		m.lower[text] = lower
	}
	return lower
}
