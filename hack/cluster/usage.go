package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// usage is the usage of one container.
type usage struct {
	namespace, pod, container string
	cores, bytes              float64
}

// knownPod is the burner of manifests/demo/workloads.yaml.
var knownPod = usage{"demo", "known", "burner", 0.2, 100 << 20}

func (u usage) String() string {
	return fmt.Sprintf("%6.1fm CPU %8.1f MiB", u.cores*1000, u.bytes/(1<<20))
}

// compare returns an error if served deviates by more than tolerance.
func (u usage) compare(served usage, tolerance float64) error {
	off := func(want, got float64) float64 { return math.Abs(got-want) / want }
	if off(u.cores, served.cores) > tolerance || off(u.bytes, served.bytes) > tolerance {
		return fmt.Errorf("served is %s", served)
	}
	return nil
}

// parseUsage reads quantities of CPU and memory.
func (u *usage) parse(cpu, memory string) error {
	c, err1 := resource.ParseQuantity(cpu)
	m, err2 := resource.ParseQuantity(memory)
	u.cores, u.bytes = c.AsApproximateFloat64(), m.AsApproximateFloat64()
	return errors.Join(err1, err2)
}

// podUsage asks the metrics API for the usage of a container.
func (a *api) podUsage(ctx context.Context, of usage) (usage, error) {
	var metrics struct {
		Containers []struct {
			Name  string
			Usage struct{ CPU, Memory string }
		}
	}
	err := a.get(ctx, fmt.Sprintf("/apis/metrics.k8s.io/v1beta1/namespaces/%s/pods/%s", of.namespace, of.pod), &metrics)
	if err != nil {
		return usage{}, err
	}
	for _, c := range metrics.Containers {
		if c.Name == of.container {
			err := of.parse(c.Usage.CPU, c.Usage.Memory)
			return of, err
		}
	}
	return usage{}, fmt.Errorf("no container %q", of.container)
}

// nodeMetrics returns an error unless every node has metrics.
func (a *api) nodeMetrics(ctx context.Context) error {
	var nodes, served struct{ Items []struct{} }
	if err := a.get(ctx, "/api/v1/nodes", &nodes); err != nil {
		return err
	}
	if err := a.get(ctx, "/apis/metrics.k8s.io/v1beta1/nodes", &served); err != nil {
		return err
	}
	if len(served.Items) < len(nodes.Items) {
		return fmt.Errorf("%d of %d nodes", len(served.Items), len(nodes.Items))
	}
	return nil
}

// packetsPerSecond is what each pod of Deployment packets in manifests/demo/workloads.yaml counts.
const packetsPerSecond = 1500

// packetsScaled returns an error unless the autoscaler of Deployment packets has its two replicas
// and reports what their pods count, within 5 %.
func (a *api) packetsScaled(ctx context.Context) error {
	var hpa struct {
		Status struct {
			CurrentReplicas int
			CurrentMetrics  []struct {
				Pods struct {
					Current struct{ AverageValue resource.Quantity }
				}
			}
		}
	}
	const path = "/apis/autoscaling/v2/namespaces/demo/horizontalpodautoscalers/packets"
	if err := a.get(ctx, path, &hpa); err != nil {
		return err
	}
	if len(hpa.Status.CurrentMetrics) == 0 {
		return errors.Join(errors.New("no value"), a.condition(ctx, path, "ScalingActive"))
	}
	v := hpa.Status.CurrentMetrics[0].Pods.Current.AverageValue.AsApproximateFloat64()
	if hpa.Status.CurrentReplicas != 2 || math.Abs(v-packetsPerSecond) > 0.05*packetsPerSecond {
		return errors.Join(fmt.Errorf("%d replicas, %.0f packets per second", hpa.Status.CurrentReplicas, v),
			a.condition(ctx, path, "ScalingActive"))
	}
	return nil
}

// simulatedUsage finds the busiest simulated container in the objects that the simulated kubelets wrote.
func simulatedUsage(path string) (usage, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return usage{}, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Namespace, Name string
				Annotations     map[string]string
			}
		}
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return usage{}, err
	}
	var all []usage
	for _, item := range list.Items {
		for key, value := range item.Metadata.Annotations {
			container, ok := strings.CutPrefix(key, "usage/")
			cpu, memory, ok2 := strings.Cut(value, " ")
			if !ok || !ok2 {
				continue
			}
			u := usage{namespace: item.Metadata.Namespace, pod: item.Metadata.Name, container: container}
			if err := u.parse(cpu, memory); err != nil {
				return usage{}, err
			}
			all = append(all, u)
		}
	}
	if len(all) == 0 {
		return usage{}, errors.New("no simulated pods")
	}
	sort.Slice(all, func(i, j int) bool { return all[i].cores > all[j].cores })
	return all[0], nil
}
