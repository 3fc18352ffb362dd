package adapterconfig

import (
	"embed"
	"fmt"
	"strings"
	"testing"
)

//go:embed testdata/*.yaml
var testdata embed.FS

// describe returns problems, one a line; those that leave nothing out are marked.
func describe(problems []Problem) []string {
	lines := make([]string, len(problems))
	for i := range problems {
		if lines[i] = problems[i].Error(); !problems[i].LeftOut {
			lines[i] = "warning: " + lines[i]
		}
	}
	return lines
}

// used returns how many rules can be used.
func used(rules []*Rule) int { return (&Config{Rules: rules}).Used() }

func wantProblems(t *testing.T, problems []Problem, want ...string) {
	t.Helper()
	got := describe(problems)
	if len(got) != len(want) {
		t.Errorf("%d problems, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
		return
	}
	for i := range got {
		for part := range strings.SplitSeq(want[i], " ... ") {
			if !strings.Contains(got[i], part) {
				t.Errorf("%q lacks %q", got[i], part)
			}
		}
	}
}

// TestExamples checks how many rules of the examples are taken over, and why others are not.
func TestExamples(t *testing.T) {
	resourceRules := ": resourceRules: the metrics server gets CPU and memory from the kubelets ... remove it"
	for name, tt := range map[string]struct {
		rules, external int
		problems        []string
	}{
		"http.yaml":       {1, 0, nil},
		"containers.yaml": {3, 0, nil},
		"inference.yaml":  {1, 1, nil},
		"nodes.yaml":      {2, 0, nil},
		"datasets.yaml":   {1, 0, nil},
		"queues.yaml":     {0, 2, nil},
		"cloud.yaml": {0, 0, []string{
			"line 3: externalRules[0].metricsQuery: the rule has no label for namespaces ... namespaced: false",
		}},
		"gpu.yaml":       {2, 0, nil},
		"renamed.yaml":   {0, 1, []string{"line 10" + resourceRules}},
		"minutes.yaml":   {2, 0, nil},
		"workers.yaml":   {2, 0, nil},
		"groups.yaml":    {2, 0, nil},
		"latency.yaml":   {1, 0, nil},
		"joined.yaml":    {2, 0, nil},
		"json.yaml":      {0, 0, []string{"line 1" + resourceRules}},
		"quantiles.yaml": {3, 0, nil},
		"mesh.yaml":      {3, 0, nil},
		"outside.yaml": {0, 3, []string{
			"line 18: externalRules[3].metricsQuery: the rule has no label for namespaces ... namespaced: false",
			"line 19: externalRules[4].metricsQuery: there is no query: add one",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := Parse(file(t, name))
			wantProblems(t, problems, tt.problems...)
			if c == nil || used(c.Rules) != tt.rules || used(c.External) != tt.external {
				t.Errorf("%+v, want %d rules and %d external rules", c, tt.rules, tt.external)
			}
		})
	}
}

// TestFiles checks files that are not the adapter's configuration.
func TestFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		none bool // there is no Config
		want []string
	}{
		"nothing":       {"", true, []string{"the file is empty"}},
		"only comments": {"# rules:\n", true, []string{"the file is empty"}},
		"not YAML":      {"rules:\n- a: b\n c: d", true, []string{"the file is not YAML: line"}},
		"a list": {
			"- seriesQuery: up", true, []string{"line 1: the file is not a YAML map ... rules and externalRules"},
		},
		"two documents": {"rules: []\n---\nrules: []", true, []string{"line 2: there is more than one YAML document"}},
		"a ConfigMap": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  config.yaml: |\n    rules: []", true,
			[]string{"line 4: data: this is a ConfigMap: use the content of its key config.yaml"},
		},
		"values of the chart": {
			"rules:\n  default: false\n  custom:\n  - seriesQuery: up", false,
			[]string{`line 1: rules: it has the key "custom" ... values of the Helm chart ... config.yaml`},
		},
		"other values": {
			"prometheus: {url: http://prometheus}\nrules: []", false,
			[]string{"line 1: prometheus: prometheus-adapter has no such setting"},
		},
		"empty":             {"rules: []\nexternalRules:\nresourceRules:\n", false, nil},
		"rules are no list": {"rules: up", false, []string{"line 1: rules: it has to be a YAML list"}},
		"a rule is no map":  {"rules: [up]", false, []string{"line 1: rules[0]: it has to be a YAML map"}},
		"same section":      {"rules: []\nrules: []", false, []string{"line 2: rules: the key is there twice"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := Parse([]byte(tt.text))
			wantProblems(t, problems, tt.want...)
			if (c == nil) != tt.none {
				t.Errorf("config %v", c)
			}
		})
	}
}

// TestRuleMistakes changes one line of a good rule.
func TestRuleMistakes(t *testing.T) {
	good := map[string]string{
		"seriesQuery":   `hits_total{namespace!="",pod!=""}`,
		"seriesFilters": `[{is: ^hits}, {isNot: ^misses}]`,
		"resources":     `{template: <<.Resource>>, overrides: {kubernetes_pod: {resource: pod}}}`,
		"name":          `{matches: "^(.*)_total$", as: "${1}_rate"}`,
		"metricsQuery":  `sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)`,
	}
	keys := []string{"seriesQuery", "seriesFilters", "resources", "name", "metricsQuery"}
	text := func(section string, changed ...string) string {
		b := section + ":\n- {}\n-\n"
		for _, key := range keys {
			value := good[key]
			if len(changed) > 0 && changed[0] == key {
				value = changed[1]
			}
			if value != "-" {
				b += "  " + key + ": " + value + "\n"
			}
		}
		if len(changed) > 0 && good[changed[0]] == "" {
			b += "  " + changed[0] + ": " + changed[1] + "\n"
		}
		return b
	}
	if _, problems := Parse([]byte(text("rules"))); len(problems) != 1 { // the rule {}
		t.Fatalf("the rules as they are have the problems %q, want one, of the rule {}", describe(problems))
	}
	for _, tt := range []struct {
		section, key, value string
		want                []string
	}{
		{"rules", "seriesQuery", "-", []string{"line 4: rules[1]: it has no seriesQuery: add a selector"}},
		{"rules", "seriesQuery", `""`, []string{`line 4: rules[1].seriesQuery: "" is not a selector ... such as`}},
		{"rules", "seriesQuery", `{a: b}`, []string{"it must be a string", "is not a selector"}},
		{"rules", "seriesQuery", `'{a="b" or c="d"}'`, []string{"line 4: rules[1].seriesQuery ... is not a selector"}},
		{"rules", "seriesFilters", `[{is: a, isNot: b}]`, []string{"line 5: rules[1].seriesFilters[0]: it needs one of"}},
		{"rules", "seriesFilters", `[{}]`, []string{"it needs one of is and isNot"}},
		{
			"rules", "seriesFilters", `[{is: a}, {isNot: "("}]`,
			[]string{`seriesFilters[1]: "(" is not a regular expression`},
		},
		{
			"rules", "seriesFilters", `[{not: a}]`,
			[]string{"seriesFilters[0].not: prometheus-adapter has no such", "one of"},
		},
		{"rules", "seriesFilters", `{is: a}`, []string{"it has to be a YAML list"}},
		{
			"rules", "resources", `{template: "<<.Kind>>"}`,
			[]string{"line 6: rules[1].resources.template: it is not a template"},
		},
		{"rules", "resources", `{template: "<<"}`, []string{"resources.template: it is not a template"}},
		{"rules", "resources", `{template: pod}`, []string{`"pod" is the same for all resources: write <<.Resource>>`}},
		{
			"rules", "resources", `{}`,
			[]string{"metricsQuery: the rule belongs to no resource: add a template or overrides"},
		},
		{"rules", "resources", `{overrides: {pod: {resource: pod}}}`, []string{"no label for namespaces"}},
		{
			"rules", "resources", `{overrides: {pod: pod}}`,
			[]string{"overrides.pod: it has to be a YAML map", "names no resource"},
		},
		{"rules", "resources", `{overrides: {pod: }}`, []string{"overrides.pod: it names no resource: write it as"}},
		{"rules", "resources", `{overrides: {a-b: {resource: pod}}}`, []string{`"a-b" is not the name of a label`}},
		{
			"rules", "resources", `{overrides: {pod: {kind: Pod}}}`,
			[]string{"overrides.pod.kind: prometheus-adapter has", "no resource"},
		},
		{
			"rules", "resources", `{template: <<.Resource>>, overrides: {a: {resource: pods}, b: {resource: pod}}}`,
			[]string{`overrides.b: label "a" stands for the same resource ... at random: remove one of them`},
		},
		{
			"rules", "resources", `{template: <<.Resource>>, namespaced: false}`,
			[]string{"warning: line 6: rules[1].resources.namespaced: prometheus-adapter ignores it in rules"},
		},
		{"externalRules", "resources", `{namespaced: maybe}`, []string{"resources.namespaced: it has to be true or false"}},
		{"externalRules", "resources", `{namespaced: no}`, nil},
		{"externalRules", "namespaced", "false", []string{"line 9: externalRules[1].namespaced: prometheus-adapter has no"}},
		{
			"externalRules", "resources", `{overrides: {pod: {resource: pod}}}`,
			[]string{"no label for namespaces ... namespaced: false"},
		},
		{"rules", "name", `{matches: "("}`, []string{`line 7: rules[1].name.matches: "(" is not a regular expression`}},
		{
			"rules", "name", `{matches: "(a)(b)"}`,
			[]string{"line 7: rules[1].name: matches has more than one group ... ${1}_${2}"},
		},
		{
			"rules", "name", `{matches: "^(.*)_total$", as: "$1_rate"}`,
			[]string{`warning: line 7: rules[1].name.as: matches has no group "1_rate" ... write ${1}_rate`},
		},
		{"rules", "name", `{matches: "^(.*)_total$", as: "$2"}`, []string{`warning: ... no group "2" ... correct it`}},
		{"rules", "name", `{matches: "^(?P<a>.*)_total$", as: "$a-$0-$$1"}`, nil},
		{"rules", "name", `{matches: }`, nil},
		{"rules", "name", "hits_rate", []string{"line 7: rules[1].name: it has to be a YAML map"}},
		{"rules", "name", `{to: x}`, []string{"name.to: prometheus-adapter has no such setting"}},
		{"rules", "metricsQuery", "-", []string{"rules[1].metricsQuery: there is no query: add one"}},
		{"rules", "metricsQuery", `""`, []string{"there is no query"}},
		{"rules", "metricsQuery", `<<.Series`, []string{"line 8: rules[1].metricsQuery: it is not a template"}},
		{"rules", "metricsQuery", `<<.Serie>>`, []string{"it is not a template ... can't evaluate field Serie"}},
		{
			"rules", "metricsQuery", `sum(<<.Series>>`,
			[]string{`becomes "sum(hits_total", which is not valid PromQL: 1:15: parse`},
		},
		{
			"rules", "metricsQuery", `sum(<<.Series>>) by ({{ range .GroupBySlice }}{{ . }}{{ end }})`,
			[]string{`which is not valid PromQL ... write << and >> instead of {{ and }}`},
		},
		{
			"rules", "resources", `{template: "{{.Resource}}"}`,
			[]string{`"{{.Resource}}" is the same for all resources: write <<.Resource>>`},
		},
		{"rules", "metricsQuery", `<<.Series>>[5m]`, []string{"returns a matrix instead of a vector"}},
		{"rules", "metricsQuery", `scalar(<<.Series>>)`, []string{"returns a scalar instead of a vector"}},
		{"externalRules", "metricsQuery", `scalar(<<.Series>>)`, nil},
		{"rules", "metricsQuery", `<<.Series>>{<<.LabelMatchers>>} keep_metric_names`, []string{"not valid PromQL"}},
		{"rules", "interval", "1m", []string{"line 9: rules[1].interval: prometheus-adapter has no such setting"}},
		{
			"rules", "seriesQuery", "&a up\n  seriesQuery: *a",
			[]string{"line 5: rules[1].seriesQuery: the key is there twice"},
		},
	} {
		t.Run(fmt.Sprint(tt.key, " ", tt.value), func(t *testing.T) {
			c, problems := Parse([]byte(text(tt.section, tt.key, tt.value)))
			if tt.section == "externalRules" && c == nil {
				t.Fatal("no config")
			}
			wantProblems(t, problems[1:], tt.want...)
			served, want := c.Used(), 1
			for _, p := range problems[1:] {
				if p.LeftOut {
					want = 0
				}
			}
			if served != want {
				t.Errorf("%d rules are served, want %d", served, want)
			}
		})
	}
}

// TestMoreLabels checks which queries get a warning because they may have several series for an object.
func TestMoreLabels(t *testing.T) {
	const by = "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>"
	for query, more := range map[string]string{
		by + ")":            "",
		by + ", namespace)": "",
		by + ", path)":      "path",
		"1 - (100 * (" + by + ", path, code)) / 2)":   "path and code",
		"ceil(" + by + ", path))":                     "path",
		"histogram_quantile(0.9, " + by + ", le))":    "",
		"histogram_quantile(0.9, " + by + ", le, x))": "x",
		by + ", le)":                          "le",
		"sum(<<.Series>>) without (instance)": "",
		"<<.Series>>{<<.LabelMatchers>>}":     "",
		"vector(1)":                           "",
	} {
		rule := "\n- seriesQuery: hits\n  " + podLabels + "\n  metricsQuery: '" + query + "'\n"
		c, problems := Parse([]byte("rules:" + rule))
		var want []string
		if more != "" {
			want = []string{"warning: line 4: rules[0].metricsQuery: it also groups by " + more + "; if an object then has " +
				"several series, prometheus-adapter serves one of them and metrics-server reports an error ... remove " + more +
				" from by (...)"}
		}
		wantProblems(t, problems, want...)
		if c.Used() != 1 {
			t.Errorf("%s is left out", query)
		}
	}
	_, problems := Parse([]byte("externalRules:\n- seriesQuery: lag\n  resources: {namespaced: false}\n" +
		"  metricsQuery: sum(lag) by (topic)\n"))
	wantProblems(t, problems) // the series of an external metric are added up
}

// TestMerge checks anchors and merged maps.
func TestMerge(t *testing.T) {
	c := parse(t, `
rules:
- &first
  seriesQuery: a{pod!=""}
  `+podLabels+`
  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)
- <<: [*first, {name: {as: never}}]
  seriesQuery: b{pod!=""}
  name: {as: "${0}_sum"}
`)
	_, problems := Parse([]byte("rules:\n- &r {<<: *r}"))
	wantProblems(t, problems, "line 2: rules[0]: maps are merged ... more than 5 times", "no seriesQuery")
	q := Request{Metric: "b_sum", Namespace: "shop", Resource: resource("", "pods"), Names: []string{"x"}}
	got, _, err := c.Query(q, unexpected(t))
	if want := `sum(b{namespace="shop",pod="x"}) by (pod)`; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// FuzzParse checks that no file ends the program, and that the rules that are taken over can be used.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"http.yaml", "queues.yaml", "groups.yaml", "minutes.yaml", "workers.yaml"} {
		text, err := testdata.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: &a [*a]\nrules: *a")
	f.Add("rules:\n- &r {<<: *r}")
	f.Fuzz(func(t *testing.T, text string) {
		c, problems := Parse([]byte(text))
		if c == nil && len(problems) == 0 {
			t.Error("there is neither a configuration nor a problem")
		}
		if c == nil {
			return
		}
		for _, r := range append(c.Rules, c.External...) {
			if _, err := promQL.ParseExpr(r.discovery("pod")); err != nil {
				t.Errorf("the query %s for names is not valid: %v", r.discovery("pod"), err)
			}
			r.MetricName("series")
		}
	})
}
