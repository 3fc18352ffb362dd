package hpa

import (
	"context"
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

// apiService has the fields of an APIService that are read here.
type apiService struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		Service *struct{ Namespace, Name string }
	}
	Status struct{ Conditions []metav1.Condition }
}

// service names the Service behind s.
func (s *apiService) service() string {
	if s.Spec.Service == nil {
		return ""
	}
	return s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
}

// ours reports whether the Service behind s is called as one of this project is.
func (s *apiService) ours() bool {
	return s.Spec.Service != nil && strings.Contains(s.Spec.Service.Name, "metrics-server")
}

// owned is who serves an API group.
type owned struct {
	services string // the Services, for people; "" if there is none or it is not known
	used     string // the Service that the controller's requests go to
	foreign  bool   // that one is not this project's
	known    bool
}

// group reads the APIServices of an API group, once, and reports what is wrong with them.
func (e *examination) group(ctx context.Context, group string, names []string) *owned {
	if known := e.services[group]; known != nil {
		return known
	}
	o := &owned{}
	e.services[group] = o
	found := make([]*apiService, len(names))
	for i, name := range names {
		s := &apiService{}
		switch err := e.api.get(ctx, kubeapi.APIServicePath(name), nil, s); {
		case err == nil:
			found[i] = s
		case !apierrors.IsNotFound(err):
			e.add(doctor.Unanswered(checkAPIService, "the APIServices of "+group+" cannot be checked", err,
				"get apiservices.apiregistration.k8s.io"))
			return o
		}
	}
	o.known = true
	var services []string
	for _, s := range found {
		if s != nil && !slices.Contains(services, s.service()) {
			services = append(services, s.service())
		}
		if s != nil && len(services) == 1 {
			o.used, o.foreign = s.service(), !s.ours()
		}
	}
	o.services = strings.Join(services, ", ")
	if group == kubeapi.ExternalMetricsGroup {
		o.foreign = o.foreign || o.used != "" && !e.isOurDiscovery(ctx)
		e.add(judgeExternal(found[0])...)
	} else {
		e.add(judgeCustom(names, found)...)
	}
	return o
}

// served returns who serves the API of a metric of type Pods, Object or External.
func (e *examination) served(ctx context.Context, m *Metric) *owned {
	if group := groupOf(m); group == kubeapi.ExternalMetricsGroup {
		return e.group(ctx, group, kubeapi.ExternalMetricsAPIServices())
	}
	return e.group(ctx, kubeapi.CustomMetricsGroup, kubeapi.CustomMetricsAPIServices())
}

// servesExternal reports whether h has metrics of type External that the custom metrics server serves.
func (e *examination) servesExternal(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) bool {
	isExternal := func(m autoscalingv2.MetricSpec) bool { return m.External != nil }
	if !slices.ContainsFunc(h.Spec.Metrics, isExternal) {
		return false
	}
	o := e.served(ctx, &Metric{Type: string(autoscalingv2.ExternalMetricSourceType)})
	return o.used != "" && !o.foreign
}

// isOurDiscovery reports whether the discovery document of external.metrics.k8s.io may be this project's. A name does
// not tell: there are other programs whose Service is called ...-custom-metrics-server.
func (e *examination) isOurDiscovery(ctx context.Context) bool {
	var list metav1.APIResourceList
	if err := e.api.get(ctx, externalRoot, nil, &list); err != nil {
		return true // it is not available, which another line says
	}
	return len(list.APIResources) == 1 && list.APIResources[0].Name == kubeapi.AnyResource
}

const remedyCustom = "install the custom metrics server; its manifest registers both APIServices"

// judgeCustom judges the APIServices of custom.metrics.k8s.io. An element of found is nil if it is not registered.
func judgeCustom(names []string, found []*apiService) []doctor.Line {
	const group = kubeapi.CustomMetricsGroup
	line := func(status doctor.Status, message, cause, remedy string) doctor.Line {
		return doctor.NewLine(checkAPIService, status, message, cause, remedy)
	}
	isNil := func(s *apiService) bool { return s == nil }
	if !slices.ContainsFunc(found, func(s *apiService) bool { return s != nil }) {
		return []doctor.Line{line(doctor.Problem, "no APIService of "+group+" is registered",
			"nobody serves metrics of types Pods and Object in this cluster", remedyCustom)}
	}
	var lines []doctor.Line
	for _, s := range found {
		if s != nil {
			lines = append(lines, judgeAvailable(s)...)
		}
	}
	if i := slices.IndexFunc(found, isNil); i >= 0 {
		there := found[1-i]
		l := line(doctor.Warning, fmt.Sprintf("only %s is registered, %s is not", there.Metadata.Name, names[i]),
			"the installation is incomplete, or another adapter was removed only in part", remedyCustom)
		if !there.ours() {
			l.Cause = fmt.Sprintf("it points to the Service %s of another program, which may have left it behind",
				there.service())
			l.Remedy = fmt.Sprintf("if that program is not in use any more, delete its APIService (kubectl delete "+
				"apiservice %s), and %s", there.Metadata.Name, remedyCustom)
		}
		return append(lines, l)
	}
	if a, b := found[0], found[1]; a.service() != b.service() {
		return append(lines, line(doctor.Problem,
			fmt.Sprintf("%s points to the Service %s, and %s to %s", names[0], a.service(), names[1], b.service()),
			"two programs serve the API group, or one was removed and left its APIService behind; the controller asks "+names[0],
			"point both to one Service, or remove the other program with its APIService"))
	}
	if s := found[0]; !s.ours() {
		return append(lines, line(doctor.Warning,
			fmt.Sprintf("%s points to the Service %s, which does not look like this project's", group, s.service()),
			"another program probably serves the API group: it does not know the annotations and the defaults of this one",
			"configure the metric there; or, to use this program, remove the other one and "+remedyCustom))
	}
	if len(lines) == 0 {
		lines = append(lines, doctor.OKLine(checkAPIService, group+" is served by the Service "+found[0].service()))
	}
	return lines
}

// judgeExternal judges the APIService of external.metrics.k8s.io.
func judgeExternal(s *apiService) []doctor.Line {
	const group = kubeapi.ExternalMetricsGroup
	if s == nil {
		return []doctor.Line{doctor.NewLine(checkAPIService, doctor.Problem, "no APIService of "+group+" is registered",
			"nobody serves metrics of type External in this cluster",
			"let the custom metrics server serve them (docs/external-metrics.md), install another program that does, "+
				"such as KEDA, or use type Pods or Object")}
	}
	if lines := judgeAvailable(s); len(lines) > 0 {
		return lines
	}
	return []doctor.Line{doctor.OKLine(checkAPIService, group+" is served by the Service "+s.service())}
}

func judgeAvailable(s *apiService) []doctor.Line {
	for _, c := range s.Status.Conditions {
		if c.Type == "Available" && c.Status != metav1.ConditionTrue {
			return []doctor.Line{doctor.NewLine(checkAPIService, doctor.Problem,
				fmt.Sprintf("%s is not available: %s: %s", s.Metadata.Name, c.Reason, c.Message),
				"the API server cannot use the program behind the Service "+s.service(),
				"see the Service, its pods and their log; if the program is not in use any more, delete its APIService "+
					"(kubectl delete apiservice "+s.Metadata.Name+")")}
		}
	}
	return nil
}
