package repository

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pkg/apiserver assembles the generic server's filters itself. If a new version of the generic
// server has other filters, or another order, decide again which of them are needed here: read what
// has changed, update handlerChain, then this list.
func TestFiltersOfTheGenericServer(t *testing.T) {
	want := []string{
		"TrackCompleted", "WithAuthorization", "TrackStarted",
		"TrackCompleted", "WithPriorityAndFairness", "TrackStarted", "WithMaxInFlightLimit",
		"TrackCompleted", "WithConstrainedImpersonation", "TrackStarted", "WithImpersonation", "TrackStarted",
		"TrackCompleted", "WithAudit", "TrackStarted",
		"Unauthorized", "WithFailedAuthenticationAudit",
		"WithTracing", "TrackCompleted", "TrackCompleted", "WithAuthentication", "TrackStarted",
		"WithCORS", "WithWarningRecorder", "WithTimeoutForNonLongRunningRequests", "WithRequestDeadline", "WithWaitGroup",
		"WithWatchTerminationDuringShutdown", "WithProbabilisticGoaway", "WithCacheControl", "WithHSTS", "WithRetryAfter",
		"WithHTTPLogging", "WithLatencyTrackers", "WithRoutine", "WithRequestInfo", "WithRequestReceivedTimestamp",
		"WithMuxAndDiscoveryComplete", "WithPanicRecovery", "WithAuditInit",
	}
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/apiserver").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(
		token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "pkg/server/config.go"), nil, 0,
	)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	ast.Inspect(file, func(n ast.Node) bool {
		if f, ok := n.(*ast.FuncDecl); ok {
			return f.Name.Name == "DefaultBuildHandlerChain"
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); ok &&
			slices.ContainsFunc([]string{"With", "Track", "Unauthorized"}, func(prefix string) bool {
				return strings.HasPrefix(f.Sel.Name, prefix)
			}) {
			got = append(got, f.Sel.Name)
		}
		return true
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
