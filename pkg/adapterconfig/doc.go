// Package adapterconfig reads the configuration file of prometheus-adapter
// (sigs.k8s.io/prometheus-adapter) and writes the PromQL that the adapter would send.
//
// # Purpose
//
// Installations that replace the adapter can keep its configuration. Parse reads it and reports
// everything that cannot be used, with its line and a remedy; the other rules are served. Query and
// QueryExternal turn the request of an autoscaler into PromQL.
//
// # Contract
//
// The package is pure: it sends requests neither to Prometheus nor to the API server. If a rule selects
// series by a pattern instead of a name, the caller evaluates a query for their names (Discover).
//
// The meaning of each field is that of version 0.12 of the adapter; hack/adapter compares the results.
// It differs in the following:
//
//   - A request without names of objects is allowed, for queries that are repeated while pods come and go.
//   - If two series of a rule get the same name and different queries, only those in the namespace of the
//     request count, and if it has both, that is an error. The adapter takes whichever Prometheus lists last.
//   - If several rules have series for a metric, those without series in the namespace of the request do not count,
//     not even if they cannot be used. The adapter takes the last rule.
//   - A metric of a rule that cannot be used has an error, unless it is unknown which metrics the rule has. The adapter
//     refuses the whole file, or sends the query.
//   - A query that is not PromQL is an error. The adapter sends it, and only logs the server's answer.
//   - A series that was discovered is used only if its name is valid in PromQL without quotes.
//   - A template for labels also works for API groups that have a dot in their names.
//
// Rules are trusted, because an administrator writes them: a metricsQuery without <<.LabelMatchers>>
// reads all namespaces. Users cannot widen a query, whether by the selectors that they write or by the names that
// they give to series and objects.
//
// # Threading
//
// A Config is immutable and may be used by any number of goroutines.
package adapterconfig
