package kubelet

import (
	"strings"
	"testing"

	"metrics-server/pkg/sample"
)

// Each reason has its cause and its remedy; a new one must not get the remedy for nonsensical
// values by default.
func TestExplainRefused(t *testing.T) {
	const nonsense = "make no sense"
	for reason, says := range [sample.NumReasons]string{
		sample.Malformed: nonsense, sample.NotANumber: nonsense, sample.Infinite: nonsense, sample.Negative: nonsense,
		sample.Overflow: nonsense, sample.Duplicate: nonsense,
		sample.TimestampAhead: "an hour", sample.TimestampBehind: "an hour", sample.TimestampOld: "set back",
		sample.Excess: "8,192", sample.OverCapacity: "status.capacity", sample.Contradicted: "zero", sample.Frozen: "repeats",
	} {
		cause, remedy := ExplainRefused(sample.Reason(reason))
		if says == "" || !strings.Contains(cause, says) || remedy == "" {
			t.Errorf("%v: cause %q, which does not say %q; remedy %q", sample.Reason(reason), cause, says, remedy)
		}
	}
}
