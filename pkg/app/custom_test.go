package app

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckConfig checks the examples, and that every mistake of another file is reported.
func TestCheckConfig(t *testing.T) {
	for example, names := range map[string]string{
		"../../examples/backends/backends.yaml":      "3 backends and 0 metrics",
		"../../examples/backends/named-metrics.yaml": "1 backends and 3 metrics",
	} {
		if got := printed(t, "custom-metrics", "--check-config", example); got != example+" is valid; it names "+names {
			t.Error(got)
		}
	}
	files, err := filepath.Glob("../../examples/backends/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		if got := printed(t, "custom-metrics", "--check-config", file); !strings.HasPrefix(got, file+" is valid; ") {
			t.Error(got)
		}
	}
	check := func(file string) string {
		var said strings.Builder
		code, args := 0, []string{"custom-metrics", "--check-config", file}
		cmd := newCommand(&code, args)
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(&said)
		if err := cmd.Execute(); err != nil || code != 1 {
			t.Errorf("%v and exit code %d for a file with mistakes, want 1", err, code)
		}
		return said.String()
	}
	file := filepath.Join(t.TempDir(), "backends.yaml")
	adapter := filepath.Join(t.TempDir(), "config.yaml")
	for name, content := range map[string]string{
		file: "backends: [{name: main, url: http://a}]\ndefault: main\nadapter: {file: " + adapter + "}",
		adapter: "resourceRules: {cpu: {}}\nrules:\n- {seriesQuery: 7up}\n- {seriesQuery: up, metricsQuery: sum(up), " +
			"resources: {template: '<<.Resource>>', namespaced: false}}",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := printed(t, "custom-metrics", "--check-config", file)
	for _, want := range []string{
		"it names 1 backends and 0 metrics\n" +
			"not served: the configuration of prometheus-adapter, line 1: resourceRules: the metrics server gets CPU and memory",
		"\nnot served: the configuration of prometheus-adapter, line 3: rules[0].seriesQuery: ",
		"\nwarning: the configuration of prometheus-adapter, line 4: rules[1].resources.namespaced: ",
		"\nrules of prometheus-adapter that are left out: 1; metrics that only they define have no value, or another meaning",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := check(file); !strings.Contains(got, "no such file") {
		t.Errorf("%q, want that it does not exist", got)
	}
	bad := "backends: [{name: main}]\ndefault: other\nadapter: {file: absent}"
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	got = check(file)
	for _, want := range []string{
		"file " + file + ":\n", `line 1: backend "main": the URL`, `line 2: default: there is no backend "other"`,
		"configuration of prometheus-adapter: open ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
