package backend

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func samples(values ...any) *Answer {
	a := &Answer{}
	for i := 0; i < len(values); i += 2 {
		of := labels.EmptyLabels()
		if pod := values[i].(string); pod != "" {
			of = labels.FromStrings("pod", pod)
		}
		a.Samples = append(a.Samples, Sample{Labels: of, Value: values[i+1].(float64)})
	}
	return a
}

func TestSingle(t *testing.T) {
	for name, tt := range map[string]struct {
		answer *Answer
		want   float64
		cause  Cause
	}{
		"one":      {samples("a", 2.5), 2.5, ""},
		"zero":     {samples("", 0.), 0, ""},
		"none":     {samples(), 0, NoValue},
		"two":      {samples("a", 1., "b", 1.), 0, Ambiguous},
		"NaN":      {samples("a", math.NaN()), 0, NotFinite},
		"infinity": {samples("a", math.Inf(-1)), 0, NotFinite},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.answer.Single()
			if tt.cause != "" {
				wantError(t, err, tt.cause, "the expression returned")
			} else if err != nil || got != tt.want {
				t.Errorf("%v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestBy(t *testing.T) {
	type want struct {
		value float64
		cause Cause
		part  string
	}
	for name, tt := range map[string]struct {
		answer *Answer
		want   [3]want // of a, b and c
	}{
		"all": {samples("c", 3., "a", 0., "b", 2.), [3]want{{value: 0}, {value: 2}, {value: 3}}},
		"empty": {
			samples(), [3]want{
				{cause: NoValue, part: "for a"}, {cause: NoValue, part: "for b"}, {cause: NoValue, part: "for c"},
			},
		},
		"one is missing, another is gone": {
			samples("b", 2., "c", 3., "z", 9.), [3]want{{cause: NoValue, part: "no series for a"}, {value: 2}, {value: 3}},
		},
		"two values": {
			samples("a", 1., "a", 2., "b", 3., "c", 4., "a", 1.),
			[3]want{{cause: Ambiguous, part: "sum by (pod)"}, {value: 3}, {value: 4}},
		},
		"not finite": {
			samples("a", math.NaN(), "b", math.Inf(1), "c", 1.),
			[3]want{{cause: NotFinite, part: "NaN for a"}, {cause: NotFinite, part: "+Inf for b"}, {value: 1}},
		},
		"no label": {
			samples("", 1.), [3]want{
				{cause: NoValue, part: `no label "pod"`}, {cause: NoValue, part: "sum by (pod)"}, {cause: NoValue, part: "pod"},
			},
		},
		"some without label": {
			samples("", 1., "a", 1.), [3]want{{value: 1}, {cause: NoValue, part: "for b"}, {cause: NoValue, part: "for c"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i, v := range tt.answer.By("pod", []string{"a", "b", "c"}) {
				w := tt.want[i]
				if v.Name != string(rune('a'+i)) || v.Value != w.value || (v.Err == nil) != (w.cause == "") {
					t.Fatalf("%+v, want %+v", v, w)
				}
				if v.Err != nil {
					wantError(t, v.Err, w.cause, w.part)
				}
			}
		})
	}
}

func TestSum(t *testing.T) {
	if got, err := samples("a", 2.5, "b", 1.).Sum(); err != nil || got != 3.5 {
		t.Errorf("the sum of 2.5 and 1 is %v, %v", got, err)
	}
	if got, err := samples("", 2.).Sum(); err != nil || got != 2 {
		t.Errorf("the sum of 2 alone is %v, %v", got, err)
	}
	_, err := samples().Sum()
	wantError(t, err, NoValue, "no series")
	_, err = samples("a", 1., "b", math.NaN()).Sum()
	wantError(t, err, NotFinite, "NaN")
}

// BenchmarkBy joins an answer with 50 pods, as each request of the HPA controller does.
func BenchmarkBy(b *testing.B) {
	a, names := &Answer{}, make([]string, 50)
	for i := range names {
		names[i] = fmt.Sprintf("web-6d4cf56db6-%05d", i)
		a.Samples = append(a.Samples, Sample{Labels: labels.FromStrings("namespace", "shop", "pod", names[i]), Value: 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		a.By("pod", names)
	}
}

// FuzzAnswer checks that each sample of an answer has the value that is in the text, and that an answer either is used
// as a whole or is an error.
func FuzzAnswer(f *testing.F) {
	c, err := New(Config{Name: "main", URL: "http://main"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(up))
	for _, result := range []string{
		`{"resultType":"scalar","result":[1.5,"2"]}`, `{"resultType":"scalar","result":[1,"2",null]}`,
		`{"resultType":"vector","result":[{"metric":null,"value":[1,"-Inf"]},{"value":[1]}]}`,
		`{"resultType":"vector","result":[{"metric":{"pod":"a"},"value":[1,null]}]}`,
		`{"resultType":"vector","result":[{"metric":{},"value":{},"histogram":[1,{}]},null]}`,
		`{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}`, `{"resultType":"string","result":[1,"x"]}`,
	} {
		f.Add([]byte(`{"status":"success","data":` + result + `}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := c.read(http.StatusOK, body, nil, Expression{})
		if (a == nil) == (err == nil) {
			t.Fatalf("got %+v and error %v, want one of them", a, err)
		}
		if a == nil {
			return
		}
		var said response
		if err := json.Unmarshal(body, &said); err != nil {
			t.Fatal(err)
		}
		type series struct{ Value []any }
		all := []series{{}}
		into := any(&all)
		if said.Data.Type == "scalar" {
			into = &all[0].Value
		}
		if err := json.Unmarshal(said.Data.Result, into); err != nil || len(all) != len(a.Samples) {
			t.Fatalf("got %d samples, want %d (%v)", len(a.Samples), len(all), err)
		}
		for i, s := range all {
			p := s.Value
			want, err := strconv.ParseFloat(p[1].(string), 64)
			if got := a.Samples[i].Value; err != nil || got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("sample %d is %v, want %v", i, got, p)
			}
		}
	})
}

func TestWithin(t *testing.T) {
	a := &Answer{}
	for _, of := range [][]string{{"pod", "a", "ns", "shop"}, {"pod", "b", "ns", "other"}, {"pod", "c"}} {
		a.Samples = append(a.Samples, Sample{Labels: labels.FromStrings(of...)})
	}
	if got := a.Within("", "shop"); got != a {
		t.Errorf("%v without a label for namespaces", got)
	}
	got := a.Within("ns", "shop")
	if len(got.Samples) != 2 || got.Samples[0].Labels.Get("pod") != "a" || got.Samples[1].Labels.Get("pod") != "c" ||
		len(a.Samples) != 3 || a.Samples[1].Labels.Get("pod") != "b" {
		t.Errorf("%v became %v", a, got)
	}
	if again := got.Within("ns", "shop"); again != got {
		t.Error("an answer without other namespaces is copied")
	}
}

func TestNaNAsZero(t *testing.T) {
	whole := samples("a", 1., "b", math.Inf(1))
	if whole.NaNAsZero() != whole {
		t.Error("an answer without NaN is copied")
	}
	a := samples("a", math.NaN(), "b", 1.)
	got := a.NaNAsZero()
	if got.Samples[0].Value != 0 || got.Samples[1].Value != 1 || !math.IsNaN(a.Samples[0].Value) {
		t.Errorf("%v became %v", a, got)
	}
}
