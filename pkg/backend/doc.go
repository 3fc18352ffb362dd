// Package backend gets values from servers that speak the Prometheus HTTP API: Prometheus, Thanos,
// Mimir, VictoriaMetrics.
//
// # Purpose
//
// A Client sends instant queries to one server. A Poller repeats each query that somebody subscribed
// to, keeps the last answer, and answers from memory. An Answer gives one value, or one value for
// each object that exists.
//
// # Contract
//
// Only an Expression can be sent. Confine turns the text of a user into one: every selector in it gets a
// matcher for the user's namespace, so that the result depends only on series of that namespace. Trust
// turns the text of an administrator into one, unchanged.
//
// Namespaces share the queries in flight, of which one gets at most three quarters, and the memory for answers.
// Of the labels of a series only its namespace and its pod are kept.
//
// Credentials are bound to the one URL of their Config: redirects are not followed, proxies are not
// used, and credentials are not sent over plain HTTP. They are read from their files for each query, so
// a change takes effect with the next one. No error contains them.
//
// Answers with warnings and partial answers are failures unless the Config allows them. A series that is
// not in an answer has no value; it never counts as 0. NaN and infinities are not values. A failed query
// changes nothing: the last answer is served for HeldPolls intervals, and then there is an error.
//
// Errors are of type *Error: they name the backend, the cause and the remedy. They name neither
// hosts nor addresses, because users see them in the conditions of their autoscalers; Unwrap returns
// these details for the administrator's log. They quote what the backend says about an expression, and
// nothing else that it says. A text stays the same as long as the situation does.
//
// # Threading
//
// A Client and a Poller may be used by any number of goroutines. Poller.Run blocks and leaves no
// goroutine behind. An Expression and an Answer are immutable.
package backend
