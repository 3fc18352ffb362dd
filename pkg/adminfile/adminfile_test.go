package adminfile

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/backend"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`
backends:
- name: main
  url: https://mimir.example/prometheus
  caFile: /etc/ca.crt
  certFile: /etc/tls.crt
  keyFile: /etc/tls.key
  serverName: mimir
  tokenFile: /etc/token
  headers: {X-Scope-OrgID: team}
  parameters: {dedup: "true"}
  allowWarnings: true
  allowPartial: true
  namespaceLabel: kubernetes_namespace
  podLabel: kubernetes_pod_name
  interval: 30s
  timeout: 20s
  parallel: 4
  maxBodyBytes: 1000000
  maxSeries: 500
- name: other
  url: https://prometheus.example
  username: scaler
  passwordFile: /etc/password
default: main
adapter: {file: /etc/adapter/config.yaml}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Backends: []backend.Config{
			{
				Name: "main", URL: "https://mimir.example/prometheus", CAFile: "/etc/ca.crt", CertFile: "/etc/tls.crt",
				KeyFile: "/etc/tls.key", ServerName: "mimir", TokenFile: "/etc/token",
				Headers: map[string]string{"X-Scope-OrgID": "team"}, Parameters: map[string]string{"dedup": "true"},
				AllowWarnings: true, AllowPartial: true, NamespaceLabel: "kubernetes_namespace", PodLabel: "kubernetes_pod_name",
				Interval: 30 * time.Second, Timeout: 20 * time.Second, Parallel: 4, MaxBody: 1_000_000, MaxSeries: 500,
			},
			{Name: "other", URL: "https://prometheus.example", Username: "scaler", PasswordFile: "/etc/password"},
		},
		Default: "main",
		Adapter: &Adapter{File: "/etc/adapter/config.yaml", Backend: "main"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestMistakes checks that every mistake of a file is reported, each in a line of its own.
func TestMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		want []string // of each mistake, one part
	}{
		"nothing":     {"", []string{"it is empty"}},
		"not YAML":    {"backends: [", []string{"line 1: did not find expected node content"}},
		"a list":      {"- name: main", []string{"line 1: this is not a map"}},
		"no list":     {"backends: main", []string{"line 1: `main` is not a list"}},
		"two files":   {"backends: []\n---\nbackends: []", []string{"more than one YAML document"}},
		"a key twice": {"default: a\ndefault: b\nbackends: [{name: b, url: http://b}]", []string{"line 2: mapping key"}},
		"elements that are no maps": {
			"backends:\n- main\n-\n- &a {name: pods, url: http://b}\n- *a\nmetrics:\n- ~\n- {preset: nginx}\n",
			[]string{
				"line 2: `main` is not a map", `line 4: backend "pods"`, `line 5: backend "pods"`, "line 8: metric number 1",
			},
		},
		"null": {"--- # backends: []\n", []string{"it is empty"}},
		"an adapter": {
			"backends: [{name: main, url: http://b}]\nadapter: {}", []string{"line 2: adapter: it names no file", "names no backend"},
		},
		"an adapter of nothing": {
			"backends: [{name: main, url: http://b}]\nadapter: {fil: a, file: b, backend: mai}",
			[]string{
				`line 2: the field "fil" is unknown: did you mean "file"?`, `there is no backend "mai": did you mean "main"?`,
			},
		},
		"everything": {
			`backend: []
backends:
- name: main
  url: main
  timout: 10s
  interval: often
  parallel: many
- name: pods
  url: http://pods
- name: a b
  url: http://b
- url: http://c
- name: twin
  url: http://d
- name: twin
  url: http://e
  password: hunter2
default: maine
`, []string{
				`line 1: the field "backend" is unknown: did you mean "backends"?`,
				`line 5: the field "timout" is unknown: did you mean "timeout"?`,
				"line 6: `often` is not a duration such as 15s",
				"line 7: `many` is not a whole number",
				`line 17: the field "password" is unknown: use name, url, caFile`,
				`line 3: backend "main": the URL has to begin with http://HOST`,
				`line 8: backend "pods": this name means that pods are scraped`,
				`line 10: backend "a b": the name is not valid: use at most 63 letters, digits, hyphens, underscores and dots, ` +
					`the first and last one a letter or digit`,
				`line 12: backend "": it has no name`,
				`line 15: backend "twin": another backend has the same name`,
				`line 18: default: there is no backend "maine": did you mean "main"?`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tt.file))
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if i < len(lines) && !strings.Contains(lines[i], want) {
					t.Errorf("%q lacks %q", lines[i], want)
				}
			}
		})
	}
}
