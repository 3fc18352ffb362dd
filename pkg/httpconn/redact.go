package httpconn

import (
	"strings"
	"unicode/utf8"
)

// maxError limits the text of an error, in bytes.
const maxError = 600

// FitForLogs returns err with a text that is short enough for logs and Events and does not contain
// the credentials of c's last request. Errors quote what the server sent: a status line, a header,
// the names in a certificate.
func (c *Client) FitForLogs(err error) error { return fitForLogs(err, c.secret) }

func fitForLogs(err error, secret string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if fit := Shorten(redact(text, secret), maxError); fit != text {
		return &quotingError{err, fit}
	}
	return err
}

// quotingError is err with another text.
type quotingError struct {
	err  error
	text string
}

func (e *quotingError) Error() string { return e.text }
func (e *quotingError) Unwrap() error { return e.err }

// redact removes the value of an Authorization header from s, with and without its scheme, and also
// a prefix of the value at the end of s, where s may have been cut off.
func redact(s, secret string) string {
	const removed = "[redacted]"
	_, token, ok := strings.Cut(secret, " ")
	if !ok || token == "" {
		return s
	}
	s = strings.ReplaceAll(s, token, removed)
	for n := min(len(s), len(token)-1); n >= minPrefix; n-- {
		if strings.HasSuffix(s, token[:n]) {
			return s[:len(s)-n] + removed
		}
	}
	return s
}

// minPrefix is the length from which on a prefix of a secret is redacted: a shorter one may be a
// coincidence.
const minPrefix = 8

// Shorten returns s, or its beginning and "..." if it has more than limit bytes.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}
