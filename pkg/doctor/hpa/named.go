package hpa

import (
	"fmt"
	"os"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"metrics-server/pkg/adminfile"
	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
)

// readNamed returns the metrics that an administrator's file names, none without a file.
func readNamed(file string) ([]*demand.Named, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f, err := adminfile.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("file %s:\n%w", file, err)
	}
	named := definition.Named(f)
	all := make([]*demand.Named, len(named))
	for i := range named {
		all[i] = &named[i]
	}
	return all, nil
}

// namedAs returns the metric of the administrator's file that defines m, or nil.
func (e *examination) namedAs(m *demand.Metric) *demand.Named {
	if len(e.named) == 0 || m.Type != autoscalingv2.ObjectMetricSourceType {
		return nil
	}
	resource, err := demand.ReadResource(e.api.mapper, m.Object)
	if err != nil {
		return nil
	}
	return m.NamedAs(e.named, resource)
}

// name records what the administrator's file says about the metric.
func (m *Metric) name(n *demand.Named, said *demand.Metric) {
	m.Named = fmt.Sprintf("for %s; the value is that of the series with %s=NAMESPACE and %s=%q", n.Resource,
		n.NamespaceLabel, n.NameLabel, said.Object.Name)
	m.Window = ""
	said.ExpressionAt = "the administrator's file"
}
