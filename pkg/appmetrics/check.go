package appmetrics

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// compileOwn checks an expression that the HPA gives.
func (q *Query) compileOwn() error {
	expr, err := q.parse()
	if err != nil {
		return err
	}
	c := checker{q: q}
	if err := c.check(expr); err != nil {
		return err
	}
	if err := q.checkShape(expr, podLabel); err != nil {
		return err
	}
	if len(q.selectors) == 0 {
		return q.mistake(WrongShape, 0, "it selects no series, so its value does not depend on the pods")
	}
	q.span = c.span
	if c.shortest > 0 && c.shortest < 2*DefaultInterval {
		q.interval = c.shortest / 2
	}
	q.expression = expr.String()
	switch q.def.Shape {
	case Single:
		q.perPod, q.scaleFree = perPodSum(expr), isScaleFree(expr)
	case Grouped:
		q.sum, q.scaleFree = isSumOverPods(expr), isScaleFree(expr)
	}
	for _, s := range q.selectors {
		q.needs = append(q.needs, need{name: s.name, anyOf: []selector{s}})
	}
	return nil
}

// parse parses the expression that the HPA gives.
func (q *Query) parse() (parser.Expr, error) {
	text := q.def.Expression
	if len(text) > maxExpression {
		return nil, Errorf(OverLimit, "the expression of metric %q has %d bytes; at most %d are allowed", q.def.Name,
			len(text), maxExpression)
	}
	if err := q.checkPatterns(text); err != nil {
		return nil, err
	}
	expr, err := promQL.ParseExpr(text)
	if err == nil {
		return expr, nil
	}
	var errs parser.ParseErrors
	if errors.As(err, &errs) && len(errs) > 0 {
		return nil, q.mistake(BadExpression, errs[0].PositionRange.Start, "not valid PromQL: %s",
			shorten(errs[0].Err.Error()))
	}
	return nil, Errorf(BadExpression, "the expression of metric %q is not valid PromQL: %s", q.def.Name,
		shorten(err.Error()))
}

// checker walks an expression: it refuses what is not allowed, adds the matchers, and collects the
// selectors.
type checker struct {
	q        *Query
	span     time.Duration // the largest sum of nested ranges
	shortest time.Duration // the shortest range of a selector
	count    int
}

func (c *checker) check(expr parser.Expr) error {
	var problem error
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		if problem == nil && n != nil {
			problem = c.visit(n, path)
		}
		return problem
	})
	return problem
}

const (
	noOffset = "offset is not supported: samples are kept only as long as ranges need them"
	noAt     = "@ is not supported: an expression is evaluated at the time of the last sample"
)

func (c *checker) visit(n parser.Node, path []parser.Node) error {
	q := c.q
	if len(path) > maxDepth {
		return q.mistake(OverLimit, n.PositionRange().Start, "its parts are nested more than %d deep", maxDepth)
	}
	switch n := n.(type) {
	case *parser.VectorSelector:
		return c.selector(n, path)
	case *parser.MatrixSelector:
		at := n.PositionRange().Start
		if n.Range < minRange {
			return q.mistake(OverLimit, at, "a range of %s is too short: at least %s are needed", n.Range, minRange)
		}
		if c.shortest == 0 || n.Range < c.shortest {
			c.shortest = n.Range
		}
		return c.addSpan(n.Range, at, path)
	case *parser.SubqueryExpr:
		at := n.PositionRange().Start
		if n.OriginalOffset != 0 {
			return q.mistake(BadExpression, at, noOffset)
		}
		if n.Timestamp != nil || n.StartOrEnd != 0 {
			return q.mistake(BadExpression, at, noAt)
		}
		if n.Range < minRange {
			return q.mistake(OverLimit, at, "a range of %s is too short: at least %s are needed", n.Range, minRange)
		}
		if n.Step != 0 && n.Step < minStep {
			return q.mistake(OverLimit, at, "a subquery's step of %s is too short: at least %s are needed", n.Step, minStep)
		}
		return c.addSpan(n.Range, at, path)
	case *parser.Call:
		return c.call(n, path)
	case *parser.BinaryExpr:
		q.divides = q.divides || n.Op == parser.DIV
	}
	return nil
}

// addSpan takes a range into account: together with the ranges around it, it must not exceed
// maxRange.
func (c *checker) addSpan(d time.Duration, at posrange.Pos, path []parser.Node) error {
	total := d
	for _, outer := range path {
		if s, ok := outer.(*parser.SubqueryExpr); ok {
			total += min(s.Range, 2*maxRange) // does not overflow
		}
	}
	if d > maxRange || total > maxRange {
		return c.q.mistake(OverLimit, at, "its ranges are longer than %s in total", maxRange)
	}
	c.span = max(c.span, total)
	return nil
}

func (c *checker) selector(n *parser.VectorSelector, path []parser.Node) error {
	q, at := c.q, n.PosRange.Start
	if n.OriginalOffset != 0 {
		return q.mistake(BadExpression, at, noOffset)
	}
	if n.Timestamp != nil || n.StartOrEnd != 0 {
		return q.mistake(BadExpression, at, noAt)
	}
	if c.count++; c.count > maxSelectors {
		return q.mistake(OverLimit, at, "it has more than %d selectors", maxSelectors)
	}
	name := ""
	var matchers []*labels.Matcher
	for _, m := range n.LabelMatchers {
		switch {
		case m.Name != model.MetricNameLabel:
			if pattern := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp; pattern && q.tooComplex(m.Value) {
				return q.mistake(OverLimit, at, "the pattern for label %s is too complex: shorten it, or use fewer repetitions",
					m.Name)
			}
			matchers = append(matchers, m)
		case m.Type == labels.MatchEqual && m.Value != "" && (name == "" || name == m.Value):
			name = m.Value
		default:
			return q.mistake(BadExpression, at, "a selector has to name its metric: patterns for names are not supported")
		}
	}
	if name == "" {
		return q.mistake(BadExpression, at, "a selector has to name its metric")
	}
	if len(name) > maxName {
		return q.mistake(OverLimit, at, "a metric's name has more than %d bytes", maxName)
	}
	for _, m := range q.matchers {
		n.LabelMatchers = append(n.LabelMatchers, m)
		matchers = append(matchers, m)
	}
	s := newSelector(name, matchers)
	if !slices.ContainsFunc(q.selectors, func(o selector) bool { return o.text == s.text }) {
		q.selectors = append(q.selectors, s)
	}
	q.uses = append(q.uses, useOf(s, path))
	return nil
}

// useOf returns how an expression uses a selector, from the nodes around it.
func useOf(s selector, path []parser.Node) use {
	u := use{selector: s, level: true}
	var within time.Duration // the range to which the next function is applied
	for _, outer := range slices.Backward(path) {
		switch n := outer.(type) {
		case *parser.MatrixSelector:
			u.level, within = false, n.Range
		case *parser.SubqueryExpr:
			u.level, within = false, n.Range
		case *parser.Call:
			switch n.Func.Name {
			case "rate", "irate", "increase", "delta", "idelta", "deriv", "predict_linear", "changes", "resets":
				if u.within == 0 || within < u.within {
					u.within = within
				}
			}
			switch n.Func.Name {
			case "rate", "increase", "delta":
				u.whole = u.whole || !u.level
			case "sum_over_time", "count_over_time", "changes", "resets", "deriv", "predict_linear":
				u.counts = u.counts || !u.level
			}
			switch n.Func.Name {
			case "rate", "irate", "increase", "resets":
				if u.rate == "" && !u.level {
					u.rate = n.Func.Name
				}
			case "absent", "timestamp", "histogram_quantile":
				u.level = false
			}
		case *parser.AggregateExpr:
			if n.Op == parser.COUNT || n.Op == parser.GROUP {
				u.level = false
			}
		}
	}
	return u
}

// call checks the functions that make label values longer.
func (c *checker) call(n *parser.Call, path []parser.Node) error {
	if !makesLabels(n) {
		return nil
	}
	at := n.PosRange.Start
	for _, outer := range path {
		if call, ok := outer.(*parser.Call); ok && makesLabels(call) && c.q.def.Shape != Grouped {
			return c.q.mistake(OverLimit, at, "%s within %s is not supported", n.Func.Name, call.Func.Name)
		}
	}
	references := len(n.Args) - 3 // of label_join: the labels to join
	if n.Func.Name == "label_replace" {
		replacement, ok := inner(n.Args[2]).(*parser.StringLiteral)
		pattern, also := inner(n.Args[4]).(*parser.StringLiteral)
		if !ok || !also {
			return c.q.mistake(BadExpression, at, "the replacement and the pattern of label_replace have to be strings")
		}
		references = strings.Count(replacement.Val, "$")
		if c.q.tooComplex(pattern.Val) {
			return c.q.mistake(OverLimit, at,
				"the pattern of label_replace is too complex: shorten it, or use fewer repetitions")
		}
	}
	if references > maxReferences {
		return c.q.mistake(OverLimit, at, "%s may refer to at most %d labels", n.Func.Name, maxReferences)
	}
	return nil
}

func makesLabels(n *parser.Call) bool {
	return n.Func.Name == "label_replace" || n.Func.Name == "label_join"
}

// tooComplex counts the instructions of a regular expression, and reports whether they take too
// much memory, or too much time on a long value.
func (q *Query) tooComplex(pattern string) bool {
	n := instructionsOf(pattern)
	q.instructions += n
	return n > maxPattern
}

// mistake is an error in the expression, with its position.
func (q *Query) mistake(c Cause, at posrange.Pos, format string, args ...any) *Error {
	text := q.def.Expression
	at = max(0, min(at, posrange.Pos(len(text))))
	line := 1 + strings.Count(text[:at], "\n")
	column := 1 + len([]rune(text[strings.LastIndexByte(text[:at], '\n')+1:at]))
	where := "character " + strconv.Itoa(column)
	if line > 1 {
		where = fmt.Sprintf("line %d, %s", line, where)
	}
	e := Errorf(c, "the expression of metric %q is wrong at %s: %s", q.def.Name, where, fmt.Sprintf(format, args...))
	e.Position = int(at)
	return e
}
