// Package hpa has only tests: see go.mod.
package hpa
