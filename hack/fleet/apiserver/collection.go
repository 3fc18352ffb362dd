package apiserver

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"metrics-server/hack/fleet/cluster"
)

// collection is a kind of object. Its functions take the elements of its snapshots.
type collection struct {
	version     string // of the API
	name, kind  string
	namespaced  bool
	selectable  map[string]bool // fields
	snapshot    func(namespace string) ([]any, uint64)
	get         func(namespace, name string) any // nil: not there
	log         *cluster.Log                     // nil: it never changes
	inNamespace func(o any) string
	labelsOf    func(o any) map[string]string
	fieldsOf    func(o any) fields.Set
	meta        func(o any) metav1.ObjectMeta
	whole       func(o any) message
	empty       func(m metav1.ObjectMeta) message
}

// resources has the kinds of objects, by version and name.
func resources(c *cluster.Cluster, clientCA []byte) map[string]*collection {
	nodes := &collection{
		version: "v1", name: "nodes", kind: "Node",
		selectable: map[string]bool{"metadata.name": true},
		snapshot: func(string) ([]any, uint64) {
			nodes, version := c.Nodes()
			return objects(nodes), version
		},
		get: func(_, name string) any {
			if n := c.Node(name); n != nil {
				return n
			}
			return nil
		},
		log:         &c.NodeLog,
		inNamespace: func(any) string { return "" },
		labelsOf:    func(o any) map[string]string { return nodeLabels(o.(*cluster.Node)) },
		fieldsOf:    func(o any) fields.Set { return fields.Set{"metadata.name": o.(*cluster.Node).Name} },
		meta:        func(o any) metav1.ObjectMeta { return nodeMeta(o.(*cluster.Node)) },
		whole:       func(o any) message { return node(o.(*cluster.Node)) },
		empty:       func(m metav1.ObjectMeta) message { return &corev1.Node{ObjectMeta: m} },
	}
	pods := &collection{
		version: "v1", name: "pods", kind: "Pod", namespaced: true,
		selectable: map[string]bool{
			"metadata.name": true, "metadata.namespace": true, "spec.nodeName": true,
			"status.phase": true,
		},
		snapshot: func(namespace string) ([]any, uint64) {
			pods, version := c.Pods(namespace)
			return objects(pods), version
		},
		get: func(namespace, name string) any {
			if p := c.Pod(namespace, name); p != nil {
				return p
			}
			return nil
		},
		log:         &c.PodLog,
		inNamespace: func(o any) string { return o.(*cluster.Pod).Namespace },
		labelsOf:    func(o any) map[string]string { return o.(*cluster.Pod).PodLabels() },
		fieldsOf: func(o any) fields.Set {
			p := o.(*cluster.Pod)
			return fields.Set{
				"metadata.name": p.Name, "metadata.namespace": p.Namespace,
				"spec.nodeName": p.Machine.Name, "status.phase": string(corev1.PodRunning),
			}
		},
		meta:  func(o any) metav1.ObjectMeta { return podMeta(o.(*cluster.Pod)) },
		whole: func(o any) message { return pod(o.(*cluster.Pod)) },
		empty: func(m metav1.ObjectMeta) message { return &corev1.Pod{ObjectMeta: m} },
	}
	config := authentication(clientCA)
	configMaps := &collection{
		version: "v1", name: "configmaps", kind: "ConfigMap", namespaced: true,
		selectable: map[string]bool{"metadata.name": true, "metadata.namespace": true},
		snapshot: func(namespace string) ([]any, uint64) {
			if namespace != "" && namespace != config.Namespace {
				return nil, c.Version()
			}
			return []any{config}, c.Version()
		},
		get: func(namespace, name string) any {
			if namespace == config.Namespace && name == config.Name {
				return config
			}
			return nil
		},
		inNamespace: func(any) string { return config.Namespace },
		labelsOf:    func(any) map[string]string { return nil },
		fieldsOf: func(any) fields.Set {
			return fields.Set{"metadata.name": config.Name, "metadata.namespace": config.Namespace}
		},
		meta:  func(any) metav1.ObjectMeta { return config.ObjectMeta },
		whole: func(any) message { return config },
		empty: func(m metav1.ObjectMeta) message { return &corev1.ConfigMap{ObjectMeta: m} },
	}
	all := map[string]*collection{}
	for _, r := range []*collection{nodes, pods, configMaps, services(c), autoscalers(c)} {
		all[r.version+"/"+r.name] = r
	}
	return all
}

func objects[T any](in []T) []any {
	out := make([]any, len(in))
	for i := range in {
		out[i] = in[i]
	}
	return out
}

// authentication is the ConfigMap with the CAs that extension API servers trust.
func authentication(ca []byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication",
			UID: "6f9619ff-8b86-4011-842d-00cf4fc964ff", ResourceVersion: strconv.Itoa(42),
		},
		Data: map[string]string{
			"client-ca-file":                     string(ca),
			"requestheader-allowed-names":        `["front-proxy-client"]`,
			"requestheader-client-ca-file":       string(ca),
			"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
			"requestheader-group-headers":        `["X-Remote-Group"]`,
			"requestheader-uid-headers":          `["X-Remote-Uid"]`,
			"requestheader-username-headers":     `["X-Remote-User"]`,
		},
	}
}
