package backend

import (
	"errors"
	"regexp"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Expression is PromQL that may be sent to a backend. Only Confine, Trust and Names make one.
type Expression struct {
	text string
	// owner is the key of the share of turns and memory that the expression uses.
	owner string
	// keep are labels of its series that answers keep besides those of the Config, separated by commas; "" for none.
	keep string
	// names says that the result lists names of series: higher limits apply to the answer.
	names bool
}

// String returns the PromQL.
func (e Expression) String() string { return e.text }

// Owner returns the key of the share of turns and memory that e uses: the namespace that Confine was given, or the
// owner that Trust was given.
func (e Expression) Owner() string { return e.owner }

// Size returns about how many bytes e takes in memory while it is polled: its text, and its copy in the key.
func (e Expression) Size() int64 { return 2 * int64(len(e.text)) }

// key is the name of e as a target of a scheduler.
func (e Expression) key() string { return e.owner + " " + e.keep + " " + e.text }

const (
	maxConfined = 4096     // bytes of an expression that a user wrote
	maxSent     = 16 << 10 // bytes of such an expression with all matchers
	maxTrusted  = 64 << 10 // bytes of an expression that an administrator wrote
)

// promQL accepts no experimental syntax. That matters for Confine: the function info, for example,
// reads series that no selector in the expression names.
var promQL = parser.NewParser(parser.Options{})

// namespaceName is what Kubernetes allows as the name of a namespace.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Confine adds to every selector of text a matcher for the label, such as "namespace", with the value namespace, and
// the matchers in more. The matchers of a selector stay, so it can only become narrower. VictoriaMetrics, whose
// language differs, reads the result in the same way: hack/adapter compares them. The error is an *Error.
func Confine(text, label, namespace string, more ...*labels.Matcher) (Expression, error) {
	if !namespaceName.MatchString(namespace) {
		// In particular, an empty value would match the series that have no such label.
		return Expression{}, newError(BadExpression, "", "%q is not the name of a namespace", shorten(namespace))
	}
	if !isLabel(label) {
		return Expression{}, newError(BadExpression, "", "%q is not the name of a label for namespaces", shorten(label))
	}
	added := append([]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, label, namespace)}, more...)
	expr, err := parse(text, maxConfined)
	if err != nil {
		return Expression{}, err
	}
	count := 0
	err = eachSelector(expr, func(s *parser.VectorSelector) *Error {
		count++
		s.LabelMatchers = append(s.LabelMatchers, added...)
		return nil
	})
	switch {
	case err != nil:
		return Expression{}, err
	case count == 0:
		return Expression{}, newError(BadExpression, "use a metric of the backend in it", "the expression selects no series")
	}
	confined := expr.String()
	if len(confined) > maxSent {
		return Expression{}, newError(BadExpression, "select fewer series in it, or shorten the selector of the metric",
			"with the matchers that are added to each of its %d selectors, the expression has %d bytes; at most %d are allowed",
			count, len(confined), maxSent)
	}
	if err := verify(confined, count, added[0]); err != nil {
		return Expression{}, err
	}
	return Expression{text: confined, owner: namespace}, nil
}

// isLabel reports whether s can be the name of a label that every server of this API knows.
func isLabel(s string) bool {
	return model.LegacyValidation.IsValidLabelName(s) && s != model.MetricNameLabel
}

// verify parses the text that Confine wrote, so that confinement does not depend on how the printer of the parser
// treats rare syntax.
func verify(confined string, selectors int, want *labels.Matcher) *Error {
	broken := func() *Error {
		return newError(BadExpression, "write it in another way, and report this as a bug in metrics-server",
			"the expression cannot be confined to a namespace")
	}
	expr, err := promQL.ParseExpr(confined)
	if err != nil {
		return broken().because(err)
	}
	if problem := eachSelector(expr, func(s *parser.VectorSelector) *Error {
		selectors--
		for _, m := range s.LabelMatchers {
			if m.Type == want.Type && m.Name == want.Name && m.Value == want.Value {
				return nil
			}
		}
		return broken()
	}); problem != nil {
		return broken()
	}
	if selectors != 0 {
		return broken()
	}
	return nil
}

// Trust returns an expression that an administrator wrote, unchanged, after checking that it is PromQL. owner is the
// key of the share of turns and memory that it uses: usually a namespace, "" for expressions that are for all of
// them. Answers keep the labels in keep of its series, too, which are separated by commas; "" for none. The error is
// an *Error.
func Trust(text, owner, keep string) (Expression, error) {
	if _, err := parse(text, maxTrusted); err != nil {
		return Expression{}, err
	}
	return Expression{text: text, owner: owner, keep: keep}, nil
}

// Names returns an expression of an administrator, as Trust does, that finds names of series. The label __name__ of
// each result is one. Names are short, and a server has many, so answers may have more of them than of other series.
func Names(text string) (Expression, error) {
	e, err := Trust(text, "", model.MetricNameLabel)
	e.names = err == nil
	return e, err
}

// Narrow returns e with matchers added to every selector. The error is an *Error.
func (e Expression) Narrow(matchers ...*labels.Matcher) (Expression, error) {
	if len(matchers) == 0 {
		return e, nil
	}
	expr, err := parse(e.text, maxTrusted)
	if err != nil {
		return Expression{}, err
	}
	_ = eachSelector(expr, func(s *parser.VectorSelector) *Error {
		s.LabelMatchers = append(s.LabelMatchers, matchers...)
		return nil
	})
	if e.text = expr.String(); len(e.text) > maxTrusted {
		return Expression{}, newError(BadExpression, "shorten the selector of the metric", "with the matchers of the "+
			"selector, the expression has %d bytes; at most %d are allowed", len(e.text), maxTrusted)
	}
	return e, nil
}

// parse parses an expression whose result is a vector or a scalar.
func parse(text string, limit int) (parser.Expr, error) {
	if len(text) > limit {
		return nil, newError(BadExpression, "shorten it", "the expression has %d bytes; at most %d are allowed", len(text),
			limit)
	}
	expr, err := promQL.ParseExpr(text)
	if err != nil {
		return nil, newError(BadExpression, "", "the expression is not valid PromQL: %s", shorten(parseProblem(text, err)))
	}
	switch t := expr.Type(); t {
	case parser.ValueTypeVector, parser.ValueTypeScalar:
		return expr, nil
	case parser.ValueTypeMatrix:
		return nil, newError(BadExpression, "use a function of ranges, such as rate(...)",
			"the expression returns a range of samples")
	default:
		return nil, newError(BadExpression, "", "the expression returns a %s", t)
	}
}

// parseProblem returns the first problem with its position.
func parseProblem(text string, err error) string {
	if errs, ok := errors.AsType[parser.ParseErrors](err); ok && len(errs) > 0 {
		first := errs[0]
		first.Query = text
		return first.Error()
	}
	return err.Error()
}

// eachSelector calls f for every selector in expr, until f returns an error.
func eachSelector(expr parser.Expr, f func(*parser.VectorSelector) *Error) error {
	var problem *Error
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok && problem == nil {
			problem = f(s)
		}
		return nil
	})
	if problem == nil {
		return nil // not a nil *Error
	}
	return problem
}
