//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples applies every manifest in examples/ as a dry run on the API server.
func TestExamples(t *testing.T) {
	const examples = "../../examples"
	autoscaler := moduleDir(t, "../../hack/vpa", "k8s.io/autoscaler/vertical-pod-autoscaler")
	for _, definitions := range []string{
		"../testdata/servicemonitors.yaml", filepath.Join(autoscaler, "deploy/vpa-v1-crd-gen.yaml"),
	} {
		kubectl(t, "apply", "--server-side", "-f", definitions)
		t.Cleanup(func() { kubectl(t, "delete", "-f", definitions) })
		kubectl(t, "wait", "--for=condition=Established", "--timeout=60s", "-f", definitions)
	}

	// Files that are not manifests, and who checks them.
	elsewhere := map[string]string{
		"prometheus/scrape.yaml": "hack/observability", "values": "hack/helm", "backends": "pkg/app",
	}
	const autoscaling, rbac = "horizontalpodautoscaler.autoscaling/", "rbac.authorization.k8s.io/metrics-reader"
	objects := map[string][]string{ // what each file has, in kubectl's words
		"hpa-cpu-memory.yaml":     {autoscaling + "web"},
		"hpa-custom-metrics.yaml": {"deployment.apps/web", autoscaling + "web"},
		"hpa-external-metrics.yaml": {
			"deployment.apps/redis", "service/redis-exporter", "service/redis", "deployment.apps/worker",
			autoscaling + "worker",
		},
		"hpa-named-metrics.yaml": {
			"deployment.apps/shop", "service/shop", "ingress.networking.k8s.io/shop", autoscaling + "shop",
		},
		"php-apache.yaml":                {"deployment.apps/php-apache", "service/php-apache", autoscaling + "php-apache"},
		"php-apache-load.yaml":           {"deployment.apps/php-apache-load"},
		"vpa.yaml":                       {"verticalpodautoscaler.autoscaling.k8s.io/web"},
		"prometheus/rbac.yaml":           {"clusterrole." + rbac, "clusterrolebinding." + rbac},
		"prometheus/servicemonitor.yaml": {"servicemonitor.monitoring.coreos.com/metrics-server"},
	}
	err := filepath.WalkDir(examples, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(examples, file)
		if err != nil || filepath.Ext(file) != ".yaml" {
			return err
		}
		if elsewhere[name] != "" || elsewhere[filepath.Dir(name)] != "" {
			return nil
		}
		want, ok := objects[name]
		if !ok {
			t.Errorf("%s is new: say here what it consists of", name)
		}
		delete(objects, name)
		t.Run(name, func(t *testing.T) {
			// kubectl learns of new kinds from the API server's discovery, which follows within seconds.
			var out string
			eventually(t, "kubectl applies it", func() (err error) {
				if out, err = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", file); err != nil {
					err = fmt.Errorf("%w\n%s", err, out)
				}
				return err
			})
			for _, object := range want {
				if line := object + " created (server dry run)"; !strings.Contains(out, line) {
					t.Errorf("kubectl does not say %q:\n%s", line, out)
				}
			}
			if got, want := strings.Count(out, "(server dry run)"), len(want); got != want {
				t.Errorf("%d objects, want %d:\n%s", got, want, out)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range objects {
		t.Errorf("%s is gone", name)
	}
}

// moduleDir returns where the sources are of a dependency of the module in a directory.
func moduleDir(t *testing.T, dir, path string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", path)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return module.Dir
}
