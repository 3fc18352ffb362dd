package doctor

import (
	"slices"
	"strings"
	"testing"
)

// issue is a fault of a cluster and the line that reports it.
type issue struct {
	direct bool // kubelets are asked directly
	broken func(*fakeCluster)
	want   Line
	nodes  []string
}

// checkIssues checks that each issue is reported, with its cause and its remedy.
func checkIssues(t *testing.T, issues map[string]issue) {
	t.Helper()
	for name, tc := range issues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.config.Direct = tc.direct
			tc.broken(c)
			r := c.run()
			found := find(r, tc.want)
			if len(found) == 0 {
				t.Fatalf("no line like %+v in\n%s", tc.want, text(t, r))
			}
			if !slices.Equal(found[0].Nodes, tc.nodes) {
				t.Errorf("the line is of nodes %v, want %v", found[0].Nodes, tc.nodes)
			}
			for _, l := range r.Checks {
				if l.Status != OK && (l.Cause == "" || l.Remedy == "") {
					t.Errorf("a finding without cause or remedy: %+v", l)
				}
				if l.Check == checkPods && strings.Contains(l.Message, "pod kube-system/") && len(l.Objects) != 1 {
					t.Errorf("a finding about a pod without the object: %+v", l)
				}
				if strings.Contains(l.Remedy, "%!") || strings.Contains(l.Remedy, "%s") {
					t.Errorf("a remedy that is not filled in: %+v", l)
				}
			}
			if want := map[Status]int{Problem: 1}[tc.want.Status]; r.ExitCode() < want {
				t.Errorf("exit code %d", r.ExitCode())
			}
		})
	}
}
