package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestHPAExitCodes(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		const hpas = "/apis/autoscaling/v2/namespaces/team/horizontalpodautoscalers"
		object := `{"metadata":{"namespace":"team","name":"web"},"spec":{"maxReplicas":2,` +
			`"scaleTargetRef":{"kind":"Deployment","name":"web","apiVersion":"apps/v1"}}}`
		switch r.URL.Path {
		case hpas + "/web":
			fmt.Fprint(w, object)
		case hpas:
			fmt.Fprintf(w, `{"items":[%s]}`, object)
		case "/apis/autoscaling/v2/horizontalpodautoscalers":
			fmt.Fprint(w, `{"items":[]}`)
		case "/api":
			fmt.Fprint(w, `{"kind":"APIVersions","versions":["v1"]}`)
		case "/apis":
			fmt.Fprint(w, `{"kind":"APIGroupList","groups":[]}`)
		case "/api/v1":
			fmt.Fprint(w, `{"kind":"APIResourceList","groupVersion":"v1","resources":[]}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","code":404,"reason":"NotFound","message":"no"}`)
		}
	}))
	t.Cleanup(s.Close)
	paths := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(asked)
	}
	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string // contained
		path           string // asked for
	}{
		{nil, 0, "there are no HorizontalPodAutoscalers", "", "/apis/autoscaling/v2/horizontalpodautoscalers"},
		{[]string{"-n", "team"}, 0, "warning  team/web", "", ""},
		{[]string{"team/web"}, 1, "problem  target", "", ""},
		{[]string{"web", "--namespace=team"}, 1, "HorizontalPodAutoscaler team/web", "", ""},
		{[]string{"team/web", "-n=team", "-o", "json"}, 1, `"name": "web"`, "", ""},
		{[]string{"web"}, 2, "", "check its name", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web"},
		{[]string{"team/web", "-n=other"}, 2, "", "give only one", ""},
		{[]string{"team/web/x"}, 2, "", "give NAMESPACE/NAME", ""},
		{[]string{"/web"}, 2, "", "give NAMESPACE/NAME", ""},
		{[]string{""}, 2, "", "the name is empty", ""},
		{[]string{"a", "b"}, 2, "", "at most 1 arg", ""},
		{[]string{"--output=yaml", "--timeout=0"}, 2, "", "--output: ", ""},
		{[]string{"--output=yaml", "--timeout=0"}, 2, "", "--timeout: ", ""},
		{[]string{"--no-such-flag"}, 2, "", "unknown flag: --no-such-flag", ""},
		{[]string{"--kubeconfig=/nowhere"}, 2, "", "/nowhere", ""},
		{[]string{"--config=/nowhere"}, 2, "", "/nowhere", ""},
		{[]string{"--config=/nowhere", "team/web"}, 2, "", "/nowhere", ""},
	} {
		before := len(paths())
		code, stdout, stderr := runDoctor(t, s.URL, append([]string{"hpa"}, tc.args...)...)
		asked := paths()[before:]
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) ||
			(tc.stdout == "") != (stdout == "") || tc.path != "" && !slices.Contains(asked, tc.path) {
			t.Errorf("%q: exit code %d, want %d; it asked for %q and wrote\n%s\nand\n%s", tc.args, code, tc.code, asked, stdout,
				stderr)
		}
		if slices.Contains(tc.args, "json") && !json.Valid([]byte(stdout)) {
			t.Errorf("not JSON: %s", stdout)
		}
	}
}
