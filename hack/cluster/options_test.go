package main

import (
	"flag"
	"io"
	"strings"
	"testing"
)

func parseOptions(args string) (options, error) {
	var o options
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.addTo(flags)
	if err := flags.Parse(strings.Fields(args)); err != nil {
		return o, err
	}
	return o, o.check(flags)
}

func TestOptions(t *testing.T) {
	for _, test := range []struct{ args, problems string }{
		{"", ""},
		{"-nodes 3 -version v1.36.3 -aggregator-routing=false -kubelet-certs self-signed", ""},
		{"-version v1.38.0-rc.1", ""},
		{"-nodes 0", "-nodes 0"},
		{"-nodes 201", "-nodes 201"},
		{"-version 1.36", "-version 1.36"},
		{"-kubelet-certs none", "-kubelet-certs none"},
		{"-nodes 0 -kubelet-certs none -version x", "-version x,-nodes 0,-kubelet-certs none"}, // all at once
	} {
		_, err := parseOptions(test.args)
		if (err == nil) != (test.problems == "") {
			t.Errorf("%q: error %v, want one of %q", test.args, err, test.problems)
			continue
		}
		for problem := range strings.SplitSeq(test.problems, ",") {
			if err != nil && !strings.Contains(err.Error(), problem) {
				t.Errorf("%q: the error says nothing of %q: %v", test.args, problem, err)
			}
		}
	}
}

func TestNeedReal(t *testing.T) {
	for args, want := range map[string]string{
		"":                 "",
		"-version v1.36.3": "",
		"-nodes 1 -aggregator-routing -version v1.36.3": "-aggregator-routing, -nodes",
	} {
		o, err := parseOptions(args)
		if got := o.needReal(); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", args, got, err, want)
		}
	}
}

// A running cluster must match only the flags that are given.
func TestUnlike(t *testing.T) {
	runs := record{Version: "v1.36.3", Others: []node{{Number: 2}}}
	var err error
	if runs.Layout.Options, err = parseOptions("-nodes 3 -aggregator-routing=false"); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                           "",
		"-version v1.36.3":           "",
		"-version v1.37.1":           "-version=v1.36.3",
		"-nodes 2":                   "", // as they are now, not as they were at the start
		"-nodes 3":                   "-nodes=2",
		"-aggregator-routing":        "-aggregator-routing=false",
		"-aggregator-routing=false":  "",
		"-kubelet-certs ca":          "",
		"-kubelet-certs self-signed": "-kubelet-certs=ca",
	} {
		o, err := parseOptions(args)
		if err != nil {
			t.Fatal(err)
		}
		err = o.unlike(runs)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestAssetsNamed(t *testing.T) {
	got, err := assetsNamed("kubectl,kubelet")
	if err != nil || len(got) != 2 || got[0].name != "kubectl" || got[1].pkg != "k8s.io/kubernetes/cmd/kubelet" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := assetsNamed("kubectl,cube"); err == nil || !strings.Contains(err.Error(), "kube-apiserver") {
		t.Errorf("error %v, want one that lists what there is", err)
	}
}

func TestDependentModule(t *testing.T) {
	m := goMod{Go: "1.25.0"}
	m.Require = []moduleVersion{{"example.com/a", "v1.2.3"}, {"k8s.io/api", "v0.0.0"}}
	m.Replace = []struct{ Old, New moduleVersion }{
		{moduleVersion{Path: "k8s.io/api"}, moduleVersion{Path: "./staging/src/k8s.io/api"}},
		{moduleVersion{"example.com/b", "v1.0.0"}, moduleVersion{"example.com/fork", "v1.0.1"}},
	}
	want := `module kubernetes-programs

go 1.25.0

require k8s.io/kubernetes v1.36.3

require (
	example.com/a v1.2.3
	k8s.io/api v0.0.0
)

replace (
	k8s.io/api => k8s.io/api v0.36.3
	example.com/b v1.0.0 => example.com/fork v1.0.1
)
`
	if got := m.dependent("v1.36.3"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
