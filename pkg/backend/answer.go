package backend

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Answer is the result of a query.
type Answer struct {
	// Samples has one element for each series, and a single one without labels for a scalar. They are in
	// no particular order. Their values may be NaN or infinite; Single and By refuse those.
	Samples []Sample
	// Received is when the answer arrived.
	Received time.Time
	// Partial says that the backend may have left out series, which the Config allows.
	Partial bool
}

// Sample is the value of one series.
type Sample struct {
	Labels labels.Labels // only the NamespaceLabel and the PodLabel of the Config, and the label that Trust keeps
	Value  float64
}

// response is an answer of the Prometheus API.
type response struct {
	Status    string   `json:"status"`
	ErrorType string   `json:"errorType"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
	Partial   bool     `json:"isPartial"` // VictoriaMetrics
	Data      struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

func (c *Client) read(status int, body []byte, secrets []string, e Expression) (*Answer, error) {
	var r response
	jsonErr := json.Unmarshal(body, &r)
	if err := c.refused(status, jsonErr, &r, secrets); err != nil {
		return nil, err
	}
	r.Warnings = slices.DeleteFunc(r.Warnings, isInfo)
	name := c.config.Name
	switch {
	case r.Partial && !c.config.AllowPartial:
		return nil, newError(Partial, "check that all of its storage nodes run, or have an administrator set allowPartial",
			"backend %q says that its answer is partial", name)
	case len(r.Warnings) > 0 && !c.config.AllowWarnings:
		return nil, warned(name, r.Warnings, secrets)
	}
	samples, err := c.samples(r.Data.Type, r.Data.Result, e)
	if err != nil {
		return nil, err
	}
	incomplete := func(warning string) bool { return !isAboutExpression(warning) }
	return &Answer{
		Samples: samples, Received: time.Now(), Partial: r.Partial || slices.ContainsFunc(r.Warnings, incomplete),
	}, nil
}

// isInfo reports whether a warning is a mere note on the expression. Thanos, and Prometheus before 2.54, have no
// separate field for notes.
func isInfo(warning string) bool {
	return strings.HasPrefix(warning, "PromQL info") || strings.HasSuffix(warning, " more info annotations omitted")
}

// isAboutExpression reports whether a warning is about the expression, and not about series that may be missing.
func isAboutExpression(warning string) bool {
	return strings.HasPrefix(warning, "PromQL warning") || isOmission(warning)
}

// isOmission reports whether a warning only counts others that were left out. Only an expression causes so many
// warnings that some are left out.
func isOmission(warning string) bool { return strings.HasSuffix(warning, " annotations omitted") }

// warned returns the error of an answer with warnings. Warnings about the expression are for its author. Others may
// name servers behind the backend, and are for the log. Prometheus sends warnings in random order.
func warned(name string, warnings, secrets []string) *Error {
	const text = "backend %q warns that its answer may be wrong or incomplete"
	if telling := slices.DeleteFunc(slices.Clone(warnings), isOmission); len(telling) > 0 {
		warnings = telling
	}
	warning := shorten(redact(slices.Min(warnings), secrets))
	if isAboutExpression(warning) {
		return newError(Warned, "correct the expression, or have an administrator set allowWarnings", text+": %s", name,
			warning)
	}
	return newError(Warned, "have an administrator look up the warning in the log of the custom metrics server, or set "+
		"allowWarnings", text, name).because(errors.New(warning))
}

// aboutExpression matches the messages of a backend about an expression that it cannot evaluate. Failures of its
// storage have the same status and error type. The text before the message is dropped, because it may name servers.
// Quoted text is skipped in the search, because it may be the user's expression and contain such a message.
var aboutExpression = regexp.MustCompile(`(?s)^(?:[^"]|"(?:[^"\\]|\\.)*")*?(` + strings.Join([]string{
	`found duplicate series`, `duplicate time series`, `duplicate output timeseries`, `many-to-many`, // of operators
	`multiple matches for labels`, `vector cannot contain metrics with the same labelset`,
	`query processing would load too many samples`, `too many samples`, `the number of \w+ timeseries exceeds`,
	`the query exceeded the maximum`, `the response contains more than`, `not enough memory for processing`,
	`(?:\d+:\d+: )?parse error`, `unknown func`, `invalid (?:\w+ )?label name`, `invalid regular expression`,
}, "|") + `)`)

// whatIsWrong returns what is wrong with the expression, "" if the backend does not say that.
func whatIsWrong(status int, r *response) string {
	switch {
	case status == http.StatusBadRequest || r.ErrorType == "bad_data":
		return r.Error
	case status == http.StatusUnprocessableEntity || status < 300:
		if found := aboutExpression.FindStringSubmatchIndex(r.Error); found != nil {
			return r.Error[found[2]:]
		}
	}
	return ""
}

// refused returns the error in an answer, nil if the answer is the result of a query. It quotes what the backend says
// about the expression. Everything else that the backend says may name servers and change from query to query, so it is
// for the log.
func (c *Client) refused(status int, jsonErr error, r *response, secrets []string) *Error {
	name := c.config.Name
	var said error // by the server
	wrong := ""
	if jsonErr == nil && r.Error != "" {
		said = errors.New(shorten(redact(r.Error, secrets)))
		wrong = whatIsWrong(status, r)
	}
	const notAPI = "check scheme and path of its URL: Mimir needs the path /prometheus, " +
		"a cluster of VictoriaMetrics /select/TENANT/prometheus"
	const notPrometheus = "backend %q answered with something that is not the Prometheus API"
	switch {
	case status == http.StatusUnauthorized:
		return newError(Unauthorized, "check the file with the token or password, and the headers",
			"backend %q does not accept the credentials (401)", name)
	case status == http.StatusForbidden:
		return newError(Denied, "allow these credentials to query it, and check the headers",
			"backend %q denied the query (403)", name)
	case status == http.StatusNotFound:
		return newError(NotFound, notAPI, "backend %q has no %s (404)", name, queryPath)
	case status == http.StatusMethodNotAllowed:
		return newError(BadStatus, "let what is in front of it pass on POST requests for "+queryPath,
			"backend %q does not accept POST requests (405)", name)
	case status >= 300 && status < 400:
		return newError(Redirect, "put the final address into its URL: redirects are not followed",
			"backend %q answered with a redirect (%d)", name, status)
	case status == http.StatusTooManyRequests:
		return newError(Busy, "raise its limits, or interval of the backend in the administrator's file", "backend %q "+
			"limits the rate of queries (429)", name).because(said)
	case r.ErrorType == "timeout" || r.ErrorType == "canceled":
		return newError(Timeout, "check its load and the cost of the expression", "backend %q aborted the query because it "+
			"took too long", name).because(said)
	case wrong != "":
		return newError(BadQuery, "", "backend %q cannot evaluate the expression: %s", name, shorten(redact(wrong, secrets)))
	case status >= 500 || said != nil && (status == http.StatusUnprocessableEntity || status < 300):
		return newError(ServerError, "see the logs of the backend", "backend %q failed (%d)", name, status).because(said)
	case status >= 300 || status < 200:
		return newError(BadStatus, notAPI, "backend %q answered with status %d", name, status).because(said)
	case jsonErr != nil:
		return newError(NotPrometheus, notAPI, notPrometheus, name).because(jsonErr)
	case r.Status != "success" || r.Data.Type == "":
		return newError(NotPrometheus, notAPI, notPrometheus, name)
	}
	return nil
}

// samples decodes the result of a query.
func (c *Client) samples(kind string, result json.RawMessage, e Expression) ([]Sample, error) {
	malformed := func(err error) error {
		return newError(NotPrometheus, "check the proxies between the custom metrics server and the backend",
			"backend %q sent a malformed %s", c.config.Name, kind).because(err)
	}
	switch kind {
	case "scalar":
		var s point
		if err := json.Unmarshal(result, &s); err != nil {
			return nil, malformed(err)
		}
		value, ok := s.value()
		if !ok {
			return nil, malformed(nil)
		}
		return []Sample{{Value: value}}, nil
	case "vector":
		var vector []struct {
			Metric    map[string]string `json:"metric"`
			Value     point             `json:"value"`
			Histogram json.RawMessage   `json:"histogram"`
		}
		if err := json.Unmarshal(result, &vector); err != nil {
			return nil, malformed(err)
		}
		if _, limit := c.limits(e); len(vector) > limit {
			return nil, c.tooLarge(e, int64(limit), "series", "maxSeries")
		}
		samples := make([]Sample, len(vector))
		for i, v := range vector {
			value, ok := v.Value.value()
			switch {
			case ok:
				samples[i] = Sample{Labels: c.kept(v.Metric, e.keep), Value: value}
			case v.Histogram != nil:
				return nil, newError(WrongType, "use a function such as histogram_quantile(0.99, ...) or histogram_avg(...)",
					"the expression returned a histogram, which is not a number")
			default:
				return nil, malformed(nil)
			}
		}
		return samples, nil
	}
	return nil, newError(WrongType, "apply a function such as rate(...)",
		"the expression returned a %s; a vector or a scalar is needed", shorten(kind))
}

// point is a time and a value, as the Prometheus API has them: [1700000000.123, "1"].
type point []any

// value returns the value of p; false if there is none, as in [1700000000, null]. The decoder of prometheus/common
// reads that, and [1700000000], as 0.
func (p point) value() (float64, bool) {
	if len(p) != 2 {
		return 0, false
	}
	text, ok := p[1].(string)
	if !ok {
		return 0, false
	}
	value, err := strconv.ParseFloat(text, 64)
	return value, err == nil
}

// kept returns the labels of a series that are kept. The others are not used, and would take memory.
func (c *Client) kept(metric map[string]string, keep string) labels.Labels {
	kept := make([]string, 0, 8)
	add := func(name string) {
		if value, ok := metric[name]; ok {
			kept = append(kept, name, value)
		}
	}
	add(c.config.NamespaceLabel)
	add(c.config.PodLabel)
	for name := range strings.SplitSeq(keep, ",") {
		if name != c.config.NamespaceLabel && name != c.config.PodLabel {
			add(name)
		}
	}
	return labels.FromStrings(kept...)
}

// size returns the approximate size of a in memory, in bytes.
func (a *Answer) size() int64 {
	const answer, sample = 128, 32
	n := int64(answer)
	for _, s := range a.Samples {
		n += sample + int64(s.Labels.ByteSize())
	}
	return n
}

// Single returns the one value of an answer. The error is an *Error.
func (a *Answer) Single() (float64, error) {
	switch len(a.Samples) {
	case 0:
		return 0, newError(NoValue, "check that the series exist and have the labels that the expression selects",
			"the expression returned no series")
	case 1:
		return finite(a.Samples[0].Value, "")
	}
	return 0, newError(Ambiguous, "write sum(...) or another aggregation around it",
		"the expression returned more than one series where one value is needed")
}

// Sum returns the sum of all samples. The error is an *Error.
func (a *Answer) Sum() (float64, error) {
	if len(a.Samples) < 2 {
		return a.Single()
	}
	sum := 0.0
	for _, s := range a.Samples {
		sum += s.Value
	}
	return finite(sum, "")
}

// Within returns a without the series whose label names another namespace. Series without that label stay.
func (a *Answer) Within(label, namespace string) *Answer {
	isOther := func(s Sample) bool {
		of := s.Labels.Get(label)
		return of != "" && of != namespace
	}
	if !slices.ContainsFunc(a.Samples, isOther) {
		return a
	}
	within := *a
	within.Samples = slices.DeleteFunc(slices.Clone(a.Samples), isOther)
	return &within
}

// NaNAsZero returns a with 0 in place of NaN.
func (a *Answer) NaNAsZero() *Answer {
	isNaN := func(s Sample) bool { return math.IsNaN(s.Value) }
	if !slices.ContainsFunc(a.Samples, isNaN) {
		return a
	}
	zeroed := *a
	zeroed.Samples = slices.Clone(a.Samples)
	for i, s := range zeroed.Samples {
		if isNaN(s) {
			zeroed.Samples[i].Value = 0
		}
	}
	return &zeroed
}

// Value is the value of one object, or the reason why it has none.
type Value struct {
	Name  string
	Value float64
	Err   *Error
}

// By returns a Value for each of names, in the same order, from the series whose label has the name. Series of other
// objects are ignored.
func (a *Answer) By(label string, names []string) []Value {
	at := make(map[string]int, len(names))
	values := make([]Value, len(names))
	for i, name := range names {
		at[name], values[i].Name = i, name
	}
	found := make([]int, len(names))
	labeled := false
	for _, s := range a.Samples {
		of := s.Labels.Get(label)
		labeled = labeled || of != ""
		i, ok := at[of]
		if !ok {
			continue
		}
		if found[i]++; found[i] == 1 {
			values[i].Value = s.Value
		}
	}
	for i := range values {
		v := &values[i]
		switch {
		case found[i] == 1:
			var err error
			v.Value, err = finite(v.Value, " for "+v.Name)
			v.Err, _ = errors.AsType[*Error](err)
		case found[i] > 1:
			v.Value, v.Err = 0, newError(Ambiguous, "aggregate them, as in sum by ("+label+") (...)",
				"the expression returned more than one series for %s", v.Name)
		case len(a.Samples) > 0 && !labeled:
			v.Err = newError(NoValue, "keep the label, as in sum by ("+label+") (...)",
				"the series that the expression returned have no label %q", label)
		default:
			v.Err = newError(NoValue, "check that the backend scrapes it, and which labels the expression selects",
				"the expression returned no series for %s", v.Name)
		}
	}
	return values
}

func finite(v float64, of string) (float64, error) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, newError(NotFinite, "check for a division by zero", "the expression returned %v%s, which is not a value", v,
			of)
	}
	return v, nil
}
