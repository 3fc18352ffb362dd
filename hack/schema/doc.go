// Package schema has only tests: see go.mod.
package schema
