package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The API server is asked once for all kubelets that refuse a token, and again later. Only its own
// 401 counts.
func TestRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, error(nil)
		r := &rejected{ask: func(ctx context.Context) error {
			asked++
			if _, limited := ctx.Deadline(); !limited {
				t.Error("the request has no timeout")
			}
			return answer
		}}
		for i, step := range []struct {
			answer error
			after  time.Duration
			asked  int
			want   bool
		}{
			{apierrors.NewUnauthorized("no"), 0, 1, true},
			{nil, rejectedFor - time.Second, 1, true},
			{nil, time.Second, 2, false},
			{apierrors.NewUnauthorized("no"), time.Second, 2, false},
			{errors.New("connection refused"), rejectedFor, 3, false},
			{apierrors.NewServiceUnavailable("no"), rejectedFor, 4, false},
			{apierrors.NewUnauthorized("no"), rejectedFor, 5, true},
		} {
			time.Sleep(step.after)
			answer = step.answer
			if got := r.check(); got != step.want || asked != step.asked {
				t.Errorf("step %d: %t after %d questions, want %t after %d", i, got, asked, step.want, step.asked)
			}
		}
	})
}
