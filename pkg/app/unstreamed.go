package app

import (
	"io"
	"net/http"
	"strings"
)

// unstreamed rejects requests for streamed lists, as API servers without that feature do, and has next
// do all others. The informers of the generic API server then list and watch. They are for a single
// ConfigMap, for which a stream gains nothing, and behind an API server or a proxy that never
// completes a stream they would wait for ever: a new CA of the front proxy would go unnoticed.
type unstreamed struct{ next http.RoundTripper }

const unstreamedStatus = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,` +
	`"message":"this client does not stream lists"}`

// RoundTrip implements http.RoundTripper.
func (u unstreamed) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.RawQuery, "sendInitialEvents=true") {
		return u.next.RoundTrip(r)
	}
	return &http.Response{
		Status: "422 Unprocessable Entity", StatusCode: http.StatusUnprocessableEntity, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(unstreamedStatus)),
		Body: io.NopCloser(strings.NewReader(unstreamedStatus)),
	}, nil
}

// WrappedRoundTripper implements k8s.io/apimachinery/pkg/util/net.RoundTripperWrapper.
func (u unstreamed) WrappedRoundTripper() http.RoundTripper { return u.next }
