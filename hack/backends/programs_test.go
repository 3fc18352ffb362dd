//go:build backends

package backends

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// programs is where `make test-backends` builds what is run here.
const programs = "../../bin"

// kind is a program with the Prometheus API.
type kind struct {
	name string // of its file, too
	// arguments returns the flags for a program that scrapes by a configuration and serves below a path, "" for none.
	arguments func(address, path, config, data string) []string
	// parameters are needed with each query for the samples of the last seconds to count.
	parameters map[string]string
	// counter is how its counter of queries begins.
	counter string
}

var kinds = []kind{
	{
		name: "prometheus",
		arguments: func(address, path, config, data string) []string {
			return []string{
				"--web.listen-address=" + address, "--web.route-prefix=" + path + "/", "--config.file=" + config,
				"--storage.tsdb.path=" + data, "--log.level=warn",
			}
		},
		counter: `prometheus_http_requests_total{code="200",handler="/api/v1/query"`,
	},
	{
		name: "victoria-metrics",
		arguments: func(address, path, config, data string) []string {
			return []string{
				"-httpListenAddr=" + address, "-http.pathPrefix=" + path, "-promscrape.config=" + config,
				"-storageDataPath=" + data, "-loggerLevel=WARN", "-memory.allowedBytes=256MiB",
			}
		},
		parameters: map[string]string{"latency_offset": "1s"},
		counter:    `vm_http_requests_total{path="/api/v1/query"`,
	},
}

// program is a kind of program at work. Make it with launch.
type program struct {
	kind
	url  string // where its API begins
	dir  string
	args []string
	cmd  *exec.Cmd
}

// launch starts a program that scrapes e every interval, until the test ends.
func launch(t testing.TB, k kind, dir, path, interval string, e *exporter) *program {
	t.Helper()
	config := filepath.Join(dir, "scrape.yaml")
	err := os.WriteFile(config, fmt.Appendf(nil, `global: {scrape_interval: %[1]s, scrape_timeout: %[1]s}
scrape_configs:
- job_name: exporter
  honor_labels: true
  static_configs: [{targets: [%[2]q]}]
`, interval, e.Listener.Addr()), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := &program{
		kind: k, url: "http://" + address + path, dir: dir,
		args: k.arguments(address, path, config, filepath.Join(dir, "data")),
	}
	p.start(t)
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			said, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			t.Logf("the end of the log of %s:\n%s", p.name, said[max(0, len(said)-4000):])
		}
	})
	return p
}

// start starts the program, again if it was stopped.
func (p *program) start(t testing.TB) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(programs, p.name))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(file, p.args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, p.dir
	// Nothing outlives the tests, even if they are killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%v: run these tests by `make test-backends`", err)
	}
}

// stop ends the program. Its data stays.
func (p *program) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
}
