package resource

import (
	"strconv"
	"time"

	"metrics-server/pkg/api"
	"metrics-server/pkg/api/wire"
	"metrics-server/pkg/sample"
)

// appendJSONHeader appends the fields that nodes and pods have in common.
func appendJSONHeader(b []byte, u *sample.PodUsage, times *api.JSONTime) []byte {
	b = append(b, `"timestamp":`...)
	b = times.Append(b, timeOf(u))
	b = append(b, `,"window":"`...)
	b = appendWindow(b, u.Window)
	return append(b, '"', ',')
}

// AppendJSON implements api.ItemEncoder.
func (nodes) AppendJSON(b []byte, u *sample.PodUsage, times *api.JSONTime) []byte {
	b = appendJSONHeader(b, u, times)
	b = append(b, `"usage":`...)
	if len(u.Containers) == 0 {
		return append(b, '{', '}')
	}
	return appendUsage(b, &u.Containers[0].Usage)
}

// AppendJSON implements api.ItemEncoder.
func (pods) AppendJSON(b []byte, u *sample.PodUsage, times *api.JSONTime) []byte {
	b = appendJSONHeader(b, u, times)
	b = append(b, `"containers":[`...)
	for i := range u.Containers {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = wire.AppendString(b, u.Containers[i].Name)
		b = append(b, `,"usage":`...)
		b = appendUsage(b, &u.Containers[i].Usage)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendUsage(b []byte, u *sample.Usage) []byte {
	b = append(b, `{"cpu":"`...)
	b = appendCPU(b, u.CPU)
	b = append(b, `","memory":"`...)
	b = appendBytes(b, u.Memory)
	if u.HasSwap {
		b = append(b, `","swap":"`...)
		b = appendBytes(b, u.Swap)
	}
	return append(b, '"', '}')
}

// appendWindow appends a window in the format of time.Duration. It needs no escaping: a window is
// rounded to milliseconds, so the non-ASCII "µs" cannot occur.
func appendWindow(b []byte, d time.Duration) []byte {
	d = roundWindow(d)
	if d < time.Second || d >= time.Minute {
		return append(b, d.String()...)
	}
	// The common case; String would allocate.
	b = strconv.AppendInt(b, int64(d/time.Second), 10)
	if ms := int(d % time.Second / time.Millisecond); ms != 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, 's')
}
