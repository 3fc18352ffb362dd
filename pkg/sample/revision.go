package sample

// Revision is a moment in the history of what is served: every change has one of its own, later
// changes have higher ones, and a resourceVersion is one in decimal. Package revision makes them. Zero
// means "unknown".
type Revision uint64

// originBits is how many low bits of a Revision tell the process that made it.
const originBits = 16

// NewRevision returns the revision of a moment, made by the process of that origin.
func NewRevision(at Time, origin uint16) Revision {
	return Revision(max(at, 0))<<originBits | Revision(origin)
}

// Time returns when the change was made, by the clock of the process that made the revision.
func (r Revision) Time() Time { return Time(r >> originBits) }

// Origin identifies the process that made the revision.
func (r Revision) Origin() uint16 { return uint16(r) }
