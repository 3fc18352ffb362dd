package sample

import "time"

// Usage is the resource usage of a node or a container over a window.
type Usage struct {
	CPU     uint64 // nanocores: nanoseconds of CPU time per second
	Memory  uint64 // working set in bytes at the end of the window
	Swap    uint64 // swap in use, in bytes, at the end of the window
	HasSwap bool   // whether the kubelet gives swap at all
}

// NodeUsage is the usage of a node over [Time-Window, Time].
type NodeUsage struct {
	Time   Time
	Window time.Duration
	Usage
	Revision Revision // of the last change
}

// ContainerUsage is the usage of one container of a pod.
type ContainerUsage struct {
	Name string
	Usage
}

// PodUsage is the usage of a pod's containers, with the Time and Window of its oldest sample.
type PodUsage struct {
	Node       string // the node whose kubelet reported it
	Time       Time
	Window     time.Duration
	Containers []ContainerUsage // never empty
	Revision   Revision         // of the last change
	// NodeSince is when Node was trusted instead of another node or of none, zero if only Node ever listed the
	// pod. It is at most Revision.
	NodeSince Revision
}
