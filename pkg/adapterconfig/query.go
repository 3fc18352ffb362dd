package adapterconfig

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Resource is a resource of the Kubernetes API under both of its names.
type Resource struct{ Group, Plural, Singular string }

// String returns the resource as the API has it.
func (r Resource) String() string {
	if r.Group == "" {
		return r.Plural
	}
	return r.Plural + "." + r.Group
}

var namespaces = Resource{Plural: "namespaces", Singular: "namespace"}

// Request is what an autoscaler asks for.
type Request struct {
	Metric string
	// Namespace is empty for objects that are in none.
	Namespace string
	// Resource and Names are the objects that the metric is about. Without names, the result has all objects;
	// the error is ErrMixed if their values would not be those of a query with names.
	Resource Resource
	Names    []string
	// Selector is metric.selector. Nil selects everything.
	Selector labels.Selector
}

// Discover evaluates a query for series of r, and returns their names: the label __name__ of each result.
type Discover func(r *Rule, query string) ([]string, error)

// ErrNotFound says that no rule has the metric.
var ErrNotFound = errors.New("no rule of the configuration of prometheus-adapter has it")

// SeriesError is an error that is due to the series that exist at present.
type SeriesError struct{ text string }

func (e *SeriesError) Error() string { return e.text }

// seriesError returns a SeriesError about r.
func (r *Rule) seriesError(format string, args ...any) *SeriesError {
	return &SeriesError{fmt.Sprintf("%s (line %d) ", r.Path, r.Line) + fmt.Sprintf(format, args...)}
}

// ErrMixed is the error of a request without names if the values of a query for all objects would differ from those of
// queries for each of them. Repeat the request with names.
var ErrMixed = errors.New("metricsQuery combines the values of several objects, or their names with other text")

// objectName matches every name that an object can have. An autoscaler may refer to an object by any text, and a
// template may put that text between quotes, which it must not end.
var objectName = regexp.MustCompile(`^[-A-Za-z0-9_.:]+$`)

// Labels are the labels of a series that say to which object it belongs.
type Labels struct {
	Name      string
	Namespace string // empty if there is none
}

// Query returns the PromQL for a metric of pods or of another object, and the labels of its result. A series that has
// another namespace in Labels.Namespace belongs to an object of that namespace.
func (c *Config) Query(q Request, discover Discover) (query string, of Labels, err error) {
	for _, name := range q.Names {
		if !objectName.MatchString(name) {
			return "", of, fmt.Errorf("%q cannot be in a query as the name of an object: correct it", name)
		}
	}
	query, rule, err := find(c.Rules, q, false, discover)
	if err != nil {
		return "", of, err
	}
	if of.Name, err = rule.label(q.Resource); err == nil {
		of.Namespace, err = rule.label(namespaces)
	}
	return query, of, err
}

// QueryExternal returns the PromQL for an external metric. A nil selector selects everything.
func (c *Config) QueryExternal(metric, namespace string, selector labels.Selector, discover Discover) (string, error) {
	query, _, err := find(c.External, Request{Metric: metric, Namespace: namespace, Selector: selector}, true, discover)
	return query, err
}

// candidate is a rule that may have a metric.
type candidate struct {
	rule   *Rule
	label  string   // of the objects; empty for an external metric
	series []string // with the metric's name; nil if they are not known
	query  string   // empty if the rule has no series for the metric, or if there is an error
	err    error    // why there is no query, such as errElsewhere and errMistake
}

// find returns the query of the last rule that has the metric, because later rules replace earlier ones. If several
// rules have it, only those with series in the namespace of the request count: other namespaces must not be able to
// replace its rule. find discovers series unless the names in the rules leave only one.
func find(rules []*Rule, q Request, external bool, discover Discover) (string, *Rule, error) {
	var candidates []candidate
	for _, r := range slices.Backward(rules) {
		label := ""
		if !external {
			var err error
			if label, err = r.label(q.Resource); err != nil || label == "" {
				continue
			}
		}
		names := r.Series()
		named := r.named(names, q.Metric)
		if names == nil || len(named) > 0 {
			candidates = append(candidates, candidate{rule: r, label: label, series: named})
		}
	}
	if len(candidates) == 1 && len(candidates[0].series) == 1 {
		query, err := candidates[0].rule.render(candidates[0].series[0], q, external)
		return query, candidates[0].rule, err
	}
	notFound := ErrNotFound
	var found []candidate
	for _, c := range candidates { // all of them, so that the caller discovers their series in parallel
		c.query, c.err = c.rule.discovered(c.label, q, external, discover)
		switch {
		case errors.Is(c.err, errUnusable):
			notFound = c.rule.seriesError("gives the name %q to a series whose own name cannot be put into metricsQuery: "+
				"rename the series so that its name has only letters, digits, _ and :", q.Metric)
		case c.err != nil || c.query != "":
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 0:
		return "", nil, notFound
	case len(found) == 1 && !errors.Is(found[0].err, errElsewhere):
		return found[0].query, found[0].rule, found[0].err
	}
	for _, c := range found {
		here, err := c.isHere(q, external, discover)
		switch {
		case err != nil:
			return "", nil, err
		case here:
			return c.query, c.rule, c.err
		}
	}
	what := "gives more than one series the name %q"
	if len(found) > 1 {
		what = "and other rules give series the name %q"
	}
	return "", nil, found[0].rule.seriesError(what+", and namespace %q has none of them: check that its pods are scraped",
		q.Metric, q.Namespace)
}

// isHere reports whether c has series in the namespace of the request, or does not select by it. The error says that
// this is not known. A rule with a mistake must not break the metric in namespaces where it has no series, either.
func (c *candidate) isHere(q Request, external bool, discover Discover) (bool, error) {
	switch {
	case errors.Is(c.err, errElsewhere):
		return false, nil
	case c.err != nil && !errors.Is(c.err, errMistake):
		return false, c.err
	}
	within, err := c.rule.within(q, external)
	if err != nil || within == nil || c.err == nil && !strings.Contains(c.query, within.String()) {
		return true, nil //nolint:nilerr // the error is the rule's mistake, which c.err says
	}
	names, err := discover(c.rule, c.rule.discovery(c.label, within))
	return len(c.rule.named(names, q.Metric)) > 0, err
}

var (
	errUnusable  = errors.New("the names of all series are unusable")
	errAmbiguous = errors.New("there are several queries")
	errElsewhere = errors.New("all series are in other namespaces")
	errMistake   = errors.New("a mistake")
)

// discovered returns the query for the series that have the metric's name, "" if there are none. If their queries
// differ, only the series in the namespace of the request count: other namespaces must not be able to break the metric.
// If there are none in that namespace, the error is errElsewhere.
func (r *Rule) discovered(label string, q Request, external bool, discover Discover) (string, error) {
	names, err := discover(r, r.discovery(label))
	if err != nil {
		return "", err
	}
	query, err := r.queryFor(names, q, external)
	if !errors.Is(err, errAmbiguous) {
		return query, err
	}
	if within, err := r.within(q, external); err == nil && within != nil {
		if names, err = discover(r, r.discovery(label, within)); err != nil {
			return "", err
		}
		switch query, err = r.queryFor(names, q, external); {
		case err == nil && query != "":
			return query, nil
		case err == nil:
			return "", errElsewhere
		}
	}
	return "", r.seriesError("gives more than one series the name %q: make seriesQuery, seriesFilters or name.matches "+
		"select one of them", q.Metric)
}

// queryFor returns the query for the series with the metric's name, "" if there are none.
func (r *Rule) queryFor(series []string, q Request, external bool) (query string, err error) {
	for _, s := range r.named(series, q.Metric) {
		if !r.mayRender(s) {
			err = errUnusable
			continue
		}
		one, err := r.render(s, q, external)
		if err != nil {
			return "", err
		}
		if query != "" && query != one {
			return "", errAmbiguous
		}
		query = one
	}
	if query != "" {
		return query, nil
	}
	return "", err
}

// mayRender reports whether the name of a series may be put into metricsQuery, which does not quote it. Whoever exposes
// metrics chooses the names that are discovered, and could otherwise write any PromQL. Those in seriesQuery are an
// administrator's.
func (r *Rule) mayRender(series string) bool {
	return model.LegacyValidation.IsValidMetricName(series) || slices.Contains(r.Series(), series)
}

// named returns the series whose name in the API is metric, each once.
func (r *Rule) named(series []string, metric string) []string {
	var named []string
	for _, s := range series {
		if name, ok := r.MetricName(s); ok && name == metric && !slices.Contains(named, s) {
			named = append(named, s)
		}
	}
	return named
}

// groupName turns the name of a group into a part of a label's name.
var groupName = strings.NewReplacer(".", "_", "-", "_")

// label returns the label that has the names of the objects of a resource, "" if there is none.
func (r *Rule) label(of Resource) (string, error) {
	label := ""
	for _, o := range r.overrides {
		switch {
		case o.resource != of.Plural && o.resource != of.Singular:
		case o.group == of.Group:
			return o.label, nil
		case label == "" && o.mayMean(of.Group):
			label = o.label
		}
	}
	if label != "" || r.template == nil {
		return label, nil
	}
	return labelBy(r.template, of)
}

// kubernetesKinds lists the built-in resources of Kubernetes that rules may refer to, by API group. The groups are in
// the order in which Kubernetes prefers them.
var kubernetesKinds = []struct {
	group     string
	resources []string
}{
	{"", []string{
		"configmap", "endpoints", "event", "limitrange", "namespace", "node", "persistentvolume", "persistentvolumeclaim",
		"pod", "podtemplate", "replicationcontroller", "resourcequota", "secret", "service", "serviceaccount",
	}},
	{"apps", []string{"controllerrevision", "daemonset", "deployment", "replicaset", "statefulset"}},
	{"autoscaling", []string{"horizontalpodautoscaler"}},
	{"batch", []string{"cronjob", "job"}},
	{"networking.k8s.io", []string{"ingress", "networkpolicy"}},
	{"policy", []string{"poddisruptionbudget"}},
}

// mayMean reports whether o applies to its resource in the given group. As in kubectl, o.group may be a prefix of the
// group, or empty. If Kubernetes itself has a resource that matches, o applies only to that one.
func (o *override) mayMean(group string) bool {
	for _, k := range kubernetesKinds {
		if strings.HasPrefix(k.group, o.group) && slices.ContainsFunc(k.resources, func(s string) bool {
			return sameResource(s, o.resource)
		}) {
			return group == k.group
		}
	}
	return strings.HasPrefix(group, o.group)
}

// labelBy returns the label that a template makes of a resource.
func labelBy(t *tmpl, of Resource) (string, error) {
	return t.execute(map[string]any{"Group": groupName.Replace(of.Group), "Resource": of.Singular})
}

// sameResource reports whether a and b are the same resource, in singular or plural.
func sameResource(a, b string) bool {
	plural := func(s string) []string { return []string{s, s + "s", s + "es", strings.TrimSuffix(s, "y") + "ies"} }
	return slices.Contains(plural(a), b) || slices.Contains(plural(b), a)
}

// arguments are what a metricsQuery can use.
type arguments struct {
	Series            string
	LabelMatchers     string
	LabelValuesByName map[string]string
	GroupBy           string
	GroupBySlice      []string
}

func (a *arguments) fields() map[string]any {
	return map[string]any{
		"Series": a.Series, "LabelMatchers": a.LabelMatchers, "LabelValuesByName": a.LabelValuesByName,
		"GroupBy": a.GroupBy, "GroupBySlice": a.GroupBySlice,
	}
}

func (r *Rule) render(series string, q Request, external bool) (string, error) {
	if r.Mistake {
		return "", fmt.Errorf("%s (line %d) in the configuration of prometheus-adapter has metric %q, but contains %w: an "+
			"administrator finds it in the log of the custom metrics server, or with --check-config",
			r.Path, r.Line, q.Metric, errMistake)
	}
	a := arguments{Series: series, LabelValuesByName: map[string]string{}}
	var matchers []string
	add := func(label, operator, value, byName string) {
		matchers = append(matchers, fmt.Sprintf("%s%s%q", label, operator, value))
		a.LabelValuesByName[label] = byName
	}
	if q.Selector != nil {
		requirements, _ := q.Selector.Requirements()
		for i := range requirements {
			operator, value, err := matcher(&requirements[i])
			if err != nil {
				return "", err
			}
			add(requirements[i].Key(), operator, value, strings.Join(requirements[i].Values().List(), "|"))
		}
	}
	switch m, err := r.within(q, external); {
	case err != nil:
		return "", err
	case m != nil:
		add(m.Name, "=", m.Value, m.Value)
	}
	if !external {
		label, err := r.label(q.Resource)
		switch {
		case err != nil:
			return "", err
		case label == "":
			return "", fmt.Errorf("%s (line %d) has no label for %s: add one to resources.overrides", r.Path, r.Line, q.Resource)
		}
		switch names := strings.Join(q.Names, "|"); len(q.Names) {
		case 0:
			add(label, "!=", "", anyName)
		case 1:
			add(label, "=", names, names)
		default:
			add(label, "=~", names, names)
		}
		a.GroupBy, a.GroupBySlice = label, []string{label}
	}
	a.LabelMatchers = strings.Join(matchers, ",")
	query, expr, err := r.execute(a, external)
	if err != nil || external || len(q.Names) > 0 {
		return query, err
	}
	if mixes(expr, a.GroupBy) || strings.Count(query, anyName) != matchedNames(expr) {
		return "", ErrMixed
	}
	return strings.ReplaceAll(query, anyName, ".+"), nil
}

// within returns the matcher for the namespace of a request, nil if the rule does not select by it.
func (r *Rule) within(q Request, external bool) (*promlabels.Matcher, error) {
	if q.Namespace == "" || external && !r.namespaced {
		return nil, nil
	}
	label, err := r.label(namespaces)
	switch {
	case err != nil:
		return nil, err
	case label == "":
		return nil, errors.New(noNamespace)
	}
	return promlabels.NewMatcher(promlabels.MatchEqual, label, q.Namespace)
}

// anyName stands for the names of all objects in LabelValuesByName. If the query uses it only as a pattern, it becomes
// ".+"; otherwise the query needs the names.
const anyName = "any-name-of-an-object"

// matchedNames returns how many matchers have anyName as their pattern.
func matchedNames(expr parser.Expr) (count int) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			for _, m := range s.LabelMatchers {
				if m.Type == promlabels.MatchRegexp && m.Value == anyName {
					count++
				}
			}
		}
		return nil
	})
	return count
}

const noNamespace = "the rule has no label for namespaces: add namespace: {resource: namespace} to " +
	"resources.overrides, or, for an external metric that belongs to none, namespaced: false to resources"

// execute fills in metricsQuery and checks the result.
func (r *Rule) execute(a arguments, external bool) (query string, expr parser.Expr, err error) {
	query, err = r.query.execute(a.fields())
	if err != nil {
		return "", nil, errors.New(templateProblem(err))
	}
	expr, err = promQL.ParseExpr(query)
	if err != nil {
		if all, ok := errors.AsType[parser.ParseErrors](err); ok && len(all) > 0 {
			err = &all[0]
		}
		return "", nil, fmt.Errorf("metricsQuery becomes %q, which is not valid PromQL: %w", query, err)
	}
	switch t := expr.Type(); {
	case t == parser.ValueTypeVector || external && t == parser.ValueTypeScalar:
		return query, expr, nil
	default:
		return "", nil, fmt.Errorf("metricsQuery becomes %q, which returns a %s instead of a vector", query, t)
	}
}

// mixes reports whether a part of expr combines series of different objects, which label tells apart, after they
// were selected by that label. The values for an object then depend on which others are selected.
func mixes(expr parser.Expr, label string) (mixed bool) {
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok || !slices.ContainsFunc(s.LabelMatchers, func(m *promlabels.Matcher) bool { return m.Name == label }) {
			return nil
		}
		for i, outer := range path {
			switch outer := outer.(type) {
			case *parser.AggregateExpr:
				mixed = mixed || outer.Without == slices.Contains(outer.Grouping, label)
			case *parser.BinaryExpr:
				left := i+1 < len(path) && path[i+1] == parser.Node(outer.LHS) || n == parser.Node(outer.LHS)
				mixed = mixed || matchesOthers(outer, left, label)
			case *parser.Call:
				mixed = mixed || slices.Contains([]string{"absent", "absent_over_time", "scalar"}, outer.Func.Name)
			}
		}
		return nil
	})
	return mixed
}

// matchesOthers reports whether, in a binary operation, series of different objects on one side can match the same
// series of the other side, and what becomes of that depends on all of them.
func matchesOthers(e *parser.BinaryExpr, left bool, label string) bool {
	m := e.VectorMatching
	if m == nil || m.On == slices.Contains(m.MatchingLabels, label) {
		return false // a scalar on the other side, or matched by object
	}
	switch {
	case m.Card == parser.CardManyToOne, e.Op == parser.LAND, e.Op == parser.LUNLESS:
		return !left // the series on the left are looked at one by one
	case m.Card == parser.CardOneToMany, e.Op == parser.LOR:
		return left
	}
	return true
}

// try returns the expression that the rule becomes for a made-up request, to find mistakes early.
func (r *Rule) try(external bool) (parser.Expr, error) {
	series := "series"
	if names := r.Series(); len(names) > 0 {
		series = names[0]
	}
	q := Request{
		Namespace: "default", Names: []string{"name"}, Selector: labels.SelectorFromSet(labels.Set{"label": "value"}),
	}
	switch {
	case external:
	case r.template != nil:
		q.Resource = Resource{Plural: "pods", Singular: "pod"}
	case len(r.overrides) == 0:
		return nil, errors.New("the rule belongs to no resource: add a template or overrides to resources")
	default:
		// Any resource will do, preferably one in a namespace.
		o := r.overrides[0]
		for _, other := range r.overrides {
			if !sameResource(other.resource, "namespace") {
				o = other
			}
		}
		q.Resource = Resource{Group: o.group, Plural: o.resource, Singular: o.resource}
		if slices.ContainsFunc([]string{"namespace", "node", "persistentvolume"}, func(s string) bool {
			return sameResource(s, o.resource)
		}) {
			q.Namespace = ""
		}
	}
	query, err := r.render(series, q, external)
	if err != nil {
		return nil, err
	}
	return promQL.ParseExpr(query)
}

// moreLabels returns the labels by which the result of expr is grouped although they are not those of objects. With a
// template, every label may be that of an object.
func (r *Rule) moreLabels(expr parser.Expr) (more []string) {
	if r.template != nil {
		return nil
	}
	var known []string
	for _, o := range r.overrides {
		known = append(known, o.label)
	}
	for {
		switch e := expr.(type) {
		case *parser.ParenExpr:
			expr = e.Expr
		case *parser.BinaryExpr:
			expr = e.LHS
			if e.LHS.Type() == parser.ValueTypeScalar {
				expr = e.RHS
			}
		case *parser.Call:
			i := slices.IndexFunc(e.Args, func(arg parser.Expr) bool { return arg.Type() == parser.ValueTypeVector })
			if i < 0 {
				return nil
			}
			if expr = e.Args[i]; e.Func.Name == "histogram_quantile" {
				known = append(known, promlabels.BucketLabel)
			}
		case *parser.AggregateExpr:
			for _, label := range e.Grouping {
				if !e.Without && !slices.Contains(known, label) {
					more = append(more, label)
				}
			}
			return more
		default:
			return nil
		}
	}
}

// matcher returns a requirement as an operator and a value of PromQL, as prometheus-adapter does: In and NotIn match
// their values as patterns.
func matcher(r *labels.Requirement) (operator, value string, err error) {
	if !model.LegacyValidation.IsValidLabelName(r.Key()) {
		return "", "", fmt.Errorf("the metric's selector has the label %q, which Prometheus cannot have", r.Key())
	}
	values := r.Values().List()
	value = strings.Join(values, "|")
	switch r.Operator() {
	case selection.Exists:
		return "!=", "", nil
	case selection.DoesNotExist:
		return "=", "", nil
	case selection.Equals, selection.DoubleEquals:
		operator = "="
	case selection.NotEquals:
		operator = "!="
	case selection.In:
		operator = "=~"
	case selection.NotIn:
		operator = "!~"
	default:
		return "", "", fmt.Errorf("the metric's selector has the operator %q, which Prometheus does not have", r.Operator())
	}
	return operator, value, nil
}
