package kubelet

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"metrics-server/pkg/httpconn"
)

const (
	maxRefusal = 4 << 10 // bytes of the body of an answer that is not 200, before and after decompression
	maxText    = 280     // bytes of its text that are shown
)

type statusError struct {
	code     int
	text     string // of the body, in one line
	binary   int    // length of a body that is not text
	from     answerer
	location string // of a redirect
}

// answerer is what kind of program answered, judged by the body.
type answerer uint8

const (
	fromKubelet   answerer = iota // or from anything that answers with plain text
	fromAPIServer                 // a Status object, which no kubelet sends
	fromWebServer                 // an HTML page, which no kubelet sends
)

func (e *statusError) Error() string {
	s := fmt.Sprintf("answer is %d %s", e.code, http.StatusText(e.code))
	if e.location != "" {
		s += fmt.Sprintf(" to %q", e.location)
	}
	switch {
	case e.binary > 0:
		s += fmt.Sprintf(": %d bytes that are not text", e.binary)
	case e.text != "" && e.from == fromWebServer:
		s += fmt.Sprintf(": HTML page %q", e.text)
	case e.text != "":
		s += fmt.Sprintf(": %q", e.text)
	}
	return s
}

// readRefusal turns an answer that is not 200 into an error without the credentials of the request.
func readRefusal(a *httpconn.Answer) error {
	body, _ := io.ReadAll(io.LimitReader(a, maxRefusal)) // what arrived before an error may explain it
	e := &statusError{code: a.Status}
	e.read(body, a.Header.Get("Content-Type"), a.Redact)
	if a.Status/100 == 3 {
		e.location = httpconn.Shorten(a.Redact(a.Header.Get("Location")), maxText)
	}
	return e
}

// read sets the text of e and who answered from body, which may have been cut off.
func (e *statusError) read(body []byte, contentType string, redact func(string) string) {
	body = gunzip(body)
	text, ok := validText(body)
	if !ok {
		e.binary = len(body)
		return
	}
	// Redacted before parts are extracted, because body may end within the secret.
	text = strings.TrimSpace(redact(text))
	switch {
	case strings.HasPrefix(text, "{"):
		message, status := jsonMessage(text)
		if status {
			e.from = fromAPIServer
		}
		if message != "" {
			text = message
		}
	case strings.HasPrefix(strings.ToLower(contentType), "text/html"), startsHTML.MatchString(text):
		e.from, text = fromWebServer, pageTitle(text)
	}
	// Any line may have the explanation; the first line of a kubelet's own errors does not.
	text = strings.Join(strings.Fields(text), " ")
	e.text = abridge(redact(text), maxText)
}

// gunzip returns at most maxRefusal bytes of body, decompressed if it is compressed.
func gunzip(body []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return body
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxRefusal))
	if err != nil && len(plain) == 0 {
		return body
	}
	return plain // also if body was cut off
}

// validText returns body if it is text, of which the last character may be cut off.
func validText(body []byte) (text string, ok bool) {
	for cut := 0; cut < utf8.UTFMax && cut <= len(body); cut++ {
		if s := body[:len(body)-cut]; utf8.Valid(s) {
			return string(s), !bytes.ContainsRune(s, 0)
		}
	}
	return "", false
}

// jsonMessage returns the message of a JSON object, which may be cut off, and whether the object is
// a Kubernetes Status.
func jsonMessage(text string) (message string, status bool) {
	d := json.NewDecoder(strings.NewReader(text))
	if _, err := d.Token(); err != nil {
		return "", false
	}
	found := map[string]any{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			break
		}
		var value any
		if err := d.Decode(&value); err != nil {
			break
		}
		if name, ok := key.(string); ok {
			found[name] = value
		}
	}
	status = found["kind"] == "Status"
	for _, name := range []string{"message", "error", "detail"} {
		value := found[name]
		if nested, ok := value.(map[string]any); ok {
			value = nested["message"]
		}
		if s, ok := value.(string); ok && s != "" {
			return s, status
		}
	}
	return "", status
}

var (
	startsHTML = regexp.MustCompile(`(?i)^<(?:!doctype html|html)\b`)
	htmlTitle  = regexp.MustCompile(`(?is)<(?:title|h1)\b[^>]*>(.*?)</(?:title|h1)>`)
	htmlUnread = regexp.MustCompile(`(?is)<(style|script|head)\b.*?</(?:style|script|head)>|<[^>]*>?`)
)

// pageTitle returns the title of an HTML page, or else its text.
func pageTitle(page string) string {
	if title := htmlTitle.FindStringSubmatch(page); title != nil {
		page = title[1]
	}
	return html.UnescapeString(htmlUnread.ReplaceAllString(page, " "))
}

// abridge returns the beginning and the end of s: an error often ends with what matters, after a
// list of details.
func abridge(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := len(s) - limit/3
	for end < len(s) && !utf8.RuneStart(s[end]) {
		end++
	}
	return httpconn.Shorten(s, limit-limit/3) + s[end:]
}
