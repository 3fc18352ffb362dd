package measure

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
	serverToken = "fleet-server-token" // what the binary shows to the API server and the kubelets
	loadToken   = "fleet-load-token"   // what we show to the binary
)

// client asks the binary under test over one connection that it keeps.
type client struct {
	url  string
	http *http.Client
}

func newClient(url string) *client {
	t := &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // it signs its certificate itself
		ForceAttemptHTTP2:  true,
		DisableCompression: true, // compressed only where it is asked for, and never decompressed
		WriteBufferSize:    64 << 10,
		ReadBufferSize:     64 << 10,
	}
	return &client{url: url, http: &http.Client{Transport: t, Timeout: 5 * time.Minute}}
}

// request is what is asked.
type request struct {
	path   string
	accept string
	gzip   bool
}

// do asks, and copies what is answered to w. It returns the size of the answer.
func (c *client) do(ctx context.Context, q request, w io.Writer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+q.path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+loadToken)
	if q.accept != "" {
		req.Header.Set("Accept", q.accept)
	}
	if q.gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", q.path, resp.Status)
	}
	return n, err
}

// get asks and returns the answer.
func (c *client) get(ctx context.Context, q request) ([]byte, error) {
	var b bytes.Buffer
	_, err := c.do(ctx, q, &b)
	return b.Bytes(), err
}

func (c *client) close() { c.http.CloseIdleConnections() }
