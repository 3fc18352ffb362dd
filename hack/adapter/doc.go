// Package adapter has only tests: see go.mod.
package adapter
