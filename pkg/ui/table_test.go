package ui

import (
	stdcmp "cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/history"
	"metrics-server/pkg/ui/cluster"
)

func TestTables(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	f.found(3,
		doctor.Line{Check: "nodes", Status: doctor.Problem, Message: "1 of 3", Nodes: []string{"n2"}},
		doctor.Line{Check: "hpa", Status: doctor.Warning, Message: "m", Objects: []Object{hpaObject("team", "web")}},
	)
	for target, want := range map[string]string{
		"nodes":                      "n2 n1 n3",
		"nodes?desc=0":               "n1 n2 n3", // what is not known is last in both directions
		"nodes?sort=name":            "n1 n2 n3",
		"nodes?sort=name&desc=1":     "n3 n2 n1",
		"nodes?sort=cpuPercent":      "n2 n1 n3",
		"nodes?sort=findings":        "n2 n1 n3",
		"nodes?sort=status":          "n3 n1 n2",
		"nodes?sort=cpuLimits":       "n1 n2 n3", // none is known
		"nodes?sort=sampled":         "n1 n2 n3",
		"nodes?filter=cordon":        "n3",
		"nodes?filter=N1":            "n1",
		"nodes?filter=problem":       "n2 n3",
		"nodes?filter=problem+n3":    "", // with other words it is one of them
		"nodes?count=1":              "n2",
		"nodes?count=1&offset=1":     "n1",
		"nodes?offset=99":            "",
		"pods":                       "web-1 api-1 web-2 job-1",
		"pods?sort=name":             "api-1 job-1 web-1 web-2",
		"pods?sort=node&desc=1":      "web-2 web-1 api-1 job-1",
		"pods?sort=restarts":         "web-2 web-1 api-1 job-1",
		"pods?namespace=team":        "api-1 job-1",
		"pods?namespace=none":        "",
		"pods?filter=shop+CRASH":     "web-2",
		"pods?filter=job":            "job-1",
		"pods?filter=deployment+n1":  "web-1 api-1",
		"pods?filter=problem":        "web-2",
		"pods?node=n2":               "web-2",
		"pods?node=n":                "",
		"pods?sort=workload":         "job-1 web-1 web-2 api-1",
		"workloads":                  "shop/web team/web",
		"workloads?sort=namespace":   "shop/web team/web",
		"workloads?sort=missing":     "shop/web team/web",
		"workloads?desc=0":           "team/web shop/web",
		"workloads?filter=problem":   "shop/web team/web",
		"hpas":                       "shop/web team/web",
		"hpas?sort=status":           "shop/web team/web",
		"hpas?sort=findings":         "team/web shop/web",
		"hpas?filter=limited":        "shop/web",
		"hpas?filter=problem":        "team/web",
		"hpas?sort=ratio&filter=web": "shop/web team/web",

		"pods?namespace=shop&workload=Deployment/web": "web-1 web-2",
		"pods?namespace=shop&workload=Deployment/w":   "",
		"pods?namespace=team&workload=Job/job":        "job-1",
	} {
		rows := get[Table[Object]](f, "/api/"+target).Rows
		got := names(rows, func(o Object) string {
			if strings.HasPrefix(target, "workloads") || strings.HasPrefix(target, "hpas") {
				return o.Namespace + "/" + o.Name
			}
			return o.Name
		})
		if got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	// Limited autoscalers and completed pods are well.
	for table, want := range map[string]string{
		"nodes": "n3 NotReady, cordoned", "pods": "web-2 CrashLoopBackOff", "hpas": "",
	} {
		type row struct {
			Name, Status string
			Bad          bool
		}
		rows := slices.DeleteFunc(get[Table[row]](f, "/api/"+table).Rows, func(r row) bool { return !r.Bad })
		if got := names(rows, func(r row) string { return r.Name + " " + r.Status }); got != want {
			t.Errorf("bad %s: %s, want %s", table, got, want)
		}
	}
	for target, want := range map[string][3]int{
		"pods?namespace=team&filter=api": {2, 1, 0},
		"pods?count=1&offset=2":          {4, 4, 2},
		"pods?offset=99":                 {4, 4, 4},
	} {
		a := get[Table[Object]](f, "/api/"+target)
		if got := [3]int{*a.Total, a.Matched, a.Offset}; got != want {
			t.Errorf("%s: total, matched and offset are %v, want %v", target, got, want)
		}
	}
}

// The status that the page shows of a pod is the one that it is filtered and sorted by.
func TestNotReady(t *testing.T) {
	snapshot := testSnapshot()
	snapshot.Pods[2].Ready = false // api-1
	f := newFixture(t, snapshot).enter()
	for target, want := range map[string]string{
		"pods?filter=not+ready":   "api-1 Not ready",
		"pods?filter=running":     "web-1 Running",
		"pods?sort=status&desc=0": "job-1 Completed web-2 CrashLoopBackOff api-1 Not ready web-1 Running",
	} {
		rows := get[Table[PodRow]](f, "/api/"+target).Rows
		if got := names(rows, func(r PodRow) string { return r.Name + " " + r.Status }); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// What the filter "problem" keeps is what the page marks.
func TestProblems(t *testing.T) {
	s := newState(testSnapshot(), new(diagnose(examined{}, epoch, 0)))
	for _, tt := range []struct {
		name       string
		change     func(*cluster.Pod)
		bad, error bool
	}{
		{"with usage", func(p *cluster.Pod) { p.Usage, p.Missing = usageOf(1, 1<<20), "" }, false, false},
		{"without usage", func(p *cluster.Pod) { p.Overdue = true }, false, true},
		{"just started", func(*cluster.Pod) {}, false, false},
		{"not ready", func(p *cluster.Pod) { p.Ready = false }, true, false},
		{"pending", func(p *cluster.Pod) {
			p.Status, p.Running, p.Ready = "Pending", false, false
		}, true, false},
		{"completed", func(p *cluster.Pod) {
			p.Status, p.Running, p.Ready, p.Ended, p.Missing = "Completed", false, false, true, ""
		}, false, false},
		{"evicted", func(p *cluster.Pod) {
			p.Status, p.Running, p.Ready, p.Ended, p.Missing = "Evicted", false, false, true, ""
		}, true, false},
	} {
		p := testPod("shop", "a", math.NaN())
		tt.change(p)
		row := podRow(s, p)
		if got := row.Overdue; row.Bad != tt.bad || got != tt.error {
			t.Errorf("a pod %s: bad is %v, an error is %v", tt.name, row.Bad, got)
		}
		if got := podTable.problem(s, p); got != (tt.bad || tt.error) {
			t.Errorf("a pod %s: a problem is %v", tt.name, got)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*cluster.Node, *cluster.Workload)
		want   bool
	}{
		{"with usage", func(*cluster.Node, *cluster.Workload) {}, false},
		{"with pods that have no usage yet", func(n *cluster.Node, w *cluster.Workload) {
			n.PodsMissing, w.Missing = 1, 1
		}, false},
		{"with pods that should have a usage", func(n *cluster.Node, w *cluster.Workload) {
			n.PodsMissing, n.PodsOverdue, w.Missing, w.Overdue = 2, 1, 2, 1
		}, true},
	} {
		n, w := testNode("n", 1), &cluster.Workload{Pods: 3}
		tt.change(n, w)
		if got := [2]bool{nodeTable.problem(s, n), workloadTable.problem(s, w)}; got != [2]bool{tt.want, tt.want} {
			t.Errorf("a node and a workload %s: problems are %v", tt.name, got)
		}
	}
	n := testNode("n", math.NaN())
	if !nodeTable.problem(s, n) {
		t.Error("a node that should have a usage is no problem")
	}
	if n.Overdue = false; nodeTable.problem(s, n) {
		t.Error("a node that cannot have a usage yet is a problem")
	}
	for ready, want := range map[cluster.Readiness]bool{
		cluster.Ready: false, cluster.NotReady: true, cluster.ReadyUnknown: true,
	} {
		n := testNode("n", 1)
		n.Ready = ready
		if got := nodeTable.problem(s, n); got != want || nodeRow(s, n).Bad != want {
			t.Errorf("a node whose Ready is %s: a problem is %v", ready, got)
		}
	}
}

// Each column of each table can be sorted by.
func TestColumns(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	for table, columns := range map[string]string{
		"nodes": "name status findings cpu memory cpuPercent memoryPercent cpuRequests memoryRequests cpuLimits " +
			"memoryLimits created sampled pods missing",
		"pods": "name namespace status findings cpu memory cpuPercent memoryPercent cpuRequests memoryRequests cpuLimits " +
			"memoryLimits created sampled node workload restarts",
		"workloads": "name namespace findings cpu memory cpuPercent memoryPercent cpuRequests memoryRequests cpuLimits " +
			"memoryLimits pods pending missing kind",
		"hpas": "name namespace status findings target current desired ratio",
	} {
		for column := range strings.FieldsSeq(columns) {
			for _, desc := range []string{"0", "1"} {
				a := get[Table[Object]](f, "/api/"+table+"?sort="+column+"&desc="+desc)
				if a.Matched == 0 || len(a.Rows) != a.Matched {
					t.Errorf("%s by %s: %d of %d rows", table, column, len(a.Rows), a.Matched)
				}
			}
		}
	}
}

func TestParameters(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	for target, want := range map[string]string{
		"/api/pods?sort=color":                         "color",
		"/api/nodes?sort=restarts":                     "restarts",
		"/api/nodes?node=n1":                           "node",
		"/api/pods?colour=1":                           "colour",
		"/api/pods?sort=cpu&sort=memory":               "2 times",
		"/api/pods?desc=yes":                           "yes",
		"/api/pods?offset=-1":                          "-1",
		"/api/pods?offset=1e3":                         "1e3",
		"/api/pods?offset=9999999999":                  "9999999999",
		"/api/pods?count=0":                            "0",
		"/api/pods?count=201":                          "201",
		"/api/pods?workload=Deployment/a":              "workload",
		"/api/pods?namespace=a&workload=b":             "workload",
		"/api/pods?filter=" + strings.Repeat("a", 201): "filter",
	} {
		if p := f.problem(target, 400); !strings.Contains(p.Error, want) {
			t.Errorf("%s: %+v, want %s in the error", target, p, want)
		}
	}
	for _, target := range []string{
		"/api/nodes/n9", "/api/pods/shop/none", "/api/pods/none/web-1", "/api/workloads/shop/Job/web",
		"/api/workloads/shop/Deployment/none", "/api/hpas/shop/none",
	} {
		f.problem(target, 404)
	}
}

// Whatever the parameters are, the answer is rows or a problem.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{
		"", "sort=cpu&desc=1", "count=200&offset=1", "filter=%00%ff&namespace=%2e%2e", "workload=/&namespace=a", "a;b", "%",
	} {
		f.Add(seed)
	}
	s := newState(testSnapshot(), new(diagnose(examined{}, epoch, 0)))
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		v, offset, count, failed := podTable.parse(q)
		if failed != nil {
			if failed.code != 400 || failed.Error == "" || failed.Remedy == "" {
				t.Errorf("%q: %+v", query, failed)
			}
			return
		}
		if o := podTable.order(s, v); offset < 0 || count < 1 || count > maxCount || len(o.rows) > o.total {
			t.Errorf("%q: offset %d, count %d, %d of %d rows", query, offset, count, len(o.rows), o.total)
		}
		if len(s.orders) > maxOrders {
			t.Errorf("%d orders are kept", len(s.orders))
		}
	})
}

func TestRows(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	node := get[Table[map[string]any]](f, "/api/nodes?count=1&filter=n3").Rows[0]
	resource := func(requests, capacity float64) map[string]any {
		return map[string]any{
			"usage": nil, "requests": requests, "limits": nil, "capacity": capacity,
			"history": map[string]any{"start": 0.0, "step": 0.0, "values": []any{}},
		}
	}
	want := map[string]any{
		"kind": "Node", "name": "n3", "status": "NotReady, cordoned", "bad": true, "pods": 2.0, "missing": 0.0,
		"sampled": nil, "window": nil, "error": "the kubelet does not answer", "overdue": true, "findings": []any{},
		"created": "2026-11-30T11:00:00Z", "cpu": resource(1, 4), "memory": resource(1<<20, 1<<30),
	}
	if diff := cmp.Diff(want, node); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	pod := get[Table[PodRow]](f, "/api/pods?count=1").Rows[0]
	if pod.Workload != (Object{Kind: "Deployment", Namespace: "shop", Name: "web"}) ||
		*pod.CPU.Usage != 0.5 || *pod.Window != 15 || !pod.Sampled.Equal(epoch) || pod.CPU.Capacity != nil {
		t.Errorf("%+v", pod)
	}
	workload := get[Table[WorkloadRow]](f, "/api/workloads?count=1").Rows[0]
	if *workload.HPA != "web" || workload.Missing != 1 {
		t.Errorf("%+v", workload)
	}
	scaler := get[Table[HPARow]](f, "/api/hpas?count=1").Rows[0]
	wantScaler := HPARow{
		Object: doctor.Autoscaler("shop", "web"), Target: Object{Kind: "Deployment", Namespace: "shop", Name: "web"},
		Min: 1, Max: 10, Current: 2, Desired: 3, Status: "limited", Reason: "at the maximum", Findings: []int{},
		Metrics: []HPAMetric{{Type: "Resource", Name: "cpu", Target: "60 %", Current: "90 %", Ratio: new(1.5)}},
	}
	scaler.CurrentHistory = Series{}
	if diff := cmp.Diff(wantScaler, scaler); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestValues(t *testing.T) {
	for want, v := range map[string]Values{
		"[]":                     nil,
		"[0.1,null,0,1e+09]":     {0.1, float32(math.NaN()), 0, 1e9},
		"[null,1.5]":             {float32(math.Inf(1)), 1.5},
		"[0.25,3.1415927,1e-06]": {0.25, math.Pi, 1e-6},
	} {
		got, err := json.Marshal(v)
		if err != nil || string(got) != want || !json.Valid(got) {
			t.Errorf("%v: %s (%v), want %s", []float32(v), got, err, want)
		}
	}
}

// bigSnapshot returns a cluster with many pods, sorted as the package cluster sorts them.
func bigSnapshot(nodes, podsPerNode int) *cluster.Snapshot {
	r := rand.New(rand.NewPCG(1, 2))
	s := &cluster.Snapshot{Version: 1, At: epoch}
	total := nodes * podsPerNode
	for i := range total {
		namespace := fmt.Sprintf("namespace-%03d", i*300/total)
		p := testPod(namespace, fmt.Sprintf("app-%06d-7d4b9c5f6d-%05x", r.IntN(total/10), r.Uint32()&0xfffff), r.Float64())
		p.Node = fmt.Sprintf("node-%05d", r.IntN(nodes))
		p.Workload = history.Key{Kind: "Deployment", Namespace: namespace, Name: fmt.Sprintf("app-%06d", i/10)}
		s.Pods = append(s.Pods, p)
	}
	slices.SortFunc(s.Pods, func(a, b *cluster.Pod) int {
		return stdcmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return s
}

// BenchmarkTable150k sorts 150,000 pods, as each new snapshot requires.
func BenchmarkTable150k(b *testing.B) {
	snapshot := bigSnapshot(5000, 30)
	d := new(diagnose(examined{}, epoch, 0))
	for _, query := range []string{
		"sort=cpu", "sort=memoryPercent", "sort=name", "sort=node", "sort=status", "filter=node-0123", "filter=problem",
		"filter=running+app", "namespace=namespace-007",
	} {
		b.Run(query, func(b *testing.B) {
			q, err := url.ParseQuery(query)
			if err != nil {
				b.Fatal(err)
			}
			v, _, _, failed := podTable.parse(q)
			if failed != nil {
				b.Fatal(failed)
			}
			for b.Loop() {
				podTable.order(newState(snapshot, d), v)
			}
		})
	}
	b.Run("summary", func(b *testing.B) {
		for b.Loop() {
			newState(snapshot, d).summary()
		}
	})
}
