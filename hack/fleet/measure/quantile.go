package measure

import (
	"slices"
	"time"
)

// durations are measured one by one.
type durations []time.Duration

// quantile returns the q-quantile of d: the smallest element that at least a fraction q of d does
// not exceed; 0 if d is empty.
func (d durations) quantile(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Clone(d)
	slices.Sort(sorted)
	i := int(q*float64(len(sorted)) + 0.999999)
	return sorted[min(max(i-1, 0), len(sorted)-1)]
}
