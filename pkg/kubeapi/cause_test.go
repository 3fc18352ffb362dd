package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestCauseOf(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for _, tt := range []struct {
		err    error
		want   Cause
		remedy string
	}{
		{apierrors.NewUnauthorized("no"), Unauthorized, "delete the pod"},
		{apierrors.NewForbidden(secrets, "x", nil), Forbidden, "logs"},
		{apierrors.NewNotFound(secrets, "x"), NotFound, "logs"},
		{apierrors.NewConflict(secrets, "x", nil), Conflict, "logs"},
		{apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "x", nil), Invalid, "logs"},
		{apierrors.NewInternalError(errors.New("no")), Failing, "logs"},
		{apierrors.NewTooManyRequests("later", 1), Failing, "logs"},
		{&apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusForbidden}}, Forbidden, "logs"},
		{apierrors.NewGenericServerResponse(403, "get", secrets, "x", "<html>", 0, true), Forbidden, "logs"},
		{context.DeadlineExceeded, Unreachable, "requests to it"},
	} {
		for _, err := range []error{tt.err, fmt.Errorf("wrapped: %w", tt.err), errors.Join(tt.err, nil)} {
			got := CauseOf(err)
			if got != tt.want || !strings.Contains(got.Remedy(), tt.remedy) {
				t.Errorf("%v: cause %q, remedy %q, want %q, %q", err, got, got.Remedy(), tt.want, tt.remedy)
			}
		}
	}
}
