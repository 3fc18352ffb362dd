package history

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/sharedtest"
)

// noon is a full minute that is no multiple of blockMinutes.
var noon = time.Date(2026, 11, 30, 12, 7, 0, 0, time.UTC)

func containers(cpu, memory uint64) []sample.ContainerUsage {
	return []sample.ContainerUsage{{Name: "c", Usage: sample.Usage{CPU: cpu, Memory: memory}}}
}

func deployment(namespace, name string) Key {
	return Key{Kind: "Deployment", Namespace: namespace, Name: name}
}

// read returns the answer to q, as a client gets it.
func read(t *testing.T, h *History, q Query, now time.Time) *Answer {
	t.Helper()
	var b bytes.Buffer
	if err := h.Write(&b, q, now); err != nil {
		t.Fatal(err)
	}
	a, err := Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The example of the package comment.
func TestWrite(t *testing.T) {
	h := New(Config{Retention: 24 * time.Hour, Instance: "metrics-server-1"}, noon.Add(-90*time.Second))
	var whole, half Minute
	for _, m := range []*Minute{&whole, &half} {
		m.Node("n1", sample.Usage{CPU: 250e6, Memory: 1.5e9})
		m.Pod(deployment("shop", "web"), containers(62.5e6, 2048))
	}
	whole.Pod(deployment("shop", "web"), containers(62.5e6, 2048))
	half.Pod(deployment("shop", "web"), nil)
	half.Pod(Key{Kind: "Pod", Namespace: "shop", Name: "<new>"}, nil)
	h.Record(noon.Add(300*time.Millisecond), &whole)
	h.Record(noon.Add(2*time.Minute-300*time.Millisecond), &half)

	const (
		header = `{"kind":"MetricsHistory","version":1,"instance":"metrics-server-1","since":"2026-11-30T12:05:30Z",` +
			`"retention":86400,"step":%d,"start":"2026-11-30T%s:00Z","points":%d,"leftOut":0,"series":[%s]}`
		node = `{"kind":"Node","name":"n1","first":0,"cpu":[0.25,null,0.25],"memory":[1.5e+09,null,1.5e+09]}`
		sums = `{"kind":"Namespace","name":"shop","first":%[1]d,"cpu":[%[2]s],"memory":[%[3]d],"pods":[3],"missing":[2]},` +
			`{"kind":"Deployment","namespace":"shop","name":"web","first":%[1]d,"cpu":[%[2]s],"memory":[%[3]d],` +
			`"pods":[2],"missing":[1]},` +
			`{"kind":"Pod","namespace":"shop","name":"\u003cnew\u003e","first":%[1]d,"cpu":[null],"memory":[null],` +
			`"pods":[1],"missing":[1]}`
	)
	for _, tt := range []struct {
		q    Query
		want string
	}{
		{Query{Nodes: true, Last: time.Hour}, fmt.Sprintf(header, 60, "12:07", 3, node)},
		{Query{Last: 2 * time.Minute}, fmt.Sprintf(header, 60, "12:08", 2, fmt.Sprintf(sums, 1, "0.0625", 2048))},
		{
			Query{Last: time.Hour, Step: 10 * time.Minute},
			fmt.Sprintf(header, 600, "12:00", 1, fmt.Sprintf(sums, 0, "0.09375", 3072)),
		},
		{Query{Last: time.Hour, Namespace: "sho"}, fmt.Sprintf(header, 60, "12:07", 3, "")},
	} {
		var b bytes.Buffer
		if err := h.Write(&b, tt.q, noon.Add(2*time.Minute)); err != nil {
			t.Fatal(err)
		}
		lines := func(s string) []string { return strings.SplitAfter(strings.TrimSpace(s), "}") }
		if d := cmp.Diff(lines(tt.want), lines(b.String())); d != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.q, d)
		}
	}
	a := read(t, New(Config{Retention: time.Hour}, noon), Query{Last: time.Hour}, noon)
	if a.Points != 0 || len(a.Series) != 0 {
		t.Errorf("a new history has %+v", a)
	}
}

// The newest point is in every answer until it is older than a minute and the next one is missing.
func TestLastMinute(t *testing.T) {
	h := New(Config{Retention: time.Hour}, noon)
	for ago := 7 * time.Minute; ago >= 0; ago -= time.Minute {
		var m Minute
		m.Node("n1", sample.Usage{CPU: 1e9})
		h.Record(noon.Add(-ago), &m)
	}
	for _, tt := range []struct {
		after, step time.Duration
		start       time.Time
		points      int
	}{
		{after: -time.Second, start: noon, points: 1}, // the timer fired early
		{after: 0, start: noon, points: 1},
		{after: 29 * time.Second, start: noon, points: 1},
		{after: 31 * time.Second, start: noon, points: 1},
		{after: 59 * time.Second, start: noon, points: 1},
		{after: time.Minute, start: noon, points: 1}, // the next one is being recorded
		{after: 2 * time.Minute, start: noon.Add(2 * time.Minute)},
		{after: 0, step: 10 * time.Minute, start: noon.Add(-7 * time.Minute), points: 1},
		{after: 105 * time.Second, step: 10 * time.Minute, start: noon.Add(-7 * time.Minute), points: 1},
		{after: 165 * time.Second, step: 10 * time.Minute, start: noon.Add(-7 * time.Minute), points: 1},
		{after: 3 * time.Minute, step: 10 * time.Minute, start: noon.Add(3 * time.Minute)},
		{after: time.Hour, step: 10 * time.Minute, start: noon.Add(53 * time.Minute)},
	} {
		a := read(t, h, Query{Nodes: true, Last: time.Minute, Step: tt.step}, noon.Add(tt.after))
		if !a.Start.Equal(tt.start) || a.Points != tt.points || len(a.Series) != tt.points {
			t.Errorf("%v later, in steps of %v: %d points from %v and %d series, want %d points from %v", tt.after, tt.step,
				a.Points, a.Start, len(a.Series), tt.points, tt.start)
		}
	}
}

// reference is a history that keeps everything as it came.
type reference struct {
	retention   int64
	first, last int64
	points      map[Key]map[int64][numColumns]float64 // -1 is a gap
}

func (r *reference) record(minute int64, values map[Key][numColumns]float64) {
	if r.first == 0 || minute < r.first {
		r.first = minute
	}
	r.first, r.last = max(r.first, minute-r.retention+1), minute
	for _, points := range r.points {
		for m := range points {
			if m >= minute || m <= minute-r.retention {
				delete(points, m)
			}
		}
	}
	for k, v := range values {
		if r.points[k] == nil {
			r.points[k] = map[int64][numColumns]float64{}
		}
		r.points[k][minute] = v
	}
}

// column returns the values of a column as an answer has them, with NaN for gaps.
func (r *reference) column(k Key, column int, start, step int64, points int) []float64 {
	all := make([]float64, points)
	for i := range all {
		n := 0.0
		all[i] = math.NaN()
		for m := start + int64(i)*step; m < start+int64(i+1)*step; m++ {
			p, ok := r.points[k][m]
			switch v := p[column]; {
			case !ok || v < 0:
			case column < columnPods:
				if n++; n == 1 {
					all[i] = 0
				}
				all[i] += (v - all[i]) / n
			default:
				all[i] = max(v, cmpOr(all[i]))
			}
		}
	}
	return all
}

func cmpOr(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// Whatever happens, the answers are those of a history that simply keeps everything.
func TestReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	keys := []Key{{Kind: KindNode, Name: "n1"}, {Kind: KindNode, Name: "shop"}}
	for _, namespace := range []string{"shop", "test"} {
		for i := range 3 {
			keys = append(keys, deployment(namespace, fmt.Sprint("web-", i)))
		}
	}
	for range 60 {
		retention := 1 + r.Int64N(200)
		h := New(Config{Retention: time.Duration(retention) * time.Minute}, noon)
		ref := &reference{retention: retention, points: map[Key]map[int64][numColumns]float64{}}
		minute := minuteOf(noon)
		for range 300 {
			switch r.IntN(40) {
			case 0:
				minute -= r.Int64N(100)
			case 1:
				minute += r.Int64N(2 * retention)
			case 2: // a second point of this minute
			default:
				minute++
			}
			var m Minute
			values := map[Key][numColumns]float64{}
			for _, k := range keys {
				if r.IntN(3) == 0 {
					continue
				}
				u := sample.Usage{CPU: r.Uint64N(1 << r.IntN(40)), Memory: r.Uint64N(1 << r.IntN(40))}
				if k.isNode() {
					m.Node(k.Name, u)
					values[k] = [numColumns]float64{float64(u.CPU), float64(u.Memory), -1, -1}
					continue
				}
				// Up to three pods, of which some have no usage.
				for range 1 + r.IntN(3) {
					var of []sample.ContainerUsage
					if r.IntN(3) > 0 {
						of = containers(u.CPU, u.Memory)
					}
					m.Pod(k, of)
					for _, k := range []Key{k, {Kind: KindNamespace, Name: k.Namespace}} {
						v, ok := values[k]
						if !ok {
							v = [numColumns]float64{-1, -1, 0, 0}
						}
						v[columnPods]++
						if of == nil {
							v[columnMissing]++
						} else {
							v[columnCPU] = max(0, v[columnCPU]) + float64(u.CPU)
							v[columnMemory] = max(0, v[columnMemory]) + float64(u.Memory)
						}
						values[k] = v
					}
				}
			}
			now := time.Unix(minute*60+r.Int64N(60)-30, 0)
			if report := h.Record(now, &m); report.LeftOut > 0 {
				t.Fatal("left out", report)
			}
			ref.record(minute, values)
			if r.IntN(10) > 0 {
				continue
			}
			compareWith(t, ref, h, Query{
				Nodes: r.IntN(2) == 0, Last: time.Duration(1+r.Int64N(2*retention)) * time.Minute,
				Step: time.Duration(r.IntN(8)) * time.Minute,
			}, time.Unix(minute*60, 0))
		}
	}
}

func compareWith(t *testing.T, ref *reference, h *History, q Query, now time.Time) {
	t.Helper()
	a := read(t, h, q, now)
	start, step := a.Start.Unix()/60, a.Step/60
	if q.Step > 0 && step != int64(q.Step/time.Minute) || q.Step == 0 && step != 1 {
		t.Fatalf("%+v: a step of %d", q, a.Step)
	}
	last := min(int64(q.Last/time.Minute), ref.retention)
	begin := max(ref.first, ref.last-last+1)
	if want := begin - begin%step; start != want || int64(a.Points) != (ref.last-want)/step+1 {
		t.Fatalf("%+v: %d points from %d, want them from %d to %d", q, a.Points, start, want, ref.last)
	}
	got := map[Key]Series{}
	for i, s := range a.Series {
		got[s.Key] = s
		if i > 0 && a.Series[i-1].compare(s.Key) >= 0 {
			t.Fatal("the series are not sorted")
		}
	}
	for k := range ref.points {
		if k.isNode() != q.Nodes {
			continue
		}
		s, found := got[k]
		delete(got, k)
		known := false
		for column, values := range [numColumns][]Value{s.CPU, s.Memory, s.Pods, s.Missing} {
			for i, want := range ref.column(k, column, start, step, a.Points) {
				known = known || !math.IsNaN(want)
				value := math.NaN()
				if at := i - s.First; found && at >= 0 && at < len(values) {
					value = float64(values[at])
				} else if column == columnMissing && len(values) == 0 && want == 0 {
					value = 0
				}
				if column == columnCPU {
					value *= 1e9
				}
				tolerance := 0.001 * want
				if column == columnMemory {
					tolerance += 0.5 // whole bytes
				}
				if math.IsNaN(want) != math.IsNaN(value) || math.Abs(value-want) > tolerance {
					t.Fatalf("%+v: %+v: column %d, point %d: got %v, want %v", q, k, column, i, value, want)
				}
			}
		}
		if known != found {
			t.Fatalf("%+v: %+v is listed: %v, has points: %v", q, k, found, known)
		}
	}
	if len(got) > 0 {
		t.Fatalf("%+v: also has %+v", q, got)
	}
}

func TestCode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 100_000 {
		v := r.Uint64() >> r.IntN(64)
		if got := encode(v).value(); math.Abs(got-float64(v)) > 0.00034*float64(v) {
			t.Fatalf("%d becomes %v", v, got)
		}
		if n := uint64(i % 1001); math.Round(encode(n).value()) != float64(n) {
			t.Fatalf("a count of %d becomes %v", n, encode(n).value())
		}
	}
	if c := encode(math.MaxUint64); c >= gap {
		t.Errorf("the largest number has the code %d", c)
	}
}

// With too many series, those that exist stay, nodes and namespaces come first, and no namespace
// gets everything.
func TestTooManySeries(t *testing.T) {
	h := New(Config{Retention: time.Hour, Series: 40}, noon)
	minute := func(workloads int, namespaces ...string) *Minute {
		m := &Minute{}
		m.Node("n1", sample.Usage{})
		for _, namespace := range namespaces {
			for i := range workloads {
				m.Pod(deployment(namespace, fmt.Sprintf("web-%02d", i)), containers(1, 1))
			}
		}
		return m
	}
	if got, want := h.Record(noon, minute(100, "greedy")), (Report{Kept: 31, LeftOut: 71}); got.Kept != want.Kept ||
		got.LeftOut != want.LeftOut || got.Example.Namespace != "greedy" {
		t.Errorf("a greedy namespace: %+v, want %+v", got, want)
	}
	got := h.Record(noon.Add(time.Minute), minute(100, "a", "greedy"))
	a := read(t, h, Query{Last: time.Hour}, noon.Add(time.Minute))
	if got.LeftOut != a.LeftOut || got.LeftOut < 150 {
		t.Errorf("%d are left out, the answer says %d", got.LeftOut, a.LeftOut)
	}
	of := map[string]int{}
	for _, s := range a.Series {
		of[ownerOf(s.Key)]++
		if len(s.CPU) != 2 && s.Namespace == "greedy" {
			t.Errorf("%+v lost its place", s.Key)
		}
	}
	if of["greedy"] < 28 || of["a"] < 5 || len(a.Series) > 40 {
		t.Errorf("series by namespace: %v", of)
	}
	if a.Series[0].Key != (Key{Kind: KindNamespace, Name: "a"}) {
		t.Errorf("the first series is %+v", a.Series[0].Key)
	}
	// What nobody has had for the retention makes room.
	for i := range 60 + blockMinutes {
		got = h.Record(noon.Add(time.Duration(2+i)*time.Minute), minute(3, "b"))
	}
	if got.LeftOut != 0 || got.Kept != 5 {
		t.Errorf("after an hour: %+v, want 5 series", got)
	}
}

func TestBytesPerSeries(t *testing.T) {
	const workloads, minutes = 500, 24 * 60
	m := &Minute{}
	for i := range workloads {
		m.Pod(deployment("shop", fmt.Sprint("web-", i)), containers(1e6, 1e6))
	}
	before := sharedtest.Heap()
	h := New(Config{Retention: 24 * time.Hour}, noon)
	most := int64(0)
	for i := range 2 * minutes {
		h.Record(noon.Add(time.Duration(i)*time.Minute), m)
		if i%480 == 479 {
			most = max(most, sharedtest.Heap()-before)
		}
	}
	perHour := float64(most) / (workloads + 1) / 24
	t.Logf("a workload takes %.0f bytes an hour", perHour)
	if perHour > 570 {
		t.Errorf("a workload takes %.0f bytes an hour, want at most 570", perHour)
	}
	runtime.KeepAlive(h)
}

// writerFunc is an io.Writer.
type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// filled returns a history whose answer is longer than a buffer, and its newest minute.
func filled(t *testing.T) (*History, *Minute) {
	t.Helper()
	h, m := New(Config{Retention: time.Hour}, noon), &Minute{}
	for i := range 1000 {
		m.Pod(deployment("shop", fmt.Sprint("web-", i)), containers(1, 1))
	}
	for i := range 10 {
		h.Record(noon.Add(time.Duration(i)*time.Minute), m)
	}
	return h, m
}

// While a client reads, minutes are recorded and series leave. The answer is still complete JSON.
func TestSlowReader(t *testing.T) {
	h, _ := filled(t)
	var b bytes.Buffer
	writes := 0
	err := h.Write(writerFunc(func(p []byte) (int, error) {
		if writes++; writes == 2 {
			h.Record(noon.Add(24*time.Hour), &Minute{})
		}
		return b.Write(p)
	}), Query{Last: time.Hour}, noon.Add(10*time.Minute))
	if err != nil || writes < 2 {
		t.Fatal(writes, err)
	}
	a, err := Decode(&b)
	if err != nil || len(a.Series) < 100 || len(a.Series) > 900 {
		t.Errorf("%v, %d series", err, len(a.Series))
	}
}

func TestWriterFails(t *testing.T) {
	h, _ := filled(t)
	gone := errors.New("gone")
	writes := 0
	err := h.Write(writerFunc(func([]byte) (int, error) { writes++; return 0, gone }), Query{Last: time.Hour}, noon)
	if !errors.Is(err, gone) || writes != 1 {
		t.Errorf("%v after %d writes", err, writes)
	}
}

func TestParseDurations(t *testing.T) {
	for _, tt := range []struct {
		parameters string
		want       Query
		err        string
	}{
		{"history=2h", Query{Last: 2 * time.Hour}, ""},
		{"history=90m&step=5m", Query{Last: 90 * time.Minute, Step: 5 * time.Minute}, ""},
		{"history=9000h", Query{Last: 9000 * time.Hour}, ""},
		{"history=", Query{}, "history=: give how far back to go"},
		{"history=2", Query{}, "history=2: give how far back to go"},
		{"history=-2h", Query{}, "history=-2h: give how far back to go"},
		{"history=59s", Query{}, "history=59s: give how far back to go"},
		{"history=2h&step=", Query{}, "step=: give whole minutes"},
		{"history=2h&step=90s", Query{}, "step=90s: give whole minutes"},
		{"history=2h&step=0s", Query{}, "step=0s: give whole minutes"},
		{"history=2h&step=25h", Query{}, "step=25h: give whole minutes"},
	} {
		parameters, err := url.ParseQuery(tt.parameters)
		if err != nil {
			t.Fatal(err)
		}
		var q Query
		err = q.ParseDurations(parameters)
		if tt.err == "" {
			if err != nil || q != tt.want {
				t.Errorf("%s: %+v, %v, want %+v", tt.parameters, q, err, tt.want)
			}
			var again Query
			if err := again.ParseDurations(q.Values()); err != nil || again != q {
				t.Errorf("%s becomes %s", tt.parameters, q.Values().Encode())
			}
		} else if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %s...", tt.parameters, err, tt.err)
		}
	}
}

// By default, an answer has as many points as a graph needs.
func TestDefaultStep(t *testing.T) {
	h := New(Config{Retention: 24 * time.Hour}, noon)
	m := &Minute{}
	m.Node("n1", sample.Usage{CPU: 1})
	now := noon
	for ; now.Before(noon.Add(25 * time.Hour)); now = now.Add(time.Minute) {
		h.Record(now, m)
	}
	for last, want := range map[time.Duration]int64{
		time.Hour: 60, 4 * time.Hour: 60, 4*time.Hour + time.Minute: 120, 24 * time.Hour: 360, 240 * time.Hour: 360,
	} {
		a := read(t, h, Query{Nodes: true, Last: last}, now)
		if a.Step != want || a.Points > defaultPoints+1 {
			t.Errorf("%v: %d points every %d s, want %d s", last, a.Points, a.Step, want)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	of := func(points int, series string) string {
		return fmt.Sprintf(`{"kind":"MetricsHistory","version":1,"points":%d,"series":[{"name":"a",%s}]}`, points, series)
	}
	for text, want := range map[string]string{
		`{"kind":"NodeMetricsList","items":[]}`:                      `has no history: it answered with a "NodeMetricsList"`,
		`{"kind":"MetricsHistory","version":2}`:                      "has version 2",
		`{"kind":"MetricsHistory","version":1,"points":1,"series":[`: "unexpected EOF",
		of(1, `"first":0,"cpu":[1,2],"memory":[1,2]`):                "Name:a",
		of(2, `"first":0,"cpu":[1,2],"memory":[1]`):                  "Name:a",
		of(2, `"first":0,"cpu":[1],"memory":[1],"pods":[1,2]`):       "Name:a",
		of(2, `"first":-1,"cpu":[1],"memory":[1]`):                   "Name:a",
	} {
		_, err := Decode(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
		var none *NoHistoryError
		if errors.As(err, &none) != strings.Contains(text, "NodeMetrics") {
			t.Errorf("%s: a %T", text, err)
		}
	}
}

func TestWorkloadOf(t *testing.T) {
	hash := sample.Labels{{Key: "app", Value: "web"}, {Key: "pod-template-hash", Value: "5d9f"}}
	for _, tt := range []struct {
		pod    string
		labels sample.Labels
		of     sample.Controller
		want   string
	}{
		{"web-5d9f-x2x9p", hash, sample.Controller{Kind: "ReplicaSet", Name: "web-5d9f"}, "Deployment web"},
		{"web-5d9f-x2x9p", nil, sample.Controller{Kind: "ReplicaSet", Name: "web-5d9f"}, "ReplicaSet web-5d9f"},
		{"web-x2x9p", hash, sample.Controller{Kind: "ReplicaSet", Name: "web"}, "ReplicaSet web"},
		{"x", hash, sample.Controller{Kind: "ReplicaSet", Name: "-5d9f"}, "ReplicaSet -5d9f"},
		{"web-0", nil, sample.Controller{Kind: "StatefulSet", Name: "web"}, "StatefulSet web"},
		{"report-29411760-abcde", nil, sample.Controller{Kind: "Job", Name: "report-29411760"}, "CronJob report"},
		{"import-20261130-abcde", nil, sample.Controller{Kind: "Job", Name: "import-20261130"}, "Job import-20261130"},
		{"import-2941176-abcde", nil, sample.Controller{Kind: "Job", Name: "import-2941176"}, "Job import-2941176"},
		{"import-2941176x-abcde", nil, sample.Controller{Kind: "Job", Name: "import-2941176x"}, "Job import-2941176x"},
		{"import-abcde", nil, sample.Controller{Kind: "Job", Name: "import"}, "Job import"},
		{"etcd-n1", nil, sample.Controller{Kind: "Node", Name: "n1"}, "Pod etcd"},
		{"alone", hash, sample.Controller{}, "Pod alone"},
		{"x-abcde", nil, sample.Controller{Kind: "CloneSet", Name: "x"}, "CloneSet x"},
	} {
		if got := WorkloadOf("ns", tt.pod, tt.labels, tt.of); got.Kind+" "+got.Name != tt.want || got.Namespace != "ns" {
			t.Errorf("%s of %+v: %+v, want %s", tt.pod, tt.of, got, tt.want)
		}
	}
}

// Kinds do not decide alone what a series is: controllers may be called anything.
func TestKindsOfControllers(t *testing.T) {
	h, m := New(Config{Retention: time.Hour}, noon), &Minute{}
	m.Node("n1", sample.Usage{CPU: 1})
	for _, kind := range []string{KindNode, KindNamespace} {
		m.Pod(Key{Kind: kind, Namespace: "shop", Name: "test"}, containers(1, 1))
	}
	h.Record(noon, m)
	names := func(q Query) (all []string) {
		q.Last = time.Hour
		for _, s := range read(t, h, q, noon).Series {
			all = append(all, s.Kind+" "+s.Namespace+"/"+s.Name)
		}
		return all
	}
	if got := names(Query{Nodes: true}); !slices.Equal(got, []string{"Node /n1"}) {
		t.Errorf("nodes: %q", got)
	}
	want := []string{"Namespace /shop", "Namespace shop/test", "Node shop/test"}
	if got := names(Query{Namespace: "shop"}); !slices.Equal(got, want) {
		t.Errorf("shop: %q, want %q", got, want)
	}
	if got := names(Query{Namespace: "test"}); got != nil {
		t.Errorf("test: %q", got)
	}
}

func BenchmarkRecord(b *testing.B) {
	h, m := New(Config{Retention: 24 * time.Hour}, noon), &Minute{}
	for i := range 4000 {
		m.Pod(deployment(fmt.Sprint("team-", i%50), fmt.Sprint("web-", i)), containers(1e6, 1e6))
	}
	now := noon
	b.ReportAllocs()
	for b.Loop() {
		h.Record(now, m)
		now = now.Add(time.Minute)
	}
}

func BenchmarkWrite(b *testing.B) {
	h, m := New(Config{Retention: 24 * time.Hour}, noon), &Minute{}
	for i := range 4000 {
		m.Pod(deployment(fmt.Sprint("team-", i%50), fmt.Sprint("web-", i)), containers(uint64(i)*1e6, uint64(i)*1e6))
	}
	now := noon
	for range 24 * 60 {
		h.Record(now, m)
		now = now.Add(time.Minute)
	}
	for _, q := range []Query{{Last: 2 * time.Hour}, {Last: 24 * time.Hour}, {Last: 24 * time.Hour, Step: time.Minute}} {
		b.Run(q.Values().Encode(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if err := h.Write(writerFunc(func(p []byte) (int, error) { n += len(p); return len(p), nil }), q, now); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(n))
			}
		})
	}
}
