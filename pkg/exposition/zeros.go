package exposition

import (
	"metrics-server/pkg/exposition/lex"
	"metrics-server/pkg/sample"
)

// Some container runtimes report zeros for containers that run. The pod's own rows come from another
// source, the pod's cgroup, and show the difference. They are read only if a container has a zero
// (see answer.zeros). The zeros of a node are checked against its containers.

const (
	// minUnaccounted is how much of a pod's memory its containers need not account for: that of the
	// pause container, and of the kernel, which charges it to the pod's cgroup for each of its CPUs.
	minUnaccounted = 4 << 20
	// minMoved is the least CPU time, in nanoseconds per millisecond, that counts as usage: a
	// thousandth of a CPU.
	minMoved = 1_000
	// share is the part of a pod's usage, 1/share, that its containers need not account for:
	// samples are not taken at the same moment.
	share = 8
	// youngest is the age, in milliseconds, from which on a container's zeros are doubted. Kubelets
	// sample containers when they are created, and show that sample for up to 20 s, beside later
	// rows of the pod.
	youngest = 5_000
)

// podUsage is what an answer says about a pod that has a container with a zero.
type podUsage struct {
	cpu, memory reading // the pod's own rows

	sums
	incomplete bool // the CPU of a container was refused, so sums says nothing
}

// reading is a value and when it was taken; there is none if the time is 0.
type reading struct {
	value uint64
	time  sample.Time
}

// sums are about the containers of a pod together.
type sums struct {
	cpu, memory uint64
	started     sample.Time // when the newest started; 0 if unknown
	starting    bool        // one has only just started, and not used CPU yet

	// Of those that have used CPU.
	working          int
	earliest, latest sample.Time // of their samples; 0 if there are none
}

// continues reports whether the containers are the same as those of o, in an earlier answer, as far
// as can be seen: none has ended or started. What they had used until then stays with the pod.
func (s *sums) continues(o *sums) bool {
	return !o.starting && s.working == o.working && s.started == o.started && s.cpu >= o.cpu
}

// unaccounted is the CPU time of the pod that none of its containers accounts for.
func (p *podUsage) unaccounted() int64 { return int64(p.cpu.value) - int64(p.sums.cpu) }

// usesMemory reports whether the pod uses memory that none of its containers accounts for.
func (p *podUsage) usesMemory() bool {
	return p.memory.value > p.sums.memory+max(minUnaccounted, p.memory.value/share)
}

// doubt is what a Layout remembers of a container whose CPU counter is zero or missing.
type doubt struct {
	untrue bool        // the pod uses CPU that can only be this container's
	since  sample.Time // what the pod used until then is no evidence: others, or an earlier run, may have used it
	before sums        // in the last answer
	time   sample.Time // of the last row of the pod

	// A row of the pod that later ones are compared with, and the CPU time of the containers no later
	// than that. There is none if its time is 0.
	base    reading
	baseSum uint64
}

// follow takes what an answer says of the pod. The newest sample in the answer is of that time.
//
// Containers are not sampled at the same moment as their pod. If they are sampled before it, the
// CPU time that they do not account for seems larger than it is, by what they used in between; if
// they are sampled after it, smaller. So growth from a value that is too large to one that is too
// small is real.
func (d *doubt) follow(p *podUsage, newest sample.Time) {
	before := d.before
	d.before = p.sums
	if !p.continues(&before) {
		d.since, d.base, before = newest, reading{}, p.sums
	}
	if p.cpu.time <= d.time {
		return
	}
	d.time = p.cpu.time
	if d.base.time > 0 && (p.working == 0 || p.earliest >= p.cpu.time) {
		total := int64(p.cpu.value) - int64(d.base.value)
		grown := total - int64(p.sums.cpu-d.baseSum)
		d.untrue = grown > total/share && grown > minMoved*int64(p.cpu.time-d.base.time)
	}
	switch {
	case p.cpu.time < d.since:
	case p.latest <= p.cpu.time:
		d.base, d.baseSum = p.cpu, p.sums.cpu
	case before.latest <= p.cpu.time:
		d.base, d.baseSum = p.cpu, before.cpu
	}
}

// refuseFalseZeros refuses the zeros of containers if the rows of their pods show that they are not
// true.
func (a *answer) refuseFalseZeros() {
	before := a.layout.doubts
	a.layout.doubts = nil
	if !a.zeros {
		return
	}
	a.refuseFalseZerosOfNode()
	if len(a.podRows) == 0 {
		return
	}
	pods := a.podsWithZeros()
	a.readPodRows(pods)
	newest := a.batch.Node.Time
	for i := range a.batch.Containers {
		newest = max(newest, a.batch.Containers[i].Time)
	}
	var key []byte
	for i := range a.batch.Containers {
		c := &a.batch.Containers[i]
		key = appendPod(key[:0], c.ID.Namespace(), c.ID.Pod())
		p := pods[string(key)]
		if p == nil || !zero(&c.Sample) || young(&c.Sample) {
			continue
		}
		if c.CPU > 0 { // it runs, and has memory
			if p.usesMemory() {
				a.contradict(&c.Sample, sample.Memory)
			}
			continue
		}
		if p.incomplete || p.cpu.time == 0 {
			continue
		}
		d, known := before[c.ID]
		if !known && c.Memory > 0 {
			// A container that is not listed any more may have used it: later rows of the pod tell.
			d.untrue = p.unaccounted() > int64(p.cpu.value/share)
		}
		if !known {
			d.since, d.before = c.Time, p.sums
		}
		d.follow(p, newest)
		if a.layout.doubts == nil {
			a.layout.doubts = map[*sample.ContainerID]doubt{}
		}
		a.layout.doubts[c.ID] = d
		if d.untrue {
			a.contradict(&c.Sample, usage)
		}
	}
}

// refuseFalseZerosOfNode refuses zeros of the node itself if a container shows that they are not true.
func (a *answer) refuseFalseZerosOfNode() {
	n := &a.batch.Node
	if !zero(n) {
		return
	}
	var cpu, memory uint64
	for i := range a.batch.Containers {
		cpu = max(cpu, a.batch.Containers[i].CPU)
		memory = max(memory, a.batch.Containers[i].Memory)
	}
	if n.Given.Has(sample.CPU) && n.CPU == 0 && cpu > 0 || n.Given.Has(sample.Memory) && n.Memory == 0 && memory > 0 {
		a.contradict(n, usage)
	}
}

// contradict refuses parts of a sample.
func (a *answer) contradict(s *sample.Sample, parts sample.Fields) {
	s.Given = s.Given&^parts | sample.Refused
	s.Why = sample.Contradicted
	a.refuse(sample.Contradicted)
}

func zero(s *sample.Sample) bool {
	return s.Given.Has(sample.CPU) && s.CPU == 0 || s.Given.Has(sample.Memory) && s.Memory == 0
}

// young reports whether a container had only just started when it was sampled.
func young(s *sample.Sample) bool {
	return s.Given.Has(sample.Start) && s.Time >= s.Start && s.Time-s.Start < youngest
}

// podsWithZeros returns the pods that have a container with a zero, by name, and what their
// containers use together.
func (a *answer) podsWithZeros() map[string]*podUsage {
	pods := map[string]*podUsage{}
	var key []byte
	for i := range a.batch.Containers {
		if c := &a.batch.Containers[i]; zero(&c.Sample) {
			key = appendPod(key[:0], c.ID.Namespace(), c.ID.Pod())
			if pods[string(key)] == nil {
				pods[string(key)] = &podUsage{}
			}
		}
	}
	for i := range a.batch.Containers {
		c := &a.batch.Containers[i]
		key = appendPod(key[:0], c.ID.Namespace(), c.ID.Pod())
		p := pods[string(key)]
		if p == nil {
			continue
		}
		p.sums.add(&c.Sample)
		if !c.Given.Has(sample.CPU) && c.Given.Has(sample.Refused) {
			p.incomplete = true
		}
	}
	return pods
}

func (s *sums) add(c *sample.Sample) {
	s.cpu += c.CPU
	s.memory += c.Memory
	s.started = max(s.started, c.Start)
	if c.CPU == 0 {
		s.starting = s.starting || young(c)
		return
	}
	s.working++
	s.latest = max(s.latest, c.Time)
	if s.earliest == 0 || c.Time < s.earliest {
		s.earliest = c.Time
	}
}

// readPodRows fills in what the answer says of pods. What it cannot read it passes over.
func (a *answer) readPodRows(pods map[string]*podUsage) {
	var line, name, key []byte
	for rest := a.podRows; len(rest) > 0; {
		line, rest = lex.Line(rest)
		n := len(name)
		if n == 0 || !lex.HasName(line, name) {
			n = lex.NameLen(line)
			name = line[:n]
			a.enter(readFamilies[string(name)])
		}
		if a.family.object != pod {
			continue
		}
		r := row{time: a.received, at: unknown}
		r.parse(line[n:])
		if r.nameless {
			continue
		}
		key = appendPod(key[:0], string(r.labels[labelNamespace]), string(r.labels[labelPod]))
		p := pods[string(key)]
		if p == nil {
			continue
		}
		into := &p.cpu
		if a.family.field == sample.Memory {
			into = &p.memory
		}
		if value, _, ok := a.check(&r); ok && into.time == 0 {
			*into = reading{value, r.time}
		}
	}
}

func appendPod(dst []byte, namespace, pod string) []byte {
	dst = append(dst, namespace...)
	dst = append(dst, '/')
	return append(dst, pod...)
}
