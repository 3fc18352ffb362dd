// Package history keeps the past usage of nodes, namespaces and workloads: one point a minute, in
// bounded memory. It is pure: it does no I/O besides writing to the caller's writer, logs nothing
// and has no clock; the time is always an argument. All methods of History may be called
// concurrently. A reader holds the lock only while it encodes one series, so that a slow client
// delays nobody.
//
// # Points
//
// A point is what the API serves at the full minute: the usage of a node, and the sums over the
// running pods of a namespace or of a workload. It is not a mean over the minute: CPU is the rate
// over the window of the usage. A minute in which nothing was recorded is a gap. So is the CPU and
// memory of a series for which there was no usage; zero is only what was measured as zero.
//
// The sum over pods of which some have no usage is too low. Every point therefore has the number of
// pods and how many of them are missing from the sums.
//
// CPU and memory are kept and sent with a relative error of at most 0.1 %; counts of pods are exact
// up to 1,000.
//
// # Reading
//
// The history is part of the lists of metrics.k8s.io, in both versions, and requires the right to
// list:
//
//	GET /apis/metrics.k8s.io/v1/nodes?history=2h                 all nodes
//	GET /apis/metrics.k8s.io/v1/pods?history=2h                  all namespaces and their workloads
//	GET /apis/metrics.k8s.io/v1/namespaces/NS/pods?history=2h    one namespace and its workloads
//
// history is how far back to go. More than is kept is no error: the answer begins where the history
// does. step is the distance of the points in whole minutes, such as step=10m; its default is the
// least that makes no more than 240 points. The points of each step are merged: CPU and memory are
// means of the points that exist, the number of pods and of missing ones are the largest. Steps are
// aligned to multiples of step since 1970. The parameters cannot be combined with selectors,
// continue or watch.
//
// Errors are the usual Status: 400 for a parameter that is wrong, 403 without the right, 404 if the
// server keeps no history. A server that does not know the parameter answers with the usual list,
// which has another kind.
//
// # The answer
//
// The answer is JSON, compressed if the client accepts gzip:
//
//	{
//	  "kind": "MetricsHistory",
//	  "version": 1,
//	  "instance": "metrics-server-7d4b9c-x2x9p",
//	  "since": "2026-11-30T04:12:31Z",
//	  "retention": 86400,
//	  "step": 60,
//	  "start": "2026-11-30T05:00:00Z",
//	  "points": 4,
//	  "leftOut": 0,
//	  "series": [
//	    {"kind": "Node", "name": "n1", "first": 0,
//	     "cpu": [0.25, 0.26, null, 0.25], "memory": [1.5e+09, 1.5e+09, null, 1.5e+09]},
//	    {"kind": "Namespace", "name": "shop", "first": 0,
//	     "cpu": [0.1, 0.1, 0.1, 0.05], "memory": [4096, 4096, 4096, 2048],
//	     "pods": [2, 2, 2, 2], "missing": [0, 0, 0, 1]},
//	    {"kind": "Deployment", "namespace": "shop", "name": "web", "first": 2,
//	     "cpu": [0.1, 0.05], "memory": [4096, 2048], "pods": [2, 2], "missing": [0, 1]}
//	  ]
//	}
//
//	kind       always MetricsHistory
//	version    1; it changes when a client of the previous version would misread the answer
//	instance   the replica that answered: each has a history of its own
//	since      when this replica began: a restart loses the history
//	retention  how many seconds back it is kept
//	step       seconds from one point to the next
//	start      the time of point 0
//	points     the number of points; the last one is the newest
//	leftOut    how many series the last minute had that are not kept, because there are too many
//	series     sorted by namespace, kind and name; one without a point is not listed
//
// A series has the columns cpu (cores) and memory (bytes of working set). That of a namespace or a
// workload also has pods and, unless it is 0 throughout, missing. Entry i of each column belongs to
// point first+i; before and after the entries are gaps. null is a gap. A count is null iff nothing was
// recorded.
//
// The workload of a pod is its controller, see WorkloadOf.
package history
