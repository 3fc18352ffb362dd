package lex

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

func TestLine(t *testing.T) {
	body := []byte("a 1\n\t b\r\n\r\n \n\r\r\nlast")
	var got []string
	for len(body) > 0 {
		var line []byte
		line, body = Line(body)
		got = append(got, string(line))
	}
	if want := []string{"a 1", "b", "", "", "\r", "last"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestName(t *testing.T) {
	for text, want := range map[string]int{"": 0, "1a": 0, "a1": 2, "a_b:c{": 5, "é": 0, "a b": 1, "_": 1} {
		if got := NameLen([]byte(text)); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
	for line, want := range map[string]bool{
		"a{}": true, "a 1": true, "a": false, "ab 1": false, "a:b 1": false,
		"b 1": false,
	} {
		if got := HasName([]byte(line), []byte("a")); got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}

func TestLabel(t *testing.T) {
	for text, want := range map[string][]string{ // names and values, and the rest; nil if malformed
		`} 1`:                       {" 1"},
		`a="b"}`:                    {"a", "b", ""},
		`a="",b="}\\\"\n" , } 1`:    {"a", "", "b", "}\\\"\n", " 1"},
		"\ta\t=\t\"b\"\t,c=\"d\"}x": {"a", "b", "c", "d", "x"},
		``:                          nil, `,}`: nil, `a`: nil, `a=`: nil, `a="`: nil, `a="b"`: nil, `a="b",`: nil,
		`a="b",,}`: nil, `a="b"c="d"}`: nil, `1="b"}`: nil, `a:b="c"}`: nil, `__name__="a"}`: nil,
		`a="\x"}`: nil, `a="\`: nil, `a="\"}`: nil,
	} {
		var got []string
		rest, ok := []byte(text), true
		for ok {
			var name, value []byte
			if name, value, rest, ok = Label(rest); name == nil {
				break
			}
			got = append(got, string(name), string(value))
		}
		if got = append(got, string(rest)); ok != (want != nil) || ok && !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", text, got, ok, want)
		}
	}
}

func TestNumbersAreCutOff(t *testing.T) {
	for text, want := range map[string]string{
		"1.5 23": "23", "1.5\t \t23": "23", "15e-1 23": "23", "1.5 ": "", "1.5": "", "+15e-1  x": "x",
	} {
		if v, rest, ok := Float([]byte(text)); !ok || v != 1.5 || string(rest) != want {
			t.Errorf("%q: got %v, %q, %v, want 1.5, %q", text, v, rest, ok, want)
		}
	}
	for text, want := range map[string]string{"15 23": "23", "15\t \t23": "23", "+15 x": "x", "15 ": "", "15": ""} {
		if v, rest, ok := Int([]byte(text)); !ok || v != 15 || string(rest) != want {
			t.Errorf("%q: got %v, %q, %v, want 15, %q", text, v, rest, ok, want)
		}
	}
	for _, text := range []string{"", " 1", "x", "1x", "1,5", "0x1", "1_0"} {
		if v, _, ok := Float([]byte(text)); ok {
			t.Errorf("%q: got %v, want no float", text, v)
		}
		if v, _, ok := Int([]byte(text)); ok {
			t.Errorf("%q: got %v, want no integer", text, v)
		}
	}
}

func TestNumbersOutOfRange(t *testing.T) {
	for text, want := range map[string]float64{"1e999": math.MaxFloat64, "-1e999": -math.MaxFloat64} {
		if v, _, ok := Float([]byte(text)); !ok || v != want {
			t.Errorf("%s: got %v, %v", text, v, ok)
		}
	}
	for text, want := range map[string]int64{
		"9223372036854775807": math.MaxInt64, "9223372036854775808": math.MaxInt64,
		"-9223372036854775809": math.MinInt64,
	} {
		if v, _, ok := Int([]byte(text)); !ok || v != want {
			t.Errorf("%s: got %v, %v", text, v, ok)
		}
	}
}

// TestFloat compares Float with strconv.
func TestFloat(t *testing.T) {
	same := func(text string) {
		got, rest, ok := Float([]byte(text))
		want, err := strconv.ParseFloat(text, 64)
		if ok != (err == nil) || ok && (math.Float64bits(got) != math.Float64bits(want) || len(rest) > 0) {
			t.Errorf("%q: got %v, %q, %v, want %v, %v", text, got, rest, ok, want, err)
		}
	}
	for _, text := range []string{
		"", ".", "0", "-0", "1.", ".5", ".e+1", "1e+", "1e+0", "1e+22", "1e+23", "1e+300", "1e+0022", "1e22", "1E+5",
		"1e-5", "+1", "-1", "NaN", "+Inf", "9007199254740992", "9007199254740993", "9007199254740992.5",
		"9.007199254740993e+15", "1234567890123456789", "12345678901234567890", "0.1234567890123456789",
		"0.12345678901234567890", "123456789.12345678901", "1.7953105855271e+09", "1.9e+07", "1x", "1.2.3", "1.2e+3e+4",
	} {
		same(text)
	}
	r := rand.New(rand.NewPCG(13, 14))
	for range 100_000 {
		v := math.Ldexp(r.Float64(), r.IntN(120)-40)
		same(strconv.FormatFloat(v, 'g', -1, 64))
		same(strconv.FormatFloat(v, "feg"[r.IntN(3)], r.IntN(20), 64))
	}
}
