package demand

import (
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"metrics-server/pkg/sample"
)

// entry is a line of a YAML map from names to texts.
type entry struct {
	key, value string
	line       int // of the value, from 1
}

// yamlError is a mistake in a YAML map.
type yamlError struct {
	line         int // 0: unknown
	text, remedy string
}

const remedyMap = "write a YAML map with one line NAME: VALUE for each metric"

// parseMap parses a YAML map from names to texts. It accepts nothing else that YAML offers: no nesting, no
// aliases, no second document, no key twice. The size of the result is bounded by that of text.
func parseMap(text string) ([]entry, *yamlError) {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var document, next yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, &yamlError{text: "it is empty", remedy: remedyMap}
	case err != nil:
		return nil, &yamlError{text: cut(strings.TrimPrefix(err.Error(), "yaml: "), maxYAMLError), remedy: remedyMap}
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, &yamlError{line: next.Line, text: "it has more than one YAML document", remedy: remedyMap}
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, &yamlError{line: root.Line, text: "it is not a YAML map", remedy: remedyMap}
	}
	lines := make(map[string]int, len(root.Content)/2)
	entries := make([]entry, 0, len(root.Content)/2)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		name := sample.Quotable(key.Value)
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || key.Anchor != "":
			return nil, &yamlError{line: key.Line, text: "a key is not the name of a metric", remedy: remedyMap}
		case value.Kind != yaml.ScalarNode || value.Anchor != "":
			return nil, &yamlError{
				line: value.Line, text: "the value of " + name + " is not a string",
				remedy: "write it in one line, or after \"|\" in indented lines; put it in quotes if YAML takes it " +
					"for something else",
			}
		case value.Tag == "!!null" || strings.TrimSpace(value.Value) == "":
			return nil, &yamlError{line: value.Line, text: name + " has no value", remedy: "add one or remove the line"}
		case lines[key.Value] != 0:
			return nil, &yamlError{line: key.Line, text: name + " is there twice", remedy: "remove one of the two"}
		}
		lines[key.Value] = key.Line
		entries = append(entries, entry{key.Value, strings.Clone(strings.TrimSpace(value.Value)), value.Line})
	}
	return entries, nil
}
