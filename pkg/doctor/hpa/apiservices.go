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
	version := kubeapi.ExternalMetricsVersion
	if group == kubeapi.CustomMetricsGroup {
		version = e.api.customVersion()
	}
	var services []string
	for i, s := range found {
		if s == nil {
			continue
		}
		if !slices.Contains(services, s.service()) {
			services = append(services, s.service())
		}
		if o.used == "" || names[i] == version+"."+group {
			o.used, o.foreign = s.service(), !s.ours()
		}
	}
	o.services = strings.Join(services, ", ")
	if ours, known := e.isOurDiscovery(ctx, "/apis/"+group+"/"+version); known {
		o.foreign = !ours
	}
	if group == kubeapi.ExternalMetricsGroup {
		e.add(judgeExternal(found[0])...)
	} else {
		e.add(judgeCustom(names, found, version, o.foreign)...)
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

// isOurDiscovery reports whether the discovery document at root is this project's, if there is one. The name of a
// Service can mislead: other programs have a Service called ...-custom-metrics-server, and the chart can rename ours.
func (e *examination) isOurDiscovery(ctx context.Context, root string) (ours, known bool) {
	var list metav1.APIResourceList
	if err := e.api.get(ctx, root, nil, &list); err != nil {
		return false, false
	}
	return len(list.APIResources) == 1 && list.APIResources[0].Name == kubeapi.AnyResource, true
}

const remedyCustom = "install the custom metrics server; its manifest registers both APIServices"

// judgeCustom judges the APIServices of custom.metrics.k8s.io. An element of found is nil if it is not registered. The
// controller requests version, which another program serves if foreign is true.
func judgeCustom(names []string, found []*apiService, version string, foreign bool) []doctor.Line {
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
		if foreign {
			l.Cause = fmt.Sprintf("it points to the Service %s of another program, which does not register the other "+
				"version, or has left this one behind", there.service())
			l.Remedy = fmt.Sprintf("if that program is not in use any more, delete its APIService (kubectl delete "+
				"apiservice %s), and %s", there.Metadata.Name, remedyCustom)
		}
		return append(lines, l)
	}
	if a, b := found[0], found[1]; a.service() != b.service() {
		return append(lines, line(doctor.Problem,
			fmt.Sprintf("%s points to the Service %s, and %s to %s", names[0], a.service(), names[1], b.service()),
			fmt.Sprintf("two programs serve the API group, or one was removed and left its APIService behind; the controller "+
				"requests %s.%s", version, group),
			"point both to one Service, or remove the other program with its APIService"))
	}
	if foreign {
		return append(lines, line(doctor.Warning,
			fmt.Sprintf("%s points to the Service %s, which does not look like this project's", group, found[0].service()),
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
