package binary

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
)

// Metrics returns the values of /metrics by series, with labels as written there.
func (c *Client) Metrics(ctx context.Context) (map[string]float64, error) {
	b, err := c.Get(ctx, Request{Path: "/metrics"})
	if err != nil {
		return nil, err
	}
	return parseMetrics(b)
}

func parseMetrics(b []byte) (map[string]float64, error) {
	all := map[string]float64{}
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		at := bytes.LastIndexByte(line, ' ') // no series here has a timestamp
		v, err := strconv.ParseFloat(string(line[at+1:]), 64)
		if at < 0 || err != nil {
			return nil, fmt.Errorf("/metrics has the line %q", line)
		}
		all[string(line[:at])] = v
	}
	return all, nil
}
