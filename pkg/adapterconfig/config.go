package adapterconfig

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Config is a configuration of prometheus-adapter. It has the rules that can be used, and those with a Mistake
// whose metrics are known nevertheless: without these rules, the metrics would have another meaning.
type Config struct {
	Rules    []*Rule // metrics of pods and other objects
	External []*Rule
}

// Used returns how many rules can be used.
func (c *Config) Used() (n int) {
	for _, r := range slices.Concat(c.Rules, c.External) {
		if !r.Mistake {
			n++
		}
	}
	return n
}

// Rule is a rule of a Config.
type Rule struct {
	Path string // where it is, such as rules[2]
	Line int
	// Mistake says that the rule cannot be used, so that its metrics have an error.
	Mistake bool

	series     []*labels.Matcher // seriesQuery
	filters    []filter          // seriesFilters, and name.matches
	matches    *regexp.Regexp
	as         string
	template   *tmpl // resources.template; nil if there is none
	overrides  []override
	namespaced bool
	query      *tmpl // metricsQuery
}

// filter is an element of seriesFilters.
type filter struct {
	pattern *regexp.Regexp
	is      bool
}

// override is an element of resources.overrides.
type override struct{ label, group, resource string }

// Problem says what cannot be used, or has another meaning than in prometheus-adapter.
//
//nolint:errname // some are warnings
type Problem struct {
	Line int    // from 1; 0 if the file as a whole is meant
	Path string // such as rules[2].metricsQuery; may be empty
	// LeftOut says that the rule, or the section, is not served. Otherwise the problem is a warning.
	LeftOut      bool
	Text, Remedy string
}

// Error returns the problem in one line.
func (p *Problem) Error() string {
	s := p.Text
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Line > 0 {
		s = fmt.Sprintf("line %d: %s", p.Line, s)
	}
	if p.Remedy != "" {
		s += ": " + p.Remedy
	}
	return s
}

// promQL accepts what a backend accepts without experimental features.
var promQL = parser.NewParser(parser.Options{})

// MetricName returns the name of a series in the API, and false if the rule leaves the series out.
func (r *Rule) MetricName(series string) (string, bool) {
	for _, f := range r.filters {
		if f.pattern.MatchString(series) != f.is {
			return "", false
		}
	}
	found := r.matches.FindStringSubmatchIndex(series)
	if found == nil {
		return "", false
	}
	return string(r.matches.ExpandString(nil, r.as, series, found)), true
}

// Has reports whether the rule selects the series of this name, as far as the name tells, and maps them to metric.
func (r *Rule) Has(series, metric string) bool {
	for _, m := range r.series {
		if m.Name == model.MetricNameLabel && !m.Matches(series) {
			return false
		}
	}
	name, ok := r.MetricName(series)
	return ok && name == metric
}

// Series returns the names of all series that the rule can select; nil if only Discover can tell.
func (r *Rule) Series() []string {
	for _, m := range r.series {
		if m.Name != model.MetricNameLabel {
			continue
		}
		switch m.Type {
		case labels.MatchEqual:
			return []string{m.Value}
		case labels.MatchRegexp:
			if names := m.SetMatches(); len(names) > 0 {
				return names
			}
		}
	}
	return nil
}

// discovery returns the query for Discover that finds the names of the series which the rule and more select. If label
// is not empty, series without that label are left out, because they do not belong to objects of that kind.
func (r *Rule) discovery(label string, more ...*labels.Matcher) string {
	s := &parser.VectorSelector{LabelMatchers: slices.Clip(r.series)}
	if label != "" {
		s.LabelMatchers = append(s.LabelMatchers, labels.MustNewMatcher(labels.MatchNotEqual, label, ""))
	}
	s.LabelMatchers = append(s.LabelMatchers, more...)
	return "group by (__name__) (" + s.String() + ")"
}
