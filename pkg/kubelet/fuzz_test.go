package kubelet

import (
	"context"
	"net"
	"runtime"
	"testing"

	"k8s.io/client-go/rest"

	"metrics-server/pkg/sample"
)

// FuzzAnswer checks for whatever a kubelet sends over HTTP/1.1: no panic, no more memory than a few
// limits of an answer, and nothing of it is taken for the answer to the next request.
func FuzzAnswer(f *testing.F) {
	whole := nodeRows("123")
	for _, s := range []string{
		withLength(whole), withLength(whole) + withLength(nodeRows("666")), chunked + chunk(whole) + "0\r\nX: y\r\n\r\n",
		okText + "\r\n" + whole, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + withLength(whole),
		"HTTP/1.0 200 OK\r\n\r\n" + whole,
		okText + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(whole) + "0\r\n\r\n",
		okText + "Content-Encoding: gzip\r\n\r\n" +
			"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x00\x00\x00\xff\xff\x01\x00\x00\xff\xff",
		"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nboom\n", "HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	next := withLength(nodeRows("777"))
	f.Fuzz(func(t *testing.T, answer string, compress bool) {
		const limit = 64 << 10
		answers := []string{answer, next, next} // of one connection each, if it is asked only once
		var last *script
		c := newClient(t, Config{PlainHTTP: true, MaxBody: limit, Compress: compress, Rest: &rest.Config{
			Dial: func(context.Context, string, string) (net.Conn, error) {
				last = &script{first: answers[0]}
				answers = answers[1:]
				return last, nil
			},
		}}, Endpoint{Node: "n1", Addresses: []Address{{"Hostname", "n1"}}})
		defer c.shared.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = c.Fetch(t.Context(), &sample.Batch{})
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 20*limit+10*uint64(len(answer)) {
			t.Errorf("%d bytes were allocated for %d", got, len(answer))
		}
		if connected(c) {
			if last.first != "" {
				return // a socket would say that there is more: see TestIdleConnectionSpeaks
			}
			last.first = next
		}
		var b sample.Batch
		if err := c.Fetch(t.Context(), &b); err != nil || b.Node.CPU != 777e9 {
			t.Errorf("the next scrape: error %v, CPU %d", err, b.Node.CPU)
		}
	})
}
