package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The API server is asked once for all kubelets that refuse a token, and again later.
func TestOwnAccess(t *testing.T) {
	unauthorized, refused := apierrors.NewUnauthorized("no"), errors.New("connection refused")
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, error(nil)
		a := &ownAccess{ask: func(ctx context.Context) error {
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
			want   error
		}{
			{unauthorized, 0, 1, unauthorized},
			{nil, ownAccessFor - time.Second, 1, unauthorized},
			{nil, time.Second, 2, nil},
			{unauthorized, time.Second, 2, nil},
			{refused, ownAccessFor, 3, refused},
			{unauthorized, ownAccessFor, 4, unauthorized},
		} {
			time.Sleep(step.after)
			answer = step.answer
			if got := a.check(); !errors.Is(got, step.want) || asked != step.asked {
				t.Errorf("step %d: %v after %d requests, want %v after %d", i, got, asked, step.want, step.asked)
			}
		}
	})
}
