// Package adminfile reads the administrator's file of the custom metrics server: which servers with the Prometheus API
// (backends) autoscalers can use, where a configuration of prometheus-adapter is, and which metrics the administrator
// names for objects of all namespaces.
//
// Parse is pure: it neither opens the files that a backend names nor connects to it. It returns every mistake at once,
// with the line if the YAML parser reports it. A File is immutable.
package adminfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"metrics-server/pkg/backend"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/near"
)

// File is the content of the file.
//
// docs/config.schema.json is generated from it, with the comments of its fields as descriptions. Required fields have
// the tag jsonschema:"required".
type File struct {
	// Backends can be used by all autoscalers.
	Backends []backend.Config `yaml:"backends"`
	// Default is the name of the backend for metrics whose autoscaler names no backend and does not say where its pods
	// are scraped. Default: pods are scraped.
	Default string `yaml:"default"`
	// Adapter says where a configuration of prometheus-adapter is, which defines metrics. Default: none.
	Adapter *Adapter `yaml:"adapter"`
	// Metrics are metrics of type Object that the autoscalers of all namespaces can use for their own objects.
	Metrics []Metric `yaml:"metrics"`
}

// Adapter says where a configuration of prometheus-adapter is, and to which backend it applies.
type Adapter struct {
	// File is the path of that configuration, which is config.yaml in its ConfigMap. A relative path begins at this file.
	File string `yaml:"file" jsonschema:"required"`
	// Backend is the name of the backend to which it applies. Default: the default backend.
	Backend string `yaml:"backend"` // never empty after Parse
	// NaNAsZero serves 0 where a rule of a metric of type Pods or Object has NaN, as prometheus-adapter does. Such a value
	// is missing otherwise.
	NaNAsZero bool `yaml:"nanAsZero"`
}

var errEmpty = errors.New("it is empty: write a list of backends or metrics")

// Parse parses the content of a file. The error has every mistake, with its line. With an error, the file is nil or
// incomplete.
func Parse(content []byte) (*File, error) {
	f := &File{}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	var errs []error
	switch err := decoder.Decode(f); {
	case errors.Is(err, io.EOF):
		return nil, errEmpty
	case err != nil:
		wrong, ok := errors.AsType[*yaml.TypeError](err)
		if !ok {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
		}
		for _, text := range wrong.Errors {
			errs = append(errs, errors.New(describe(text)))
		}
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		errs = append(errs, errors.New("it has more than one YAML document: write everything into the first one"))
	}
	document := &yaml.Node{}
	if err := yaml.Unmarshal(content, document); err != nil {
		return nil, err // it cannot happen: it was decoded
	}
	if document.Content[0].ShortTag() == "!!null" { // as of a file that begins with --- and has only comments
		errs = append(errs, errEmpty)
	}
	return f, errors.Join(append(errs, f.mistakes(lines{document})...)...)
}

// lines says in which lines of a document something is.
type lines struct{ document *yaml.Node }

// of returns the number of the line with a top-level field, or with the element of that index if the field is a list.
func (l lines) of(field string, index int) int {
	root := l.document.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if key.Value != field {
			continue
		}
		if all := elements(value); index < len(all) {
			return all[index].Line
		}
		return key.Line
	}
	return root.Line
}

// elements returns those elements of a list that File has. The YAML library leaves out others, such as null.
func elements(list *yaml.Node) (all []*yaml.Node) {
	if list.Kind != yaml.SequenceNode {
		return nil
	}
	for _, n := range list.Content {
		if n.Kind == yaml.MappingNode || n.Kind == yaml.AliasNode && n.Alias.Kind == yaml.MappingNode {
			all = append(all, n)
		}
	}
	return all
}

// mistake returns an error that begins with the line of a field.
func (l lines) mistake(field string, index int, format string, args ...any) error {
	return fmt.Errorf("line %d: "+format, append([]any{l.of(field, index)}, args...)...)
}

// backendName matches names of backends, which need no quotes in annotations and errors.
var backendName = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?$`)

func (f *File) mistakes(at lines) (errs []error) {
	wrong := func(field string, index int, format string, args ...any) {
		errs = append(errs, at.mistake(field, index, format, args...))
	}
	var names []string
	for i, b := range f.Backends {
		switch {
		case b.Name == "": // Validate reports it
		case b.Name == kubeapi.PodsBackend:
			wrong("backends", i, "backend %q: this name means that pods are scraped: use another one", b.Name)
		case !backendName.MatchString(b.Name):
			wrong("backends", i, "backend %q: the name is not valid: use at most 63 letters, digits, hyphens, "+
				"underscores and dots, the first and last one a letter or digit", b.Name)
		case slices.Contains(names, b.Name):
			wrong("backends", i, "backend %q: another backend has the same name: rename one", b.Name)
		}
		names = append(names, b.Name)
		for _, err := range b.Validate() {
			wrong("backends", i, "%w", err)
		}
	}
	if f.Default != "" && !slices.Contains(names, f.Default) {
		wrong("default", 0, "default: there is no backend %q%s", f.Default, didYouMean(f.Default, names))
	}
	if a := f.Adapter; a != nil {
		if a.File == "" {
			wrong("adapter", 0, "adapter: it names no file: add the path of prometheus-adapter's configuration")
		}
		switch a.Backend = cmp.Or(a.Backend, f.Default); {
		case a.Backend == "":
			wrong("adapter", 0, "adapter: it names no backend, and the file has no default: add one of them")
		case a.Backend != f.Default && !slices.Contains(names, a.Backend):
			wrong("adapter", 0, "adapter: there is no backend %q%s", a.Backend, didYouMean(a.Backend, names))
		}
	}
	return append(errs, f.mistakesInMetrics(names, at)...)
}

var (
	unknownField = regexp.MustCompile(`^(line \d+): field (.*) not found in type (.*)$`)
	wrongType    = regexp.MustCompile(`^(line \d+): cannot unmarshal \S+( .*)? into (.*)$`)
)

// describe translates an error of the YAML library from the terms of Go to those of the file.
func describe(text string) string {
	if m := unknownField.FindStringSubmatch(text); m != nil {
		var known []string
		for _, of := range []reflect.Type{
			reflect.TypeFor[File](), reflect.TypeFor[Adapter](), reflect.TypeFor[backend.Config](), reflect.TypeFor[Metric](),
		} {
			if of.String() == m[3] {
				known = fields(of)
			}
		}
		remedy := didYouMean(m[2], known)
		if remedy == "" {
			remedy = ": use " + strings.Join(known, ", ")
		}
		return fmt.Sprintf("%s: the field %q is unknown%s", m[1], m[2], remedy)
	}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		kind, ok := map[string]string{
			"time.Duration": "a duration such as 15s", "bool": "true or false", "int": "a whole number",
			"int64": "a whole number", "string": "a string", "map[string]string": "a map of strings",
			"[]backend.Config": "a list", "backend.Config": "a map", "adminfile.File": "a map", "adminfile.Adapter": "a map",
			"[]adminfile.Metric": "a list", "adminfile.Metric": "a map",
		}[m[3]]
		if ok {
			return fmt.Sprintf("%s: %s is not %s", m[1], cmp.Or(strings.TrimSpace(m[2]), "this"), kind)
		}
	}
	return text
}

func fields(of reflect.Type) (names []string) {
	for f := range of.Fields() {
		names = append(names, f.Tag.Get("yaml"))
	}
	return names
}

func didYouMean(name string, known []string) string {
	if found := near.Nearest(name, known); found != "" {
		return fmt.Sprintf(": did you mean %q?", found)
	}
	return ""
}
