package kubeapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNotes checks that notes pass a connection, whatever an expression has in it.
func TestNotes(t *testing.T) {
	want := &Notes{
		Backend: "main", Expression: "sum(x{a=\"é\x7f%+\\n\",\n b=\"<&>\"})", Named: true, Ruled: true,
		DefaultBackend: "main", InvalidFile: true, LeftOutRules: 2,
		FailingBackends: []BackendNote{{Name: "main", Queries: 3, Failing: 1}},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(NotesHeader, want.Encode())
	}))
	defer s.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if d := cmp.Diff(want, DecodeNotes(resp.Header.Get(NotesHeader))); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, other := range []string{"", "%", "text", "[]"} {
		if n := DecodeNotes(other); n != nil {
			t.Errorf("%q: %+v", other, n)
		}
	}
}
