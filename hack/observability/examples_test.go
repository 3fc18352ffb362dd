package observability

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
)

// kubernetesSD stands for Prometheus' own type, which would bring all of Kubernetes' client into this module. It has
// the fields that the example uses; others are errors.
type kubernetesSD struct {
	discovery.Config `yaml:"-"` // nil: nothing is discovered here

	Role       string `yaml:"role"`
	Namespaces struct {
		Names []string `yaml:"names"`
	} `yaml:"namespaces"`
}

func (*kubernetesSD) Name() string { return "kubernetes" }

// TestExampleScrape has Prometheus read the configuration in examples/, as strictly as it does when it starts.
func TestExampleScrape(t *testing.T) {
	discovery.RegisterConfig(&kubernetesSD{})
	c, err := config.Load(read(t, "../../examples/prometheus/scrape.yaml"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.ScrapeConfigs) != 1 {
		t.Fatalf("%d jobs, want one", len(c.ScrapeConfigs))
	}
	job := c.ScrapeConfigs[0]
	if job.JobName != "metrics-server" || job.Scheme != "https" || job.MetricsPath != "/metrics" {
		t.Errorf("job %s asks for %s://...%s, want metrics-server to ask for https://.../metrics",
			job.JobName, job.Scheme, job.MetricsPath)
	}
	want := kubernetesSD{Role: "endpointslice"}
	want.Namespaces.Names = []string{"kube-system"}
	if diff := cmp.Diff(discovery.Configs{&want}, job.ServiceDiscoveryConfigs); diff != "" {
		t.Errorf("how pods are found (-want +got):\n%s", diff)
	}
	if len(job.RelabelConfigs) != 2 {
		t.Errorf("%d rules, want two, by which only the port https of metrics-server is kept", len(job.RelabelConfigs))
	}
	if tls := job.HTTPClientConfig.TLSConfig; tls.InsecureSkipVerify ||
		tls.ServerName != "metrics-server.kube-system.svc" {
		t.Errorf("%+v: a token is sent, so the server must be verified", tls)
	}
}
