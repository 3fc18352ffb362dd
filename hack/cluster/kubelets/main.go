// Command kubelets simulates the kubelets of a few nodes, for machines that cannot run a real one: each serves
// /metrics/resource over TLS with the clocks of a real kubelet and a usage that never changes. It writes
// the nodes and pods, as an API server would know them, to a file and serves until it is ended.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

func main() {
	nodes := flag.Int("nodes", 3, "number of nodes")
	pods := flag.Int("pods", 4, "pods of a node")
	cert := flag.String("cert", "", "serving certificate `file` for 127.0.0.1")
	key := flag.String("key", "", "key `file`")
	out := flag.String("objects", "", "write the nodes and pods to this `file`, once all are served")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *nodes, *pods, *cert, *key, *out); err != nil {
		fmt.Fprintln(os.Stderr, "kubelets:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to release
	}
}

func serve(ctx context.Context, nodes, pods int, cert, key, out string) error {
	certificate, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	var items []any
	boot := time.Now()
	for i := range nodes {
		node := kubelettest.NewNode(kubelettest.NodeConfig{Seed: uint64(i + 1), Pods: pods, Containers: 2, Boot: boot})
		server, err := kubelettest.Serve(&kubelettest.Kubelet{Answer: node.Append},
			kubelettest.ServerConfig{Certificate: &certificate})
		if err != nil {
			return err
		}
		items = append(items, objects(fmt.Sprintf("simulated-%d", i+1), server.Port(), node)...)
	}
	b, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		return err
	}
	// Renamed into place, so that nobody reads half of the file.
	if err := os.WriteFile(out+".tmp", b, 0o644); err != nil {
		return err
	}
	if err := os.Rename(out+".tmp", out); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

type object = map[string]any

// objects are a node and its running pods, each in its namespace. Annotations of a pod give its
// true usage.
func objects(name string, port int, node *kubelettest.Node) []any {
	condition := []object{{"type": "Ready", "status": "True", "reason": "Simulated", "message": "simulated kubelet"}}
	items := []any{object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": name, "labels": object{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
		"status": object{
			"addresses":       []object{{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}},
			"daemonEndpoints": object{"kubeletEndpoint": object{"Port": port}},
			"capacity":        object{"cpu": "64", "memory": "64Gi", "pods": "110"},
			"allocatable":     object{"cpu": "64", "memory": "64Gi", "pods": "110"},
			"conditions":      condition,
		},
	}}
	known := map[string]object{} // pods by name
	for i, c := range node.Containers() {
		sample, _ := node.Container(i, time.Now().Add(time.Minute))
		pod := known[c.Pod]
		if pod == nil {
			pod = object{
				"apiVersion": "v1", "kind": "Pod",
				"metadata": object{
					"namespace": c.Namespace, "name": c.Pod, "annotations": object{},
					"labels": object{"app": c.Pod[:5]},
				},
				"spec":   object{"nodeName": name, "containers": []object{}},
				"status": object{"phase": "Running", "conditions": condition},
			}
			known[c.Pod] = pod
			items = append(items, object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": c.Namespace}}, pod)
		}
		annotations := pod["metadata"].(object)["annotations"].(object)
		annotations["usage/"+c.Name] = fmt.Sprintf("%dn %d", c.NanoCores, sample.Memory)
		spec := pod["spec"].(object)
		spec["containers"] = append(spec["containers"].([]object), object{"name": c.Name, "image": "simulated"})
	}
	return items
}
