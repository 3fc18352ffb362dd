package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// api reads from the cluster's API server as an administrator. Changes are made with kubectl.
type api struct {
	url    string
	client *http.Client
}

// connect makes a client for the API server at url.
func (c *cluster) connect(url string) (*api, error) {
	ca, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	admin, err := tls.LoadX509KeyPair(c.path("pki", "admin.crt"), c.path("pki", "admin.key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	config := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{admin}}
	return &api{url, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}}, nil
}

// get decodes the response to path into v, unless v is nil.
func (a *api) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var status struct{ Message string }
		if json.Unmarshal(body, &status) != nil || status.Message == "" {
			status.Message = strings.TrimSpace(string(body))
		}
		return fmt.Errorf("%s: %s", resp.Status, status.Message)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(body, v)
}

// conditions are the status conditions of an object.
type conditions struct {
	Status struct {
		Conditions []struct{ Type, Status, Reason, Message string }
	}
}

// condition is an error that says why path's object does not have the condition kind.
func (a *api) condition(ctx context.Context, path, kind string) error {
	var object conditions
	if err := a.get(ctx, path, &object); err != nil {
		return err
	}
	for _, c := range object.Status.Conditions {
		if c.Type == kind {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("%s: %s", c.Reason, c.Message)
		}
	}
	return fmt.Errorf("no condition %s yet", kind)
}
