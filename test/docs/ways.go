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

// Rules covers every command of the documents, and each rule covers at least one.
var Rules = []Rule{
	{Words: "kubectl", Way: OnCluster},
	{Words: "~/.cache/metrics-server-dev", Way: OnCluster}, // kubectl, where hack/cluster has it
	{Words: "export", Way: OnCluster},
	{Words: "helm", Way: OnCluster},
	{Words: "curl", Way: OnCluster},
	{Words: "metrics-server", Way: OnCluster},
	{
		Words: "metrics-server doctor hpa", // its exit code depends on the HorizontalPodAutoscalers of the cluster
		Way:   Elsewhere, File: "pkg/app/hpa_test.go", Has: `"HorizontalPodAutoscaler team/web"`,
	},
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
	{Words: "go tool helm template", Way: Here},
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
	{
		Words: "make build && KUBECONFIG=... E2E_NODE=none E2E_VPA=none E2E_BACKENDS=none go test",
		Way:   Elsewhere, File: "test/e2e/run.sh", Has: "-tags e2e -parallel 48 -timeout 30m",
	},
	{Words: "go test ./pkg/...", Way: Elsewhere, File: "Makefile", Has: "$(RACETEST) $(TESTFLAGS) ./..."},
	{Words: "go build -o workload", Way: Elsewhere, File: "test/e2e/run.sh", Has: `/workload" ./test/e2e/workload`},
	{
		Words: "(cd hack/image && go run . -o",
		Way:   Elsewhere, File: "hack/kind/e2e.sh",
		Has: `(cd hack/image && go run . -o "$tmp/workload.tar" -tag "$workload" -binary`,
	},
	{Words: "kind load image-archive", Way: Elsewhere, File: "hack/kind/e2e.sh", Has: `"$kind" load image-archive`},
	{
		Words: "kubectl apply -f examples",
		Way:   Elsewhere, File: "test/integration/examples_test.go", Has: `"apply", "--dry-run=server"`,
	},
	{Words: "kubectl get hpa php-apache", Way: Elsewhere, File: "test/e2e/autoscaling_test.go", Has: "The classic: " +
		"php-apache"},
	{
		Words: "kubectl apply -f dist/custom-metrics.yaml",
		Way:   Elsewhere, File: "test/e2e/custommetrics_test.go", Has: `"custom-metrics-high-availability"`,
	},
	{
		Words: "kubectl apply -f dist/custom-metrics-external.yaml",
		Way:   Elsewhere, File: "test/integration/externalmetrics_test.go", Has: `"overlays/custom-metrics-external"`,
	},
	{
		Words: "kubectl get apiservice v1beta1.external.metrics.k8s.io",
		Way:   Elsewhere, File: "test/e2e/custommetrics_test.go", Has: `available("v1beta1.external")`,
	},
	{
		Words: "kubectl delete apiservice v1beta1.external.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/externalmetrics_test.go", Has: `"delete", "apiservice"`,
	},
	{
		Words: "kubectl delete clusterrolebinding system:custom-metrics-server-external",
		Way:   Elsewhere, File: "test/integration/externalmetrics_test.go", Has: `"delete", "clusterrolebinding"`,
	},
	{
		Words: "kubectl delete clusterrole system:custom-metrics-server-external",
		Way:   Elsewhere, File: "test/integration/externalmetrics_test.go", Has: `"delete", "clusterrole"`,
	},
	{
		Words: `kubectl get --raw "/apis/external.metrics.k8s.io`,
		Way:   Elsewhere, File: "test/integration/externalmetrics_test.go", Has: "askAPI(version",
	},
	{
		Words: "kubectl get apiservice v1beta1.custom.metrics.k8s.io",
		Way:   Elsewhere, File: "test/e2e/custommetrics_test.go", Has: `available("v1beta1.custom")`,
	},
	{
		Words: "kubectl apply -f dist/custom-metrics.yaml -l",
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: `"-l", "app.kubernetes.io/component!=apiservice"`,
	},
	{
		Words: "kubectl -n kube-system rollout status deployment/custom-metrics-server",
		Way:   Elsewhere, File: "test/e2e/custommetrics_test.go", Has: "RolledOut(d)",
	},
	{
		Words: "ca=$(kubectl get secret -n kube-system custom-metrics-server-serving",
		Way:   Elsewhere, File: "test/integration/moving_test.go", Has: "`jsonpath={.data.ca\\.crt}`",
	},
	{
		Words: `service='{"name":"custom-metrics-server","namespace":"kube-system","port":443}'`,
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: `{"name":"custom-metrics-server","namespace":"kube-system","port":`,
	},
	{
		Words: "kubectl patch apiservice v1beta1.custom.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: `{"spec":{"insecureSkipTLSVerify":null,"caBundle":"`,
	},
	{
		Words: `echo '{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService",'`,
		Way:   Elsewhere, File: "test/integration/moving_test.go", Has: `"groupPriorityMinimum":100,"versionPriority":1,`,
	},
	{
		Words: "kubectl wait --for=condition=Available apiservice/v1beta2.custom.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: `"wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io"`,
	},
	{
		Words: `before='{"name":"prometheus-adapter","namespace":"monitoring","port":443}'`,
		Way:   Elsewhere, File: "test/integration/moving_test.go", Has: `"port":` + "` + adapterPort",
	},
	{
		Words: "kubectl patch apiservice v1beta2.custom.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true,"service":`,
	},
	{
		Words: "kubectl delete deployment,service,configmap,serviceaccount,poddisruptionbudget",
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: `"delete", "deployment,service,configmap,serviceaccount,poddisruptionbudget"`,
	},
	{
		Words: "kubectl delete clusterrole,clusterrolebinding -l app.kubernetes.io/name=prometheus-adapter",
		Way:   NotRun, Why: "no test installs the chart of prometheus-adapter",
	},
	{
		Words: "kubectl delete rolebinding -n kube-system -l app.kubernetes.io/name=prometheus-adapter",
		Way:   NotRun, Why: "no test installs the chart of prometheus-adapter",
	},
	{
		Words: "kubectl delete secret -n monitoring -l owner=helm,name=prometheus-adapter",
		Way:   NotRun, Why: "no test installs the chart of prometheus-adapter",
	},
	{
		Words: "kubectl create configmap -n kube-system custom-metrics-backends",
		Way:   NotRun, Why: "the tests that run the server outside of a pod mount nothing",
	},
	{
		Words: "kubectl get configmap -n monitoring prometheus-adapter",
		Way:   NotRun, Why: "no test installs the chart of prometheus-adapter",
	},
	{
		Words: "kubectl port-forward -n kube-system service/custom-metrics-server",
		Way:   NotRun, Why: "the tests that compare the two servers reach them without it",
	},
	{
		Words: "path='/apis/custom.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/moving_test.go",
		Has: "/pods/*/http_requests_per_second?labelSelector=app%3Dweb",
	},
	{
		Words: "token=$(kubectl create token -n kube-system horizontal-pod-autoscaler)",
		Way:   Elsewhere, File: "test/integration/moving_test.go", Has: `"kube-system", "horizontal-pod-autoscaler"`,
	},
	{
		Words: `kubectl get --raw "$path"`,
		Way:   Elsewhere, File: "test/integration/moving_test.go", Has: `compare("prometheus-adapter", askAPI`,
	},
	{
		Words: `curl -k -H "Authorization: Bearer $token" "https://localhost:8443$path"`,
		Way:   Elsewhere, File: "test/integration/moving_test.go", Has: "s.get(path, controller)",
	},
	{
		Words: "kubectl describe hpa", Way: Elsewhere, File: "test/e2e/custommetrics_test.go",
		Has: `"describe", "hpa"`,
	},
	{
		Words: "metrics-server custom-metrics --check-config",
		Way:   Elsewhere, File: "pkg/app/custom_test.go", Has: `"--check-config", example`,
	},
	{
		Words: "metrics-server custom-metrics", Way: Elsewhere, File: "test/e2e/custommetrics_test.go",
		Has: "installCustomMetrics(t)",
	},
	{
		Words: "helm upgrade --install metrics-server dist/metrics-server-1.0.0.tgz -n kube-system -f examples",
		Way:   Elsewhere, File: "hack/helm/examples_test.go", Has: "examples/values",
	},
	{
		Words: "helm upgrade --install metrics-server dist/metrics-server-1.0.0.tgz -n kube-system --take-ownership",
		Way:   Elsewhere, File: "test/integration/helm_test.go", Has: `"--take-ownership", "--force-conflicts"`,
	},
	{
		Words: "helm upgrade --install metrics-server dist/metrics-server-1.0.0.tgz -n kube-system " +
			"--set customMetrics.enabled=true",
		Way: Elsewhere, File: "hack/helm/custommetrics_test.go", Has: "customMetrics: {enabled: true}",
	},
	{
		Words: "kubectl delete deployment",
		Way:   Elsewhere, File: "test/integration/helm_test.go", Has: `"delete", "deployment"`,
	},
	{
		Words: "kubectl delete clusterrole system:aggregated-metrics-reader",
		Way:   NotRun, Why: "it would take away the right that the other integration tests read with",
	},
	{
		Words: "kubectl delete -f",
		Way:   Elsewhere, File: "test/install/install_test.go", Has: `mustKubectl(t, "delete", "-f"`,
	},
	{Words: "helm uninstall", Way: Elsewhere, File: "test/install/install_test.go", Has: `mustHelm(t, "uninstall"`},
	{Words: "go version -m", Way: Elsewhere, File: "hack/image/image_test.go", Has: `"version", "-m"`},
	{Words: "sha256sum -c SHA256SUMS", Way: Elsewhere, File: ".github/workflows/release.yml", Has: "cd dist && " +
		"sha256sum --check"},
	{Words: "go run . assets", Way: Elsewhere, File: "test/e2e/run.sh", Has: "assets -only kubectl -version"},
	{Words: "go run . load", Way: Elsewhere, File: "test/e2e/run.sh", Has: "cluster load -state"},
	{Words: "go run . node add", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "add")`},
	{Words: "go run . node stop", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "stop", name)`},
	{Words: "go run . node start", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "start", name)`},
	{Words: "go run . node freeze", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "freeze", name)`},
	{Words: "go run . node kill", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "kill", name)`},
	{Words: "go run . node delete", Way: Elsewhere, File: "test/e2e/nodes_test.go", Has: `changeNode(t, "delete", name)`},

	{
		Words: "kubectl patch apiservice v1.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/helm_test.go",
		Has: `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`,
	},
	{
		Words: "kubectl patch apiservice v1beta1.metrics.k8s.io",
		Way:   Elsewhere, File: "test/integration/gitops_test.go",
		Has: `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`,
	},
	{
		Words: "kubectl -n kube-system logs deployment/metrics-server | grep 'own credentials'",
		Way:   Elsewhere, File: "test/integration/kubelettoken_test.go", Has: "this server's own credentials",
	},
	{
		Words: "kubectl -n kube-system logs deployment/custom-metrics-server | grep 'Scrapes of a pod fail'",
		Way:   Elsewhere, File: "pkg/customserver/metrics.go", Has: "Scrapes of a pod fail",
	},
	{
		Words: "kubectl -n kube-system logs deployment/custom-metrics-server | grep 'more than its share'",
		Way:   Elsewhere, File: "pkg/customserver/limits.go", Has: "A namespace wants more than its share",
	},
	{
		Words: "kubectl -n kube-system logs deployment/custom-metrics-server | grep 'Queries of a backend fail'",
		Way:   Elsewhere, File: "pkg/customserver/metrics.go", Has: "Queries of a backend fail",
	},
	{
		Words: "kubectl -n kube-system logs deployment/custom-metrics-server | grep 'file of --config'",
		Way:   Elsewhere, File: "pkg/customserver/customserver.go", Has: "The file of --config cannot be used",
	},
	{
		Words: "kubectl -n kube-system logs deployment/custom-metrics-server | grep 'configuration of prometheus-adapter'",
		Way:   Elsewhere, File: "pkg/customserver/customserver.go", Has: "Part of the configuration of prometheus-adapter",
	},

	{Words: "kubectl get pods.metrics.k8s.io --watch", Way: NotRun, Why: "is on the roadmap"},
	{Words: "metrics-server ui", Way: NotRun, Why: "is on the roadmap"},
	{
		Words: "kubectl certificate approve",
		Way:   NotRun, Why: "hack/cluster leaves no request for a certificate to approve",
	},
	{Words: `eval "$(hack/docker/engine.sh up`, Way: Elsewhere, File: ".ci/run", Has: "hack/docker/engine.sh up"},
	{Words: "hack/docker/engine.sh stop", Way: Elsewhere, File: ".ci/run", Has: "hack/docker/engine.sh stop"},
	{
		Words: "hack/docker/engine.sh down", Way: Elsewhere, File: "hack/docker/engine-test.sh",
		Has: `./engine.sh down "$dir"`,
	},
	{Words: "hack/docker/golang.sh", Way: Elsewhere, File: ".ci/run", Has: "hack/docker/golang.sh"},
	{Words: "docker build", Way: Elsewhere, File: "hack/image/docker_test.go", Has: `"build", "-t", builtImage`},
	{Words: "make prometheus", Way: Elsewhere, File: "Makefile", Has: "test-backends: build prometheus"},
	{Words: "go test -tags backends", Way: NotRun, Why: "takes eight minutes to measure"},
	{Words: "make bench-compare", Way: NotRun, Why: "takes minutes, and needs a commit to compare with"},
	{Words: "go list -m -u all", Way: NotRun, Why: "its output depends on the network and changes from day to day"},
	{Words: "go get golang.org/x/vulndb@master", Way: NotRun, Why: "changes what is pinned"},
	{Words: "git tag", Way: NotRun, Why: "makes a release"},
	{Words: "git clone", Way: NotRun, Why: "there is no release yet"},
	{Words: "sha256sum dist/metrics-server-image.tar", Way: NotRun, Why: "prints sums of a release, for somebody to " +
		"compare"},
	{Words: "gh attestation verify", Way: NotRun, Why: "there is no release yet"},
}

// Rule returns the rule for c. Words match whole words only, so that the rule for `make bench` does
// not apply to `make bench-compare`.
func (c Command) Rule() (Rule, bool) {
	var best Rule
	for _, r := range Rules {
		rest, is := strings.CutPrefix(c.Bare(), r.Words)
		is = is && (rest == "" || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "/"))
		if is && len(r.Words) > len(best.Words) {
			best = r
		}
	}
	return best, best.Words != ""
}
