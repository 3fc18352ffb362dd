package ui

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/sharedtest"
	"metrics-server/pkg/ui/cluster"
)

func TestDiagnose(t *testing.T) {
	nodes := []string{"n1", "n2", "n3"}
	scaler := doctor.Autoscaler("team", "web")
	d := diagnose(examined{nodes: 3, lines: []doctor.Line{
		{Check: "versions", Status: doctor.OK, Message: "fine", Objects: []doctor.Object{scaler}},
		{Check: "nodes", Status: doctor.Warning, Message: "all", Nodes: nodes},
		{Check: "nodes", Status: doctor.Problem, Message: "some", Nodes: nodes[:2]},
		{Check: "hpa", Status: doctor.Problem, Message: "one", Objects: []doctor.Object{scaler}},
	}}, epoch, 0)
	var got []string
	for i, l := range d.Lines {
		if l.ID != i || l.Nodes != nil || l.Line.Objects != nil || l.ObjectCount != len(l.Objects) {
			t.Errorf("%+v", l)
		}
		got = append(got, fmt.Sprintf("%s %s %v", l.Status, l.Message, l.Objects))
	}
	want := []string{
		"problem some [{Node  n1} {Node  n2}]", "problem one [{HorizontalPodAutoscaler team web}]", "warning all []",
		"ok fine [{HorizontalPodAutoscaler team web}]",
	}
	if diff := cmp.Diff(want, got); diff != "" || d.Status != doctor.Problem || !d.Checked.Equal(epoch) {
		t.Errorf("%s, checked %v, -want +got:\n%s", d.Status, d.Checked, diff)
	}
	for o, want := range map[Object][]int{
		nodeObject("n1"): {0}, nodeObject("n2"): {0}, nodeObject("n3"): {}, scaler: {1},
	} {
		if diff := cmp.Diff(want, d.of(o)); diff != "" {
			t.Errorf("%v: -want +got:\n%s", o, diff)
		}
	}
	// With one node, what is about it is not about the cluster.
	d = diagnose(examined{nodes: 1, lines: []doctor.Line{{Status: doctor.Problem, Nodes: nodes[:1]}}}, epoch, 0)
	if diff := cmp.Diff([]int{0}, d.of(nodeObject("n1"))); diff != "" {
		t.Errorf("the only node: -want +got:\n%s", diff)
	}
	many := make([]string, 250)
	for i := range many {
		many[i] = fmt.Sprintf("m%d", i)
	}
	d = diagnose(examined{nodes: 300, lines: []doctor.Line{{Status: doctor.Problem, Nodes: many}}}, epoch, 0)
	if l := d.Lines[0]; len(l.Objects) != maxObjects || l.ObjectCount != 250 || len(d.of(nodeObject("m249"))) != 1 {
		t.Errorf("%d objects of %d, the last has %v", len(l.Objects), l.ObjectCount, d.of(nodeObject("m249")))
	}
}

// The ID of a finding is never that of another finding, so that a row from before a run names none of the run's.
func TestFindingIDs(t *testing.T) {
	var lines []doctor.Line
	var failure error
	f := newFindings(func(context.Context) (examined, error) { return examined{nodes: 3, lines: lines}, failure })
	ids := func() (ids []int) {
		f.once(t.Context())
		d := f.current.Load()
		for _, l := range d.Lines {
			ids = append(ids, l.ID)
		}
		for _, o := range []Object{nodeObject("n1"), nodeObject("n2")} {
			if about := d.of(o); len(about) != 1 || !slices.Contains(ids, about[0]) {
				t.Errorf("%v has %v, the findings are %v", o, about, ids)
			}
		}
		return ids
	}
	about := func(node string, status doctor.Status) doctor.Line {
		return doctor.Line{Status: status, Message: node, Nodes: []string{node}}
	}
	lines = []doctor.Line{about("n1", doctor.Warning), about("n2", doctor.Problem)}
	first := ids()
	lines = []doctor.Line{about("n2", doctor.Warning), {Status: doctor.OK}, about("n1", doctor.Problem)}
	second := ids()
	failure = errors.New("the API server does not answer")
	if diff := cmp.Diff(second, ids()); diff != "" {
		t.Errorf("after a run that failed, -want +got:\n%s", diff)
	}
	failure = nil
	all := slices.Concat(first, second, ids())
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != len(first)+2*len(second) {
		t.Errorf("the IDs of three runs are %v", all)
	}
}

// The doctor runs at the start, when it is told to and every five minutes, and never twice at once.
func TestDoctorRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 10 * time.Second
		var (
			starts  []time.Duration // the runs are one after another
			running atomic.Int32
			fail    atomic.Bool
			begin   = time.Now()
		)
		f := newFindings(func(ctx context.Context) (examined, error) {
			if running.Add(1) > 1 {
				t.Error("the doctor runs twice at once")
			}
			defer running.Add(-1)
			starts = append(starts, time.Since(begin))
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				return examined{}, ctx.Err()
			}
			if fail.Load() {
				return examined{}, errors.New("the API server does not answer")
			}
			return examined{lines: []doctor.Line{{Status: doctor.Warning, Message: "found"}}}, nil
		})
		stop := sharedtest.Start(t, t.Context(), func(ctx context.Context) error { f.run(ctx); return nil })

		at := func(d time.Duration) *diagnosis {
			time.Sleep(d - time.Since(begin))
			synctest.Wait()
			return f.current.Load()
		}
		if d := at(5 * time.Second); !d.Running || d.Checked != nil || d.Status != doctor.Unknown {
			t.Errorf("during the first run: %+v", d.Findings)
		}
		f.start() // it runs already
		first := at(15 * time.Second)
		if first.Running || first.Checked == nil || first.Status != doctor.Warning || len(first.Lines) != 1 {
			t.Errorf("after the first run: %+v", first.Findings)
		}
		at(100 * time.Second)
		f.start()
		f.start()
		if d := at(105 * time.Second); !d.Running || len(d.Lines) != 1 || d.version == first.version {
			t.Errorf("during the second run: %+v", d.Findings)
		}
		fail.Store(true)
		if d := at(421 * time.Second); d.Running || d.Error != "the API server does not answer" || len(d.Lines) != 1 {
			t.Errorf("after a run that failed: %+v", d.Findings)
		}
		fail.Store(false)
		if d := at(731 * time.Second); d.Error != "" {
			t.Errorf("after the next run: %+v", d.Findings)
		}
		want := []time.Duration{0, 100 * time.Second, 410 * time.Second, 720 * time.Second}
		if diff := cmp.Diff(want, starts); diff != "" {
			t.Errorf("starts, -want +got:\n%s", diff)
		}
		f.start()
		synctest.Wait()
		stop() // ends the run
		if took := time.Since(begin); took != 731*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

func TestStatus(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	if a := get[Status](f, "/api/status"); a.Findings.Status != doctor.Unknown || a.Findings.Checked != nil {
		t.Errorf("before the first run: %+v", a.Findings)
	}
	f.found(3, doctor.Line{Check: "nodes", Status: doctor.Problem, Message: "m", Remedy: "r", Nodes: []string{"n3"}})
	a := get[Status](f, "/api/status")
	if got := [3]string{a.Version, a.Context, a.Server}; got != [3]string{"v1.0.0", "test", "https://api.example"} ||
		a.Now.IsZero() || a.Since.IsZero() {
		t.Errorf("%+v", a)
	}
	wantSources := []Source{
		{Name: "nodes", State: "watching", Updated: &epoch, Objects: new(3)},
		{Name: "pods", State: "watching", Updated: &epoch, Objects: new(4)},
		{Name: "hpas", State: "polling", Updated: &epoch, Objects: new(2)},
		{Name: "podmetrics", State: "denied", Error: "forbidden", Remedy: "grant list on pods.metrics.k8s.io"},
	}
	if diff := cmp.Diff(wantSources, a.Sources); diff != "" {
		t.Errorf("sources, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"shop", "team"}, a.Namespaces); diff != "" {
		t.Errorf("namespaces, -want +got:\n%s", diff)
	}
	want := Totals{
		Nodes: new(3), Pods: new(3), Workloads: new(2), HPAs: new(2), NodesMissing: new(1), PodsMissing: new(1),
		Resources: Resources{
			CPU:    Resource{Usage: new(3.0), Requests: new(2.0), Capacity: new(8.0)},
			Memory: Resource{Usage: new(2.0 * (1 << 20)), Requests: new(2.0 * (1 << 20)), Capacity: new(2.0 * (1 << 30))},
		},
	}
	a.Totals.Resources.CPU.History, a.Totals.Resources.Memory.History = Series{}, Series{}
	if diff := cmp.Diff(want, a.Totals); diff != "" {
		t.Errorf("totals, -want +got:\n%s", diff)
	}
	if l := a.Findings.Lines; len(l) != 1 || l[0].Remedy != "r" || len(l[0].Objects) != 1 {
		t.Errorf("findings: %+v", l)
	}
	if body := f.do("GET", "/api/status", nil).Body.String(); strings.Contains(body, f.session.token) ||
		strings.Contains(body, f.session.cookie) {
		t.Error("the status has the token or the cookie")
	}
}

// The capacity of the cluster is known without usage, too.
func TestTotalsWithoutUsage(t *testing.T) {
	snapshot := testSnapshot()
	snapshot.Nodes = []*cluster.Node{testNode("n1", math.NaN()), testNode("n2", math.NaN())}
	totals := newState(snapshot, new(diagnose(examined{}, epoch, 0))).summary().totals
	if diff := cmp.Diff(Resource{Requests: new(2.0), Capacity: new(8.0)}, totals.Resources.CPU); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if *totals.NodesMissing != 2 {
		t.Errorf("%d nodes without usage, want 2", *totals.NodesMissing)
	}
}

// What was never read is not zero.
func TestUnknownCounts(t *testing.T) {
	node := testNode("n1", 1)
	node.Pods, node.PodsMissing = math.NaN(), math.NaN()
	f := newFixture(t, &cluster.Snapshot{
		Version: 1, At: epoch, Nodes: []*cluster.Node{node},
		Sources: []cluster.Source{
			{Name: cluster.Nodes, State: cluster.Watching, Updated: epoch, Objects: 1},
			{Name: cluster.Pods, State: cluster.Denied},
			{Name: cluster.HPAs, State: cluster.Waiting},
			{Name: cluster.NodeMetrics, State: cluster.Polling, Updated: epoch, Objects: 1},
			{Name: cluster.PodMetrics, State: cluster.Polling, Updated: epoch}, // usage counts with its pod
		},
	}).enter()
	a := get[Status](f, "/api/status")
	a.Totals.Resources = Resources{}
	if diff := cmp.Diff(Totals{Nodes: new(1), NodesMissing: new(0)}, a.Totals); diff != "" {
		t.Errorf("totals, -want +got:\n%s", diff)
	}
	objects := map[string]*int{}
	for _, s := range a.Sources {
		objects[s.Name] = s.Objects
	}
	want := map[string]*int{"nodes": new(1), "nodemetrics": new(1), "pods": nil, "hpas": nil, "podmetrics": nil}
	if diff := cmp.Diff(want, objects); diff != "" {
		t.Errorf("objects of sources, -want +got:\n%s", diff)
	}
	for table, want := range map[string]*int{"nodes": new(1), "pods": nil, "workloads": nil, "hpas": nil} {
		if diff := cmp.Diff(want, get[Table[Object]](f, "/api/"+table).Total); diff != "" {
			t.Errorf("rows of %s, -want +got:\n%s", table, diff)
		}
	}
	if row := get[Table[NodeRow]](f, "/api/nodes").Rows[0]; row.Pods != nil || row.Missing != nil {
		t.Errorf("a node has %v pods, %v without usage", *row.Pods, *row.Missing)
	}
}

// TestHint checks that the hint about a proxy is given only if the API server does not answer.
func TestHint(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	for host, hinted := range map[string]bool{s.URL: false, "http://" + sharedtest.RefusingAddr(t): true} {
		c := &Config{Hint: "mind the proxy", Doctor: doctor.Config{
			Rest: &rest.Config{Host: host}, Flags: func([]string) (doctor.Flags, error) { return doctor.Flags{}, nil },
		}}
		if _, err := c.examine(t.Context()); err == nil || strings.HasSuffix(err.Error(), c.Hint) != hinted {
			t.Errorf("%s: error %v, with the hint: want %t", host, err, hinted)
		}
	}
}
