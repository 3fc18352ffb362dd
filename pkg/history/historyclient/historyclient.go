// Package historyclient reads the history of a metrics server through the API server, with the
// rights of the caller. It keeps no state.
package historyclient

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/history"
	"metrics-server/pkg/kubeapi"
)

// Fetch reads what q selects. c is any client for the API server; version is the version of
// metrics.k8s.io, v1 or v1beta1. The error is a *history.NoHistoryError if the server keeps no
// history or is another one.
func Fetch(ctx context.Context, c rest.Interface, version string, q history.Query) (*history.Answer, error) {
	// A server without a history answers with its usual list, in the form that c accepts, unless it is told.
	r := c.Get().AbsPath("/apis", kubeapi.MetricsGroup, version).SetHeader("Accept", "application/json")
	if q.Nodes {
		r = r.Resource("nodes")
	} else {
		r = r.Namespace(q.Namespace).Resource("pods")
	}
	for name, values := range q.Values() {
		r = r.Param(name, values[0])
	}
	body, err := r.Stream(ctx)
	if apierrors.IsNotFound(err) {
		return nil, &history.NoHistoryError{Reason: err.Error()}
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", kubeapi.MetricsGroup, err)
	}
	a, err := history.Decode(body)
	return a, errors.Join(err, body.Close())
}
