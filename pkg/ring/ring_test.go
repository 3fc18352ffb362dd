package ring

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"metrics-server/pkg/sample"
)

// ringOf pushes points at the given times, which are also their values.
func ringOf(distance sample.Time, times ...sample.Time) Ring {
	var r Ring
	for _, t := range times {
		r.Push(Point{t, uint64(t)}, distance)
	}
	return r
}

func TestPush(t *testing.T) {
	for _, tt := range []struct {
		name         string
		pushed, want []sample.Time // want: newest first
	}{
		{"none", nil, nil},
		{"one", []sample.Time{1}, []sample.Time{1}},
		{"the second is kept however close", []sample.Time{1, 2}, []sample.Time{2, 1}},
		{"a close one is replaced", []sample.Time{1, 2, 20}, []sample.Time{20, 1}},
		{"distant ones are kept", []sample.Time{1, 11, 21, 31}, []sample.Time{31, 21, 11, 1}},
		{"the oldest is dropped", []sample.Time{1, 11, 21, 31, 41}, []sample.Time{41, 31, 21, 11}},
		{"every second", []sample.Time{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, []sample.Time{12, 11, 1}},
	} {
		r := ringOf(10, tt.pushed...)
		var got []sample.Time
		for _, p := range r[:r.Len()] {
			got = append(got, p.Time)
			if p.Value != uint64(p.Time) {
				t.Errorf("%s: the value at %d is %d", tt.name, p.Time, p.Value)
			}
		}
		if !slices.Equal(got, tt.want) || r.Empty() != (len(tt.want) == 0) {
			t.Errorf("%s: got %v, empty %v, want %v", tt.name, got, r.Empty(), tt.want)
		}
	}
}

// TestReach checks what Size rests on: a full ring reaches back two thirds of a window, however often
// points are pushed.
func TestReach(t *testing.T) {
	const window = 30
	for step := sample.Time(1); step <= window; step++ {
		var r Ring
		for i := sample.Time(1); i < 200; i++ {
			r.Push(Point{i * step, 0}, window/3)
			if oldest := r[r.Len()-1]; r.Len() == Size && r[0].Time-oldest.Time < 2*window/3 {
				t.Fatalf("a point every %d: the ring %v is too short", step, r)
			}
		}
	}
}

func TestBase(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pushed []sample.Time
		want   sample.Time // 0: none
	}{
		{"no point", nil, 0},
		{"one point", []sample.Time{10}, 0},
		{"nothing is old enough", []sample.Time{10, 15}, 10},
		{"the newest that is old enough", []sample.Time{10, 20, 30, 40}, 20},
		{"exactly as old", []sample.Time{10, 30}, 10},
	} {
		r := ringOf(10, tt.pushed...)
		if got, ok := r.Base(20); ok != (tt.want > 0) || ok && got.Time != tt.want {
			t.Errorf("%s: got %d, %v, want %d", tt.name, got.Time, ok, tt.want)
		}
	}
}

func TestRate(t *testing.T) {
	for _, growth := range []uint64{
		0, 1, 999, 1e9, math.MaxUint64 / 1000, math.MaxUint64/1000 + 1, math.MaxInt64, math.MaxUint64,
	} {
		for _, window := range []sample.Time{1, 3, 999, 1000, 5000, 15_001, 1 << 40, math.MaxInt64} {
			want := new(big.Int).Mul(new(big.Int).SetUint64(growth), big.NewInt(1000))
			want.Quo(want, big.NewInt(int64(window)))
			if top := big.NewInt(math.MaxInt64); want.Cmp(top) > 0 {
				want = top
			}
			if got := Rate(Point{}, Point{window, growth}); got != want.Uint64() {
				t.Errorf("%d in %d ms: got %d, want %d", growth, window, got, want)
			}
		}
	}
}
