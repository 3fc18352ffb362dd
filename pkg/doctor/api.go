package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet"
)

const (
	// RequestTimeout limits one request to the API server.
	RequestTimeout = 30 * time.Second
	// page is how many objects one request lists: in a pod, the doctor shares the server's memory
	// limit.
	page = 500
)

// The cause and the remedy of what was not checked before the context's deadline. `metrics-server ui` shows them as
// well, which has no --timeout.
const (
	CauseDeadline  = "the doctor's time is up"
	RemedyDeadline = "run the doctor at a terminal with a longer --timeout"
)

// api sends requests to the API server.
type api struct {
	kubernetes.Interface
	metadata metadata.Interface
	raw      rest.Interface
	clock    clock
}

func newAPI(config *rest.Config) (*api, error) {
	a := &api{}
	config = rest.CopyConfig(config)
	config.QPS = -1 // requests are sequential, except those for nodes, which are limited
	config.Timeout = RequestTimeout
	config.WarningHandler = rest.NoWarnings{} // deprecations are not the user's concern
	config.Wrap(a.clock.wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	a.Interface, a.raw = client, client.Discovery().RESTClient()
	if a.metadata, err = metadata.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	return a, nil
}

// versionPath is open to every client, and only the API server itself answers there.
const versionPath = "/version"

func (a *api) version(ctx context.Context) (version.Info, error) {
	var v version.Info
	return v, a.get(ctx, versionPath, &v)
}

// get reads the JSON at path.
func (a *api) get(ctx context.Context, path string, into any) error {
	result := a.raw.Get().MaxRetries(0).AbsPath(path).Do(ctx)
	if err := result.Error(); err != nil { // more precise than the error of Raw
		return err
	}
	b, err := result.Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("answer at %s: %w", path, err)
	}
	return nil
}

// nodeMetrics reads a path of a node's kubelet through the API server.
func (a *api) nodeMetrics(ctx context.Context, node, at string) ([]byte, error) {
	u, err := kubelet.ParsePath(at)
	if err != nil {
		return nil, err
	}
	// The path of an annotation must stay below the node's: ParsePath rejects "..", and Clean
	// leaves none.
	r := a.raw.Get().MaxRetries(0).AbsPath("/api/v1/nodes", node, "proxy", path.Clean(u.Path)).
		SetHeader("Accept", "text/plain;version=0.0.4, */*;q=0.1")
	for name, values := range u.Query() {
		for _, v := range values {
			r.Param(name, v)
		}
	}
	body, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("answer is too large: it has more than %d bytes, which is the limit", maxAnswer)
	}
	return b, err
}

// maxAnswer is the largest answer in bytes that is read of a kubelet, the same as in the server.
const maxAnswer = 16 << 20

// usage has the fields of a NodeMetrics or PodMetrics that are read here.
type usage struct {
	Metadata  struct{ Namespace, Name string }
	Timestamp metav1.Time
}

// usages calls each with every item of the list of metrics at path. It does not hold the list,
// which may have 150,000 items.
func (a *api) usages(ctx context.Context, path string, each func(usage)) error {
	body, err := a.raw.Get().MaxRetries(0).AbsPath(path).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := decodeItems(body, each); err != nil {
		return fmt.Errorf("answer at %s: %w", path, err)
	}
	return nil
}

// decodeItems decodes the items of a JSON list one at a time.
func decodeItems[T any](r io.Reader, each func(T)) error {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(errors.New("not a list"), err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if key != "items" {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return err
			}
			continue
		}
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			if err == nil && t == nil { // null
				continue
			}
			return errors.Join(errors.New("items are not a list"), err)
		}
		for d.More() {
			var item T
			if err := d.Decode(&item); err != nil {
				return err
			}
			each(item)
		}
		if _, err := d.Token(); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// Pages calls list for each page until there is no continue token.
func Pages(list func(metav1.ListOptions) (next string, err error)) error {
	o := metav1.ListOptions{Limit: page}
	for {
		next, err := list(o)
		if err != nil || next == "" {
			return err
		}
		o.Continue = next
	}
}

// clock estimates the API server's time.
type clock struct {
	mu     sync.Mutex
	known  bool
	offset time.Duration // the API server's time minus ours
}

// wrap reads the time from answers that only the API server itself can have given.
func (c *clock) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		asked := time.Now()
		resp, err := next.RoundTrip(r)
		if err != nil || !strings.HasSuffix(r.URL.Path, versionPath) {
			return resp, err
		}
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			answered := time.Now()
			c.mu.Lock()
			defer c.mu.Unlock()
			// The header is truncated to seconds: half a second is its mean error.
			c.known, c.offset = true, date.Add(500*time.Millisecond).Sub(asked.Add(answered.Sub(asked)/2))
		}
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// now returns the API server's time, or the local time if that is unknown.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// skew returns how far the API server's clock is ahead of ours, if that is known.
func (c *clock) skew() (ahead time.Duration, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset, c.known
}

// Unanswered returns the line for a request that the API server did not answer. message says what
// could not be checked, and right names the right that the request needs.
func Unanswered(check, message string, err error, right string) Line {
	l := Line{Check: check, Status: Unknown, Message: message, Cause: err.Error()}
	switch {
	case apierrors.IsForbidden(err):
		l.Cause = "the right to " + right + " is missing"
		l.Remedy = "run doctor with credentials that may " + right
	case apierrors.IsUnauthorized(err):
		l.Remedy = "the API server does not accept the credentials: give others with --kubeconfig"
	case errors.Is(err, context.DeadlineExceeded): // client-go has the same error for both
		l.Cause = fmt.Sprintf("the API server took longer than %v, or %s", RequestTimeout, CauseDeadline)
		l.Remedy = "see the API server's log and load, or " + RemedyDeadline
	default:
		l.Remedy = "try again; if it fails again, see the API server's log"
	}
	return l
}

// gettingCredentials is in the error of a request that was not sent, because the credential plugin of the kubeconfig
// fails (client-go's plugin/pkg/client/auth/exec).
const gettingCredentials = "getting credentials: "

// NoAnswer reports whether err is from a request that was sent and got no answer.
func NoAnswer(err error) bool {
	_, ok := errors.AsType[*url.Error](err)
	return ok && !strings.Contains(err.Error(), gettingCredentials)
}

// RemedyNoAnswer returns, as a clause, what to do about err, the error of a request that got no answer.
func RemedyNoAnswer(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, gettingCredentials):
		return "the program that the kubeconfig names for getting credentials (exec) fails: install it, or log in again"
	case strings.Contains(text, "x509: "):
		return "the API server's certificate has expired, or does not fit the kubeconfig (server, tls-server-name, " +
			"certificate-authority): get a new kubeconfig from the cluster, and compare the clocks"
	}
	return "check that the API server runs and that it can be reached from here"
}
