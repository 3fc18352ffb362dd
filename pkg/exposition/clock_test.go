package exposition

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

// If samples are refused because of a node's clock, the error says how far off the clock is.
func TestSkew(t *testing.T) {
	now := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	row := func(by time.Duration) string {
		return fmt.Sprintf("node_memory_working_set_bytes 1 %d\n", now.Add(by).UnixMilli())
	}
	container := func(name string, ms int64) string {
		return fmt.Sprintf("container_memory_working_set_bytes{container=%q,namespace=\"n\",pod=\"p\"} 1 %d\n", name, ms)
	}
	at := func(by time.Duration) int64 { return now.Add(by).UnixMilli() }
	for name, tt := range map[string]struct {
		body  string
		skew  time.Duration
		clock string // "" for an answer that is usable
		says  string
	}{
		"right":          {row(0), 0, "", ""},
		"a little ahead": {row(30 * time.Minute), 0, "", ""},
		"ahead":          {row(3 * time.Hour), 3 * time.Hour, "3h0m0s ahead", "most of them as timestamp_ahead"},
		"behind": {
			row(-90 * time.Minute), -90 * time.Minute, "1h30m0s behind",
			"most of them as timestamp_behind",
		},
		"days ahead": {row(100 * time.Hour), 100 * time.Hour, "4 days ahead", ""},
		"the newest counts, ahead": {
			row(3*time.Hour) + container("a", at(3*time.Hour+20*time.Second)),
			3*time.Hour + 20*time.Second, "3h0m0s ahead", "2 rows",
		},
		"the newest counts, behind": {
			row(-3*time.Hour) + container("a", at(-4*time.Hour)), -3 * time.Hour, "3h0m0s behind",
			"",
		},
		"one container only": {row(0) + container("a", at(2*time.Hour)), 2 * time.Hour, "", ""},
		"1970":               {container("a", 1), -now.Sub(time.UnixMilli(1)), "20785 days behind", ""},
		"the end of time":    {container("a", math.MaxInt64), 200 * 365 * 24 * time.Hour, "73000 days ahead", ""},
		"before time":        {container("a", math.MinInt64), -200 * 365 * 24 * time.Hour, "73000 days behind", ""},
		"a start ahead": {
			container("a", at(0)) + fmt.Sprintf("container_start_time_seconds{container=\"a\",namespace=\"n\",pod=\"p\"} %d "+
				"%d\n", at(9*time.Hour)/1000, at(0)), 0, "", "",
		},
		"other refusals prevail": {"node_cpu_usage_seconds_total -1\nnode_memory_working_set_bytes NaN\n" +
			container("a", at(2*time.Hour)) + "node_swap_usage_bytes -1\n", 2 * time.Hour, "", "most of them as negative"},
	} {
		var batch sample.Batch
		err := new(Parser).ParseText([]byte(tt.body), now, new(Layout), &batch)
		if batch.Skew != tt.skew {
			t.Errorf("%s: skew %v, want %v", name, batch.Skew, tt.skew)
		}
		if is := errors.Is(err, ErrClock); is != (tt.clock != "") || is && !errors.Is(err, ErrNoSamples) {
			t.Errorf("%s: error %v", name, err)
		}
		if text := fmt.Sprint(err); tt.clock != "" && !strings.Contains(text, ": the node's clock is "+tt.clock) ||
			!strings.Contains(text, tt.says) {
			t.Errorf("%s: %q does not say %q, %q", name, text, tt.clock, tt.says)
		}
		batch.Reset()
		if batch.Clock() != "" {
			t.Errorf("%s: %q after Reset", name, batch.Clock())
		}
	}
}
