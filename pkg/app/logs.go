package app

import (
	"fmt"
	"slices"

	"github.com/go-logr/logr"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// applyLogging configures all logging of the process by o, but omits bodies.
func applyLogging(o *logs.Options) error {
	if err := logsapi.ValidateAndApply(o, contextualGate{utilfeature.DefaultFeatureGate}); err != nil {
		return err
	}
	log := klog.Background()
	options := []klog.LoggerOption{klog.ContextualLogger(true)}
	if w, ok := log.GetSink().(textlogger.KlogBufferWriter); ok {
		options = append(options, klog.WriteKlogBuffer(w.WriteKlogBuffer))
	}
	klog.SetLoggerWithOptions(withoutBodies(log), options...)
	return nil
}

// contextualGate is a feature gate in which contextual logging is always enabled: without it,
// klog.Background returns a logger that writes to the logger set by applyLogging, which is itself.
type contextualGate struct{ featuregate.FeatureGate }

func (g contextualGate) Enabled(key featuregate.Feature) bool {
	return key == logsapi.ContextualLogging || g.FeatureGate.Enabled(key)
}

// withoutBodies returns log without the bodies of requests and responses, which client-go logs from
// verbosity 8 on. It masks headers, but the body of a TokenReview is the token of a client of this
// server. Limiting the verbosity would not do: /debug/flags/v changes it while the server runs.
func withoutBodies(log logr.Logger) logr.Logger {
	sink := log.GetSink()
	if s, ok := sink.(logr.CallDepthLogSink); ok {
		sink = s.WithCallDepth(1) // bodiless stands between
	}
	return log.WithSink(bodiless{sink})
}

// bodiless is a logr.LogSink that shows only the sizes of bodies.
type bodiless struct{ logr.LogSink }

func (s bodiless) Info(level int, msg string, kv ...any) { s.LogSink.Info(level, msg, hideBody(kv)...) }

func (s bodiless) Error(err error, msg string, kv ...any) { s.LogSink.Error(err, msg, hideBody(kv)...) }

func (s bodiless) WithValues(kv ...any) logr.LogSink {
	return bodiless{s.LogSink.WithValues(hideBody(kv)...)}
}

func (s bodiless) WithName(name string) logr.LogSink { return bodiless{s.LogSink.WithName(name)} }

// WithCallDepth implements logr.CallDepthLogSink.
func (s bodiless) WithCallDepth(depth int) logr.LogSink {
	if inner, ok := s.LogSink.(logr.CallDepthLogSink); ok {
		return bodiless{inner.WithCallDepth(depth)}
	}
	return s
}

// hideBody returns kv with the values of the key "body" replaced by their sizes.
func hideBody(kv []any) []any {
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i] == "body" {
			kv = slices.Clone(kv)
			kv[i+1] = fmt.Sprintf("(%d bytes, not shown)", len(fmt.Sprint(kv[i+1])))
		}
	}
	return kv
}
