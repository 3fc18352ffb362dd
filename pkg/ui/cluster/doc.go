// Package cluster keeps what the page of `metrics-server ui` shows: the nodes, pods, workloads and
// HorizontalPodAutoscalers of a cluster, their usage, and the recent past of both. It reads the API server with
// the rights of the user, whatever these are, and writes nothing.
//
// # Contract
//
// Each kind of object is a Source, read by a watch, or by a list every Config.Interval where the API server
// refuses watches. A source that cannot be read has a State, an error and a remedy; the other sources are not
// affected, and it is tried again. While a source fails, its objects stay, and their ages grow.
//
// A number that is not known is NaN, a time that is not known is zero. Zero means that it was measured as zero.
//
// Usage is joined with the object that it is about. A usage that is older than its object belongs to a deleted
// object of the same name, and is not shown; nor is a usage without an object.
//
// The past has one value per Config.Interval: LongPast of them for nodes, workloads and autoscalers, ShortPast for
// pods. It begins when the object is first seen, and ends with it; a workload keeps it for ShortPast intervals after
// its last pod, and a pod or node that is created again begins a new past. The past of nodes and workloads begins
// with the history of the metrics server, if it keeps one. A value is unknown while its source fails.
//
// # Threading
//
// Run reads until its context ends and leaves no goroutine behind. Snapshot may be called at any time, by any
// goroutine. Snapshots and everything in them are immutable: they are shared, and must not be changed.
package cluster
