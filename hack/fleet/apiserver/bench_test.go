package apiserver

import (
	"testing"
	"time"

	"metrics-server/hack/fleet/cluster"
)

// BenchmarkEvent makes an event of a watch: a pod's metadata in protobuf, as most servers ask for it.
func BenchmarkEvent(b *testing.B) {
	c := cluster.New(cluster.Config{Nodes: 10, Pods: 30, Containers: 2, Now: time.Now()})
	pods, _ := c.Pods("")
	q := query{collection: resources(c, nil)["pods"], as: form{protobuf: true, partial: true, stream: true}}
	var object, event []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		object = q.encode(object[:0], pods[i%len(pods)])
		event = appendEvent(event[:0], q.as, "ADDED", object)
		b.SetBytes(int64(len(event)))
	}
}
