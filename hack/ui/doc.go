// Package ui tests the page of `metrics-server ui`: the real binary, with a fake API server (apiserver), in headless
// Chromium. `make test-ui` runs the tests; with UI_SCREENSHOTS=DIRECTORY they write screenshots.
// `go run ./fakecluster` serves such a cluster to look at the page by hand.
package ui
