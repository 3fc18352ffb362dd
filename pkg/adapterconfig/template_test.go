package adapterconfig

import (
	"strings"
	"testing"
	"text/template"
)

// TestTemplate compares what templates become with what text/template, which prometheus-adapter uses, makes of them.
func TestTemplate(t *testing.T) {
	data := arguments{
		Series: "hits", LabelMatchers: `a="1",b=~"x|y"`, LabelValuesByName: map[string]string{"b": "x|y", "a": "1", "": ""},
		GroupBy: "pod,node", GroupBySlice: []string{"pod", "node"},
	}
	for _, text := range []string{
		"", "text", "sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)",
		`<<index .LabelValuesByName "a">> <<.LabelValuesByName.b>> <<.LabelValuesByName.none>>`,
		`<<index .LabelValuesByName "none">>`,
		"<<range .GroupBySlice>><<.>>,<<end>>", "<<range $i, $l := .GroupBySlice>><<if $i>>,<<end>><<$l>><<end>>",
		"<<range $k, $v := .LabelValuesByName>><<$k>>=<<$v>>;<<$.Series>>;<<end>>",
		"<<range .LabelValuesByName.none>>x<<else>>empty<<end>>", "<<range $v := .GroupBySlice>><<$v>><<end>>",
		`<<if eq .GroupBy "pod" "pod,node">>yes<<else if .Series>>no<<end>>`, `<<if ne .Series "x">>yes<<end>>`,
		`<<if and .Series (not .LabelValuesByName.none)>>yes<<end>> <<or .LabelValuesByName.none .Series>>`,
		"<<with .Series>><<.>><<else>>none<<end>><<with $x := .GroupBy>><<$x>><<end>>",
		"<<- /* a comment */ ->> a <<- .Series ->> b", `<<$a := "x">><<$a>><<$a = .Series>><<$a>>`,
		"<<range .GroupBySlice>><<if eq . \"node\">><<break>><<end>><<.>><<end>>",
		"<<range .GroupBySlice>><<if eq . \"pod\">><<continue>><<end>><<.>><<end>>",
		`<<$a := "x">><<if true>><<$a := "y">><<$a>><<end>><<$a>>`, `<<$a := "x">><<if true>><<$a = "y">><<end>><<$a>>`,
		`<<printf "%s{%s}" .Series .LabelMatchers>> <<.Series | printf "%q">> <<print 1 2 "a" true 1.5>>`,
		"<<len .GroupBySlice>> <<len .Series>> <<index .GroupBySlice 1>> <<.GroupBySlice>> <<.LabelValuesByName>>",
		"<<if .LabelValuesByName>>has<<end>> <<(index .GroupBySlice 0)>>", `<<println "a">>`, "<<if 0>>x<<else>>y<<end>>",
		`<<not .Series>><<if "">>x<<else>>y<<end>><<if 0.0>>x<<else>>y<<end>><<if false>>x<<else>>y<<end>><<if 1.5>>x<<end>>`,
		// Mistakes
		"<<.Serie>>", "<<.Series.X>>", "<<.Series", "<<x>>", "<<index .GroupBySlice 7>>", `<<index .Series "a">>`,
		"<<range .Series>>x<<end>>", "<<$x>>", "<<end>>", "<<.Series 1>>", "<<len>>", "<<not>>", "<<printf .GroupBySlice>>",
		`<<define "a">>x<<end>><<template "b">>`, "<<break>>",
	} {
		var want strings.Builder
		reference, wantErr := template.New("q").Delims("<<", ">>").Parse(text)
		if wantErr == nil {
			wantErr = reference.Execute(&want, data)
		}
		got := ""
		own, err := parseTemplate("q", text)
		if err == nil {
			got, err = own.execute(data.fields())
		}
		if (err != nil) != (wantErr != nil) || err == nil && got != want.String() {
			t.Errorf("%s becomes %q, %v, want %q, %v", text, got, err, want.String(), wantErr)
		}
	}
	// What is not supported is a mistake, not another meaning.
	for _, text := range []string{`<<define "a">>x<<end>><<template "a">>`, "<<html .Series>>", "<<call .Series>>"} {
		own, err := parseTemplate("q", text)
		if err == nil {
			_, err = own.execute(data.fields())
		}
		if err == nil {
			t.Errorf("no error for %s", text)
		}
	}
}
