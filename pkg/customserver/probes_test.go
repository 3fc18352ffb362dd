package customserver

import (
	"errors"
	"testing"
)

// TestReadiness checks the order of the checks at the start, and that nothing undoes them.
func TestReadiness(t *testing.T) {
	unread, unasked := errors.New("unread"), errors.New("unasked")
	var read, asked error
	r := readiness{read: func() error { return read }, asked: func() error { return asked }}
	for _, step := range []struct {
		name                string
		read, asked         error
		wantRead, wantAsked error
	}{
		{"no pods are known", unread, nil, unread, unread},
		{"pods are known", nil, unasked, nil, unasked},
		{"pods were asked", nil, nil, nil, nil},
		{"a new autoscaler", unread, unasked, nil, nil},
	} {
		read, asked = step.read, step.asked
		if err := r.autoscalersRead(); !errors.Is(err, step.wantRead) {
			t.Errorf("%s: autoscalersRead: %v, want %v", step.name, err, step.wantRead)
		}
		if err := r.podsAsked(); !errors.Is(err, step.wantAsked) {
			t.Errorf("%s: podsAsked: %v, want %v", step.name, err, step.wantAsked)
		}
	}
}
