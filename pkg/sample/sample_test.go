package sample

import "testing"

func TestContainerID(t *testing.T) {
	for _, want := range [][3]string{{"ns", "pod", "app"}, {"", "", ""}, {"a/b", "/", "c/"}, {"", "p", ""}} {
		id := NewContainerID(want[0], want[1], want[2])
		if got := [3]string{id.Namespace(), id.Pod(), id.Container()}; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if same := NewContainerID([]byte(want[0]), []byte(want[1]), []byte(want[2])); same != id {
			t.Errorf("%q: from bytes %v, from texts %v", want, same, id)
		}
	}
	if a, b := NewContainerID("a/b", "c", "d"), NewContainerID("a", "b/c", "d"); a == b {
		t.Error("two containers have one ID")
	}
	var zero ContainerID
	if zero.Namespace()+zero.Pod()+zero.Container() != "" {
		t.Error("the zero value has a name")
	}
}

func TestRefusals(t *testing.T) {
	for want, r := range map[string]Refusals{
		"":                        {},
		"negative: 2":             {Negative: 2},
		"malformed: 1, excess: 9": {Excess: 9, Malformed: 1},
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestReasonsAreExplained(t *testing.T) {
	names := map[string]bool{}
	for r := range NumReasons {
		if r.String() == "" || r.Meaning() == "" || names[r.String()] {
			t.Errorf("reason %d: %q, %q", r, r, r.Meaning())
		}
		names[r.String()] = true
	}
}

func TestRefusalsAdd(t *testing.T) {
	r := Refusals{Frozen: 1, Excess: 2}
	r.Add(&Refusals{Frozen: 3, Malformed: 4})
	if want := (Refusals{Frozen: 4, Excess: 2, Malformed: 4}); r != want {
		t.Errorf("got %v, want %v", &r, &want)
	}
}
