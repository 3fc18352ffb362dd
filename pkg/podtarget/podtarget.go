// Package podtarget scrapes the metrics that pods expose.
//
// # Purpose
//
// Resolve determines where a pod is scraped, from the HorizontalPodAutoscaler (HPA) and the pod. It is pure.
// Targets holds what all pods share, and a Target scrapes one pod at one Address.
//
// # Contract
//
// Only http(s)://<IP of the pod>:<port><path> is ever requested: redirects are not followed, proxies are not
// used, and loopback, link-local, multicast, unspecified and scoped addresses are refused, and refused again
// when the connection is opened. A pod on its node's network is scraped only on ports that it declares,
// because it has the address of the node. No credentials are sent. Certificates are not verified: nobody
// could verify those of pods, and an impostor would learn nothing.
//
// Every failure is an *Error with a cause and a remedy. Its text is stable: it has no times, no counts and
// no local ports.
//
// # Threading
//
// Targets may be used by any number of goroutines. Each Target does one Scrape at a time; Close may be
// called at any time.
package podtarget

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// Address is where a pod is scraped.
type Address struct {
	URL url.URL
	// Container declares the port; "" if none does and the pod has more than one container, so that
	// nobody knows whose metrics these are.
	Container string
	// Why says what the port was chosen by: "annotation "+kubeapi.PodPortAnnotation.
	Why string
}

// Started returns when the container at a started, zero if that is not known.
func (a *Address) Started(p *sample.Pod) time.Time {
	for _, c := range p.Containers {
		if c.Name == a.Container {
			return c.Started
		}
	}
	return time.Time{}
}

// portNames are the names by which the port of the metrics is recognized, the preferred one first.
var portNames = []string{"metrics", "http-metrics", "prometheus"}

// Resolve returns where p is scraped: as hpa says, or else as the pod's annotations say. If neither
// gives a port, it is the container port named metrics, http-metrics or prometheus, or else the
// only TCP port that is declared. The default path is /metrics, the default scheme http. service is the
// name of the Service whose targetPort hpa.Port is, "" if it is from an annotation of the HPA. The error
// is an *Error.
func Resolve(p *sample.Pod, hpa sample.Ask, service string) (Address, error) {
	if p.IP == "" {
		return Address{}, newError(NoIP, "wait until it runs; if it does not start, see kubectl describe pod",
			"pod %s has no IP address yet", p.Name)
	}
	ip, err := netip.ParseAddr(p.IP)
	if err != nil {
		return Address{}, newError(BadAddress, "", "pod %s has an invalid IP address", p.Name)
	}
	if kind := refused(ip); kind != "" {
		return Address{}, newError(BadAddress,
			"loopback, link-local, multicast, unspecified and scoped addresses are never scraped",
			"pod %s has the %s address %s", p.Name, kind, ip)
	}
	port, err := choosePort(p, hpa.Port, service)
	if err != nil {
		return Address{}, err
	}
	path := cmp.Or(hpa.Path, p.Ask.Path, "/metrics")
	if err := sample.CheckPath(path); err != nil {
		return Address{}, badAnnotation(p, kubeapi.PodPathAnnotation, err)
	}
	scheme := cmp.Or(hpa.Scheme, p.Ask.Scheme, "http")
	if err := sample.CheckScheme(scheme); err != nil {
		return Address{}, badAnnotation(p, kubeapi.PodSchemeAnnotation, err)
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return Address{}, badAnnotation(p, kubeapi.PodPathAnnotation, err)
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(int(port.number)))
	return Address{URL: *u, Container: port.container, Why: port.why}, nil
}

// badAnnotation is the error of an annotation of p. Those of HPAs are checked when they are read.
func badAnnotation(p *sample.Pod, annotation string, err error) error {
	return newError(BadAnnotation, "", "annotation %s of pod %s: %v", annotation, p.Name, err)
}

// refused returns what kind of address ip is, if it is one that is never asked.
func refused(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback():
		return "loopback"
	case ip.IsUnspecified():
		return "unspecified"
	case ip.IsMulticast(), ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "multicast"
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case ip.Zone() != "":
		return "scoped"
	}
	return ""
}

type declaredPort struct {
	number         int32
	container, why string
}

func choosePort(p *sample.Pod, hpa, service string) (declaredPort, error) {
	switch {
	case hpa != "" && service != "":
		return namedPort(p, hpa, "the targetPort of Service "+service)
	case hpa != "":
		return namedPort(p, hpa, "the HorizontalPodAutoscaler")
	}
	if s := p.Ask.Port; s != "" {
		if err := sample.CheckPort(s); err != nil {
			return declaredPort{}, badAnnotation(p, kubeapi.PodPortAnnotation, err)
		}
		return namedPort(p, s, "annotation "+kubeapi.PodPortAnnotation)
	}
	for _, name := range portNames {
		if found := tcpPorts(p, func(c sample.ContainerPort) bool { return c.Name == name }); len(found) > 0 {
			return onlyPort(p, found, "the container port named "+name)
		}
	}
	switch all := tcpPorts(p, func(sample.ContainerPort) bool { return true }); len(all) {
	case 0:
		return declaredPort{}, newError(NoPort, remedyPort, "pod %s does not say on which port its metrics are: it "+
			"declares %s", p.Name, declared(p))
	default:
		return onlyPort(p, all, "the only TCP port that is declared")
	}
}

const remedyPort = "name the container port of the metrics \"metrics\", or give its number in annotation " +
	kubeapi.PortAnnotation + " of the HorizontalPodAutoscaler or " + kubeapi.PodPortAnnotation + " of the pod"

// namedPort returns the port that s names, by number or by name. why says where s comes from.
func namedPort(p *sample.Pod, s, why string) (declaredPort, error) {
	number, err := strconv.ParseInt(s, 10, 32)
	isNumber := err == nil
	found := tcpPorts(p, func(c sample.ContainerPort) bool {
		return isNumber && int64(c.Number) == number || !isNumber && c.Name == s
	})
	switch {
	case len(found) > 0:
		return onlyPort(p, found, why)
	case !isNumber:
		return declaredPort{}, newError(NoPort, "correct the name, or use a number", "pod %s has no TCP port named %s, "+
			"which %s asks for: it declares %s", p.Name, s, why, declared(p))
	case p.HostNetwork:
		return declaredPort{}, newError(NoPort, "declare it in the pod's containers", "pod %s is on the network of its "+
			"node, where only declared ports are scraped, and port %d, which %s asks for, is not declared: it declares %s",
			p.Name, number, why, declared(p))
	}
	port := declaredPort{number: int32(number), why: why}
	if len(p.Containers) == 1 {
		port.container = p.Containers[0].Name
	}
	return port, nil
}

// onlyPort returns the only port in found. Several declarations of one number count as one.
func onlyPort(p *sample.Pod, found []declaredPort, why string) (declaredPort, error) {
	for _, f := range found[1:] {
		if f.number != found[0].number {
			return declaredPort{}, newError(NoPort, remedyPort, "pod %s has more than one port that could have its metrics: "+
				"it declares %s", p.Name, declared(p))
		}
	}
	found[0].why = why
	return found[0], nil
}

// tcpPorts returns the TCP ports that p declares and match accepts.
func tcpPorts(p *sample.Pod, match func(sample.ContainerPort) bool) (found []declaredPort) {
	for _, c := range p.Containers {
		for _, port := range c.Ports {
			if port.Protocol == "TCP" && match(port) {
				found = append(found, declaredPort{number: port.Number, container: c.Name})
			}
		}
	}
	return found
}

// declared lists the ports that p declares.
func declared(p *sample.Pod) string {
	var all []string
	for _, c := range p.Containers {
		for _, port := range c.Ports {
			all = append(all, fmt.Sprintf("%v (container %s)", port, c.Name))
		}
	}
	if len(all) == 0 {
		return "no ports"
	}
	const most = 10
	if len(all) > most {
		all = append(slices.Clip(all[:most]), "and more")
	}
	return strings.Join(all, ", ")
}
