package kubelettest

import (
	"cmp"
	"compress/gzip"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ContentType is the content type of a kubelet's answer.
const ContentType = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

// Kubelet is the handler of a kubelet's /metrics/resource. Set its fields before it serves.
type Kubelet struct {
	Answer func(dst []byte, now time.Time) []byte // appends the answer; nil: an empty one
	Path   string                                 // of the request; default /metrics/resource; "*": any
	// Authenticate requires the bearer token of SetToken or a verified client certificate.
	Authenticate bool
	Forbidden    string              // a token that is accepted but may not read metrics
	OnRequest    func(*http.Request) // called first, with each request
	Now          func() time.Time    // default time.Now

	mu    sync.Mutex
	token string
	fault Fault
}

// SetToken makes token the one that is accepted.
func (k *Kubelet) SetToken(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = token
}

// SetFault makes f answer authorized requests from now on; nil restores normal answers.
func (k *Kubelet) SetFault(f Fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = f
}

// ServeHTTP answers as a kubelet does.
func (k *Kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if k.OnRequest != nil {
		k.OnRequest(r)
	}
	k.mu.Lock()
	token, fault := k.token, k.fault
	k.mu.Unlock()
	if k.Authenticate && !authorized(w, r, token, k.Forbidden) {
		return
	}
	if path := cmp.Or(k.Path, "/metrics/resource"); path != "*" && path != r.URL.Path {
		http.NotFound(w, r)
		return
	}

	now := time.Now
	if k.Now != nil {
		now = k.Now
	}
	buf := answers.Get().(*[]byte)
	defer answers.Put(buf)
	*buf = (*buf)[:0]
	if k.Answer != nil {
		*buf = k.Answer(*buf, now())
	}
	if fault != nil {
		fault(w, r, *buf)
		return
	}
	Answer(w, r, *buf)
}

var answers = sync.Pool{New: func() any { return new([]byte) }}

func authorized(w http.ResponseWriter, r *http.Request, token, forbidden string) bool {
	shown := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	certified := r.TLS != nil && len(r.TLS.VerifiedChains) > 0
	switch {
	case shown != "" && shown == forbidden:
		http.Error(w, "Forbidden (user=system:serviceaccount:kube-system:nobody, verb=get, resource=nodes, "+
			"subresource(s)=[metrics])", http.StatusForbidden)
	case !certified && (shown == "" || shown != token):
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	default:
		return true
	}
	return false
}

// compressors favor speed, for simulations of thousands of kubelets on one machine.
var compressors = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	must(err)
	return z
}}

// Answer sends answer as a kubelet does: in pieces, and compressed if asked.
func Answer(w http.ResponseWriter, r *http.Request, answer []byte) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", ContentType)
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		z := compressors.Get().(*gzip.Writer)
		defer compressors.Put(z)
		z.Reset(w)
		_, _ = z.Write(answer)
		z.Close()
		return
	}
	const piece = 4 << 10 // the buffer of expfmt's writer
	for len(answer) > 0 {
		n := min(len(answer), piece)
		_, _ = w.Write(answer[:n])
		answer = answer[n:]
	}
}
