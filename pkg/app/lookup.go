package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/kubeapi"
)

// lookup is the answer to the request for the authentication configuration.
type lookup struct {
	configMap *corev1.ConfigMap
	err       error
}

// incomplete returns why the generic API server cannot be built with l, or nil.
func (l *lookup) incomplete() error {
	if apierrors.IsNotFound(l.err) || l.err == nil && l.configMap.Data[kubeapi.FrontProxyCAKey] == "" {
		return errNoFrontProxy
	}
	return l.err
}

// response returns l as the API server would send it.
func (l *lookup) response() (code int, body any) {
	if l.err == nil {
		m := l.configMap.DeepCopy()
		m.APIVersion, m.Kind = "v1", "ConfigMap"
		return http.StatusOK, m
	}
	status := apierrors.NewServiceUnavailable(l.err.Error()).Status()
	if of, ok := errors.AsType[*apierrors.StatusError](l.err); ok {
		status = of.Status()
	}
	status.APIVersion, status.Kind = "v1", "Status"
	return int(status.Code), status
}

// lookedUp answers GET requests for the authentication configuration from a lookup, and passes all others to next. The
// generic API server sends one such request, without a timeout, while it is built, and a failure aborts that: the
// process would hang or exit although the API server has just answered. Informers, which list and watch instead, still
// see later changes.
type lookedUp struct {
	*lookup
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (l lookedUp) RoundTrip(r *http.Request) (*http.Response, error) {
	const path = "/api/v1/namespaces/" + metav1.NamespaceSystem + "/configmaps/" + kubeapi.AuthenticationConfigMap
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, path) { // the API server may be below a path
		return l.next.RoundTrip(r)
	}
	code, answer := l.response()
	body, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status: http.StatusText(code), StatusCode: code, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)),
	}, nil
}

// WrappedRoundTripper implements k8s.io/apimachinery/pkg/util/net.RoundTripperWrapper.
func (l lookedUp) WrappedRoundTripper() http.RoundTripper { return l.next }
