package docs

import "strings"

// Way is how it is seen that a command does what its reader expects.
type Way int

// The ways, from the one that shows most to the one that shows nothing.
const (
	OnCluster Way = iota + 1 // test/e2e runs it on a real cluster
	Here                     // this package's tests run it in the tree, where it only reads
	Parsed                   // this package's tests run it with -h behind it: its flags and their values are accepted
	Elsewhere                // a script, a workflow or another test runs it, or what it does: Rule.File has Rule.Has
	InCI                     // a target of make that .ci/run or a workflow makes
	NotRun                   // nobody does: Rule.Why
)

// Rule is of the commands that begin with Words, unless a longer one is.
type Rule struct {
	Words string
	Way   Way
	File  string // that does it, of Elsewhere
	Has   string // and in which words
	Why   string // of NotRun
}

// Rules are for every command of the documents. Each has one at least.
var Rules = []Rule{
	{Words: "kubectl", Way: OnCluster},
	{Words: "~/.cache/metrics-server-dev", Way: OnCluster}, // kubectl, where hack/cluster has it
	{Words: "export", Way: OnCluster},
	{Words: "helm", Way: OnCluster},
	{Words: "curl", Way: OnCluster},
	{Words: "metrics-server", Way: OnCluster},
	{Words: "bin/metrics-server", Way: OnCluster},
	{Words: "go tool pprof", Way: OnCluster},
	{Words: "make manifests", Way: OnCluster},
	{Words: "make chart", Way: OnCluster},
	{Words: "make cluster", Way: OnCluster},
	{Words: "go run . status", Way: OnCluster},
	{Words: "go run . logs", Way: OnCluster},
	{Words: "go run . node exec", Way: OnCluster},

	{Words: "make help", Way: Here},
	{Words: "cd", Way: Here},
	{Words: "go run . -h", Way: Here},
	{Words: "go run . template", Way: Here},
	{Words: "go mod graph", Way: Here},
	{Words: "go tool actionlint", Way: Here},

	// Minutes, and what they do depends on their flags.
	{Words: "go run .", Way: Parsed},
	{Words: "make bench", Way: Parsed},
	{Words: "make soak", Way: Parsed},

	{Words: "make", Way: InCI},
	{Words: "make demo", Way: Elsewhere, File: "test/e2e/run.sh", Has: "cluster demo -state"},
	{Words: "make demo-down", Way: Elsewhere, File: "test/e2e/cluster.sh", Has: "cluster down -state"},
	{Words: "make cluster-down", Way: Elsewhere, File: "test/e2e/cluster.sh", Has: "cluster down -state"},
	{Words: "make fmt", Way: Elsewhere, File: "Makefile", Has: "golangci-lint fmt --diff"},
	{Words: "make image", Way: Elsewhere, File: "hack/image/image_test.go", Has: `"release-files"`},
	{Words: "make sbom", Way: Elsewhere, File: "hack/image/image_test.go", Has: `"release-files"`},
	{Words: "make build && KUBECONFIG=... E2E_NODE=none E2E_VPA=none go test", Way: Elsewhere, File: "test/e2e/run.sh", Has: "-tags e2e -parallel 32 -timeout 30m"},
	{Words: "go test ./pkg/...", Way: Elsewhere, File: "Makefile", Has: "go test $(RACE) $(TESTFLAGS) ./..."},
	{Words: "go build -o workload", Way: Elsewhere, File: "test/e2e/run.sh", Has: `/workload" ./test/e2e/workload`},
	{Words: "(cd hack/image && go run . -o", Way: Elsewhere, File: "hack/kind/e2e.sh", Has: `(cd hack/image && go run . -o "$tmp/workload.tar" -tag "$workload" -binary`},
	{Words: "kind load image-archive", Way: Elsewhere, File: "hack/kind/e2e.sh", Has: `"$kind" load image-archive`},
	{Words: "kubectl delete -f", Way: Elsewhere, File: "test/install/install_test.go", Has: `mustKubectl(t, "delete", "-f"`},
	{Words: "helm uninstall", Way: Elsewhere, File: "test/install/install_test.go", Has: `mustHelm(t, "uninstall"`},
	{Words: "go version -m", Way: Elsewhere, File: "hack/image/image_test.go", Has: `"version", "-m"`},
	{Words: "sha256sum -c SHA256SUMS", Way: Elsewhere, File: ".github/workflows/release.yml", Has: "cd dist && sha256sum --check"},
	{Words: "go run . assets", Way: Elsewhere, File: "test/e2e/run.sh", Has: "assets -only kubectl -version"},
	{Words: "go run . load", Way: Elsewhere, File: "test/e2e/run.sh", Has: "cluster load -state"},
	{Words: "go run . node add", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "add")`},
	{Words: "go run . node stop", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "stop", name)`},
	{Words: "go run . node start", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "start", name)`},
	{Words: "go run . node freeze", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "freeze", name)`},
	{Words: "go run . node kill", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "kill", name)`},
	{Words: "go run . node delete", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "delete", name)`},

	{Words: "docker build", Way: NotRun, Why: "needs Docker and a registry; hack/image tests what the Dockerfile makes"},
	{Words: "make bench-compare", Way: NotRun, Why: "takes minutes, and needs a commit to compare with"},
	{Words: "go list -m -u all", Way: NotRun, Why: "asks the network, and for what changes from day to day"},
	{Words: "go get golang.org/x/vulndb@master", Way: NotRun, Why: "changes what is pinned"},
	{Words: "git tag", Way: NotRun, Why: "makes a release"},
	{Words: "git clone", Way: NotRun, Why: "there is no release yet"},
	{Words: "sha256sum dist/metrics-server-image.tar", Way: NotRun, Why: "prints sums of a release, for somebody to compare"},
	{Words: "gh attestation verify", Way: NotRun, Why: "there is no release yet"},
}

// Rule is the command's. Words end where words do, so that `make bench` is not of `make bench-compare`.
func (c Command) Rule() (Rule, bool) {
	var best Rule
	for _, r := range Rules {
		rest, is := strings.CutPrefix(c.Bare(), r.Words)
		if is && (rest == "" || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "/")) && len(r.Words) > len(best.Words) {
			best = r
		}
	}
	return best, best.Words != ""
}
