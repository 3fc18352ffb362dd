package history

import "metrics-server/pkg/sample"

// Minute collects what is recorded at one moment. The zero value is empty. It is not safe for
// concurrent use.
type Minute struct {
	nodes map[string]sample.Usage
	sums  map[Key]*sum
}

// sum is the usage of the pods of a namespace or a workload.
type sum struct {
	cpu, memory   uint64
	pods, missing uint64
}

// Node adds a node with a usage.
func (m *Minute) Node(name string, u sample.Usage) {
	if m.nodes == nil {
		m.nodes = map[string]sample.Usage{}
	}
	m.nodes[name] = u
}

// Pod adds a running pod of a workload to the workload and its namespace. Its containers are empty
// if it has no usage.
func (m *Minute) Pod(workload Key, containers []sample.ContainerUsage) {
	m.sum(Key{Kind: KindNamespace, Name: workload.Namespace}).add(containers)
	m.sum(workload).add(containers)
}

func (m *Minute) sum(k Key) *sum {
	s := m.sums[k]
	if s == nil {
		if m.sums == nil {
			m.sums = map[Key]*sum{}
		}
		s = &sum{}
		m.sums[k] = s
	}
	return s
}

func (s *sum) add(containers []sample.ContainerUsage) {
	s.pods++
	if len(containers) == 0 {
		s.missing++
	}
	for i := range containers {
		s.cpu += containers[i].CPU
		s.memory += containers[i].Memory
	}
}

// point returns the point of a sum. If no pod has a usage, the sums are unknown, not zero.
func (s *sum) point() point {
	p := point{columnCPU: gap, columnMemory: gap, columnPods: encode(s.pods), columnMissing: encode(s.missing)}
	if s.missing < s.pods {
		p[columnCPU], p[columnMemory] = encode(s.cpu), encode(s.memory)
	}
	return p
}
