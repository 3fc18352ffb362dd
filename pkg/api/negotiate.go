package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// output says how a response is written.
type output struct {
	standard bool   // by the generic server, from standard objects (YAML, indented JSON, metadata only)
	people   bool   // a watch as a Table, which only people read
	protobuf bool   // encoded in memory before it is sent
	table    string // the API version of the Table; empty for the objects themselves
	include  metav1.IncludeObjectPolicy
	list     *share // of the memory for lists
	watch    *share // of the memory for watches
}

type outputKey struct{}

// outputOf returns the output that Handler negotiated, or the standard one if the request did not
// pass through Handler.
func outputOf(ctx context.Context) *output {
	if o, ok := ctx.Value(outputKey{}).(*output); ok {
		return o
	}
	return &output{standard: true}
}

// Handler returns the handler that must run directly before the API, after everything that reads
// the header. It passes the negotiated output, which the generic server does not expose, to the
// storages of groups, and narrows Accept to the negotiated media type. That is JSON even for a
// Table, which the generic server would otherwise build row by row.
//
// The memory that a list holds is released at the end of the request, and a watch releases its own. While maxCompressed
// compressed responses are in flight, any others are sent uncompressed.
func Handler(next http.Handler, groups ...*Group) http.Handler {
	lists, watches, compressed := newHeld(), newHeld(), make(chan struct{}, maxCompressed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := genericapirequest.RequestInfoFrom(r.Context()); ok && info.Verb == "watch" {
			r.Header.Del("Accept-Encoding") // a compressed watch would take a place among those for hours
		}
		if r.Header.Get("Accept-Encoding") != "" {
			select {
			case compressed <- struct{}{}:
				defer func() { <-compressed }()
			default:
				r.Header.Del("Accept-Encoding")
			}
		}
		o, media := negotiate(r, groups)
		user := userName(r)
		o.list, o.watch = newListShare(lists, user), newWatchShare(watches, user)
		defer o.list.release()
		if !o.standard {
			r.Header.Set("Accept", media)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), outputKey{}, o)))
	})
}

// userName returns the name of the authenticated user, "" if unknown.
func userName(r *http.Request) string {
	if u, ok := genericapirequest.UserFrom(r.Context()); ok {
		return u.GetName()
	}
	return ""
}

// negotiate returns the output for a request and, unless it is standard, its media type.
func negotiate(r *http.Request, groups []*Group) (_ *output, mediaType string) {
	info, ok := genericapirequest.RequestInfoFrom(r.Context())
	if !ok || info.Verb != "get" && info.Verb != "list" && info.Verb != "watch" {
		return &output{standard: true}, ""
	}
	i := slices.IndexFunc(groups, func(g *Group) bool { return info.IsResourceRequest && g.Name == info.APIGroup })
	if i < 0 || !groups[i].isRouted(r.Header.Get("Accept")) {
		return &output{standard: true}, ""
	}
	options, serializer, err := negotiation.NegotiateOutputMediaType(r, groups[i].Codecs, restrictions{})
	if err != nil || serializer.Serializer != options.Accepted.Serializer { // not acceptable, or indented
		return &output{standard: true}, ""
	}
	mediaType = serializer.MediaType
	switch target := options.Convert; {
	case mediaType != runtime.ContentTypeJSON && mediaType != runtime.ContentTypeProtobuf:
		return &output{standard: true}, ""
	case target == nil:
		return &output{protobuf: mediaType == runtime.ContentTypeProtobuf}, mediaType
	case target.Kind == "Table" && info.Verb == "watch":
		return &output{standard: true, people: true}, ""
	case target.Kind != "Table" || info.Verb != "list":
		return &output{standard: true}, ""
	default:
		// Other values of includeObject are invalid; the generic server rejects them.
		switch include := metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject")); include {
		case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject, "":
			return &output{table: target.GroupVersion().String(), include: include}, mediaType
		}
		return &output{standard: true}, ""
	}
}

// isRouted reports whether the generic server's router accepts this Accept header. It knows
// complete types and */*, but no other wildcards, and answers 406 to anything else.
func (g *Group) isRouted(accept string) bool {
	if accept == "" {
		return true
	}
	for one := range strings.SplitSeq(accept, ",") {
		one, _, _ = strings.Cut(one, ";")
		one = strings.TrimSpace(one)
		supported := func(i runtime.SerializerInfo) bool { return i.MediaType == one }
		if one == "*/*" || slices.ContainsFunc(g.Codecs.SupportedMediaTypes(), supported) {
			return true
		}
	}
	return false
}

// restrictions equal those of the generic server for resources.
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
