package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
)

// TestAppendString compares every byte at every place of a string with encoding/json.
func TestAppendString(t *testing.T) {
	for size := range 20 {
		for at := range size {
			for c := range 256 {
				b := []byte(strings.Repeat("a", size))
				b[at] = byte(c)
				want, err := json.Marshal(string(b))
				if err != nil {
					t.Fatal(err)
				}
				if got := AppendString(nil, string(b)); !bytes.Equal(got, want) {
					t.Errorf("AppendString(%q) = %s, want %s", b, got, want)
				}
				if (len(want) == size+2) != isPlain(string(b)) {
					t.Errorf("isPlain(%q) = %v, but encoding/json writes %s", b, !isPlain(string(b)), want)
				}
			}
		}
	}
	if got := AppendString(nil, ""); string(got) != `""` {
		t.Errorf(`AppendString("") = %s, want ""`, got)
	}
}

// TestEnd checks that the length precedes its field, regardless of the room that was reserved for
// it.
func TestEnd(t *testing.T) {
	for _, size := range []int{0, 1, 1<<7 - 1, 1 << 7, 1<<14 - 1, 1 << 14, 1<<21 - 1, 1 << 21} {
		content := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		want := append(binary.AppendUvarint([]byte("before\x0a"), uint64(size)), content...)
		for room := 1; room <= 2; room++ {
			b, at := Begin([]byte("before"), Field1, room)
			b = append(b, content...)
			if got := End(b, at, room); !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %d reserved for the length: got %d bytes in all, %x..., want %d, %x...",
					size, room, len(got), got[:min(len(got), 16)], len(want), want[:min(len(want), 16)])
			}
		}
	}
}
