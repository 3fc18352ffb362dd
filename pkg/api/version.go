package api

import (
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"metrics-server/pkg/sample"
)

// formatRevision returns the resourceVersion for r, which is empty if r is zero.
func formatRevision(r sample.Revision) string {
	if r == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(r), 10)
}

// parseRevision is the reverse of formatRevision.
func parseRevision(s string) (sample.Revision, error) {
	if s == "" {
		return 0, nil
	}
	r, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf(
			"resourceVersion %q is not a number: use one from a list or an event of this resource, or leave it out", s))
	}
	return sample.Revision(r), nil
}

// checkListVersion checks the resourceVersion that a list was requested at. Lists have what is served
// now, which is newer than any resourceVersion that a client can have; last is that of the list.
func checkListVersion(options *internalversion.ListOptions, last sample.Revision) error {
	if options == nil {
		return nil
	}
	r, err := parseRevision(options.ResourceVersion)
	if err != nil {
		return err
	}
	if options.ResourceVersionMatch == metav1.ResourceVersionMatchExact && r != last {
		return apierrors.NewResourceExpired("this server keeps no former versions of a list: " +
			"list again without resourceVersionMatch=Exact")
	}
	return nil
}

const (
	// maxSkew is how far the clocks of two replicas, and what they know of the API server's objects,
	// may be apart for a watch of one to be resumed at the other.
	maxSkew = 10 * time.Second
	// maxHold is how long a replica may serve a value after the object is gone, at the usual
	// resolution, and then some: kubelets tell it too, and a value expires.
	maxHold = 2 * time.Minute
)

// resumption says what a client knows that resumes a watch.
type resumption struct {
	// from is the first revision of which the client may not know all changes; zero: of some objects,
	// it may have a version of another process.
	from sample.Revision
	// gone are the objects that may have been deleted since then.
	gone []sample.Object
	// at is the revision of deletions that are sent. A client that has seen only some of them can resume
	// at it: if from is zero, it is of no process, because what the client knows is then no state that
	// any process has had.
	at sample.Revision
}

// misses reports whether the client may not know a change.
func (r *resumption) misses(change sample.Revision) bool { return change >= r.from }

// resume returns what a client knows that has seen everything before r and at least one change of r, or
// an error if that cannot be continued. All changes that one answer of a kubelet brings share a
// revision, so the client may have been interrupted between them. Deletions share a revision only with what
// disappears at the same moment, so whoever knows that revision knows all of them.
//
// If r is of another process, all objects have to be sent, since the client may have values of that
// process which are older or newer. People, who look at a list that is hardly older and has all changes
// of r, are spared the repetition in both cases.
func (d *Deletions) resume(r sample.Revision, now time.Time, people bool) (resumption, error) {
	if d.clock.Own(r) {
		gone, complete := d.after(r)
		if !complete {
			return resumption{}, expired("too many objects have ended since")
		}
		from := r
		if people {
			from++
		}
		return resumption{from: from, gone: gone, at: r}, nil
	}
	at := r.Time()
	if at > sample.TimeOf(now.Add(maxSkew)) {
		return resumption{}, expired("it is in the future")
	}
	gone, complete := d.after(sample.NewRevision(at.Add(-maxSkew), 0))
	switch {
	case !complete:
		return resumption{}, expired("this server does not know which objects have ended since")
	case people:
		return resumption{from: r, gone: gone, at: r}, nil
	}
	gone, _ = d.after(sample.NewRevision(at.Add(-maxHold), 0))
	return resumption{gone: gone, at: sample.NewRevision(at, 0)}, nil
}

// expired is the error that makes clients list and watch from the beginning.
func expired(why string) error {
	return apierrors.NewResourceExpired("the watch cannot be resumed at this resourceVersion, because " + why +
		": list again, and watch from the resourceVersion of that list")
}
