package schema

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"metrics-server/pkg/adminfile"
)

const published = "../../docs/config.schema.json"

var update = flag.Bool("update", false, "write docs/config.schema.json")

// TestSchema checks that the published schema is the one of the Go types, and that it describes every field.
func TestSchema(t *testing.T) {
	s := generate(t)
	if missing := undescribed("", s); len(missing) > 0 {
		t.Errorf("these fields need a comment in Go, which editors show: %q", missing)
	}
	want, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(published, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(want), string(read(t, published))); diff != "" {
		t.Errorf("%s is out of date: run `make generate` (-want +got):\n%s", published, diff)
	}
}

// generate returns the schema of the Go types.
func generate(t *testing.T) *jsonschema.Schema {
	t.Helper()
	comments := &jsonschema.Reflector{}
	err := comments.AddGoComments("metrics-server/hack/schema", "../../pkg", jsonschema.WithFullComment())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	fieldNames(reflect.TypeFor[adminfile.File](), names)
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, Anonymous: true, DoNotReference: true, Mapper: special,
		LookupComment: func(of reflect.Type, field string) string {
			if field == "" {
				return "" // what is said of a type is for those who read Go
			}
			return describe(field, comments.CommentMap[of.PkgPath()+"."+of.Name()+"."+field], names)
		},
	}
	s := r.Reflect(&adminfile.File{})
	s.Version = "http://json-schema.org/draft-07/schema#" // more is not used, and every editor knows it
	s.Title = "metrics-server custom-metrics --config"
	s.Description = "Servers with the Prometheus API, and what else an administrator says: see docs/backends.md."
	return s
}

// special returns the schema of a type that YAML writes otherwise than Go's kind of the type suggests, nil for others.
func special(of reflect.Type) *jsonschema.Schema {
	switch of {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+([.][0-9]*)?(ns|us|µs|ms|s|m|h))+$`}
	case reflect.TypeFor[map[string]string](): // the parser takes every scalar for a text
		return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{
			Extras: map[string]any{"type": []string{"string", "number", "boolean"}},
		}}
	}
	return nil
}

// fieldNames adds what the file calls the fields of a type, and of the types in it, by their names in Go.
func fieldNames(of reflect.Type, names map[string]string) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		fieldNames(of.Elem(), names)
	case reflect.Struct:
		for f := range of.Fields() {
			names[f.Name], _, _ = strings.Cut(f.Tag.Get("yaml"), ",")
			fieldNames(f.Type, names)
		}
	}
}

var word = regexp.MustCompile(`\b[A-Z]\w*`)

// describe returns the comment of a field in one line, with the names of the file in place of those of Go.
func describe(field, comment string, names map[string]string) string {
	first := true
	return word.ReplaceAllStringFunc(strings.Join(strings.Fields(comment), " "), func(w string) string {
		isField := first && w == field || w != "Default" // which also introduces a default
		first = false
		if name := names[w]; name != "" && isField {
			return name
		}
		return w
	})
}

// undescribed returns the paths of properties without a description.
func undescribed(path string, s *jsonschema.Schema) (missing []string) {
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		at := strings.TrimPrefix(path+"."+p.Key, ".")
		if p.Value.Description == "" {
			missing = append(missing, at)
		}
		for _, of := range []*jsonschema.Schema{p.Value, p.Value.Items, p.Value.AdditionalProperties} {
			if of != nil && of.Properties != nil {
				missing = append(missing, undescribed(at, of)...)
			}
		}
	}
	return missing
}

// compile returns the published schema.
func compile(t *testing.T) *validator.Schema {
	t.Helper()
	document, err := validator.UnmarshalJSON(bytes.NewReader(read(t, published)))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("config.schema.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check has the parser and the schema judge a file.
func check(t *testing.T, s *validator.Schema, text []byte) (parser, schema error) {
	t.Helper()
	_, parser = adminfile.Parse(text)
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := validator.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	return parser, s.Validate(instance)
}

func accepted(t *testing.T, s *validator.Schema, name string, text []byte) {
	t.Helper()
	if parser, schema := check(t, s, text); parser != nil || schema != nil {
		t.Errorf("%s: parser: %v\nschema: %v", name, parser, schema)
	}
}

// TestExamples checks the files in examples/backends, and that editors find the schema of each.
func TestExamples(t *testing.T) {
	s := compile(t)
	files, err := filepath.Glob("../../examples/backends/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text := read(t, file)
		first, _, _ := strings.Cut(string(text), "\n")
		reference, ok := strings.CutPrefix(first, "# yaml-language-server: $schema=")
		if !ok || filepath.Join(filepath.Dir(file), reference) != filepath.Clean(published) {
			t.Errorf("%s begins with %q, which does not name the schema", file, first)
		}
		accepted(t, s, file, text)
	}
}

var block = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestDocuments checks the files, and the values of the chart, that documents show.
func TestDocuments(t *testing.T) {
	s := compile(t)
	for document, want := range map[string]int{"backends.md": 2, "named-metrics.md": 2} {
		found := 0
		for _, b := range block.FindAllSubmatch(read(t, "../../docs/"+document), -1) {
			var of struct {
				Backends, Metrics any
				CustomMetrics     struct{ Backends any }
			}
			if err := yaml.Unmarshal(b[1], &of); err != nil || bytes.Contains(b[1], []byte("- type: ")) {
				continue // an extract, or metrics of an HPA
			}
			switch {
			case of.Backends != nil || of.Metrics != nil:
				found++
				accepted(t, s, string(b[1]), b[1])
			case of.CustomMetrics.Backends != nil:
				found++
				accepted(t, s, string(b[1]), marshal(t, of.CustomMetrics.Backends))
			}
		}
		if found < want {
			t.Errorf("%s: %d files were found, and there are more", document, found)
		}
	}
}

// TestChart checks the file that the chart writes: values go through several formats before they are in it.
func TestChart(t *testing.T) {
	s := compile(t)
	golden := read(t, "../../hack/helm/testdata/golden/custom-metrics.yaml")
	found := 0
	for document := range bytes.SplitSeq(golden, []byte("\n---\n")) {
		var config struct {
			Kind string
			Data map[string]string
		}
		if err := yaml.Unmarshal(document, &config); err == nil && config.Kind == "ConfigMap" {
			found++
			accepted(t, s, config.Data["backends.yaml"], []byte(config.Data["backends.yaml"]))
		}
	}
	if found != 1 {
		t.Errorf("%d ConfigMaps, want one", found)
	}
}

// TestAgreement checks that the schema accepts what the parser accepts, and refuses mistakes of form. Only the parser
// knows the others.
func TestAgreement(t *testing.T) {
	const main = "backends: [{name: main, url: https://a"
	s := compile(t)
	for name, text := range map[string]string{
		"nothing":       "{}",
		"no backends":   "backends: []",
		"scalars":       main + ", headers: {a: 1, b: x}, parameters: {dedup: true, max: 1.5}}]",
		"durations":     main + ", interval: 1m30s, timeout: 1.5s}]",
		"limits":        main + ", parallel: 4, maxBodyBytes: 1000000, maxSeries: 1}]",
		"prom. adapter": main + "}]\nadapter: {file: /a, backend: main}",
	} {
		t.Run(name, func(t *testing.T) { accepted(t, s, text, []byte(text)) })
	}
	for name, text := range map[string]string{
		"a list":                    "[]",
		"unknown field":             "backend: []",
		"unknown field of backend":  main + ", timout: 1s}]",
		"unknown field of adapter":  main + "}]\nadapter: {file: /a, backend: main, url: b}",
		"no name":                   "backends: [{url: https://a}]",
		"no URL":                    "backends: [{name: main}]",
		"adapter without a file":    main + "}]\ndefault: main\nadapter: {}",
		"backends that are no list": "backends: {name: main, url: https://a}",
		"duration without a unit":   main + ", interval: 15}]",
		"duration in words":         main + ", interval: often}]",
		"negative duration":         main + ", interval: -15s}]",
		"a text for a number":       main + ", parallel: many}]",
		"a text for a boolean":      main + ", allowPartial: maybe}]",
		"headers that are no map":   main + ", headers: [a]}]",
		"a map for a header":        main + ", headers: {a: {b: c}}}]",
		"a list for a text":         main + ", caFile: [a]}]",
	} {
		t.Run(name, func(t *testing.T) {
			if parser, schema := check(t, s, []byte(text)); parser == nil || schema == nil {
				t.Errorf("parser: %v\nschema: %v", parser, schema)
			}
		})
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(fmt.Errorf("%w: run `make generate`", err))
	}
	return b
}
