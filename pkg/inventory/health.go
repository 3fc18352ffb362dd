package inventory

import (
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"
)

// health remembers whether a resource was ever listed and whether it is being watched, and logs when
// watching begins to fail and when it works again.
type health struct {
	resource string      // its plural
	logger   klog.Logger // only for the goroutine that runs the source

	mu     sync.Mutex
	listed bool
	err    error     // the last one, nil while all is well
	since  time.Time // of the first error
}

// failed says that a request failed.
func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.since = time.Now()
		h.logger.Error(err, "Watching the API server fails; what is known is kept, and trying goes on", "remedy", h.remedy(err))
	} else {
		h.logger.V(2).Info("Watching the API server still fails", "err", err)
	}
	h.err = err
}

// works says that a watch is open whose list is complete.
func (h *health) works() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		h.logger.Info("Watching the API server works again", "after", time.Since(h.since).Round(time.Millisecond))
		h.err = nil
	}
}

// complete says that a list was received in full.
func (h *health) complete() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listed = true
}

// synced returns nil once a list was complete, and until then what is missing. received is how many
// objects of it are here. Any goroutine may ask.
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
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("allow the service account to list and watch %s, as ClusterRole system:metrics-server and its binding do", h.resource)
	case apierrors.IsUnauthorized(err):
		return "check the service account's token or the kubeconfig's credentials"
	case apierrors.ReasonForError(err) != "":
		return "see the API server's own logs and load"
	default:
		return "check that the API server runs and that it can be reached from here"
	}
}
