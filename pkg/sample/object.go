package sample

// Object is what is known about a node or a pod besides its usage: its name and its labels.
// It is immutable.
type Object struct {
	Namespace string // empty for a node
	Name      string
	Labels    Labels
	// Changed is when the labels changed, zero if they have not since this server first saw the object.
	Changed Revision
}

// Labels are the labels of an object, sorted by key. They are immutable and may be shared between
// objects. They satisfy the interface Labels of k8s.io/apimachinery/pkg/labels.
type Labels []Label

// Label is one key and its value.
type Label struct{ Key, Value string }

// Lookup returns the value of key and whether there is one.
func (l Labels) Lookup(key string) (value string, exists bool) {
	for i := range l { // a handful of labels: a scan beats a search
		if l[i].Key == key {
			return l[i].Value, true
		}
	}
	return "", false
}

// Has reports whether key is there.
func (l Labels) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

// Get returns the value of key, or "".
func (l Labels) Get(key string) string {
	v, _ := l.Lookup(key)
	return v
}

// Map returns the labels as a new map, nil if there are none.
func (l Labels) Map() map[string]string {
	if len(l) == 0 {
		return nil
	}
	m := make(map[string]string, len(l))
	for _, kv := range l {
		m[kv.Key] = kv.Value
	}
	return m
}
