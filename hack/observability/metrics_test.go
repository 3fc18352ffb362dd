package observability

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// foreign are metrics of other programs: Prometheus, the kube-apiserver, cAdvisor, and the
// libraries of the server.
var foreign = []string{
	"up",
	"aggregator_unavailable_apiservice",
	"container_memory_working_set_bytes", "container_spec_memory_limit_bytes", "kube_pod_container_resource_limits",
	"apiserver_request_total", "apiserver_request_duration_seconds_bucket",
	"process_cpu_seconds_total", "process_resident_memory_bytes", "go_goroutines",
}

// metric is one of the servers' own, as the documents have it.
type metric struct {
	kind   string
	labels []string
}

var metricRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| ([^|]+) \\|")

func ownMetrics(t *testing.T) map[string]metric {
	t.Helper()
	own := map[string]metric{}
	for doc, least := range map[string]int{"metrics.md": 10, "custom-metrics.md": 7} {
		rows := metricRow.FindAllStringSubmatch(read(t, "../../docs/"+doc), -1)
		if len(rows) < least {
			t.Fatalf("docs/%s has %d metrics, fewer than there are", doc, len(rows))
		}
		for _, row := range rows {
			own[row[1]] = metric{row[2], strings.Split(strings.Trim(row[3], "`"), "`, `")}
		}
	}
	return own
}

// checkQuery checks that a query is valid and uses only existing metrics and labels.
func checkQuery(own map[string]metric, query string) error {
	expr, err := promQL.ParseExpr(query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	for _, selectors := range parser.ExtractSelectors(expr) {
		name := ""
		var labels []string
		for _, m := range selectors {
			if m.Name == model.MetricNameLabel {
				name = m.Value
			} else {
				labels = append(labels, m.Name)
			}
		}
		if slices.Contains(foreign, name) {
			continue
		}
		m, ok := own[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && own[base].kind == "histogram" {
				m, ok = own[base], true
			}
		}
		if !ok {
			return fmt.Errorf("%s: there is no metric %s", query, name)
		}
		for _, l := range labels {
			if l != "job" && !slices.Contains(m.labels, l) {
				return fmt.Errorf("%s: %s has no label %s", query, name, l)
			}
		}
	}
	return nil
}

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	own := ownMetrics(t)
	for _, rule := range alertRules(t) {
		if err := checkQuery(own, rule.Expr); err != nil {
			t.Error(err)
		}
	}
}

func TestDashboard(t *testing.T) {
	own := ownMetrics(t)
	type position struct{ X, Y, W, H int }
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			ID         int
			Title      string
			Datasource struct{ UID string }
			GridPos    position
			Targets    []struct{ RefID, Expr, LegendFormat string }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal([]byte(read(t, "../../deploy/grafana/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	if l := dashboard.Templating.List; len(l) != 1 || l[0].Name != "datasource" || l[0].Type != "datasource" {
		t.Errorf("variables %+v, want the data source alone", l)
	}
	var places []position
	asked := map[string]bool{}
	for i, p := range dashboard.Panels {
		if p.ID != i+1 || p.Title == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %d: %+v", i, p)
		}
		for _, other := range places {
			if at := p.GridPos; at.X < other.X+other.W && other.X < at.X+at.W &&
				at.Y < other.Y+other.H && other.Y < at.Y+at.H {
				t.Errorf("panel %q overlaps another one", p.Title)
			}
		}
		places = append(places, p.GridPos)
		for _, target := range p.Targets {
			if err := checkQuery(own, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")); err != nil {
				t.Errorf("panel %q: %v", p.Title, err)
			}
			for name := range own {
				if strings.Contains(target.Expr, name) {
					asked[name] = true
				}
			}
		}
	}
	for name := range own {
		// Failures by cause are in a gauge that is shown; a kubelet's last request only has an age, as every target has.
		if !asked[name] && name != "metrics_server_kubelet_scrape_failures_total" &&
			name != "metrics_server_kubelet_last_request_time_seconds" {
			t.Errorf("no panel shows %s", name)
		}
	}
}

func TestCheckQuery(t *testing.T) {
	own := map[string]metric{"a_total": {"counter", []string{"cause"}}, "b_seconds": {"histogram", nil}}
	for query, ok := range map[string]bool{
		`rate(a_total{cause="x",job="y"}[5m])`: true,
		`rate(b_seconds_bucket[5m])`:           true,
		`up == 0`:                              true,
		`rate(a_total{reason="x"}[5m])`:        false,
		`a_total_bucket`:                       false,
		`c`:                                    false,
		`rate(a_total)`:                        false,
	} {
		if err := checkQuery(own, query); (err == nil) != ok {
			t.Errorf("%s: error %v, want ok %v", query, err, ok)
		}
	}
}
