package docs

import "strings"

// Way is how a command is tested.
type Way int

// The ways, from the one that proves most to the one that proves nothing.
const (
	OnCluster Way = iota + 1 // test/e2e runs it on a real cluster
	Here                     // this package's tests run it in the tree, where it only reads
	Parsed                   // this package's tests run it with -h appended: its flags and their values are accepted
	Elsewhere                // a script, a workflow or another test does the same: Rule.File contains Rule.Has
	InCI                     // a target of make that .ci/run or a workflow makes
	NotRun                   // not tested, for the reason Rule.Why
)

// Rule applies to the commands that begin with Words. The rule with the most words wins.
type Rule struct {
	Words string
	Way   Way
	File  string // for Elsewhere
	Has   string // for Elsewhere: a text in File
	Why   string // for NotRun
}

// rules covers every command of the documents, and each rule covers at least one.
var rules = func() []Rule {
	var all []Rule
	for words, way := range ways {
		all = append(all, Rule{Words: words, Way: way})
	}
	for file, commands := range elsewhere {
		for _, c := range commands {
			all = append(all, Rule{Words: c[0], Way: Elsewhere, File: file, Has: c[1]})
		}
	}
	for _, c := range notRun {
		all = append(all, Rule{Words: c[0], Way: NotRun, Why: c[1]})
	}
	return all
}()

// ways has the rules that need no reason.
var ways = map[string]Way{
	"kubectl":                     OnCluster,
	"~/.cache/metrics-server-dev": OnCluster,
	"export":                      OnCluster,
	"helm":                        OnCluster,
	"curl":                        OnCluster,
	"metrics-server":              OnCluster,
	"bin/metrics-server":          OnCluster,
	"go tool pprof":               OnCluster,
	"make manifests":              OnCluster,
	"make chart":                  OnCluster,
	"make cluster":                OnCluster,
	"go run . status":             OnCluster,
	"go run . logs":               OnCluster,
	"go run . node exec":          OnCluster,
	"make help":                   Here,
	"cd":                          Here,
	"go run . -h":                 Here,
	"go tool helm template":       OnCluster,
	"go mod graph":                Here,
	"go tool actionlint":          Here,
	"go run .":                    Parsed,
	"make bench":                  Parsed,
	"make soak":                   Parsed,
	"make":                        InCI,
}

// elsewhere has, for each file that does the same as some commands, how these begin, and a text in the file that shows
// it.
var elsewhere = map[string][][2]string{
	"test/integration/history_test.go": {{ // no cluster has --history by default
		"kubectl get --raw '/apis/metrics.k8s.io/v1/nodes?history=2h'",
		`fetch(everything, version, history.Query{Nodes: true})`,
	}},
	"test/integration/watch_test.go": { // they run until they are stopped
		{"kubectl get podmetrics --watch", `"-A", "--watch"`},
		{"kubectl get pods.metrics.k8s.io --watch", `"-A", "--watch"`},
	},
	"test/docs/docs_test.go": {{"kubectl -n kube-system logs deployment/custom-metrics-server", "func TestLogs("}},
	"pkg/app/hpa_test.go": {
		{"metrics-server doctor hpa", `"HorizontalPodAutoscaler team/web"`},
	},
	"pkg/app/ui_test.go": { // it runs until it is stopped
		{"metrics-server ui", `"ui", "--kubeconfig"`},
	},
	"test/e2e/run.sh": {
		{"make demo", "cluster demo -state"},
		{
			"make build && KUBECONFIG=... E2E_NODE=none E2E_VPA=none E2E_BACKENDS=none go test",
			"-tags e2e -parallel 48 -timeout 45m",
		},
		{"go build -o workload", `/workload" ./test/e2e/workload`},
		{"go run . assets", "assets -only kubectl -version"},
		{"go run . load", "cluster load -state"},
	},
	"test/e2e/cluster.sh": {
		{"make demo-down", "cluster down -state"},
		{"make cluster-down", "cluster down -state"},
	},
	"Makefile": {
		{"make fmt", "golangci-lint fmt --diff"},
		{"make ui", `node build.mjs "$$dir"`},
		{"go test ./pkg/...", "$(RACETEST) $(TESTFLAGS) ./..."},
		{"make prometheus", "test-backends: build prometheus"},
	},
	"hack/image/image_test.go": {
		{"make image", `"release-files"`},
		{"make sbom", `"release-files"`},
		{"go version -m", `"version", "-m"`},
	},
	"hack/kind/e2e.sh": {
		{"(cd hack/image && go run . -o", `(cd hack/image && go run . -o "$tmp/workload.tar" -tag "$workload" -binary`},
		{"kind load image-archive", `"$kind" load image-archive`},
	},
	"test/integration/examples_test.go": {
		{"kubectl apply -f examples", `"apply", "--dry-run=server"`},
	},
	"test/e2e/autoscaling_test.go": {
		{"kubectl get hpa php-apache", "The classic: php-apache"},
	},
	"test/e2e/custommetrics_test.go": {
		{"kubectl apply -f dist/custom-metrics.yaml", `"custom-metrics-high-availability"`},
		{"kubectl get apiservice v1beta1.external.metrics.k8s.io", `available("v1beta1.external")`},
		{"kubectl get apiservice v1beta1.custom.metrics.k8s.io", `available("v1beta1.custom")`},
		{"kubectl -n kube-system rollout status deployment/custom-metrics-server", "RolledOut(d)"},
		{"kubectl describe hpa", `"describe", "hpa"`},
		{"metrics-server custom-metrics", "installCustomMetrics(t)"},
	},
	"test/integration/externalmetrics_test.go": {
		{"kubectl apply -f dist/custom-metrics-external.yaml", `"overlays/custom-metrics-external"`},
		{"kubectl delete apiservice v1beta1.external.metrics.k8s.io", `"delete", "apiservice"`},
		{"kubectl delete clusterrolebinding system:custom-metrics-server-external", `"delete", "clusterrolebinding"`},
		{"kubectl delete clusterrole system:custom-metrics-server-external", `"delete", "clusterrole"`},
		{`kubectl get --raw "/apis/external.metrics.k8s.io`, "askAPI(version"},
	},
	"test/integration/moving_test.go": {
		{"kubectl apply -k . -l", `"-l", "app.kubernetes.io/component!=apiservice"`},
		{"kubectl apply -k .", `"-l", "app.kubernetes.io/component=apiservice"`},
		{"ca=$(kubectl get secret -n kube-system custom-metrics-server-serving", "`jsonpath={.data.ca\\.crt}`"},
		{
			`service='{"name":"custom-metrics-server","namespace":"kube-system","port":443}'`,
			`{"name":"custom-metrics-server","namespace":"kube-system","port":`,
		},
		{"kubectl patch apiservice v1beta1.custom.metrics.k8s.io", `{"spec":{"insecureSkipTLSVerify":null,"caBundle":"`},
		{
			`echo '{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService",'`,
			`"groupPriorityMinimum":100,"versionPriority":1,`,
		},
		{
			"kubectl wait --for=condition=Available apiservice/v1beta2.custom.metrics.k8s.io",
			`"wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io"`,
		},
		{`before='{"name":"prometheus-adapter","namespace":"monitoring","port":443}'`, "\"port\":` + adapterPort"},
		{
			"kubectl patch apiservice v1beta2.custom.metrics.k8s.io",
			`{"spec":{"caBundle":null,"insecureSkipTLSVerify":true,"service":`,
		},
		{
			"kubectl delete deployment,service,configmap,serviceaccount,poddisruptionbudget",
			`"delete", "deployment,service,configmap,serviceaccount,poddisruptionbudget"`,
		},
		{"path='/apis/custom.metrics.k8s.io", "/pods/*/http_requests_per_second?labelSelector=app%3Dweb"},
		{
			"token=$(kubectl create token -n kube-system horizontal-pod-autoscaler)",
			`"kube-system", "horizontal-pod-autoscaler"`,
		},
		{`kubectl get --raw "$path"`, `compare("prometheus-adapter", askAPI`},
		{`curl -k -H "Authorization: Bearer $token" "https://localhost:8443$path"`, "s.get(path, controller)"},
	},
	"pkg/app/custom_test.go": {
		{"metrics-server custom-metrics --check-config", `"--check-config", example`},
	},
	"hack/helm/examples_test.go": {
		{"helm upgrade --install metrics-server dist/metrics-server-1.0.0.tgz -n kube-system -f examples", "examples/values"},
	},
	"test/integration/helm_test.go": {
		{
			"helm upgrade --install metrics-server dist/metrics-server-1.0.0.tgz -n kube-system --take-ownership",
			`"--take-ownership", "--force-conflicts"`,
		},
		{"kubectl delete deployment", `"delete", "deployment"`},
		{"kubectl annotate apiservice", `"annotate", "apiservice"`},
		{"helm upgrade metrics-server", `"--reuse-values", "--set", "apiService.create=false"`},
		{"kubectl patch apiservice v1.metrics.k8s.io", `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`},
	},
	"hack/helm/custommetrics_test.go": {
		{
			"helm upgrade --install metrics-server dist/metrics-server-1.0.0.tgz -n kube-system " +
				"--set customMetrics.enabled=true",
			"customMetrics: {enabled: true}",
		},
	},
	"test/install/install_test.go": {
		{"kubectl delete -f", `mustKubectl(t, "delete", "-f"`},
		{"helm uninstall", `mustHelm(t, "uninstall"`},
	},
	".github/workflows/release.yml": {
		{"sha256sum -c SHA256SUMS", "cd dist && sha256sum --check"},
	},
	"test/e2e/nodes_test.go": {
		{"go run . node add", `changeNode(t, "add")`},
		{"go run . node stop", `changeNode(t, "stop", name)`},
		{"go run . node start", `changeNode(t, "start", name)`},
		{"go run . node freeze", `changeNode(t, "freeze", name)`},
		{"go run . node kill", `changeNode(t, "kill", name)`},
		{"go run . node delete", `changeNode(t, "delete", name)`},
	},
	"test/integration/gitops_test.go": {
		{"kubectl patch apiservice v1beta1.metrics.k8s.io", `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`},
	},
	"test/integration/kubelettoken_test.go": {
		{"kubectl -n kube-system logs deployment/metrics-server | grep 'own credentials'", "this server's own credentials"},
	},
	".ci/run": {
		{`eval "$(hack/docker/engine.sh up`, "hack/docker/engine.sh up"},
		{"hack/docker/engine.sh stop", "hack/docker/engine.sh stop"},
		{"hack/docker/golang.sh", "hack/docker/golang.sh"},
	},
	"hack/docker/engine-test.sh": {
		{"hack/docker/engine.sh down", `./engine.sh down "$dir"`},
	},
	"hack/image/docker_test.go": {
		{"docker build", `"build", "-t", builtImage`},
	},
}

// notRun has the reasons why some commands are not tested.
var notRun = [][2]string{
	{
		"kubectl delete clusterrole,clusterrolebinding -l app.kubernetes.io/name=prometheus-adapter",
		"no test installs the chart of prometheus-adapter",
	},
	{
		"kubectl delete rolebinding -n kube-system -l app.kubernetes.io/name=prometheus-adapter",
		"no test installs the chart of prometheus-adapter",
	},
	{
		"kubectl delete secret -n monitoring -l owner=helm,name=prometheus-adapter",
		"no test installs the chart of prometheus-adapter",
	},
	{
		"kubectl create configmap -n kube-system adapter-config",
		"the tests that run the server outside of a pod mount nothing",
	},
	{"kubectl get configmap -n monitoring prometheus-adapter", "no test installs the chart of prometheus-adapter"},
	{
		"kubectl port-forward -n kube-system service/custom-metrics-server",
		"the tests that compare the two servers reach them without it",
	},
	{
		"kubectl delete clusterrole system:aggregated-metrics-reader",
		"it would take away the right that the other integration tests read with",
	},
	{"ssh -t -L 8080:127.0.0.1:8080 HOST metrics-server ui", "needs another machine"},
	{"kubectl certificate approve", "hack/cluster leaves no request for a certificate to approve"},
	{"go test -tags backends", "takes eight minutes to measure"},
	{"make bench-compare", "takes minutes, and needs a commit to compare with"},
	{"go list -m -u all", "its output depends on the network and changes from day to day"},
	{"go get golang.org/x/vulndb@master", "changes what is pinned"},
	{"git tag", "makes a release"},
	{"git clone", "there is no release yet"},
	{"sha256sum dist/metrics-server-image.tar", "prints sums of a release, for somebody to compare"},
	{"gh attestation verify", "there is no release yet"},
}

// Rule returns the rule for c. Words match whole words only, so that the rule for `make bench` does
// not apply to `make bench-compare`.
func (c Command) Rule() (Rule, bool) {
	var best Rule
	for _, r := range rules {
		rest, is := strings.CutPrefix(c.Bare(), r.Words)
		is = is && (rest == "" || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "/"))
		if is && len(r.Words) > len(best.Words) {
			best = r
		}
	}
	return best, best.Words != ""
}
