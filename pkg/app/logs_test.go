package app

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

func TestBodiesAreNotLogged(t *testing.T) {
	var out bytes.Buffer
	log := withoutBodies(textlogger.NewLogger(textlogger.NewConfig(textlogger.Verbosity(8), textlogger.Output(&out))))
	for name, log := range map[string]klog.Logger{
		"plain":       log,
		"named":       log.WithName("n"),
		"with values": log.WithValues("a", "b"),
		"with a body": log.WithValues("body", "secret"),
		"deeper":      log.WithCallDepth(0),
	} {
		for what, say := range map[string]func(){
			"info":    func() { log.V(8).Info("Request Body", "url", "u", "body", "secret") },
			"bytes":   func() { log.Info("Response Body", "body", []byte("secret"), "url", "u") },
			"error":   func() { log.Error(errors.New("e"), "failed", "url", "u", "body", "secret") },
			"no body": func() { log.Info("no body", []any{"url", "u", "odd"}...) },
		} {
			out.Reset()
			say()
			if line := out.String(); strings.Contains(line, "secret") || !strings.Contains(line, `url="u"`) ||
				!strings.Contains(line, "logs_test.go:") {
				t.Errorf("%s, %s: got %s, want url=\"u\", the file and no secret", name, what, line)
			}
		}
	}
	if out.Reset(); log.V(9).Enabled() {
		t.Error("verbosity 9 is enabled at 8")
	}
	log.V(9).Info("too much")
	if out.Len() > 0 {
		t.Errorf("logged at verbosity 8: %s", &out)
	}
	kv := []any{"body", "kept"}
	if hideBody(kv); kv[1] != "kept" {
		t.Error("the caller's slice was changed")
	}
}
