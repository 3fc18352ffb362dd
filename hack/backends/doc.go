// Package backends has only tests: see go.mod.
package backends
