package exposition

import (
	"slices"

	"metrics-server/pkg/sample"
)

// excess keeps track of the pods that are only partly in a batch because some of their containers did
// not fit. The zero value says that all did.
type excess struct {
	whole map[podName]bool // whether all of a pod is in the batch; nil until a container does not fit
}

type podName struct{ namespace, pod string }

func podNameOf(c *sample.Container) podName { return podName{c.ID.Namespace(), c.ID.Pod()} }

// begun reports whether a container did not fit. From then on no other container is accepted.
func (x *excess) begun() bool { return x.whole != nil }

// leaveOut notes that a container of a pod did not fit into b.
func leaveOut[T string | []byte](x *excess, b *sample.Batch, namespace, pod T) {
	if x.whole == nil {
		x.whole = make(map[podName]bool, len(b.Containers))
		for i := range b.Containers {
			x.whole[podNameOf(&b.Containers[i])] = true
		}
	}
	if x.whole[podName{string(namespace), string(pod)}] { // a lookup does not allocate
		x.whole[podName{string(namespace), string(pod)}] = false
	}
}

// leaveOutPartialPods removes the containers of partial pods from the batch: no pod is served in part.
func (a *answer) leaveOutPartialPods() {
	if !a.excess.begun() {
		return
	}
	taken := len(a.batch.Containers)
	a.batch.Containers = slices.DeleteFunc(a.batch.Containers, func(c sample.Container) bool {
		return !a.excess.whole[podNameOf(&c)]
	})
	a.batch.Refused[sample.Excess] += taken - len(a.batch.Containers)
}
