// Package observability checks the alert rules and the dashboard of deploy/ with Prometheus' own library: that they
// parse, that each alert fires when it must and only then, and that they ask for metrics that the server has.
package observability

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const (
	operatorRules = "../../deploy/kustomize/components/alerts/prometheusrule.yaml"
	plainRules    = "../../deploy/prometheus/alerts.yaml"
)

var (
	update = flag.Bool("update", false, "write "+plainRules+" anew")
	promQL = parser.NewParser(parser.Options{})
)

// The file for a Prometheus without the operator is what the operator's has in its spec.
func TestPlainRules(t *testing.T) {
	_, spec, ok := strings.Cut(read(t, operatorRules), "\nspec:\n")
	if !ok {
		t.Fatalf("%s has no spec", operatorRules)
	}
	want := "# Made from deploy/kustomize/components/alerts by `make generate`: for rule_files of a Prometheus without the operator.\n"
	for line := range strings.Lines(spec) {
		want += strings.TrimPrefix(line, "  ")
	}
	if *update {
		if err := os.WriteFile(plainRules, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, read(t, plainRules)); diff != "" {
		t.Errorf("%s is not what it is made from (run `make generate`) (-want +got):\n%s", plainRules, diff)
	}
}

// alertCases have for each alert series with which it fires, what it says then, and similar series with which it does not.
// A value is of one minute; those of the last are the ones that count, after an hour.
var alertCases = map[string][]struct {
	series string
	want   []string // summaries
}{
	"MetricsServerDown": {
		{`up{job="metrics-server",instance="a"} 1x20 0x40`, []string{"No metrics-server can be scraped."}},
		{`up{job="node-exporter",instance="a"} 1x60`, []string{"No metrics-server can be scraped."}},
		{`up{job="metrics-server",instance="a"} 1x56 0x4`, nil}, // a restart
		{"up{job=\"metrics-server\",instance=\"a\"} 0x60\nup{job=\"metrics-server\",instance=\"b\"} 1x60", nil},
	},
	"MetricsServerReplicaDown": {
		{"up{job=\"metrics-server\",instance=\"a\"} 0x60\nup{job=\"metrics-server\",instance=\"b\"} 1x60", []string{"The metrics-server at a cannot be scraped."}},
		{`up{job="node-exporter",instance="a"} 0x60`, nil},
	},
	"MetricsServerAPIUnavailable": {
		{ // of one kube-apiserver of two
			"aggregator_unavailable_apiservice{name=\"v1.metrics.k8s.io\",instance=\"m1\"} 1x60\n" +
				"aggregator_unavailable_apiservice{name=\"v1.metrics.k8s.io\",instance=\"m2\"} 0x60\n" +
				"aggregator_unavailable_apiservice{name=\"v1beta1.metrics.k8s.io\",instance=\"m1\"} 0x60",
			[]string{"The API server cannot reach metrics-server for v1.metrics.k8s.io."},
		},
		{`aggregator_unavailable_apiservice{name="v1beta1.custom.metrics.k8s.io"} 1x60`, nil},
		{`aggregator_unavailable_apiservice{name="v1.metrics.k8s.io"} 0x57 1x3`, nil},
	},
	"MetricsServerManyNodesFailing": {
		{nodes("75x60", "25x60"), []string{"metrics-server at a gets no answer from 25% of all nodes."}},
		{nodes("95x60", "5x60"), nil},
		{nodes("0x60", "0x60"), nil}, // no nodes at all
	},
	"MetricsServerNodesFailing": {
		{
			"metrics_server_failing_nodes{job=\"metrics-server\",instance=\"a\",cause=\"x509\"} 3x60\n" +
				"metrics_server_failing_nodes{job=\"metrics-server\",instance=\"a\",cause=\"timeout\"} 1x40", // over
			[]string{"metrics-server at a gets no answer from 3 nodes: x509."},
		},
		{`metrics_server_failing_nodes{job="metrics-server",instance="a",cause="timeout"} _x50 1x10`, nil}, // a node that restarts
	},
	"MetricsServerOldData": {
		{ages("0+80x60", "0+100x60"), []string{"A tenth of what metrics-server serves is older than 1m 47s."}},
		{ages("0+95x60", "0+100x60"), nil},
		{ages("0x60", "0x60"), nil}, // nobody asks
	},
	"MetricsServerPodsWithoutUsage": {
		{pods("90x60", "10x60"), []string{"metrics-server at a has no usage of 10% of all running pods."}},
		{pods("98x60", "2x60"), nil},
		{pods("0x60", "0x60"), nil},
	},
	"MetricsServerSamplesRefused": {
		{
			"metrics_server_samples_refused_total{job=\"metrics-server\",instance=\"a\",reason=\"nan\"} 0+5x60\n" +
				"metrics_server_samples_refused_total{job=\"metrics-server\",instance=\"a\",reason=\"negative\"} 7x60",
			[]string{"metrics-server at a refuses samples of kubelets: nan."},
		},
		{`metrics_server_samples_refused_total{job="metrics-server",instance="a",reason="nan"} 0x30 3x30`, nil},
	},
	"MetricsServerPodConflicts": {
		{`metrics_server_pod_conflicts_total{job="metrics-server",instance="a"} 5x30 110x30`, []string{"Nodes claim pods that other nodes claim too."}},
		{`metrics_server_pod_conflicts_total{job="metrics-server",instance="a"} 500x30 510x30`, nil},
	},
	"MetricsServerRequestsThrottled": {
		{requests("0+600x60", "0x60", "0+20x60"), []string{"metrics-server at a turns requests away."}},
		{requests("0+600x60", "0+20x60", "0+1x60"), nil},
	},
	"MetricsServerRequestsFail": {
		{requests("0+90x60", "0+10x60", "0x60"), []string{"metrics-server at a answers 10% of all requests with an error of its own."}},
		{requests("0+900x60", "0+1x60", "0+500x60"), nil},
		{requests("0x60", "0x60", "0x60"), nil},
	},
	"MetricsServerCertificateExpires": {
		{
			"metrics_server_serving_certificate_expiry_time_seconds{job=\"metrics-server\",instance=\"a\"} 5097600x60\n" + // 59 days
				"metrics_server_serving_certificate_expiry_time_seconds{job=\"metrics-server\",instance=\"b\"} 7776000x60",
			[]string{"The serving certificate of metrics-server at a ends in 58d 23h 0m 0s."},
		},
		{`metrics_server_serving_certificate_expiry_time_seconds{job="metrics-server",instance="a"} 5270400x60`, nil}, // 61 days
		{`metrics_server_serving_certificate_expiry_time_seconds{job="metrics-server",instance="a"} 0x60`, nil},       // it keeps none
	},
	"MetricsServerMemoryNearLimit": {
		{memory(`kube-system`, "970x60", "1000x60"), []string{"kube-system/metrics-server-1 uses 97% of its memory limit."}},
		{memory(`kube-system`, "900x60", "1000x60"), nil},
		{memory(`kube-system`, "970x60", "0x60"), nil}, // no limit
		{memory(`default`, "970x60", "1000x60"), nil},  // somebody else's
	},
}

func nodes(complete, failing string) string {
	return `metrics_server_nodes{job="metrics-server",instance="a",state="complete"} ` + complete +
		"\nmetrics_server_nodes{job=\"metrics-server\",instance=\"a\",state=\"failing\"} " + failing +
		"\nmetrics_server_nodes{job=\"metrics-server\",instance=\"a\",state=\"incomplete\"} 0x60"
}

func pods(served, missing string) string {
	return `metrics_server_pods{job="metrics-server",instance="a",usage="served"} ` + served +
		"\nmetrics_server_pods{job=\"metrics-server\",instance=\"a\",usage=\"missing\"} " + missing
}

func ages(young, all string) string {
	const series = `metrics_server_api_metric_freshness_seconds_bucket{job="metrics-server",instance="a",pod="p",le=`
	return series + `"66"} ` + young + "\n" + series + `"150"} ` + all + "\n" + series + `"+Inf"} ` + all
}

func requests(ok, failed, throttled string) string {
	const series = `apiserver_request_total{job="metrics-server",instance="a",group="metrics.k8s.io",verb="LIST",resource="pods",scope="cluster",version="v1",code=`
	return series + `"200"} ` + ok + "\n" + series + `"504"} ` + failed + "\n" + series + `"429"} ` + throttled
}

func memory(namespace, used, limit string) string {
	labels := `{namespace="` + namespace + `",pod="metrics-server-1",container="metrics-server"`
	return "container_memory_working_set_bytes" + labels + `,id="x"} ` + used + "\ncontainer_spec_memory_limit_bytes" + labels + `,id="x"} ` + limit
}

func TestAlerts(t *testing.T) {
	for _, rule := range alertRules(t) {
		t.Run(rule.Alert, func(t *testing.T) {
			fires, stays := false, false
			for _, c := range alertCases[rule.Alert] {
				fires, stays = fires || c.want != nil, stays || c.want == nil
				if diff := cmp.Diff(c.want, summaries(t, rule, c.series)); diff != "" {
					t.Errorf("with\n%s\nit fires (-want +got):\n%s", c.series, diff)
				}
			}
			if !fires || !stays {
				t.Error("want series with which it fires, and series with which it does not")
			}
			if s := rule.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("severity %q", s)
			}
			for _, name := range []string{"summary", "description", "runbook_url"} {
				if rule.Annotations[name] == "" {
					t.Errorf("it has no %s", name)
				}
			}
		})
	}
}

// summaries returns those of the alerts that fire after an hour with these series.
func summaries(t *testing.T, r rulefmt.Rule, series string) []string {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n  "+strings.ReplaceAll(series, "\n", "\n  "))
	t.Cleanup(func() { storage.Close() })
	query := rules.EngineQueryFunc(promqltest.NewTestEngine(t, false, 0, 1e6), storage)
	expr, err := promQL.ParseExpr(r.Expr)
	if err != nil {
		t.Fatal(err)
	}
	alert := rules.NewAlertingRule(r.Alert, expr, time.Duration(r.For), time.Duration(r.KeepFiringFor),
		labels.FromMap(r.Labels), labels.FromMap(r.Annotations), labels.EmptyLabels(), "", false, slog.New(slog.DiscardHandler))
	for minute := range 61 {
		if _, err := alert.Eval(context.Background(), 0, time.Unix(int64(minute)*60, 0), query, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	var texts []string
	alert.ForEachActiveAlert(func(a *rules.Alert) {
		if a.State != rules.StateFiring {
			return
		}
		a.Annotations.Range(func(l labels.Label) {
			if strings.Contains(l.Value, "<error") || strings.Contains(l.Value, "<no value>") {
				t.Errorf("%s: %s", l.Name, l.Value)
			}
		})
		texts = append(texts, a.Annotations.Get("summary"))
	})
	return texts
}

func alertRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(plainRules, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) != len(alertCases) {
		t.Errorf("%d rules, tests of %d", len(all), len(alertCases))
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
