package backend

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Config describes one server, as in the administrator's file. Name and URL must be set. Every other zero field means
// its default.
//
// docs/config.schema.json has the comments of its fields, too.
type Config struct {
	// Name is the name that errors and autoscalers use.
	Name string `yaml:"name" jsonschema:"required"`
	// URL is the base address of the Prometheus API, such as https://mimir.example/prometheus. It has no
	// user, query or fragment.
	URL string `yaml:"url" jsonschema:"required"`

	// CAFile has the authorities that the server's certificate is verified with, in PEM. Default: those of the system.
	CAFile string `yaml:"caFile"`
	// CertFile has a client certificate, in PEM.
	CertFile string `yaml:"certFile"`
	// KeyFile has the key of CertFile, in PEM.
	KeyFile string `yaml:"keyFile"`
	// ServerName is verified in the server's certificate instead of the host in URL.
	ServerName string `yaml:"serverName"`
	// TokenFile has a bearer token. It excludes Username.
	TokenFile string `yaml:"tokenFile"`
	// Username is the user for HTTP basic authentication.
	Username string `yaml:"username"`
	// PasswordFile has the password of Username.
	PasswordFile string `yaml:"passwordFile"`

	// Headers are sent with each query, such as X-Scope-OrgID. They cannot hold credentials: those come
	// from files.
	Headers map[string]string `yaml:"headers"`
	// Parameters are sent with each query, such as dedup or extra_label.
	Parameters map[string]string `yaml:"parameters"`

	// AllowWarnings accepts answers with warnings. Prometheus and Thanos warn, for example, when part of
	// the data could not be read.
	AllowWarnings bool `yaml:"allowWarnings"`
	// AllowPartial accepts answers that VictoriaMetrics marks as partial.
	AllowPartial bool `yaml:"allowPartial"`

	// NamespaceLabel is the label that has the namespace of a series. Each selector in an expression of an autoscaler
	// gets a matcher for it. Default "namespace".
	NamespaceLabel string `yaml:"namespaceLabel"`
	// PodLabel is the label that has the name of the pod of a series. Default "pod".
	PodLabel string `yaml:"podLabel"`

	// Interval is the time between two queries of the same expression. Default 15 s.
	Interval time.Duration `yaml:"interval"`
	// Timeout limits a query, without the wait for its turn. It has to be less than Interval. Default 10 s, or nine
	// tenths of Interval if that is less.
	Timeout time.Duration `yaml:"timeout"`
	// Parallel is how many queries run at a time; others wait for their turn, which namespaces share, for two intervals
	// at most. Default 8.
	Parallel int `yaml:"parallel"`
	// MaxBody is how many bytes an answer may have, decompressed. Default 2 MiB: enough for 2,000 pods of 1,000 bytes.
	MaxBody int64 `yaml:"maxBodyBytes"`
	// MaxSeries is how many series an answer may have. Default 10,000.
	MaxSeries int `yaml:"maxSeries"`
}

// WithDefaults returns c with the defaults of fields that are zero.
func (c Config) WithDefaults() Config {
	c.NamespaceLabel = cmp.Or(c.NamespaceLabel, "namespace")
	c.PodLabel = cmp.Or(c.PodLabel, "pod")
	c.Interval = cmp.Or(c.Interval, 15*time.Second)
	c.Timeout = cmp.Or(c.Timeout, min(10*time.Second, c.Interval*9/10))
	c.Parallel = cmp.Or(c.Parallel, 8)
	c.MaxBody = cmp.Or(c.MaxBody, 2<<20)
	c.MaxSeries = cmp.Or(c.MaxSeries, 10_000)
	return c
}

// patience returns how long a query may wait for its turn. Even if a query waits for that long and then takes its whole
// timeout, the answer before it has not been held for HeldPolls intervals yet.
func (c *Config) patience() time.Duration { return HeldPolls / 2 * c.Interval }

// Validate returns every mistake in c.
func (c Config) Validate() []error {
	c = c.WithDefaults()
	_, errs := c.validate()
	return errs
}

const (
	queryPath  = "/api/v1/query"
	minTimeout = 100 * time.Millisecond
)

// validate returns the URL of queries, and every mistake.
func (c *Config) validate() (query *url.URL, errs []error) {
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("backend %q: "+format, append([]any{c.Name}, args...)...))
	}
	if c.Name == "" {
		wrong("it has no name")
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil: // quotes the URL, which may have a password
		wrong("the URL cannot be parsed: write it like https://prometheus.example:9090/prefix")
		u = &url.URL{Scheme: "https"}
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		wrong("the URL has to begin with http://HOST or https://HOST")
	case u.User != nil:
		wrong("the URL has a user: use username and passwordFile instead")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		wrong("the URL has a query or a fragment: put query parameters into parameters")
	case strings.Contains(u.Path+"/", "/api/v1/"):
		wrong("the URL has to end before /api/v1")
	}

	switch {
	case c.TokenFile != "" && (c.Username != "" || c.PasswordFile != ""):
		wrong("it has both a token and basic credentials: remove one of them")
	case (c.Username == "") != (c.PasswordFile == ""):
		wrong("basic credentials need both a user name and a file with the password")
	case strings.Contains(c.Username, ":"):
		wrong("the user name has a colon, which basic credentials cannot have")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		wrong("a client certificate needs both a certificate file and a key file")
	}
	if u.Scheme == "http" {
		if c.TokenFile != "" || c.PasswordFile != "" {
			wrong("credentials are not sent over plain HTTP, where others can read them: use https")
		}
		if c.CAFile != "" || c.CertFile != "" || c.ServerName != "" {
			wrong("certificates and a server name need https")
		}
	}

	canonicals := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		canonical := http.CanonicalHeaderKey(name)
		again := canonicals[canonical]
		canonicals[canonical] = true
		switch {
		case again:
			wrong("header %q is given twice (header names are case-insensitive): remove one", name)
		case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(c.Headers[name]):
			wrong("header %q has an invalid name or value", name)
		case slices.Contains([]string{"Authorization", "Cookie", "Proxy-Authorization"}, canonical):
			wrong("header %q has credentials: use tokenFile or passwordFile instead", name)
		case slices.Contains([]string{
			"Accept", "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect",
			"Host", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		}, canonical):
			wrong("header %q cannot be set: metrics-server sets it", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Parameters)) {
		if slices.Contains([]string{"", "query", "time", "timeout"}, name) {
			wrong("parameter %q cannot be set: metrics-server sets it", name)
		}
	}
	for _, l := range []struct{ field, name string }{{"namespaceLabel", c.NamespaceLabel}, {"podLabel", c.PodLabel}} {
		if !isLabel(l.name) {
			wrong("%s: %q is not the name of a label", l.field, shorten(l.name))
		}
	}
	if c.NamespaceLabel == c.PodLabel {
		wrong("namespaceLabel and podLabel are the same: they must differ")
	}
	if c.Parallel < 0 || c.MaxBody < 0 || c.MaxSeries < 0 {
		wrong("parallel, maxBodyBytes and maxSeries must not be negative")
	}
	if c.Timeout < minTimeout { // such as 10, which YAML takes for nanoseconds
		wrong("the timeout is %v: use at least %v", c.Timeout, minTimeout)
	}
	if c.Interval < time.Second || c.Interval > time.Hour {
		wrong("the interval is %v: use 1s to 1h", c.Interval)
	}
	if c.Timeout >= c.Interval {
		wrong("the timeout of %v is not less than the interval of %v", c.Timeout, c.Interval)
	}
	return u.JoinPath(queryPath), errs
}
