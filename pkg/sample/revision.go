package sample

// Revision is a moment in the history of what is served: later changes have higher ones, those that one
// answer of a kubelet brings share one, and a resourceVersion is one in decimal. Package revision makes
// them. Zero means "unknown".
type Revision uint64

// A Revision is, from its highest bits to its lowest, a Time, a counter, and a number of the process
// that made it. The counter lets a process make 64 revisions in each millisecond. Without it, revisions
// would run ahead of the time at more than 1,000 changes a second. Until 2039, a Revision fits into an
// int64.
const (
	originBits = 16
	countBits  = 6
	timeShift  = originBits + countBits
)

// RevisionStep is the distance between successive revisions of one process.
const RevisionStep Revision = 1 << originBits

// NewRevision returns the first revision of a moment, made by the process of that origin.
func NewRevision(at Time, origin uint16) Revision {
	return Revision(max(at, 0))<<timeShift | Revision(origin)
}

// Time returns when the change was made, by the clock of the process that made the revision.
func (r Revision) Time() Time { return Time(r >> timeShift) }

// Origin identifies the process that made the revision.
func (r Revision) Origin() uint16 { return uint16(r) }
