package binary

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// ServerToken is the token that the binary sends to the API server and the kubelets.
	ServerToken = "fleet-server-token"
	// LoadToken is the token that we send to the binary.
	LoadToken = "fleet-load-token"
)

// Group is the API version that every metrics server serves.
const Group = "/apis/metrics.k8s.io/v1beta1"

// The possible values of a Request.
const (
	JSON     = "application/json"
	Protobuf = "application/vnd.kubernetes.protobuf"
	Table    = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
)

// Client sends requests to the binary under test over one connection that it keeps open.
type Client struct {
	url  string
	http *http.Client
}

// NewClient returns a client for the server at url. Close it.
func NewClient(url string) *Client { return newClient(url, 64<<10, 5*time.Minute) }

// NewWatchClient is like NewClient, for many watches: they last until their contexts end. A server of HTTP/1.1 gets a
// connection for each.
func NewWatchClient(url string) *Client { return newClient(url, 4<<10, 0) }

func newClient(url string, buffer int, timeout time.Duration) *Client {
	t := &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // it signs its certificate itself
		ForceAttemptHTTP2:  true,
		DisableCompression: true, // compressed only on request, and never decompressed
		WriteBufferSize:    buffer,
		ReadBufferSize:     buffer,
	}
	return &Client{url: url, http: &http.Client{Transport: t, Timeout: timeout}}
}

// Request describes one request.
type Request struct {
	Path   string
	Accept string
	Gzip   bool
}

// Do sends a request and copies the response to w. It returns the size of the response.
func (c *Client) Do(ctx context.Context, q Request, w io.Writer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+q.Path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+LoadToken)
	if q.Accept != "" {
		req.Header.Set("Accept", q.Accept)
	}
	if q.Gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", q.Path, resp.Status)
	}
	return n, err
}

// Get sends a request and returns the response.
func (c *Client) Get(ctx context.Context, q Request) ([]byte, error) {
	var b bytes.Buffer
	_, err := c.Do(ctx, q, &b)
	return b.Bytes(), err
}

// Close closes the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }
