package exposition

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

// parses is one node's parses, one after the other.
type parses struct {
	t      testing.TB
	parser Parser
	layout Layout
	batch  sample.Batch
}

func (p *parses) parse(body []byte) []sample.Container {
	p.t.Helper()
	if err := p.parser.ParseText(body, received, &p.layout, &p.batch); err != nil {
		p.t.Fatal(err)
	}
	if n := p.batch.Refused.Total(); n != 0 {
		p.t.Fatalf("%d rows refused", n)
	}
	return slices.Clone(p.batch.Containers)
}

func ids(containers []sample.Container) []*sample.ContainerID {
	var ids []*sample.ContainerID
	for _, c := range containers {
		ids = append(ids, c.ID)
	}
	return ids
}

func TestIDsAreReused(t *testing.T) {
	all := names(10, 2)
	p := &parses{t: t}
	first := ids(p.parse(payload(all, 0)))

	other := func(names []string) { // another node's answer in between must not matter
		var layout Layout
		var batch sample.Batch
		if err := p.parser.ParseText(payload(names, 3), received, &layout, &batch); err != nil {
			t.Fatal(err)
		}
	}
	other(all[3:7])
	if got := ids(p.parse(payload(all, 1))); !slices.Equal(got, first) {
		t.Error("same containers: IDs are not the same pointers")
	}
	other(nil)

	// Two have gone, one is new.
	changed := slices.Concat(all[:4], all[6:12], []string{`container="new",namespace="n",pod="p"`}, all[12:])
	want := slices.Concat(first[:4], first[6:12], []*sample.ContainerID{nil}, first[12:])
	got := ids(p.parse(payload(changed, 2)))
	if len(got) != len(want) {
		t.Fatalf("got %d containers, want %d", len(got), len(want))
	}
	for i := range got {
		if want[i] == nil {
			if wantID := sample.NewContainerID("n", "p", "new"); *got[i] != wantID {
				t.Errorf("new container: got %v, want %v", *got[i], wantID)
			}
		} else if got[i] != want[i] {
			t.Errorf("container %v: got another pointer", *got[i])
		}
	}

	// Any other order: still the same pointers, in the order of the answer.
	slices.Reverse(changed)
	slices.Reverse(got)
	if again := ids(p.parse(payload(changed, 3))); !slices.Equal(again, got) {
		t.Error("other order: IDs are not the same pointers")
	}
}

// TestOrders parses the rows of a well-ordered answer in other orders.
func TestOrders(t *testing.T) {
	body := payload(names(20, 3), 0)
	want := parseText(body).sorted()
	lines := strings.SplitAfter(string(body), "\n")
	orders := map[string]func(i, j string) int{
		"reversed": func(i, j string) int { return strings.Compare(j, i) },
		"by the pod, families mixed": func(i, j string) int {
			_, i, _ = strings.Cut(i, "pod=")
			_, j, _ = strings.Cut(j, "pod=")
			return strings.Compare(i, j)
		},
		"by length": func(i, j string) int { return len(i) - len(j) },
	}
	p := &parses{t: t}
	for name, order := range orders {
		sorted := slices.SortedStableFunc(slices.Values(lines), order)
		for range 2 {
			p.parse([]byte(strings.Join(sorted, "")))
			if d := diff(want, resultOf(&p.batch, nil).sorted()); d != "" {
				t.Errorf("%s: want (-), got (+):\n%s", name, d)
			}
		}
	}
}

func TestLayoutSurvivesErrors(t *testing.T) {
	all := names(5, 2)
	p := &parses{t: t}
	first := ids(p.parse(payload(all, 0)))
	for _, body := range []string{
		"", "nonsense\n", startFamily + labelsOfC + " 1\n",
		string(payload(names(3, 3), 0)) + "resource_scrape_error 1\n",
	} {
		if err := p.parser.ParseText([]byte(body), received, &p.layout, &p.batch); err == nil {
			t.Fatalf("no error for %q", body)
		}
	}
	if got := ids(p.parse(payload(all, 1))); !slices.Equal(got, first) {
		t.Error("IDs are not the same pointers after an error")
	}
}

func TestLayoutGivesMemoryBack(t *testing.T) {
	p := &parses{t: t}
	p.parse(payload(names(2000, 1), 0))
	p.parse(payload(names(2, 1), 0))
	if n := cap(p.layout.ids); n > 100 {
		t.Errorf("layout of 2 containers keeps room for %d", n)
	}
	p.parse(payload(names(50, 1), 0))
	p.parse(payload(names(40, 1), 0))
	if rest := p.layout.ids[40:50]; slices.ContainsFunc(rest, func(id *sample.ContainerID) bool { return id != nil }) {
		t.Error("layout holds on to containers that have gone")
	}
}

// TestAllocations is the promise of the package: names that are known cost nothing.
func TestAllocations(t *testing.T) {
	all := names(30, 2)
	withNew := slices.Insert(slices.Clone(all), 20, `container="new",namespace="n",pod="p"`)
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	noSwap := func(body []byte) []byte { // of most of the containers
		var kept bytes.Buffer
		swap := 0
		for line := range strings.Lines(string(body)) {
			if strings.HasPrefix(line, swapFamily) {
				if swap++; swap%10 != 0 {
					continue
				}
			}
			kept.WriteString(line)
		}
		return kept.Bytes()
	}
	tests := []struct {
		name   string
		bodies [][]byte // parsed in turns
		want   float64  // allocations in one turn of all
	}{
		{"same containers, other values", [][]byte{payload(all, 0), payload(all, 1)}, 0},
		{"without most of the swap rows", [][]byte{noSwap(payload(all, 0))}, 0},
		{"one order, then another", [][]byte{payload(all, 0), payload(reversed, 1)}, 0},
		{"CRLF", [][]byte{[]byte(strings.ReplaceAll(string(payload(all, 0)), "\n", "\r\n"))}, 0},
		// A string and an ID.
		{"one comes and goes", [][]byte{payload(all, 0), payload(withNew, 1)}, 2},
		{"four come and go", [][]byte{payload(all, 0), payload(all[4:], 1)}, 4 * 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &parses{t: t}
			turn := func() {
				for _, body := range tt.bodies {
					if err := p.parser.ParseText(body, received, &p.layout, &p.batch); err != nil {
						t.Fatal(err)
					}
				}
			}
			turn() // lets the scratch space grow
			if got := testing.AllocsPerRun(20, turn); got != tt.want {
				t.Errorf("got %v allocations, want %v", got, tt.want)
			}
		})
	}
}

// TestSteadyStateDoesNotHash: known containers are found by their place, with a few missing as well.
func TestSteadyStateDoesNotHash(t *testing.T) {
	all := names(30, 2)
	p := &parses{t: t}
	p.parse(payload(all, 0))
	for _, names := range [][]string{all, slices.Concat(all[:7], all[10:])} {
		p.parse(payload(names, 1))
		if len(p.parser.positions) != 0 {
			t.Errorf("%d of %d containers listed: positions were needed", len(names), len(all))
		}
	}
	p.parse(payload(all, 2))
	if len(p.parser.positions) == 0 {
		t.Error("new containers were not looked up by name")
	}
}

// TestUnrelatedNodes parses many nodes' answers with one parser, as a worker does.
func TestUnrelatedNodes(t *testing.T) {
	var p Parser
	var batch sample.Batch
	layouts := make([]Layout, 10)
	for step := range 3 {
		for i := range layouts {
			body := payload(names(i+1, 1+i%3), step)
			if err := p.ParseText(body, received.Add(time.Duration(step)*time.Second), &layouts[i], &batch); err != nil {
				t.Fatal(err)
			}
			if d := diff(parseText(body), resultOf(&batch, nil)); d != "" {
				t.Errorf("node %d: want (-), got (+):\n%s", i, d)
			}
		}
	}
}
