package appmetrics

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// podLabel is the label that has the name of the pod of a series.
const podLabel = "pod"

// checkShape refuses an expression that cannot return what the metric needs. What depends on the
// series is checked when the expression is evaluated. pod is the label that has the names of pods.
func (q *Query) checkShape(expr parser.Expr, pod string) error {
	if q.def.Shape == Grouped {
		return q.checkGroups(expr)
	}
	switch t := expr.Type(); {
	case t == parser.ValueTypeVector:
	case t == parser.ValueTypeScalar && q.def.Shape == Single:
		return nil
	case t == parser.ValueTypeMatrix:
		return q.mistake(WrongShape, expr.PositionRange().Start,
			"it returns a range of samples: apply a function such as rate(...) to it")
	default:
		return q.mistake(WrongShape, expr.PositionRange().Start,
			"it returns a %s; a metric of type Pods needs one value for each pod: write sum by (%s) (...)", t, pod)
	}
	if q.def.Shape == PerPod {
		if culprit := losesLabel(expr, pod); culprit != nil {
			return q.mistake(WrongShape, culprit.PositionRange().Start,
				"its result has no label %q; a metric of type Pods needs one value for each pod: "+
					"write \"by (%s)\", as in sum by (%s) (...)", pod, pod, pod)
		}
		return nil
	}
	if a, ok := inner(expr).(*parser.AggregateExpr); ok && !a.Without && slices.Contains(a.Grouping, pod) {
		return q.mistake(WrongShape, a.PosRange.Start,
			"it returns a value for each pod; metrics of types Object and External need a single one: remove \"by (%s)\"", pod)
	}
	return nil
}

// checkGroups refuses an expression whose result certainly lacks a label that tells values apart.
func (q *Query) checkGroups(expr parser.Expr) error {
	by := strings.Join(q.def.By, ", ")
	if t := expr.Type(); t != parser.ValueTypeVector {
		return q.mistake(WrongShape, expr.PositionRange().Start, "it returns a %s, and a value for each object is needed: "+
			"write sum by (%s) (...)", t, by)
	}
	for _, label := range q.def.By {
		if culprit := losesLabel(expr, label); culprit != nil {
			return q.mistake(WrongShape, culprit.PositionRange().Start, "its result has no label %q, which says to which "+
				"object a value belongs: write sum by (%s) (...)", label, by)
		}
	}
	return nil
}

// inner returns an expression without the parentheses around it.
func inner(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

// losesLabel returns the part of a vector expression that certainly drops a label, or nil.
func losesLabel(e parser.Expr, label string) parser.Expr {
	switch n := e.(type) {
	case *parser.ParenExpr:
		return losesLabel(n.Expr, label)
	case *parser.UnaryExpr:
		return losesLabel(n.Expr, label)
	case *parser.SubqueryExpr:
		return losesLabel(n.Expr, label)
	case *parser.AggregateExpr:
		switch n.Op {
		case parser.TOPK, parser.BOTTOMK, parser.LIMITK, parser.LIMIT_RATIO:
			return losesLabel(n.Expr, label)
		}
		if n.Without == slices.Contains(n.Grouping, label) {
			return n
		}
		return losesLabel(n.Expr, label)
	case *parser.Call:
		switch n.Func.Name {
		case "label_replace", "label_join", "absent", "absent_over_time":
			return nil // may add the label
		case "vector":
			return n
		}
		for _, a := range n.Args {
			if t := a.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeMatrix {
				return losesLabel(a, label)
			}
		}
		return n
	case *parser.BinaryExpr:
		if n.VectorMatching == nil { // a scalar on one side
			if n.LHS.Type() == parser.ValueTypeVector {
				return losesLabel(n.LHS, label)
			}
			return losesLabel(n.RHS, label)
		}
		m := n.VectorMatching
		if slices.Contains(m.Include, label) { // as in group_left (pod)
			return nil
		}
		switch m.Card {
		case parser.CardOneToOne:
			if m.On != slices.Contains(m.MatchingLabels, label) {
				return n
			}
			return losesLabel(n.LHS, label)
		case parser.CardOneToMany:
			return losesLabel(n.RHS, label)
		}
		return losesLabel(n.LHS, label)
	}
	return nil
}

// perPodSum returns a sum over everything as a sum by pod, whose values add up to the same. It
// returns "" for other expressions.
func perPodSum(e parser.Expr) string {
	if !isSumOverPods(e) {
		return ""
	}
	a, _ := inner(e).(*parser.AggregateExpr)
	if a.Without || len(a.Grouping) > 0 {
		return ""
	}
	byPod := *a
	byPod.Grouping = []string{podLabel}
	return byPod.String()
}

// isSumOverPods reports whether e is a sum of elements that are each of one pod, so that what a pod adds to it does not
// depend on the other pods.
func isSumOverPods(e parser.Expr) bool {
	a, ok := inner(e).(*parser.AggregateExpr)
	return ok && a.Op == parser.SUM && ofOnePod(a.Expr)
}

// ofOnePod reports whether each element of a vector certainly has the label of a pod and is computed from the series of
// this pod alone. Where losesLabel gives the benefit of the doubt, ofOnePod does not.
func ofOnePod(e parser.Expr) bool {
	switch n := e.(type) {
	case *parser.VectorSelector, *parser.MatrixSelector:
		return true
	case *parser.ParenExpr:
		return ofOnePod(n.Expr)
	case *parser.UnaryExpr:
		return ofOnePod(n.Expr)
	case *parser.SubqueryExpr:
		return ofOnePod(n.Expr)
	case *parser.AggregateExpr: // topk and the like compare pods, unless they do so by pod
		return n.Op != parser.COUNT_VALUES && n.Without != slices.Contains(n.Grouping, podLabel) && ofOnePod(n.Expr)
	case *parser.Call:
		return callOfOnePod(n)
	case *parser.BinaryExpr:
		left, right := ofOnePod(n.LHS), ofOnePod(n.RHS)
		m := n.VectorMatching
		switch {
		case m == nil: // a scalar on one side
			return left && !selects(n.RHS) || right && !selects(n.LHS)
		case (n.Op == parser.LAND || n.Op == parser.LUNLESS) && !selects(n.RHS):
			return left
		}
		return left && right && m.On == slices.Contains(m.MatchingLabels, podLabel)
	}
	return false
}

// callOfOnePod is ofOnePod for the call of a function.
func callOfOnePod(n *parser.Call) bool {
	switch n.Func.Name {
	case "absent", "absent_over_time":
		return false
	case "label_replace", "label_join":
		if label, ok := inner(n.Args[1]).(*parser.StringLiteral); !ok || label.Val == podLabel {
			return false
		}
	}
	vectors := 0
	for _, a := range n.Args {
		switch a.Type() {
		case parser.ValueTypeVector, parser.ValueTypeMatrix:
			vectors++
			if !ofOnePod(a) {
				return false
			}
		default:
			if selects(a) {
				return false
			}
		}
	}
	return vectors > 0
}

// isScaleFree reports whether an expression is a ratio, a mean, an extreme or a quantile whose value does not grow with
// the number of pods: one missing pod of many hardly changes it.
func isScaleFree(e parser.Expr) bool {
	if ofOnePod(e) { // no aggregate over pods
		b, ok := inner(e).(*parser.BinaryExpr)
		return ok && b.Op == parser.DIV
	}
	power, known := growth(e)
	return known && power == 0
}

// growth returns the power of the number of pods with which the value of an expression grows: 1 for a sum over pods, 0
// for a mean or a constant, and the difference for a division. It is not known of all expressions.
func growth(e parser.Expr) (power int, known bool) {
	if ofOnePod(e) || !selects(e) {
		return 0, true
	}
	switch n := e.(type) {
	case *parser.ParenExpr:
		return growth(n.Expr)
	case *parser.UnaryExpr:
		return growth(n.Expr)
	case *parser.SubqueryExpr:
		return growth(n.Expr)
	case *parser.AggregateExpr:
		switch n.Op {
		case parser.AVG, parser.MIN, parser.MAX, parser.QUANTILE:
			return growth(n.Expr)
		case parser.COUNT:
			return 1, ofOnePod(n.Expr)
		case parser.SUM:
			if ofOnePod(orZero(n.Expr)) {
				return 1, true
			}
			// A sum of means grows with the number of groups, of which each pod may have its own.
			power, known = growth(n.Expr)
			return power, known && power == 1
		}
	case *parser.Call:
		return growthOfCall(n)
	case *parser.BinaryExpr:
		return growthOfBinary(n)
	}
	return 0, false
}

// growthOfCall is growth for the call of a function.
func growthOfCall(n *parser.Call) (power int, known bool) {
	switch n.Func.Name {
	case "histogram_quantile":
		return 0, true
	case "abs", "avg_over_time", "ceil", "clamp", "clamp_max", "clamp_min", "floor", "label_join", "label_replace",
		"last_over_time", "max_over_time", "min_over_time", "round", "scalar", "sort", "sort_desc", "vector":
		rest := slices.ContainsFunc(n.Args[1:], selects)
		power, known = growth(n.Args[0])
		return power, known && !rest
	}
	return 0, false
}

// growthOfBinary is growth for an operator.
func growthOfBinary(n *parser.BinaryExpr) (power int, known bool) {
	if n.Op.IsSetOperator() && ofOnePod(n.LHS) && selects(n.RHS) {
		return 0, false // which elements there are depends on other pods
	}
	left, known := growth(n.LHS)
	right, also := growth(n.RHS)
	both := known && also
	switch {
	case n.Op == parser.LAND, n.Op == parser.LUNLESS:
		return left, known
	case n.Op.IsComparisonOperator() && !n.ReturnBool: // a filter
		if n.LHS.Type() == parser.ValueTypeScalar {
			return right, also
		}
		return left, known
	case n.Op == parser.LOR && orZero(n) != n:
		return left, known
	case n.Op == parser.LOR, n.Op == parser.ADD, n.Op == parser.SUB:
		return left, both && left == right
	case n.Op == parser.MUL:
		return left + right, both
	case n.Op == parser.DIV:
		return left - right, both
	}
	return 0, false
}

// orZero returns X for "X or vector(0)", which adds nothing to a sum, and any other expression as it is.
func orZero(e parser.Expr) parser.Expr {
	if or, ok := inner(e).(*parser.BinaryExpr); ok && or.Op == parser.LOR {
		if call, ok := inner(or.RHS).(*parser.Call); ok && call.Func.Name == "vector" {
			if zero, ok := inner(call.Args[0]).(*parser.NumberLiteral); ok && zero.Val == 0 {
				return or.LHS
			}
		}
	}
	return e
}

// selects reports whether an expression selects series.
func selects(e parser.Expr) (found bool) {
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if _, ok := n.(*parser.VectorSelector); ok {
			found = true
		}
		return nil
	})
	return found
}
