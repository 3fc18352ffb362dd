// Package metricgroup serves the API groups whose paths contain names of metrics: custom.metrics.k8s.io
// and external.metrics.k8s.io.
//
// The generic API server cannot serve these groups like others, because their resources are not known
// in advance. They have routes of their own behind the same filters. Their discovery documents are
// constant and list no metrics, because everybody may read them.
//
// All versions of a group give the same answers, as JSON, YAML and protobuf. There are no Tables:
// kubectl requests them only for resources that it has discovered, and discovery has no metrics.
//
// A Group is immutable; its Answer may be called concurrently.
package metricgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/emicklei/go-restful/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"

	"metrics-server/pkg/api"
	"metrics-server/pkg/kubeapi"
)

// Group is an API group of metrics.
type Group struct {
	*api.Group
	Kind   string // of an answer
	Verb   string // of a request for a metric
	Routes []Route
	// Parameters describes the parameters in the paths of Routes, Query those after the path.
	Parameters, Query map[string]string
	// Answer returns the object that a request asks for. Its path is in info, as authorization sees it.
	Answer func(r *http.Request, info *request.RequestInfo) (runtime.Object, error)
}

// Route is a path below the version of a group, with its entry in OpenAPI.
type Route struct{ Path, Operation, Doc string }

// Value is the value of a metric.
type Value struct {
	Number float64 // at most 1<<50 in amount, which a Quantity can hold in thousandths
	// Time is when the page arrived that Number comes from: the oldest page, if it comes from several pods.
	// Window is the time before Time that Number covers, 0 if Number is a level.
	Time   time.Time
	Window time.Duration
}

// Quantity returns v with three decimals, the precision in which the HPA controller calculates.
func (v *Value) Quantity() resource.Quantity {
	return *resource.NewMilliQuantity(int64(math.Round(v.Number*1000)), resource.DecimalSI)
}

// WindowSeconds returns Window as answers have it.
func (v *Value) WindowSeconds() *int64 {
	if v.Window <= 0 {
		return nil
	}
	return new(int64(v.Window.Round(time.Second) / time.Second))
}

var errNoInfo = errors.New("the request has no RequestInfo")

// handler serves one version of a group.
type handler struct {
	*Group
	version schema.GroupVersion
}

// notesKey is the key of the notes in the context of a request.
type notesKey struct{}

// NotesOf returns the notes that an answer takes along, to be filled in. It is nil if the client does not want any.
func NotesOf(ctx context.Context) *kubeapi.Notes {
	n, _ := ctx.Value(notesKey{}).(*kubeapi.Notes)
	return n
}

func (h *handler) serve(r *restful.Request, w *restful.Response) {
	var notes *kubeapi.Notes
	if r.Request.Header.Get(kubeapi.NotesHeader) != "" {
		notes = &kubeapi.Notes{}
		r.Request = r.Request.WithContext(context.WithValue(r.Request.Context(), notesKey{}, notes))
	}
	object, err := h.answer(r.Request)
	if notes != nil {
		w.Header().Set(kubeapi.NotesHeader, notes.Encode())
	}
	if err != nil {
		responsewriters.ErrorNegotiated(err, h.Codecs, h.version, w.ResponseWriter, r.Request)
		return
	}
	responsewriters.WriteObjectNegotiated(h.Codecs, negotiation.DefaultEndpointRestrictions, h.version,
		w.ResponseWriter, r.Request, http.StatusOK, object, false)
}

func (h *handler) answer(r *http.Request) (runtime.Object, error) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		return nil, apierrors.NewInternalError(errNoInfo)
	}
	return h.Answer(r, info)
}

// Selector reads a label selector from a parameter of a request.
func Selector(r *http.Request, parameter string) (labels.Selector, error) {
	text := r.URL.Query().Get(parameter)
	s, err := labels.Parse(text)
	if err != nil {
		return nil, badSelector(parameter, text, err)
	}
	return s, nil
}

// SeriesSelector is Selector for series. The second result is the selector in the form in which answers
// repeat it, nil if it is empty.
func SeriesSelector(r *http.Request, parameter string) (labels.Selector, *metav1.LabelSelector, error) {
	s, err := Selector(r, parameter)
	if err != nil || s.Empty() {
		return s, nil, err
	}
	text := r.URL.Query().Get(parameter)
	repeated, err := metav1.ParseToLabelSelector(text)
	if err != nil {
		return nil, nil, badSelector(parameter, text, err)
	}
	return s, repeated, nil
}

func badSelector(parameter, text string, err error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s %q is not a label selector: %v", parameter, text, err))
}

// NotFound returns the answer for a metric of an object that has no value. Its message is the text of err,
// which the HPA controller shows. If err has a status of its own, as a timeout does, it is the answer.
func NotFound(of schema.GroupResource, name string, err error) error {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return status
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: err.Error(),
		Details: &metav1.StatusDetails{Group: of.Group, Kind: of.Resource, Name: name},
	}}
}
