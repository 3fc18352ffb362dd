package resource

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"

	"metrics-server/pkg/api"
	"metrics-server/pkg/sample"
)

// FuzzEncoders checks for every object that JSON, protobuf and Tables are byte for byte the output
// of the standard encoders.
func FuzzEncoders(f *testing.F) {
	c := newCluster()
	lazy, standard := c.handler(f), c.standardHandler(f)
	forms := []struct{ query, accept string }{
		{"", mediaJSON},
		{"", runtime.ContentTypeProtobuf},
		{"", mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"},
		{"?includeObject=Object", mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"},
	}
	f.Add("web-1", "a", "app", "tier", "front", uint64(1_234_567_890), uint64(6<<30), uint64(4096), int64(testTime),
		int64(15034*time.Millisecond), uint8(0b111))
	f.Add("\"<\u2028\xff", "\\", "", "é", "\x00", uint64(0), uint64(1023), uint64(0), int64(0), int64(-1), uint8(0b010))
	f.Add("", "", "", "", "", uint64(1)<<63, uint64(1000), uint64(1<<20), int64(-62135596800000), int64(59999500000),
		uint8(0b001))
	f.Fuzz(func(t *testing.T, name, namespace, container, key, value string, cpu, memory, swap uint64, at, window int64,
		has uint8,
	) {
		usage := sample.Usage{CPU: cpu, Memory: memory, HasSwap: has&1 != 0}
		if usage.HasSwap {
			usage.Swap = swap
		}
		var set sample.Labels
		if has&2 != 0 {
			set = sample.Labels{{Key: key, Value: value}}
		}
		containers := []sample.ContainerUsage{{Name: container, Usage: usage}}
		if has&4 != 0 {
			containers = append(containers, sample.ContainerUsage{Name: value, Usage: sample.Usage{CPU: memory, Memory: cpu}})
		}
		// The second shares the first one's labels.
		c.nodes.list = []sample.Object{{Name: name, Labels: set}, {Name: name + "~", Labels: set}}
		c.pods.list = []sample.Object{
			{Namespace: namespace, Name: name, Labels: set},
			{Namespace: namespace + "~", Name: name, Labels: set},
		}
		clear(c.usage.nodes)
		clear(c.usage.pods)
		for i := range 2 {
			n, p := c.nodes.list[i], c.pods.list[i]
			c.usage.nodes[n.Name] = sample.NodeUsage{Time: sample.Time(at), Window: time.Duration(window), Usage: usage}
			c.usage.pods[podKey{p.Namespace, p.Name}] = sample.PodUsage{
				Node: name, Time: sample.Time(at),
				Window: time.Duration(window), Containers: containers,
			}
		}
		for _, path := range []string{group + "v1/nodes", group + "v1/pods", group + "v1beta1/pods"} {
			for _, form := range forms {
				code, _, got := answer(t, lazy, path+form.query, form.accept, "")
				want, _, reference := answer(t, standard, path+form.query, form.accept, "")
				if code != want || !bytes.Equal(got, reference) {
					t.Fatalf("%s%s as %q: got %d\n%q\nwant %d\n%q", path, form.query, form.accept, code, got, want, reference)
				}
			}
		}
	})
}

// FuzzSelectors compares every label and field selector with apimachinery's: a list has exactly
// what apimachinery's selector matches, and is rejected exactly if apimachinery rejects the
// selector.
func FuzzSelectors(f *testing.F) {
	c := newCluster()
	set := func(kv ...string) (l sample.Labels) {
		for i := 0; i < len(kv); i += 2 {
			l = append(l, sample.Label{Key: kv[i], Value: kv[i+1]})
		}
		return l
	}
	shared := set("app", "web", "n", "5")
	c.pods.list = []sample.Object{
		{Namespace: "a", Name: "p0", Labels: shared},
		{Namespace: "a", Name: "p1", Labels: shared},
		{Namespace: "a", Name: "p2", Labels: set("app", "")},
		{Namespace: "a", Name: "p3"},
		{Namespace: "b", Name: "p0", Labels: set("app", "db", "n", "-1", "x.io/y", "z")},
		{Namespace: "b", Name: "p4", Labels: set("app", "db")},
	}
	for i, o := range c.pods.list {
		u := c.usage.pods[podKey{"a", "web-2"}]
		u.Node = "n" + string(rune('1'+i%2))
		c.usage.pods[podKey{o.Namespace, o.Name}] = u
	}
	h := c.handler(f)
	for _, seed := range [][2]string{
		{"", ""},
		{"app=web", ""},
		{"app notin (web", ""},
		{"app=web", "metadata.name=p0"},
		{"app in (web,db),n notin (5)", "spec.nodeName!=n1"},
		{"!app", "metadata.namespace=b,metadata.name!=p0"},
		{"app==web,n>1", "metadata.name=p0,metadata.name=p1"},
		{"x.io/y", "metadata.name="},
		{"app!=", `metadata.name=p\,0`},
		{"n<0", "spec.nodeName=n1,spec.nodeName==n1"},
		{"app in", "status.phase=Running"},
		{"app=web,", "metadata.name"},
	} {
		f.Add(seed[0], seed[1], true)
		f.Add(seed[0], seed[1], false)
	}
	f.Fuzz(func(t *testing.T, byLabels, byFields string, all bool) {
		path := group + "v1/namespaces/a/pods"
		if all {
			path = group + "v1/pods"
		}
		query := url.Values{"labelSelector": {byLabels}}
		if byFields != "" { // which is not answered directly
			query.Set("fieldSelector", byFields)
		}
		code, _, body := answer(t, h, path+"?"+query.Encode(), mediaJSON, "")
		want, ok := selected(c, byLabels, byFields, all)
		if !ok {
			if code != http.StatusBadRequest {
				t.Errorf("%q, %q: %d %s, want 400", byLabels, byFields, code, body)
			}
			return
		}
		var list struct {
			Items []struct {
				Metadata struct{ Namespace, Name string }
			}
		}
		if err := json.Unmarshal(body, &list); err != nil || code != http.StatusOK {
			t.Fatalf("%q, %q: got %d %s, want a list", byLabels, byFields, code, body)
		}
		var got []podKey
		for _, i := range list.Items {
			got = append(got, podKey{i.Metadata.Namespace, i.Metadata.Name})
		}
		if d := gocmp.Diff(want, got, gocmp.AllowUnexported(podKey{})); d != "" {
			t.Errorf("%q, %q, all %v (-want +got):\n%s", byLabels, byFields, all, d)
		}
	})
}

// selected returns which of c's pods apimachinery selects; false if it rejects a selector.
func selected(c *cluster, byLabels, byFields string, all bool) (pods []podKey, ok bool) {
	byLabel, err := labels.Parse(byLabels)
	if err != nil {
		return nil, false
	}
	byField, err := fields.ParseSelector(byFields)
	if err != nil {
		return nil, false
	}
	for _, r := range byField.Requirements() {
		if !slices.Contains([]string{api.FieldName, api.FieldNamespace, api.FieldNodeName}, r.Field) ||
			!slices.Contains([]selection.Operator{selection.Equals, selection.DoubleEquals, selection.NotEquals}, r.Operator) {
			return nil, false
		}
	}
	for _, o := range c.pods.list {
		of := fields.Set{
			api.FieldName: o.Name, api.FieldNamespace: o.Namespace,
			api.FieldNodeName: c.usage.pods[podKey{o.Namespace, o.Name}].Node,
		}
		if (all || o.Namespace == "a") && byLabel.Matches(labels.Set(o.Labels.Map())) && byField.Matches(of) {
			pods = append(pods, podKey{o.Namespace, o.Name})
		}
	}
	return pods, true
}
