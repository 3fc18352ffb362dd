// Package repository checks the repository as a whole: which package may import which, that each
// package is documented, and that everything that is shipped may be shipped. It has only tests, and
// reads sources, not binaries, so it works on a tree that does not compile.
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
	// libraries are prefixes of other packages that it may import, if it may not import all.
	libraries []string
	// why is the reason for the rule, printed when it is broken.
	why string
}

// rooms is the table of packages in docs/architecture.md. Change both together, and say why.
var rooms = map[string]room{
	"cmd/metrics-server": {
		imports: []string{"app"}, k8s: true,
		why: "main is about 20 lines: what it did itself, no test could reach",
	},
	"pkg/app": {
		imports: []string{"customserver", "doctor", "doctor/hpa", "kubeapi", "server", "ui"}, k8s: true,
		why: "the commands turn flags into the Config of a server or the doctor; how a part is made is for those to know",
	},
	"pkg/doctor": {
		imports: []string{"exposition", "kubeapi", "kubelet", "kubelettoken", "sample"}, k8s: true,
		why: "it looks from outside: it must run without a server, and must not trust the state of one",
	},
	"pkg/doctor/hpa": {
		imports: []string{
			"adminfile", "appmetrics", "definition", "demand", "doctor", "kubeapi", "podtarget", "sample",
		},
		k8s: true,
		why: "like the doctor it looks from outside: it shares rules with the server of custom metrics, and no state",
	},
	"pkg/ui": {
		imports: []string{"doctor", "doctor/hpa", "ui/cluster", "ui/page"}, k8s: true,
		why: "it shows what others read and find: it neither asks the API server itself nor knows how a server works",
	},
	"pkg/ui/page": {
		why: "files that are built from TypeScript: whoever serves them decides who may read them",
	},
	"pkg/server": {
		imports: []string{
			"api", "api/resource", "apiserver", "history", "inventory", "kubeapi", "kubelet", "kubelettoken", "revision",
			"sample", "schedule", "scrape", "store",
		},
		k8s: true,
		why: "the only package that wires others: each of those can then be read, tested and replaced alone",
	},
	"pkg/customserver": {
		imports: []string{
			"adapterconfig", "adminfile", "api/custom", "api/external", "api/metricgroup", "apiserver", "appmetrics",
			"backend", "definition", "demand", "fairshare", "kubeapi", "near", "podtarget", "sample", "schedule",
		},
		k8s: true,
		why: "the other composition root: it shares nothing with pkg/server, so that pods cannot hurt resource metrics",
	},
	"pkg/apiserver": {
		imports: []string{"api", "servingcert"}, k8s: true,
		why: "it serves any API groups: whatever it knew of nodes, pods or metrics, a second server would carry along",
	},
	"pkg/revision": {
		imports: []string{"sample"},
		why:     "pure: it numbers changes, and knows neither what changes nor who is told",
	},
	"pkg/fairshare": {
		why: "pure: it counts, and knows neither what nor for whom",
	},
	"pkg/api": {
		imports: []string{"api/wire", "fairshare", "revision", "sample"}, k8s: true,
		why: "the engine of every group: it knows none of them, nor how values are stored or where they are from",
	},
	"pkg/api/resource": {
		imports: []string{"api", "api/openapi", "api/wire", "revision", "sample"}, k8s: true,
		why: "one group: it declares the readers that it needs, and does not know how usage is stored or where it is from",
	},
	"pkg/api/custom": {
		imports: []string{"api", "api/metricgroup", "api/openapi"}, k8s: true,
		why: "one group: it declares the reader that it needs, and does not know who wants a metric or where it is from",
	},
	"pkg/api/external": {
		imports: []string{"api", "api/metricgroup", "api/openapi"}, k8s: true,
		why: "one group: it declares the reader that it needs, and does not know who wants a metric or where it is from",
	},
	"pkg/api/metricgroup": {
		imports: []string{"api", "kubeapi"}, k8s: true,
		why: "what groups of metrics share: it knows neither of them, nor what a metric is about",
	},
	"pkg/api/wire": {
		why: "pure: bytes appended to bytes",
	},
	"pkg/api/openapi": {
		k8s: true,
		why: "generated models and nothing else",
	},
	"pkg/inventory": {
		imports: []string{"kubeapi", "sample"}, k8s: true,
		why: "which nodes and pods exist is known from watches alone, not from what is scraped",
	},
	"pkg/schedule": {
		why: "it decides when and how many at once; it knows no node, no pod and no sample",
	},
	"pkg/scrape": {
		imports: []string{"sample", "schedule"}, k8s: true,
		why: "it makes targets of nodes; what a fetch does, and where samples go, are its Fetcher and Sink",
	},
	"pkg/servingcert": {
		imports: []string{"kubeapi"}, k8s: true,
		why: "certificates know nothing of what is served with them: it could keep those of any aggregated server",
	},
	"pkg/kubelettoken": {
		imports: []string{"kubeapi"}, k8s: true,
		why: "it gets a token of an account; who is shown it, and how, is for the client of kubelets and the doctor to know",
	},
	"pkg/httpconn": {
		imports: []string{"fairshare"}, k8s: true,
		why: "it keeps connections to anything that is scraped: it knows no kubelet, no pod and no format",
	},
	"pkg/kubelet": {
		imports: []string{"exposition", "httpconn", "kubeapi", "sample"}, k8s: true,
		why: "the client of one kubelet: it neither schedules nor stores",
	},
	"pkg/kubelet/kubelettest": {
		k8s: true,
		why: "fake kubelets say what real ones say: built on our own parser, they could only agree with it",
	},
	"pkg/exposition": {
		imports: []string{"exposition/lex", "sample"},
		why:     "pure: bytes in, samples out; without k8s.io it builds, tests and fuzzes in seconds",
	},
	"pkg/exposition/lex": {
		why: "it knows the text format and no family, so other parsers of that format can use it",
	},
	"pkg/store": {
		imports: []string{"revision", "ring", "sample"},
		why:     "pure: the arithmetic that autoscalers trust has no I/O, no clock and no API types to hide behind",
	},
	"pkg/history": {
		imports: []string{"fairshare", "sample"},
		why:     "pure: points in, JSON out; clients decode with it, and must not link a server",
	},
	"pkg/history/historyclient": {
		imports: []string{"history", "kubeapi"}, k8s: true,
		why: "a client of any server that speaks the form of pkg/history; it knows nothing of how it is kept",
	},
	"pkg/ui/cluster": {
		imports: []string{"history", "history/historyclient", "kubeapi", "sample"}, k8s: true,
		why: "it reads any cluster with a user's rights: it shares no code with a server, and knows nothing of a page",
	},
	"pkg/near": {
		why: "pure: two names and how much they differ",
	},
	"pkg/definition": {
		imports: []string{"adminfile", "appmetrics", "backend", "demand", "kubeapi", "sample"}, k8s: true,
		why: "the server and the doctor must understand a metric alike, and neither demand nor appmetrics knows the other",
	},
	"pkg/demand": {
		imports: []string{"fairshare", "kubeapi", "near", "sample"}, k8s: true,
		why: "what autoscalers want is known from the API server alone: it neither asks pods nor evaluates anything",
	},
	"pkg/podtarget": {
		imports: []string{"httpconn", "kubeapi", "sample"}, k8s: true,
		why: "the client of one pod: it neither schedules nor reads what the pod says",
	},
	"pkg/kubeapi": {
		k8s: true,
		why: "a leaf of names, causes and remedies: it imports no other package of the product, so each may import it",
	},
	"pkg/appmetrics": {
		imports: []string{"fairshare", "near"},
		libraries: []string{
			"github.com/prometheus/common/model", "github.com/prometheus/prometheus/",
			"google.golang.org/protobuf/encoding/protowire",
		},
		why: "pure except for Prometheus' engine: what is served of pods has no I/O and no API types to hide behind",
	},
	"pkg/adminfile": {
		imports:   []string{"appmetrics", "backend", "kubeapi", "near", "sample"},
		libraries: []string{"go.yaml.in/yaml/v3"},
		why:       "pure: a file in, its meaning or its mistakes out, so that the server and a check of the file agree",
	},
	"pkg/adapterconfig": {
		imports: []string{"near"}, k8s: true,
		libraries: []string{
			"github.com/prometheus/common/model", "github.com/prometheus/prometheus/model/labels",
			"github.com/prometheus/prometheus/promql/parser", "go.yaml.in/yaml/v3",
		},
		why: "pure: a file and a request in, PromQL out; who sends it, and what becomes of the answer, is for others",
	},
	"pkg/backend": {
		imports: []string{"fairshare", "schedule"},
		libraries: []string{
			"github.com/prometheus/common/model", "github.com/prometheus/prometheus/model/labels",
			"github.com/prometheus/prometheus/promql/parser", "golang.org/x/net/http/httpguts",
		},
		why: "the client of a Prometheus: it knows no autoscaler and no pod, and does not evaluate PromQL itself",
	},
	"pkg/ring": {
		imports: []string{"sample"},
		why:     "pure: points of a counter, whatever it counts",
	},
	"pkg/sharedtest": {
		libraries: []string{"github.com/google/go-cmp/cmp"},
		why:       "tests of every package may use it, so it knows none of them",
	},
	"pkg/sample": {
		why: "the leaf that every room shares: whatever it imported, all of them would",
	},
}

// forTests are packages for tests, and testOnly those that nothing which is shipped may import.
var (
	forTests = []string{"pkg/kubelet/kubelettest", "pkg/sharedtest"}
	testOnly = []string{
		"testing", "net/http/httptest", "metrics-server/pkg/kubelet/kubelettest", "metrics-server/pkg/sharedtest",
	}
)

// TestImportDirection checks everything except tests, which may import anything: in a test, an
// import in the wrong direction soon becomes a cycle.
func TestImportDirection(t *testing.T) {
	packages := productPackages(t)
	for path, p := range packages {
		r, ok := rooms[path]
		if !ok {
			t.Errorf("%s is a new package: add it to rooms and to docs/architecture.md, with what it may import and why", path)
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
			t.Errorf("rooms lists %s, which does not exist", path)
		}
	}
}

// check returns what is wrong with an import, or "".
func (r room) check(path, imported string) string {
	if slices.Contains(testOnly, imported) && !slices.Contains(forTests, path) {
		return "it is for tests"
	}
	if own, ok := strings.CutPrefix(imported, "metrics-server/pkg/"); ok {
		if !slices.Contains(r.imports, own) {
			return "the direction of imports forbids it"
		}
		return ""
	}
	host, _, _ := strings.Cut(imported, "/")
	if standard := !strings.Contains(host, "."); standard || r.k8s {
		return ""
	}
	if len(r.libraries) == 0 {
		return "it may import the standard library only"
	}
	if slices.ContainsFunc(r.libraries, func(prefix string) bool { return strings.HasPrefix(imported, prefix) }) {
		return ""
	}
	return "of libraries, it may import " + strings.Join(r.libraries, ", ") + " only"
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		path, imported string
		ok             bool
	}{
		{"pkg/store", "metrics-server/pkg/sample", true},
		{"pkg/appmetrics", "github.com/prometheus/prometheus/promql", true},
		{"pkg/appmetrics", "net", true},
		{"pkg/appmetrics", "k8s.io/api/core/v1", false},
		{"pkg/store", "sync", true},
		{"pkg/store", "metrics-server/pkg/exposition", false},
		{"pkg/store", "k8s.io/klog/v2", false},
		{"pkg/store", "github.com/prometheus/common/expfmt", false},
		{"pkg/exposition", "github.com/prometheus/common/expfmt", false},
		{"pkg/exposition", "k8s.io/api/core/v1", false},
		{"pkg/scrape", "metrics-server/pkg/store", false},
		{"pkg/scrape", "k8s.io/klog/v2", true},
		{"pkg/server", "metrics-server/pkg/kubelet/kubelettest", false},
		{"pkg/server", "net/http/httptest", false},
		{"pkg/server", "metrics-server/pkg/sharedtest", false},
		{"pkg/kubelet/kubelettest", "net/http/httptest", true},
		{"pkg/sharedtest", "testing", true},
		{"pkg/sharedtest", "metrics-server/pkg/schedule", false},
		{"cmd/metrics-server", "metrics-server/pkg/server", false},
	} {
		if problem := rooms[tt.path].check(tt.path, tt.imported); (problem == "") != tt.ok {
			t.Errorf("%s imports %s: problem %q, want ok %t", tt.path, tt.imported, problem, tt.ok)
		}
	}
}
