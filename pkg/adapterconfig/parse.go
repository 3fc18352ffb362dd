package adapterconfig

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"metrics-server/pkg/near"
)

// Parse reads a configuration: the content of config.yaml in the adapter's ConfigMap. It returns every
// problem. The Config is nil if nothing can be used.
func Parse(text []byte) (*Config, []Problem) {
	p := &reader{}
	root := p.document(text)
	if root == nil {
		return nil, p.problems
	}
	c := &Config{}
	for _, f := range p.fields(root, "") {
		switch f.name {
		case "rules":
			if nested := member(f.value, "custom", "default", "external"); nested != "" {
				p.leaveOut(f.key, f.name, "use the file config.yaml of the ConfigMap that the chart makes",
					"it has the key %q, so these are values of the Helm chart", nested)
				continue
			}
			c.Rules = p.rules(f.value, f.name)
		case "externalRules":
			c.External = p.rules(f.value, f.name)
		case "resourceRules":
			if !isNull(f.value) {
				p.leaveOut(f.key, f.name, "remove it", "the metrics server gets CPU and memory from the kubelets, without rules")
			}
		case "data":
			if member(root, "kind") != "" {
				p.leaveOut(f.key, f.name, "use the content of its key config.yaml", "this is a ConfigMap")
				return nil, p.problems
			}
			p.unknown(f)
		case "apiVersion", "kind", "metadata":
			if member(root, "data") == "" {
				p.unknown(f)
			}
		default:
			p.unknown(f)
		}
	}
	return c, p.problems
}

// reader collects problems.
type reader struct{ problems []Problem }

func (p *reader) add(n *yaml.Node, leftOut bool, path, remedy, format string, args ...any) {
	line := 0
	if n != nil {
		line = n.Line
	}
	p.problems = append(p.problems, Problem{
		Line: line, Path: path, LeftOut: leftOut, Text: fmt.Sprintf(format, args...), Remedy: remedy,
	})
}

func (p *reader) leaveOut(n *yaml.Node, path, remedy, format string, args ...any) {
	p.add(n, true, path, remedy, format, args...)
}

func (p *reader) unknown(f field) {
	p.leaveOut(f.key, f.path, "remove it or correct its name", "prometheus-adapter has no such setting")
}

// leftOut returns how many problems so far left something out.
func (p *reader) leftOut() int {
	n := 0
	for i := range p.problems {
		if p.problems[i].LeftOut {
			n++
		}
	}
	return n
}

// document returns the top of the only document in text, nil if there is a problem.
func (p *reader) document(text []byte) *yaml.Node {
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	var document, next yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		p.leaveOut(nil, "", "", "the file is empty")
		return nil
	case err != nil:
		p.leaveOut(nil, "", "", "the file is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		p.leaveOut(&next, "", "keep one of them", "there is more than one YAML document")
		return nil
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		p.leaveOut(root, "", "write the sections rules and externalRules", "the file is not a YAML map")
		return nil
	}
	return root
}

// field is an entry of a YAML map.
type field struct {
	name, path string
	key, value *yaml.Node
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// member returns the first of names that a YAML map has as a key, "" if there is none.
func member(n *yaml.Node, names ...string) string {
	if n.Kind != yaml.MappingNode {
		return ""
	}
	for _, name := range names {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return name
			}
		}
	}
	return ""
}

// fields returns the entries of a map, with those that are merged into it. A missing map has none.
func (p *reader) fields(n *yaml.Node, path string) []field { return p.merged(n, path, 0) }

// maxMerges is how deeply maps may be merged into one another. It also ends a map that is merged into itself.
const maxMerges = 5

// merged is fields for a map that is merged into another map, at some depth.
func (p *reader) merged(n *yaml.Node, path string, depth int) []field {
	if depth > maxMerges {
		p.leaveOut(n, path, "write the fields out", "maps are merged into one another more than %d times", maxMerges)
		return nil
	}
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		p.leaveOut(n, path, "", "it has to be a YAML map")
		return nil
	}
	var own, merged []field
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		if key.Tag == "!!merge" {
			for _, from := range mergedMaps(value) {
				merged = append(merged, p.merged(from, path, depth+1)...)
			}
			continue
		}
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if seen[key.Value] {
			p.leaveOut(key, at, "remove one of the two", "the key is there twice")
			continue
		}
		seen[key.Value] = true
		own = append(own, field{key.Value, at, key, value})
	}
	for _, f := range merged {
		if !seen[f.name] {
			seen[f.name] = true
			own = append(own, f)
		}
	}
	return own
}

func mergedMaps(n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	maps := make([]*yaml.Node, len(n.Content))
	for i, m := range n.Content {
		maps[i] = resolve(m)
	}
	return maps
}

// items returns the elements of a list. A missing list has none.
func (p *reader) items(n *yaml.Node, path string) []*yaml.Node {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.leaveOut(n, path, "", "it has to be a YAML list")
		return nil
	}
	all := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		all[i] = resolve(item)
	}
	return all
}

// text returns a scalar. A missing one is empty.
func (p *reader) text(f field) string {
	switch {
	case isNull(f.value):
		return ""
	case f.value.Kind != yaml.ScalarNode:
		p.leaveOut(f.value, f.path, "", "it must be a string")
		return ""
	}
	return f.value.Value
}

// rules returns the rules of a section, except those whose metrics are not known.
func (p *reader) rules(n *yaml.Node, section string) []*Rule {
	var rules []*Rule
	for i, item := range p.items(n, section) {
		before := p.leftOut()
		r, known := p.rule(item, fmt.Sprintf("%s[%d]", section, i), section == "externalRules")
		if r.Mistake = p.leftOut() > before; known {
			rules = append(rules, r)
		}
	}
	return rules
}

// rule returns a rule, and whether its metrics are known.
func (p *reader) rule(n *yaml.Node, path string, external bool) (r *Rule, known bool) {
	r = &Rule{Path: path, Line: n.Line, namespaced: true, matches: regexp.MustCompile(".*")}
	before, first := p.leftOut(), len(p.problems)
	query := field{path: path + ".metricsQuery", value: n}
	fields := p.fields(n, path)
	hasSeries := false
	// A key that is there twice leaves the metrics unknown, except metricsQuery.
	misnamed := slices.ContainsFunc(p.problems[first:], func(found Problem) bool { return found.Path != query.path })
	for _, f := range fields {
		soFar := p.leftOut()
		switch f.name {
		case "seriesQuery":
			hasSeries = true
			p.series(r, f)
		case "seriesFilters":
			for i, item := range p.items(f.value, f.path) {
				p.filter(r, item, fmt.Sprintf("%s[%d]", f.path, i))
			}
		case "resources":
			p.resources(r, f)
		case "name":
			p.name(r, f)
		case "metricsQuery":
			query = f
		default:
			p.unknown(f)
			misnamed = misnamed || near.Nearest(f.name, []string{"seriesFilters", "name"}) != ""
			continue
		}
		if f.name != "resources" && p.leftOut() > soFar {
			misnamed = true
		}
	}
	known = hasSeries && !misnamed
	if !hasSeries && n.Kind == yaml.MappingNode {
		p.leaveOut(n, path, "add a selector such as http_requests_total{namespace!=\"\"}", "it has no seriesQuery")
	}
	if r.as == "" {
		r.as = "$" + strconv.Itoa(min(r.matches.NumSubexp(), 1))
	}
	if p.leftOut() == before { // what follows depends on all of this
		p.query(r, query, external)
	}
	return r, known
}

func (p *reader) series(r *Rule, f field) {
	text := p.text(f)
	matchers, err := promQL.ParseMetricSelector(text)
	if err != nil {
		p.leaveOut(f.value, f.path, "write a selector of PromQL, such as http_requests_total{namespace!=\"\"}",
			"%q is not a selector: %v", text, err)
		return
	}
	r.series = matchers
}

func (p *reader) filter(r *Rule, n *yaml.Node, path string) {
	var is, isNot string
	for _, f := range p.fields(n, path) {
		switch f.name {
		case "is":
			is = p.text(f)
		case "isNot":
			isNot = p.text(f)
		default:
			p.unknown(f)
		}
	}
	if (is == "") == (isNot == "") {
		p.leaveOut(n, path, "", "it needs one of is and isNot")
		return
	}
	if pattern := p.pattern(n, path, is+isNot); pattern != nil {
		r.filters = append(r.filters, filter{pattern, is != ""})
	}
}

func (p *reader) pattern(n *yaml.Node, path, text string) *regexp.Regexp {
	pattern, err := regexp.Compile(text)
	if err != nil {
		p.leaveOut(n, path, "", "%q is not a regular expression: %v", text, err)
		return nil
	}
	return pattern
}

// reference matches what regexp.Expand replaces by a group.
var reference = regexp.MustCompile(`\$\$|\$(\w+)|\$\{(\w+)\}`)

func (p *reader) name(r *Rule, f field) {
	var as field
	for _, f := range p.fields(f.value, f.path) {
		switch f.name {
		case "matches":
			if text := p.text(f); text != "" {
				if pattern := p.pattern(f.value, f.path, text); pattern != nil {
					r.matches = pattern
				}
			}
		case "as":
			as, r.as = f, p.text(f)
		default:
			p.unknown(f)
		}
	}
	if r.as == "" {
		if r.matches.NumSubexp() > 1 {
			p.leaveOut(f.value, f.path, "add as, such as as: \"${1}_${2}\"",
				"matches has more than one group, and there is no as")
		}
		return
	}
	for _, found := range reference.FindAllStringSubmatch(r.as, -1) {
		group := found[1] + found[2]
		if n, err := strconv.Atoi(group); group == "" || err == nil && n <= r.matches.NumSubexp() ||
			r.matches.SubexpIndex(group) >= 0 {
			continue
		}
		remedy := "correct it"
		if rest := strings.TrimLeft(group, "0123456789"); rest != "" && rest != group {
			remedy = fmt.Sprintf("write ${%s}%s", strings.TrimSuffix(group, rest), rest)
		}
		p.add(as.value, false, as.path, remedy, "matches has no group %q, so this part of the name is empty", group)
	}
}

func (p *reader) resources(r *Rule, f field) {
	for _, f := range p.fields(f.value, f.path) {
		switch f.name {
		case "template":
			text := p.text(f)
			if text == "" {
				continue
			}
			t, err := parseTemplate("template", text)
			ofPods, ofNodes := "", ""
			if err == nil {
				ofPods, err = labelBy(t, Resource{Plural: "pods", Singular: "pod"})
			}
			if err == nil {
				ofNodes, err = labelBy(t, Resource{Plural: "nodes", Singular: "node"})
			}
			if err != nil {
				p.leaveOut(f.value, f.path, "", "%s", templateProblem(err))
				continue
			}
			r.template = t
			if ofPods == ofNodes {
				p.leaveOut(f.value, f.path, "write <<.Resource>> in place of the resource",
					"%q is the same for all resources", text)
			}
		case "overrides":
			for _, o := range p.fields(f.value, f.path) {
				p.override(r, o)
			}
		case "namespaced":
			if err := f.value.Decode(&r.namespaced); err != nil {
				p.leaveOut(f.value, f.path, "", "it has to be true or false")
			}
			if strings.HasPrefix(f.path, "rules") && !r.namespaced {
				p.add(f.value, false, f.path, "remove it, or use a metricsQuery without <<.LabelMatchers>>",
					"prometheus-adapter ignores it in rules: queries select the namespace nevertheless")
			}
		default:
			p.unknown(f)
		}
	}
}

func (p *reader) override(r *Rule, f field) {
	o := override{label: f.name}
	for _, f := range p.fields(f.value, f.path) {
		switch f.name {
		case "group":
			o.group = p.text(f)
		case "resource":
			o.resource = strings.ToLower(p.text(f))
		default:
			p.unknown(f)
		}
	}
	if o.resource == "" {
		p.leaveOut(f.key, f.path, "write it as {resource: pod}", "it names no resource")
		return
	}
	if !model.LegacyValidation.IsValidLabelName(o.label) {
		p.leaveOut(f.key, f.path, "", "%q is not the name of a label", o.label)
		return
	}
	for _, other := range r.overrides {
		if other.group == o.group && sameResource(other.resource, o.resource) {
			p.leaveOut(f.key, f.path, "remove one of them",
				"label %q stands for the same resource, and prometheus-adapter takes one of them at random", other.label)
			return
		}
	}
	r.overrides = append(r.overrides, o)
}

// query reads metricsQuery and tries it.
func (p *reader) query(r *Rule, f field, external bool) {
	text := ""
	if f.key != nil {
		text = p.text(f)
	}
	if strings.TrimSpace(text) == "" {
		p.leaveOut(f.value, f.path, "add one, such as sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
			"there is no query")
		return
	}
	t, err := parseTemplate("metricsQuery", text)
	if err != nil {
		p.leaveOut(f.value, f.path, "", "%s", templateProblem(err))
		return
	}
	r.query = t
	expr, err := r.try(external)
	if err != nil {
		remedy := ""
		if strings.Contains(text, "{{") {
			remedy = "write << and >> instead of {{ and }}"
		}
		p.leaveOut(f.value, f.path, remedy, "%v", err)
		return
	}
	if more := r.moreLabels(expr); !external && len(more) > 0 {
		labels := strings.Join(more, " and ")
		p.add(f.value, false, f.path, fmt.Sprintf("remove %s from by (...)", labels), "it also groups by %s; if an object "+
			"then has several series, prometheus-adapter serves one of them and metrics-server reports an error", labels)
	}
}

// templateProblem returns the text of an error of a template without the name that this package gives the template.
func templateProblem(err error) string {
	text := strings.TrimPrefix(err.Error(), "template: ")
	if _, rest, ok := strings.Cut(text, ": "); ok {
		text = rest
	}
	return "it is not a template: " + text
}
