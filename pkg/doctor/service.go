package doctor

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// judgeService takes nil for endpoints that could not be read, and for an unknown server.
func judgeService(ref serviceRef, service *corev1.Service, endpoints *discoveryv1.EndpointSliceList,
	server *corev1.Pod, securePort int,
) []Line {
	var lines []Line
	problem := func(message, cause, remedy string) {
		lines = append(lines, NewLine(checkService, Problem, fmt.Sprintf("Service %s %s", ref, message), cause, remedy))
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return []Line{OKLine(checkService, fmt.Sprintf("Service %s is an alias of %s, which cannot be checked", ref,
			service.Spec.ExternalName))}
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == ref.Port })
	if i < 0 {
		problem(fmt.Sprintf("has no port %d", ref.Port), "the APIService names a port that the Service does not have",
			remedyServicePort)
		return lines
	}
	port := service.Spec.Ports[i]
	target := targetPort(port, server)
	switch {
	case server == nil:
	case target == 0:
		problem(fmt.Sprintf("sends to port %q, which the pods do not have", port.TargetPort.String()),
			"no container of pod "+server.Name+" has a port of that name",
			"give the container's port the name in the Service's targetPort (https in deploy/)")
	case securePort != 0 && target != securePort:
		problem(fmt.Sprintf("sends to port %d, but the server listens on %d", target, securePort),
			"the Service's targetPort and --secure-port differ",
			"set targetPort, containerPort and --secure-port to the same port")
	}
	if endpoints == nil {
		return lines
	}
	ready, waiting := countEndpoints(endpoints.Items, port.Name)
	switch {
	case ready == 0 && waiting > 0:
		problem("has no ready endpoint", Plural(waiting, "endpoint")+", none of them ready", "see the check pods below")
	case ready == 0:
		problem("has no endpoint for port "+cmp.Or(port.Name, fmt.Sprint(port.Port)),
			"its selector matches no pod with an address, or the pods lack that port",
			"compare the Service's selector and targetPort with the pods' labels and ports")
	case len(lines) == 0:
		lines = append(lines, OKLine(checkService, fmt.Sprintf("Service %s has %s, port %d leads to %s", ref, Plural(ready,
			"ready endpoint"), port.Port, port.TargetPort.String())))
	}
	return lines
}

// targetPort returns the port of pod to which p leads, or 0 if no container has a port of that
// name.
func targetPort(p corev1.ServicePort, pod *corev1.Pod) int {
	switch {
	case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0:
		return int(p.TargetPort.IntVal)
	case p.TargetPort.Type == intstr.Int:
		return int(p.Port)
	case pod == nil:
		return 0
	}
	for _, c := range pod.Spec.Containers {
		for _, cp := range c.Ports {
			if cp.Name == p.TargetPort.StrVal {
				return int(cp.ContainerPort)
			}
		}
	}
	return 0
}

// countEndpoints counts the endpoints that have a port of that name, by whether they are ready.
func countEndpoints(all []discoveryv1.EndpointSlice, port string) (ready, waiting int) {
	for _, s := range all {
		named := func(p discoveryv1.EndpointPort) bool {
			return p.Name == nil && port == "" || p.Name != nil && *p.Name == port
		}
		if !slices.ContainsFunc(s.Ports, named) {
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready++
			} else {
				waiting++
			}
		}
	}
	return ready, waiting
}

// ownEndpoints records the addresses of the Service's endpoints as the server's own.
func (e *examination) ownEndpoints(ref serviceRef, endpoints *discoveryv1.EndpointSliceList) {
	if endpoints == nil {
		return
	}
	for _, slice := range endpoints.Items {
		for _, endpoint := range slice.Endpoints {
			for _, port := range slice.Ports {
				for _, address := range endpoint.Addresses {
					if port.Port != nil {
						e.own[net.JoinHostPort(address, strconv.Itoa(int(*port.Port)))] = "an endpoint of Service " + ref.String()
					}
				}
			}
		}
	}
}
