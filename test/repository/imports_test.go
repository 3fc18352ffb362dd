// Package repository checks the repository as a whole: which package may import which, that each says what
// it is for, and that what is shipped may be shipped. It has tests only, and reads sources, not binaries, so
// it works on a tree that does not compile.
package repository

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// room is a package of the product and what it may import.
type room struct {
	// imports are the packages of the product that it may import, below metrics-server/pkg.
	imports []string
	// k8s says whether it may import Kubernetes' libraries.
	k8s bool
	// why is told to whoever breaks the rule.
	why string
}

// rooms is the picture in docs/architecture.md. Whoever changes one changes the other, and says why.
var rooms = map[string]room{
	"cmd/metrics-server": {
		imports: []string{"app"}, k8s: true,
		why: "main is about 20 lines: what it did itself, no test could reach",
	},
	"pkg/app": {
		imports: []string{"doctor", "server"}, k8s: true,
		why: "the command turns flags into server.Config and doctor.Config; how a part is made is for those to know",
	},
	"pkg/doctor": {
		imports: []string{"exposition", "kubelet", "sample"}, k8s: true,
		why: "it looks from outside: built on the server's own state, it could not tell what is wrong with that, and would not run without",
	},
	"pkg/server": {
		imports: []string{"api", "inventory", "kubelet", "sample", "scrape", "servingcert", "store"}, k8s: true,
		why: "the only package that wires others: each of those can then be read, tested and replaced alone",
	},
	"pkg/api": {
		imports: []string{"api/openapi", "sample"}, k8s: true,
		why: "it declares the readers that it needs: the API does not know how usage is stored or where it is from",
	},
	"pkg/api/openapi": {
		k8s: true,
		why: "generated models and nothing else",
	},
	"pkg/inventory": {
		imports: []string{"sample"}, k8s: true,
		why: "which nodes and pods exist is known from watches alone, not from what is scraped",
	},
	"pkg/scrape": {
		imports: []string{"sample"}, k8s: true,
		why: "it decides when and how many at once; what a fetch does, and where samples go, are its Fetcher and Sink",
	},
	"pkg/servingcert": {
		k8s: true,
		why: "certificates know nothing of what is served with them: it could keep those of any aggregated server",
	},
	"pkg/kubelet": {
		imports: []string{"exposition", "sample"}, k8s: true,
		why: "the client of one kubelet: it neither schedules nor stores",
	},
	"pkg/kubelet/kubelettest": {
		k8s: true,
		why: "fake kubelets say what real ones say: built on our own parser, they could only agree with it",
	},
	"pkg/exposition": {
		imports: []string{"sample"},
		why:     "pure: bytes in, samples out; without k8s.io it builds, tests and fuzzes in seconds",
	},
	"pkg/store": {
		imports: []string{"sample"},
		why:     "pure: the arithmetic that autoscalers trust has no I/O, no clock and no API types to hide behind",
	},
	"pkg/sample": {
		why: "the leaf that every room shares: whatever it imported, all of them would",
	},
}

// extra are the modules that packages without k8s.io may use, beside the standard library.
var extra = map[string][]string{
	"pkg/exposition": {
		"github.com/prometheus/common", "github.com/prometheus/client_model", // decoding of protobuf answers
	},
}

// testOnly are packages that nothing which is shipped may import.
var testOnly = []string{"testing", "net/http/httptest", "metrics-server/pkg/kubelet/kubelettest"}

// TestImportDirection holds for everything but tests, which may import what they like: an import in the wrong
// direction there is a cycle soon enough.
func TestImportDirection(t *testing.T) {
	packages := productPackages(t)
	for path, p := range packages {
		r, ok := rooms[path]
		if !ok {
			t.Errorf("%s is a new package: say in rooms, and in docs/architecture.md, what it may import and why", path)
			continue
		}
		for _, imported := range slices.Sorted(maps.Keys(p.imports)) {
			if problem := r.check(path, imported); problem != "" {
				t.Errorf("%s imports %s: %s. Reason: %s", p.imports[imported], imported, problem, r.why)
			}
		}
	}
	for path := range rooms {
		if packages[path] == nil {
			t.Errorf("rooms knows %s, which is not there", path)
		}
	}
}

// check returns what is wrong with an import, or "".
func (r room) check(path, imported string) string {
	if slices.Contains(testOnly, imported) && path != "pkg/kubelet/kubelettest" {
		return "it is for tests"
	}
	if own, ok := strings.CutPrefix(imported, "metrics-server/pkg/"); ok {
		if !slices.Contains(r.imports, own) {
			return "the direction of imports forbids it"
		}
		return ""
	}
	host, _, _ := strings.Cut(imported, "/")
	switch standard := !strings.Contains(host, "."); {
	case standard, r.k8s:
		return ""
	case slices.ContainsFunc(extra[path], func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") }):
		return ""
	default:
		return "it may import the standard library only"
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		path, imported string
		ok             bool
	}{
		{"pkg/store", "metrics-server/pkg/sample", true},
		{"pkg/store", "sync", true},
		{"pkg/store", "metrics-server/pkg/exposition", false},
		{"pkg/store", "k8s.io/klog/v2", false},
		{"pkg/store", "github.com/prometheus/common/expfmt", false},
		{"pkg/exposition", "github.com/prometheus/common/expfmt", true},
		{"pkg/exposition", "github.com/prometheus/commonest", false},
		{"pkg/exposition", "k8s.io/api/core/v1", false},
		{"pkg/scrape", "metrics-server/pkg/store", false},
		{"pkg/scrape", "k8s.io/klog/v2", true},
		{"pkg/server", "metrics-server/pkg/kubelet/kubelettest", false},
		{"pkg/server", "net/http/httptest", false},
		{"pkg/kubelet/kubelettest", "net/http/httptest", true},
		{"cmd/metrics-server", "metrics-server/pkg/server", false},
	} {
		if problem := rooms[tt.path].check(tt.path, tt.imported); (problem == "") != tt.ok {
			t.Errorf("%s imports %s: problem %q, want ok %t", tt.path, tt.imported, problem, tt.ok)
		}
	}
}
