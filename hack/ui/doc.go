// Package ui tests the page of `metrics-server ui`: the real binary, with a fake API server (apiserver), in headless
// Chromium. `make test-ui` runs the tests; with UI_SCREENSHOTS=DIRECTORY they write a picture of each view.
// `go run ./fakecluster` serves the same fake cluster to look at the page by hand.
package ui
