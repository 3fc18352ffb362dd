// Package observability checks the alert rules and the dashboard of deploy/ with Prometheus' own library: that they
// parse, that each alert fires when it must and only then, and that they ask for metrics that the server has.
package observability

import (
	"context"
	"flag"
	"fmt"
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

// ruleFiles are the alerts of each server: those for the operator, and the file that is derived from them.
var ruleFiles = []struct{ component, plain string }{
	{"alerts", "../../deploy/prometheus/alerts.yaml"},
	{"custom-metrics-alerts", "../../deploy/prometheus/custom-metrics-alerts.yaml"},
}

var (
	update = flag.Bool("update", false, "write the files in deploy/prometheus")
	promQL = parser.NewParser(parser.Options{})
)

// TestPlainRules checks that the files for a Prometheus without the operator have the spec of the operator's.
func TestPlainRules(t *testing.T) {
	for _, files := range ruleFiles {
		_, spec, ok := strings.Cut(read(t, "../../deploy/kustomize/components/"+files.component+"/prometheusrule.yaml"),
			"\nspec:\n")
		if !ok {
			t.Fatalf("the rules of %s have no spec", files.component)
		}
		want := "# Derived from deploy/kustomize/components/" + files.component +
			" by `make generate`.\n# For a Prometheus without the operator.\n"
		for line := range strings.Lines(spec) {
			want += strings.TrimPrefix(line, "  ")
		}
		if *update {
			if err := os.WriteFile(files.plain, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, read(t, files.plain)); diff != "" {
			t.Errorf("%s is out of date: run `make generate` (-want +got):\n%s", files.plain, diff)
		}
	}
}

// unavailableExternal returns the series of an APIService of external metrics that is unavailable, and in a state
// according to both replicas of the custom metrics server.
func unavailableExternal(state string) string {
	const name = "v1beta1.external.metrics.k8s.io"
	all := fmt.Sprintf("aggregator_unavailable_apiservice{name=%q,instance=\"m1\"} 1x60", name)
	for _, instance := range []string{"a", "b"} {
		all += fmt.Sprintf("\nmetrics_server_apiservices{job=\"custom-metrics-server\",instance=%q,apiservice=%q,"+
			"state=%q} 1x60", instance, name, state)
	}
	return all
}

// alertCases has, for each alert, series with which it fires, its summaries then, and similar
// series with which it does not fire. There is a value per minute; the last ones count, after an
// hour.
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
		{
			"up{job=\"metrics-server\",instance=\"a\"} 0x60\nup{job=\"metrics-server\",instance=\"b\"} 1x60",
			[]string{"The metrics-server at a cannot be scraped."},
		},
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
		{nodes("75x60", "25x60"), []string{"metrics-server at a cannot scrape 25% of all nodes."}},
		{nodes("95x60", "5x60"), nil},
		{nodes("0x60", "0x60"), nil}, // no nodes at all
	},
	"MetricsServerNodesFailing": {
		{
			"metrics_server_failing_nodes{job=\"metrics-server\",instance=\"a\",cause=\"x509\"} 3x60\n" +
				"metrics_server_failing_nodes{job=\"metrics-server\",instance=\"a\",cause=\"timeout\"} 1x40", // over
			[]string{"metrics-server at a cannot scrape 3 nodes: x509."},
		},
		// a node that restarts
		{`metrics_server_failing_nodes{job="metrics-server",instance="a",cause="timeout"} _x50 1x10`, nil},
	},
	"MetricsServerOldData": {
		{ages("0+80x60", "0+100x60"), []string{"A tenth of what metrics-server serves is older than 1m 47s."}},
		{ages("0+95x60", "0+100x60"), nil},
		{ages("0x60", "0x60"), nil}, // nobody asks
	},
	"MetricsServerPodsWithoutUsage": {
		{pods("90x60", "10x60"), []string{"metrics-server at a has no usage for 10% of all running pods."}},
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
		{
			`metrics_server_pod_conflicts_total{job="metrics-server",instance="a"} 5x30 110x30`,
			[]string{"Several nodes report the same pods."},
		},
		{`metrics_server_pod_conflicts_total{job="metrics-server",instance="a"} 500x30 510x30`, nil},
	},
	"MetricsServerRequestsThrottled": {
		{requests("0+600x60", "0x60", "0+20x60"), []string{"metrics-server at a rejects requests."}},
		{requests("0+600x60", "0+20x60", "0+1x60"), nil},
	},
	"MetricsServerRequestsFail": {
		{
			requests("0+90x60", "0+10x60", "0x60"),
			[]string{"metrics-server at a answers 10% of all requests with a server error."},
		},
		{requests("0+900x60", "0+1x60", "0+500x60"), nil},
		{requests("0x60", "0x60", "0x60"), nil},
	},
	"MetricsServerCertificateExpires": {
		{
			// 59 days
			"metrics_server_serving_certificate_expiry_time_seconds{job=\"metrics-server\",instance=\"a\"} 5097600x60\n" +
				"metrics_server_serving_certificate_expiry_time_seconds{job=\"metrics-server\",instance=\"b\"} 7776000x60",
			[]string{"The serving certificate of metrics-server at a expires in 58d 23h 0m 0s."},
		},
		// 61 days
		{`metrics_server_serving_certificate_expiry_time_seconds{job="metrics-server",instance="a"} 5270400x60`, nil},
		// it keeps none
		{`metrics_server_serving_certificate_expiry_time_seconds{job="metrics-server",instance="a"} 0x60`, nil},
	},
	"MetricsServerAPIServiceElsewhere": {
		{
			// Both replicas report the same.
			apiService("a", "v1", "elsewhere") + "\n" + apiService("b", "v1", "elsewhere") + "\n" +
				apiService("a", "v1beta1", "verified"),
			[]string{"The APIService v1.metrics.k8s.io points to a server other than metrics-server."},
		},
		{apiService("a", "v1", "unverified"), nil},
		{apiService("a", "v1", "absent"), nil},
	},
	"MetricsServerOwnCredentialsShown": {
		{
			"metrics_server_kubelet_own_credentials{job=\"metrics-server\",instance=\"a\"} 1x60\n" +
				"metrics_server_kubelet_own_credentials{job=\"metrics-server\",instance=\"b\"} 0x60",
			[]string{"metrics-server at a shows its own token to kubelets."},
		},
		{`metrics_server_kubelet_own_credentials{job="metrics-server",instance="a"} 0x60`, nil},
		{`metrics_server_kubelet_own_credentials{job="another",instance="a"} 1x60`, nil},
	},
	"MetricsServerMemoryNearLimit": {
		{
			memory(`kube-system`, "metrics-server", "970x60", "1000x60"),
			[]string{"kube-system/metrics-server-1 uses 97% of its memory limit."},
		},
		{memory(`kube-system`, "metrics-server", "900x60", "1000x60"), nil},
		{memory(`kube-system`, "metrics-server", "970x60", "0x60"), nil}, // no limit
		{memory(`default`, "metrics-server", "970x60", "1000x60"), nil},  // in another namespace
		{
			memoryOfStack("metrics-server", "970x60", "1000x60"),
			[]string{"kube-system/metrics-server-1 uses 97% of its memory limit."},
		},
		{memoryOfStack("metrics-server", "900x60", "1000x60"), nil},
	},
	"CustomMetricsServerDown": {
		{`up{job="custom-metrics-server",instance="a"} 1x20 0x40`, []string{"No custom metrics server can be scraped."}},
		{`up{job="metrics-server",instance="a"} 1x60`, []string{"No custom metrics server can be scraped."}},
		{"up{job=\"custom-metrics-server\",instance=\"a\"} 0x60\nup{job=\"custom-metrics-server\",instance=\"b\"} 1x60", nil},
	},
	"CustomMetricsServerReplicaDown": {
		{
			"up{job=\"custom-metrics-server\",instance=\"a\"} 0x60\nup{job=\"custom-metrics-server\",instance=\"b\"} 1x60",
			[]string{"The custom metrics server at a cannot be scraped."},
		},
		{`up{job="metrics-server",instance="a"} 0x60`, nil},
	},
	"CustomMetricsServerAPIUnavailable": {
		{
			"aggregator_unavailable_apiservice{name=\"v1beta2.custom.metrics.k8s.io\",instance=\"m1\"} 1x60\n" +
				"aggregator_unavailable_apiservice{name=\"v1beta2.custom.metrics.k8s.io\",instance=\"m2\"} 0x60\n" +
				"aggregator_unavailable_apiservice{name=\"v1beta1.custom.metrics.k8s.io\",instance=\"m1\"} 0x60",
			[]string{"The API server cannot reach the custom metrics server for v1beta2.custom.metrics.k8s.io."},
		},
		{`aggregator_unavailable_apiservice{name="v1beta1.metrics.k8s.io"} 1x60`, nil},
		{`aggregator_unavailable_apiservice{name="v1beta1.custom.metrics.k8s.io"} 0x57 1x3`, nil},
		{
			unavailableExternal("verified"),
			[]string{"The API server cannot reach the custom metrics server for v1beta1.external.metrics.k8s.io."},
		},
		{
			unavailableExternal("unverified"),
			[]string{"The API server cannot reach the custom metrics server for v1beta1.external.metrics.k8s.io."},
		},
		{unavailableExternal("elsewhere"), nil},
		{`aggregator_unavailable_apiservice{name="v1beta1.external.metrics.k8s.io"} 1x60`, nil}, // of another program
	},
	"CustomMetricsServerPodsFailing": {
		{
			states("scraped_pods", "answered", "75x60", "failing", "25x60"),
			[]string{"The custom metrics server at a cannot scrape 25% of the pods of autoscalers."},
		},
		{states("scraped_pods", "answered", "95x60", "failing", "5x60"), nil},
		{states("scraped_pods", "answered", "0x60", "failing", "0x60"), nil}, // no autoscalers
	},
	"CustomMetricsServerMetricsInError": {
		{
			states("autoscaler_metrics", "ok", "8x60", "error", "2x60"),
			[]string{"The custom metrics server at a cannot collect 20% of the metrics that autoscalers refer to."},
		},
		{states("autoscaler_metrics", "ok", "19x60", "error", "1x60"), nil},
		{states("autoscaler_metrics", "ok", "0x60", "error", "0x60"), nil},
	},
	"CustomMetricsServerScrapesLate": {
		{
			durations("0+80x60", "0+100x60"),
			[]string{"A tenth of the scrapes of the custom metrics server at a take longer than 7.5s."},
		},
		{durations("0+95x60", "0+100x60"), nil},
		{durations("0x60", "0x60"), nil}, // nothing is scraped
	},
	"CustomMetricsServerNamespacesLimited": {
		{
			limited("endpoints", "2x60") + "\n" + limited("memory", "0x60"),
			[]string{"The custom metrics server at a limits 2 namespaces to their share of the endpoints."},
		},
		{limited("endpoints", "0x60"), nil},
		{limited("endpoints", "0x50 1x8 0x2"), nil},
	},
	"CustomMetricsServerBackendFailing": {
		{
			backendQueries("main", "40x60", "60x60") + "\n" + backendQueries("other", "60x60", "40x60"),
			[]string{"60% of the queries of backend main fail in the custom metrics server at a."},
		},
		{backendQueries("main", "0x60", "0x60"), nil},     // nobody uses it
		{backendQueries("main", "1x60", "0x57 9x3"), nil}, // a restart
	},
	"CustomMetricsServerBackendSlow": {
		{
			queryDurations("0+80x60", "0+100x60"),
			[]string{"A tenth of the queries of backend main take the custom metrics server at a longer than 7.5s."},
		},
		{queryDurations("0+95x60", "0+100x60"), nil},
		{queryDurations("0x60", "0x60"), nil},
	},
	"CustomMetricsServerConfigInvalid": {
		{
			"metrics_server_config_last_reload_successful{job=\"custom-metrics-server\",instance=\"a\"} 1x30 0x30\n" +
				"metrics_server_config_last_reload_successful{job=\"custom-metrics-server\",instance=\"b\"} 1x60",
			[]string{"The custom metrics server at a cannot use the present administrator's file (--config)."},
		},
		{`metrics_server_config_last_reload_successful{job="custom-metrics-server",instance="a"} 0x30 1x30`, nil},
	},
	"CustomMetricsServerAdapterRulesLeftOut": {
		{
			adapterRules("7x60", "2x60"),
			[]string{"The custom metrics server at a leaves out 2 rules of prometheus-adapter's configuration."},
		},
		{adapterRules("9x60", "0x60"), nil},
	},
	"CustomMetricsServerRequestsFail": {
		{
			customRequests("0+90x60", "0+10x60"),
			[]string{"The custom metrics server at a answers 10% of all requests with a server error."},
		},
		{customRequests("0+900x60", "0+1x60"), nil},
		{customRequests("0x60", "0x60"), nil},
	},
	"CustomMetricsServerCertificateExpires": {
		{
			// 59 days
			`metrics_server_serving_certificate_expiry_time_seconds{job="custom-metrics-server",instance="a"} 5097600x60`,
			[]string{"The serving certificate of the custom metrics server at a expires in 58d 23h 0m 0s."},
		},
		{`metrics_server_serving_certificate_expiry_time_seconds{job="metrics-server",instance="a"} 5097600x60`, nil},
	},
	"CustomMetricsServerAPIServiceElsewhere": {
		{
			customAPIService("a", "elsewhere") + "\n" + customAPIService("b", "elsewhere"),
			[]string{"The APIService v1beta2.custom.metrics.k8s.io points to a server other than the custom metrics server."},
		},
		{customAPIService("a", "verified"), nil},
		{customAPIService("a", "absent"), nil},
	},
	"CustomMetricsServerMemoryNearLimit": {
		{
			memory(`kube-system`, "custom-metrics-server", "970x60", "1000x60"),
			[]string{"kube-system/custom-metrics-server-1 uses 97% of its memory limit."},
		},
		{memory(`kube-system`, "custom-metrics-server", "970x60", "0x60"), nil}, // no limit
		{memory(`kube-system`, "metrics-server", "970x60", "1000x60"), nil},     // the other server's
		{
			memoryOfStack("custom-metrics-server", "970x60", "1000x60"),
			[]string{"kube-system/custom-metrics-server-1 uses 97% of its memory limit."},
		},
		{memoryOfStack("custom-metrics-server", "900x60", "1000x60"), nil},
	},
}

func states(metric, good, goodValues, bad, badValues string) string {
	series := "metrics_server_" + metric + `{job="custom-metrics-server",instance="a",state=`
	return fmt.Sprintf("%s%q} %s\n%s%q} %s", series, good, goodValues, series, bad, badValues)
}

func backendQueries(backend, answered, failing string) string {
	series := fmt.Sprintf(
		`metrics_server_backend_queries{job="custom-metrics-server",instance="a",backend=%q,state=`, backend)
	return series + `"answered"} ` + answered + "\n" + series + `"failing"} ` + failing + "\n" + series + `"waiting"} 0x60`
}

func queryDurations(short, all string) string {
	const series = `metrics_server_backend_query_duration_seconds_bucket{job="custom-metrics-server",instance="a",` +
		`pod="p",backend="main",le=`
	return series + `"5"} ` + short + "\n" + series + `"10"} ` + all + "\n" + series + `"+Inf"} ` + all
}

func adapterRules(used, leftOut string) string {
	const series = `metrics_server_adapter_rules{job="custom-metrics-server",instance="a",state=`
	return series + `"used"} ` + used + "\n" + series + `"left_out"} ` + leftOut
}

func limited(limit, values string) string {
	return fmt.Sprintf(`metrics_server_limited_namespaces{job="custom-metrics-server",instance="a",limit=%q} `, limit) +
		values
}

func durations(short, all string) string {
	const series = `metrics_server_pod_scrape_duration_seconds_bucket{job="custom-metrics-server",instance="a",pod="p",le=`
	return series + `"5"} ` + short + "\n" + series + `"10"} ` + all + "\n" + series + `"+Inf"} ` + all
}

func customRequests(ok, failed string) string {
	const series = `apiserver_request_total{job="custom-metrics-server",instance="a",group="custom.metrics.k8s.io",` +
		`verb="LIST",resource="pods",subresource="requests",scope="namespace",version="v1beta2",code=`
	return series + `"200"} ` + ok + "\n" + series + `"504"} ` + failed
}

func customAPIService(replica, state string) string {
	return fmt.Sprintf(`metrics_server_apiservices{job="custom-metrics-server",instance=%[1]q,pod=%[1]q,`+
		`apiservice="v1beta2.custom.metrics.k8s.io",state=%[2]q} 1x60`, replica, state)
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
	const series = `apiserver_request_total{job="metrics-server",instance="a",group="metrics.k8s.io",` +
		`verb="LIST",resource="pods",scope="cluster",version="v1",code=`
	return series + `"200"} ` + ok + "\n" + series + `"504"} ` + failed + "\n" + series + `"429"} ` + throttled
}

func apiService(replica, version, state string) string {
	return fmt.Sprintf(`metrics_server_apiservices{job="metrics-server",instance=%[1]q,pod=%[1]q,`+
		`apiservice="%[2]s.metrics.k8s.io",state=%[3]q} 1x60`, replica, version, state)
}

func memory(namespace, container, used, limit string) string {
	labels := fmt.Sprintf(`{namespace=%q,pod="%s-1",container=%q`, namespace, container, container)
	return "container_memory_working_set_bytes" + labels + `,id="x"} ` + used + "\ncontainer_spec_memory_limit_bytes" +
		labels + `,id="x"} ` + limit
}

// memoryOfStack is memory with the series of kube-prometheus-stack, where only kube-state-metrics has limits.
func memoryOfStack(container, used, limit string) string {
	const series = `{job=%q,namespace="kube-system",pod="%[2]s-1",container=%[2]q,%s} %s`
	return "container_memory_working_set_bytes" + fmt.Sprintf(series, "kubelet", container, `id="x"`, used) +
		"\nkube_pod_container_resource_limits" + fmt.Sprintf(series, "kube-state-metrics", container,
		`node="n",uid="u",resource="memory",unit="byte"`, limit) +
		"\nkube_pod_container_resource_limits" + fmt.Sprintf(series, "kube-state-metrics", container,
		`node="n",uid="u",resource="cpu",unit="core"`, "1x60")
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

// summaries returns the summaries of the alerts that fire after an hour with these series.
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
		labels.FromMap(r.Labels), labels.FromMap(r.Annotations), labels.EmptyLabels(), "", false, slog.New(
			slog.DiscardHandler))
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
	var all []rulefmt.Rule
	for _, files := range ruleFiles {
		groups, errs := rulefmt.ParseFile(files.plain, false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
		for _, err := range errs {
			t.Error(err)
		}
		if len(errs) > 0 {
			t.FailNow()
		}
		for _, g := range groups.Groups {
			all = append(all, g.Rules...)
		}
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
