package httpconn

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// pieces is a connection that returns the available bytes in pieces of any size.
type pieces struct {
	net.Conn
	*rand.Rand
	rest []byte
}

func (c *pieces) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:1+c.IntN(len(p))], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// TestSocketEndsWithRecords checks that all bytes come, in order, and none with those of another
// TLS record.
func TestSocketEndsWithRecords(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var stream []byte
		ends := map[int]bool{}
		for range 20 {
			n := []int{0, 1, 4, 4118, 16401}[r.IntN(5)]
			stream = append(stream, 23, 3, 3, byte(n>>8), byte(n))
			for range n {
				stream = append(stream, byte(r.Uint32()))
			}
			ends[len(stream)] = true
		}
		s := &socket{Conn: &pieces{Rand: r, rest: stream}, mode: mode(r.IntN(3)), record: new(recordReader)}
		var got []byte
		for p := make([]byte, 40_000); ; {
			n, err := s.Read(p[:1+r.IntN(len(p))])
			for at := len(got) + 1; at < len(got)+n; at++ {
				if ends[at] {
					t.Fatalf("seed %d: one read of %d bytes at %d goes beyond the end of a record at %d", seed, n, len(got), at)
				}
			}
			got = append(got, p[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("seed %d: what was read is not what was sent", seed)
		}
	}
}
