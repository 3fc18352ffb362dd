package repository

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// licences are the ones that let us ship under Apache-2.0 without conditions beyond keeping their texts, each
// with a sentence that no other has. White space does not count.
var licences = []struct{ name, says string }{
	{"Apache-2.0", "Apache License Version 2.0, January 2004"},
	{
		"MIT",
		"Permission is hereby granted, free of charge, to any person obtaining a copy of this software " +
			"and associated documentation files",
	},
	{
		"BSD",
		"Redistribution and use in source and binary forms, with or without modification, are permitted " +
			"provided that the following conditions are met",
	},
	{
		"ISC",
		"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee " +
			"is hereby granted",
	},
}

// TestLicences checks every module that is linked into the binary.
func TestLicences(t *testing.T) {
	cmd := exec.CommandContext(
		t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Dir}}{{end}}",
		"./cmd/metrics-server",
	)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(modules)
	for _, module := range slices.Compact(modules) {
		path, dir, ok := strings.Cut(module, "\t")
		if !ok {
			continue // the standard library
		}
		if got := licencesIn(t, dir); len(got) == 0 {
			t.Errorf(
				"%s: no licence in %s that is known and allowed: read it, and add it here or do without the module", path,
				dir,
			)
		}
	}
}

// licencesIn returns the allowed licences that a module's folder holds. A file with any other text is an error,
// even next to one that is allowed.
func licencesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		if entry.IsDir() || !licenceFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		name := identify(string(text))
		if name == "" {
			t.Errorf("%s: a licence that is not allowed", filepath.Join(dir, entry.Name()))
			continue
		}
		found = append(found, name)
	}
	return found
}

var licenceFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying)([.-].*)?$`)

// identify returns the name of the allowed licence that a text is, or "".
func identify(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, l := range licences {
		if strings.Contains(text, l.says) {
			return l.name
		}
	}
	return ""
}

func TestIdentify(t *testing.T) {
	own, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{
		{string(own), "Apache-2.0"},
		{
			"The MIT License\n\nPermission is hereby granted, free of\ncharge, to any person obtaining a copy " +
				"of this software and\nassociated documentation files (the",
			"MIT",
		},
		{"GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007", ""},
		{"", ""},
	} {
		if got := identify(tt.text); got != tt.want {
			t.Errorf("identify(%.40q...) = %q, want %q", tt.text, got, tt.want)
		}
	}
}
