package appmetrics

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Shape is what a metric needs of an expression.
type Shape uint8

// The shapes.
const (
	PerPod Shape = iota // one value for each pod: metrics of type Pods
	Single              // one value: metrics of type Object and External
	// Grouped is a value for each combination of the labels Definition.By: metrics that an administrator names. Only
	// an administrator writes their expressions, so they may be more expensive.
	Grouped
)

// Operator relates a label to values. The operators mean what they mean in Kubernetes' selectors.
type Operator string

// The operators.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// Requirement is one condition of a metric's selector.
type Requirement struct {
	Label    string
	Operator Operator
	Values   []string
}

// Definition says what an autoscaler asks for.
type Definition struct {
	// Name is the metric's name. Without an expression, it is that of a family: as it is, or with "_"
	// for "-", or NAME_per_second for the rate of NAME_total or NAME.
	Name string
	// Selector is added to every selector of the expression. In a default expression, "quantile" asks
	// for that quantile of a histogram or summary.
	Selector []Requirement
	// Expression is PromQL. If it is empty, a default is chosen by the family's type.
	Expression string
	// Window is the range of the rates in a default expression. 0 means DefaultWindow.
	Window time.Duration
	Shape  Shape
	By     []string // of a Grouped metric: the labels that tell its values apart
}

// Query is a Definition that has been checked. It is immutable.
type Query struct {
	def       Definition
	matchers  []*labels.Matcher // of the selector, without a quantile
	selectors []selector
	needs     []need
	span      time.Duration
	// instructions is how many instructions its patterns compile to: see Size.
	instructions int
	interval     time.Duration // how often the shortest range needs a page; 0: as usual

	// Of a default expression.
	candidates  []candidate
	quantile    string // as labels have it, "" if none is asked for
	quantileOwn *labels.Matcher

	// Of an expression that the HPA gives.
	expression string // with the matchers
	perPod     string // a single sum by pod, whose missing pods can be filled in; or ""
	scaleFree  bool   // a missing pod hardly changes its values, because they are means or the like
	sum        bool   // of a Grouped metric: its values are sums over pods
	divides    bool   // it has a division, which may be by zero
	uses       []use  // how it uses series, to warn of mistakes
}

// Default reports whether the expression is the default one for the type of the family.
func (q *Query) Default() bool { return q.def.Expression == "" }

// candidate is a family that a metric's name may mean.
type candidate struct {
	name string
	rate bool // whether a rate is asked for by the metric's name
}

// use is how an expression uses a selector.
type use struct {
	selector selector
	rate     string // the function over a range that is for counters only, or ""
	whole    bool   // whether a result would be too low while the pages cover only a part of the range
	counts   bool   // the same for one that does not extrapolate, or that is a guess until then
	level    bool   // whether the value itself is used
	// within is the shortest range of which a function compares the values, so that it needs two; 0: there is none.
	within time.Duration
}

// Name returns the metric's name.
func (q *Query) Name() string { return q.def.Name }

// Expression returns the expression with the selector's matchers, and "" if it depends on the
// family's type.
func (q *Query) Expression() string { return q.expression }

var promQL = parser.NewParser(parser.Options{})

// Compile checks a definition. The error is an *Error.
func Compile(d Definition) (*Query, error) {
	q := &Query{def: d}
	if d.Window == 0 {
		q.def.Window = DefaultWindow
	}
	own := d.Expression != ""
	if err := q.compileSelector(own); err != nil {
		return nil, err
	}
	if own {
		if err := q.compileOwn(); err != nil {
			return nil, err
		}
	} else if err := q.compileDefault(); err != nil {
		return nil, err
	}
	return q, nil
}

// compileSelector turns the requirements into matchers.
func (q *Query) compileSelector(own bool) error {
	for _, r := range q.def.Selector {
		m, err := matcher(r)
		if err != nil {
			return err
		}
		if r.Label == "quantile" && !own {
			if r.Operator != In || len(r.Values) != 1 {
				return Errorf(BadExpression, "the selector of metric %q must name one quantile, such as quantile: \"0.99\"",
					q.def.Name)
			}
			v, err := strconv.ParseFloat(r.Values[0], 64)
			if err != nil || !(v >= 0 && v <= 1) {
				return Errorf(BadExpression, "the selector of metric %q has the quantile %q, which is not a number from 0 to 1",
					q.def.Name, r.Values[0])
			}
			q.quantile, q.quantileOwn = labels.FormatOpenMetricsFloat(v), m
			continue
		}
		q.matchers = append(q.matchers, m)
	}
	n := len(selectorText("", q.matchers))
	q.instructions += n // an upper estimate for the pattern of the alternatives
	if n > maxSelector {
		return Errorf(OverLimit, "the selector of metric %q has %d bytes; at most %d are allowed: name fewer values",
			q.def.Name, n, maxSelector)
	}
	return nil
}

func matcher(r Requirement) (*labels.Matcher, error) {
	if r.Label == "" || r.Label == model.MetricNameLabel || len(r.Label) > maxName {
		return nil, Errorf(BadExpression, "a selector cannot have the label %q", shorten(r.Label))
	}
	kind, text := labels.MatchEqual, ""
	switch r.Operator {
	case In, NotIn:
		if len(r.Values) == 0 {
			return nil, Errorf(BadExpression, "the selector's label %q has no values", r.Label)
		}
		if text = r.Values[0]; len(r.Values) > 1 {
			quoted := make([]string, len(r.Values))
			for i, v := range r.Values {
				quoted[i] = regexp.QuoteMeta(v)
			}
			kind, text = labels.MatchRegexp, strings.Join(quoted, "|")
		}
		if r.Operator == NotIn {
			kind = map[labels.MatchType]labels.MatchType{
				labels.MatchEqual: labels.MatchNotEqual, labels.MatchRegexp: labels.MatchNotRegexp,
			}[kind]
		}
	case Exists:
		kind = labels.MatchNotEqual
	case DoesNotExist:
	default:
		return nil, Errorf(BadExpression, "the selector's label %q has the unknown operator %q", r.Label,
			shorten(string(r.Operator)))
	}
	m, err := labels.NewMatcher(kind, r.Label, text)
	if err != nil {
		return nil, Errorf(BadExpression, "the selector's label %q has values that cannot be matched: %s",
			r.Label, shorten(err.Error()))
	}
	return m, nil
}

// selectorText writes a selector as PromQL does.
func selectorText(name string, matchers []*labels.Matcher) string {
	all := append([]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)}, matchers...)
	s := &parser.VectorSelector{LabelMatchers: all}
	if bare(name) {
		s.Name = name
	}
	return s.String()
}

// bare reports whether PromQL has a name without quotes: keywords and numbers would be read as such.
func bare(name string) bool {
	if !model.LegacyValidation.IsValidMetricName(name) {
		return false
	}
	e, err := promQL.ParseExpr(name)
	if err != nil {
		return false
	}
	_, ok := e.(*parser.VectorSelector)
	return ok
}
