package apiserver

import (
	"io"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// User is the user with Config.LoadToken. Nobody else may do anything.
const User = "fleet-load"

var reviews = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	must(authenticationv1.AddToScheme(scheme))
	must(authorizationv1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme).UniversalDeserializer()
}()

func (s *Server) reviewToken(w http.ResponseWriter, r *http.Request) {
	review, ok := read[*authenticationv1.TokenReview](s, w, r)
	if !ok {
		return
	}
	if review.Spec.Token == s.config.LoadToken {
		review.Status = authenticationv1.TokenReviewStatus{
			Authenticated: true,
			User:          authenticationv1.UserInfo{Username: User, UID: "1", Groups: []string{"system:authenticated"}},
		}
	} else {
		review.Status.Error = "unknown token"
	}
	answer(w, r, "authentication.k8s.io/v1", "TokenReview", review, &review.TypeMeta)
}

func (s *Server) reviewAccess(w http.ResponseWriter, r *http.Request) {
	review, ok := read[*authorizationv1.SubjectAccessReview](s, w, r)
	if !ok {
		return
	}
	review.Status.Allowed = review.Spec.User == User
	answer(w, r, "authorization.k8s.io/v1", "SubjectAccessReview", review, &review.TypeMeta)
}

// read reads the body of a request. If it fails, it has sent the response.
func read[T runtime.Object](s *Server, w http.ResponseWriter, r *http.Request) (T, bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var o runtime.Object
	if err == nil {
		o, _, err = reviews.Decode(body, nil, nil)
	}
	t, ok := o.(T)
	if err != nil || !ok {
		s.fail(w, r, http.StatusBadRequest, metav1.StatusReasonBadRequest, "the body is not a review of this kind")
		return t, false
	}
	return t, true
}

func answer(w http.ResponseWriter, r *http.Request, apiVersion, kind string, m message, t *metav1.TypeMeta) {
	as, err := accepted(r.Header.Get("Accept"))
	if err != nil {
		as = form{}
	}
	*t = metav1.TypeMeta{} // encode says it
	send(w, http.StatusCreated, as, encode(nil, as, apiVersion, kind, m))
}
