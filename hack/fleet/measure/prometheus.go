package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"metrics-server/hack/fleet/pods"
)

// prometheusPort is free in the network of the fleet.
const prometheusPort = 9090

// prometheusSettle is how long Prometheus scrapes before it is measured: it reads its targets after
// 5 s, and its rates cover a minute.
const prometheusSettle = 90 * time.Second

// prometheusConfig is its configuration, as the Prometheus Operator or its chart would make it.
const prometheusConfig = `global: {scrape_interval: 15s, scrape_timeout: 10s}
scrape_configs:
- job_name: pods
  file_sd_configs: [{files: [targets.json]}]
`

// prometheus stops the server and measures Prometheus on the pods that the server was measured with, if that is wanted.
func (r *hpaRun) prometheus(ctx context.Context) error {
	if r.Prometheus == "" {
		return nil
	}
	r.server.Stop()
	r.server = nil
	dir := filepath.Join(r.dir, "prometheus")
	if err := r.writeTargets(dir); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	addr := fmt.Sprintf("127.0.0.1:%d", prometheusPort)
	cmd := exec.CommandContext(ctx, r.Prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--storage.tsdb.retention.time=1h", "--log.level=warn",
		"--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	r.say("Prometheus scrapes for %v", prometheusSettle)
	if err := wait(ctx, prometheusSettle); err != nil {
		return err
	}
	r.say("Prometheus with one query per HPA every %v", controllerPeriod)
	p := &PrometheusReport{Binary: r.Prometheus}
	r.report.Prometheus = p
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var took durations
	done := make(chan error, 1)
	go func() {
		done <- r.askPeriodically(ctx, func(ctx context.Context, w *workload) error {
			begin := time.Now()
			n, err := query(ctx, "http://"+addr, w)
			mu.Lock()
			defer mu.Unlock()
			took, p.Values = append(took, time.Since(begin)), p.Values+n
			return err
		})
	}()
	p.Using, err = r.during(ctx, cmd.Process.Pid, r.For/2)
	cancel()
	if queryErr := <-done; err == nil {
		err = queryErr
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("measure Prometheus: %w\n%s", err, text[max(0, len(text)-4000):])
	}
	p.Queries = answersOf(took, p.Using.Seconds)
	if p.Values == 0 {
		return errors.New("no query to Prometheus returned a value")
	}
	return p.compare(&r.report.Controlled)
}

// compare sets the ratios of p from what the custom metrics server used.
func (p *PrometheusReport) compare(server *Scraping) error {
	if server.Pages == 0 || p.Using.Pages == 0 {
		return fmt.Errorf("%d pages were scraped by the custom metrics server and %d by Prometheus", server.Pages,
			p.Using.Pages)
	}
	p.CPU = server.CPUPerPage / p.Using.CPUPerPage
	p.RSS = server.rssPerPod() / p.Using.rssPerPod()
	return nil
}

// writeTargets writes the configuration with the pods that the server was measured with.
func (r *hpaRun) writeTargets(dir string) error {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	scraped := r.scraped()
	groups := make([]group, len(scraped))
	for i, p := range scraped {
		groups[i] = group{
			Targets: []string{fmt.Sprintf("%v:%d", p.IP(), pods.Port)},
			Labels:  map[string]string{"namespace": p.Namespace, "app": p.Workload.Name, "pod": p.Name},
		}
	}
	b, err := json.Marshal(groups)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "targets.json"), b, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(prometheusConfig), 0o644)
	}
	return err
}

// query asks Prometheus for the metric of w and returns how many pods have a value.
func query(ctx context.Context, at string, w *workload) (int, error) {
	selector := fmt.Sprintf("{namespace=%q,app=%q}", w.Namespace, w.Name)
	name := w.kind.Metric()
	text := map[pods.Kind]string{
		pods.Counter: "sum by (pod) (rate(" + name + selector + "[1m]))",
		pods.Gauge:   "sum by (pod) (" + name + selector + ")",
		pods.Histogram: "sum by (pod) (rate(" + name + "_sum" + selector + "[1m])) / sum by (pod) (rate(" + name + "_count" +
			selector + "[1m]))",
	}[w.kind]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/api/v1/query?query="+url.QueryEscape(text), nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Error != "" {
		return 0, fmt.Errorf("query %s: %s", text, answer.Error)
	}
	return len(answer.Data.Result), nil
}
