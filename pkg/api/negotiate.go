package api

import (
	"context"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/metrics/pkg/apis/metrics"
)

// form says as what an answer is wanted.
type form struct {
	standard bool   // not lazy: YAML, indented JSON, metadata only are made of the standard objects by the generic server
	protobuf bool   // held before it is sent
	table    string // the version of the Table that is wanted; empty for the objects themselves
	include  metav1.IncludeObjectPolicy
	share    *share // of what lists may hold
}

type formKey struct{}

// formOf returns the form that Handler found; if it was not there, it must be the standard objects.
func formOf(ctx context.Context) *form {
	if f, ok := ctx.Value(formKey{}).(*form); ok {
		return f
	}
	return &form{standard: true}
}

// Handler returns what belongs directly before the API, after all that looks at the header: it answers the usual requests itself
// (see direct), and tells the storages the form of any other answer, which the generic server does not. For that it narrows Accept to
// what was found. That is JSON for a Table too, or the generic server would build it row by row.
//
// What a list holds is given back when the request is over. While as many answers as may are compressed, no other is.
func (a *API) Handler(next http.Handler) http.Handler {
	all, compressed := &held{}, make(chan struct{}, maxCompressed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			select {
			case compressed <- struct{}{}:
				defer func() { <-compressed }()
			default:
				r.Header.Del("Accept-Encoding")
			}
		}
		f, media := negotiateForm(r)
		f.share = &share{all: all}
		defer f.share.release()
		if a.direct(w, r, f, media) {
			return
		}
		if !f.standard {
			r.Header.Set("Accept", media)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), formKey{}, f)))
	})
}

// negotiateForm returns the form of the answer, and its media type unless it is standard.
func negotiateForm(r *http.Request) (_ *form, mediaType string) {
	info, ok := genericapirequest.RequestInfoFrom(r.Context())
	if !ok || !info.IsResourceRequest || info.APIGroup != metrics.GroupName || info.Verb != "get" && info.Verb != "list" {
		return &form{standard: true}, ""
	}
	options, serializer, err := negotiation.NegotiateOutputMediaType(r, Codecs, restrictions{})
	if err != nil || serializer.Serializer != options.Accepted.Serializer { // not acceptable, or indented
		return &form{standard: true}, ""
	}
	mediaType = serializer.MediaType
	switch target := options.Convert; {
	case mediaType != runtime.ContentTypeJSON && mediaType != runtime.ContentTypeProtobuf:
		return &form{standard: true}, ""
	case target == nil:
		return &form{protobuf: mediaType == runtime.ContentTypeProtobuf}, mediaType
	case target.Kind != "Table" || info.Verb != "list":
		return &form{standard: true}, ""
	default:
		// What else a Table can be asked for is wrong; the generic server says so.
		switch include := metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject")); include {
		case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject, "":
			return &form{table: target.GroupVersion().String(), include: include}, mediaType
		}
		return &form{standard: true}, ""
	}
}

// restrictions are those that the generic server has for resources.
type restrictions struct{}

func (restrictions) AllowsMediaTypeTransform(mimeType, mimeSubType string, target *schema.GroupVersionKind) bool {
	if target == nil {
		return true
	}
	if v := target.GroupVersion(); v != metav1.SchemeGroupVersion && v != metav1beta1.SchemeGroupVersion {
		return false
	}
	switch target.Kind {
	case "Table":
		return mimeType == "application" && (mimeSubType == "json" || mimeSubType == "yaml")
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return true
	}
	return false
}

func (restrictions) AllowsServerVersion(version string) bool { return version == "v1" }
func (restrictions) AllowsStreamSchema(s string) bool        { return s == "watch" }
