// Package wire has building blocks for encoders of JSON and protobuf. Each function appends to the
// caller's buffer exactly what the standard encoders of Kubernetes would write. It is pure and
// keeps no state.
package wire

import "encoding/json"

// AppendString appends s as a JSON string. Strings that need escaping are left to encoding/json.
func AppendString(b []byte, s string) []byte {
	if !isPlain(s) {
		escaped, _ := json.Marshal(s) // cannot fail for a string
		return append(b, escaped...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// isPlain reports whether s needs no escaping in a JSON string: every byte is ASCII and neither a
// control character nor one of "&<>\.
func isPlain(s string) bool {
	for i := range len(s) {
		if special[s[i]] {
			return false
		}
	}
	return true
}

var special = func() (t [256]bool) {
	for c := range t {
		t[c] = c < ' ' || c > 0x7f
	}
	for _, c := range []byte(`"&<>\`) {
		t[c] = true
	}
	return t
}()
