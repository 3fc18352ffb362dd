package inventory

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"metrics-server/pkg/kubeapi"
)

// health records whether a resource was ever listed and whether it is being watched, and logs when
// watching begins to fail and when it works again.
type health struct {
	resource string      // its plural
	logger   klog.Logger // only for the goroutine that runs the source

	mu     sync.Mutex
	listed bool
	err    error     // the last error; nil while watching works
	since  time.Time // when it began to fail
}

// failed records that a request failed.
func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.since = time.Now()
		text := "Watching the API server fails and is retried"
		if h.listed {
			text = "Watching the API server fails: the last known state is kept while the server retries"
		}
		h.logger.Error(err, text, "remedy", h.remedy(err))
	} else {
		h.logger.V(2).Info("Watching the API server still fails", "err", err)
	}
	h.err = err
}

// works records that a watch is open whose list is complete.
func (h *health) works() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		h.logger.Info("Watching the API server works again", "after", time.Since(h.since).Round(time.Millisecond))
		h.err = nil
	}
}

// notStreamed logs that streamed lists were given up because of err.
func (h *health) notStreamed(err error) {
	h.logger.Info("Warning: The API server does not complete a streamed list, so this server lists and watches "+
		"with separate requests",
		"cause", err.Error(), "remedy", "if there is a proxy in front of the API server, let it forward watch events "+
			"at once and unchanged, bookmarks included; to never stream lists, set "+
			"KUBE_FEATURE_WatchListClient=false in the environment")
}

// complete records that a list was received in full.
func (h *health) complete() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listed = true
}

// synced returns nil once a list was complete, and until then an error with what is missing. received is
// how many objects of the list have arrived. Any goroutine may call it.
func (h *health) synced(received int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.listed:
		return nil
	case h.err != nil:
		return fmt.Errorf("no complete list of %s yet, failing for %s: %w; %s",
			h.resource, time.Since(h.since).Round(time.Second), h.err, h.remedy(h.err))
	default:
		return fmt.Errorf("no complete list of %s yet: %d received so far", h.resource, received)
	}
}

func (h *health) remedy(err error) string {
	cause := kubeapi.CauseOf(err)
	switch {
	case errors.Is(err, errShortWatches), errors.Is(err, errEndlessList):
		return "look for a proxy in front of the API server that ends requests early or changes responses"
	case cause == kubeapi.Forbidden:
		return fmt.Sprintf("allow the service account to list and watch %s, "+
			"as ClusterRole system:metrics-server and its binding do", h.resource)
	}
	return cause.Remedy()
}
