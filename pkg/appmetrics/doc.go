// Package appmetrics keeps the series of pods that autoscalers refer to and evaluates PromQL over them.
//
// # Purpose
//
// A Definition says what an autoscaler asks for: a metric's name, optionally an expression of its
// own, and which series count. Compile turns it into a Query, or into an Error that says what is
// wrong and where. Keep returns which series the queries of a pod need. Store.Record reads a metrics
// page and keeps these series; the lines of all other families are skipped before anything is
// parsed. Store.Evaluate lets Prometheus' own engine evaluate the query over the pods that it is
// given, and reports a value or a typed cause for each of them.
//
// # Contract
//
// The package does no I/O, logs nothing and reads no clock except to end an evaluation that takes
// too long, or to refuse a page that takes long to match: time is an argument. Its rules are:
//
//   - A sample's time is the moment when its page arrived. Timestamps on the page are ignored.
//   - A counter that was absent from the previous page of the same process, and is present now,
//     counted from zero then. A series that is absent from a page is stale at once. A counter
//     restarts when it falls. If a counter of a page falls, and process_start_time_seconds has changed or a
//     container has restarted, all counters of the page are taken to have restarted.
//   - A query sees no page from before its selectors were kept, not even the series that other queries
//     select on it.
//   - A page that cannot be used changes nothing. The last values are held for four intervals, at
//     least 60 s; then the pod is missing. It is also missing while its pages are too few for the ranges
//     of an expression: the rate would be too low, or nothing.
//   - NaN and infinities are refused with a cause, and are never 0.
//   - The pod's own namespace and name win over labels "namespace" and "pod" of the page, which
//     become "exported_namespace" and "exported_pod".
//
// Each pod's samples are shown to the engine as if its last page had arrived at the moment of
// evaluation, so that one evaluation covers pods which were scraped at different moments, and a range
// of two intervals always holds two points.
//
// Texts of errors name the object, the cause and the remedy, and do not change from call to call as
// long as the situation is the same: they hold no ages and no times.
//
// # Threading
//
// A Store may be used by any number of goroutines; Record of different pods does not wait for one
// another. A Query and a Kept are immutable.
package appmetrics
