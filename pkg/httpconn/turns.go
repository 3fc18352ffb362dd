package httpconn

import "metrics-server/pkg/fairshare"

// Turns limits how many answers of more than a size are read at once, and divides these turns among
// the owners of clients: an owner gets at most half of them, and fewer if others have some.
// Together, servers that flood thus take at most a few times the limit of an answer, however many
// they are and however slowly they send. Smaller answers never wait. Pools may share Turns.
type Turns struct {
	size  int // answers of more bytes need a turn
	turns *fairshare.Turns
}

// NewTurns returns count turns for answers of more than size bytes.
func NewTurns(size, count int) *Turns {
	return &Turns{size: size, turns: fairshare.NewTurns(1, int64(count))}
}
