package backend

import (
	"strings"
	"testing"
	"time"
)

func TestConfigMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		config Config
		want   []string // of each mistake, one part
	}{
		"no URL":          {Config{}, []string{"has to begin with"}},
		"no host":         {Config{URL: "http://:9090"}, []string{"has to begin with"}},
		"another scheme":  {Config{URL: "unix:/x"}, []string{"has to begin with"}},
		"password in URL": {Config{URL: "https://u:hunter2@a"}, []string{"the URL has a user"}},
		"not a URL":       {Config{URL: "https://u:hunter2@a\x00"}, []string{"cannot be parsed"}},
		"query":           {Config{URL: "https://a?x=y"}, []string{"query or a fragment"}},
		"fragment":        {Config{URL: "https://a#x"}, []string{"query or a fragment"}},
		"whole path":      {Config{URL: "https://a/p/api/v1/query"}, []string{"before /api/v1"}},
		"path of the API": {Config{URL: "https://a/api/v1"}, []string{"before /api/v1"}},
		"two credentials": {
			Config{URL: "https://a", TokenFile: "t", Username: "u", PasswordFile: "p"}, []string{"both a token"},
		},
		"no password":     {Config{URL: "https://a", Username: "u"}, []string{"need both"}},
		"no user":         {Config{URL: "https://a", PasswordFile: "p"}, []string{"need both"}},
		"colon":           {Config{URL: "https://a", Username: "u:", PasswordFile: "p"}, []string{"colon"}},
		"no key":          {Config{URL: "https://a", CertFile: "c"}, []string{"key file"}},
		"token over HTTP": {Config{URL: "http://a", TokenFile: "t"}, []string{"not sent over plain HTTP"}},
		"CA over HTTP":    {Config{URL: "http://a", CAFile: "t"}, []string{"need https"}},
		"header with token": {
			Config{URL: "https://a", Headers: map[string]string{"authorization": "hunter2"}}, []string{"credentials"},
		},
		"host header": {
			Config{URL: "https://a", Headers: map[string]string{"Host": "b"}}, []string{"cannot be set: metrics-server sets it"},
		},
		"header injection": {
			Config{URL: "https://a", Headers: map[string]string{"A": "b\r\nC: d"}}, []string{"invalid"},
		},
		"own query": {
			Config{URL: "https://a", Parameters: map[string]string{"query": "up"}}, []string{"parameter"},
		},
		"one header twice": {
			Config{URL: "https://a", Headers: map[string]string{"X-Scope-OrgID": "a", "x-scope-orgid": "b"}},
			[]string{`header "x-scope-orgid" is given twice (header names are case-insensitive)`},
		},
		"negative": {Config{URL: "https://a", Parallel: -1}, []string{"negative"}},
		"no unit":  {Config{URL: "https://a", Timeout: 10}, []string{"the timeout is 10ns: use at least 100ms"}},
		"labels": {
			Config{URL: "https://a", NamespaceLabel: "a-b", PodLabel: "__name__"},
			[]string{`namespaceLabel: "a-b" is not`, `podLabel: "__name__" is not`},
		},
		"one label":     {Config{URL: "https://a", NamespaceLabel: "pod"}, []string{"are the same"}},
		"long interval": {Config{URL: "https://a", Interval: 2 * time.Hour}, []string{"use 1s to 1h"}},
		"long timeout":  {Config{URL: "https://a", Timeout: 15 * time.Second}, []string{"not less than the interval"}},
		"several": {
			Config{URL: "http://u:hunter2@a", TokenFile: "t", CertFile: "c", Headers: map[string]string{"": "", "Te": "x"}},
			[]string{"has a user", "key file", "plain HTTP", "need https", `header ""`, `header "Te"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.config.Name = "m"
			_, err := New(tt.config)
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
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q has the password", err)
			}
		})
	}
}

func TestConfigName(t *testing.T) {
	if _, err := New(Config{URL: "http://a"}); err == nil || !strings.Contains(err.Error(), "no name") {
		t.Errorf("got %v, want that the name is missing", err)
	}
}

func TestConfigURL(t *testing.T) {
	for url, want := range map[string]string{
		"http://a":               "http://a/api/v1/query",
		"https://a:9090/":        "https://a:9090/api/v1/query",
		"https://[::1]:1/p%2Fq/": "https://[::1]:1/p%2Fq/api/v1/query",
		"http://a/prometheus":    "http://a/prometheus/api/v1/query",
	} {
		c, err := New(Config{Name: "m", URL: url})
		if err != nil {
			t.Errorf("%s is refused: %v", url, err)
		} else if c.url != want {
			t.Errorf("%s: %s, want %s", url, c.url, want)
		}
	}
}
