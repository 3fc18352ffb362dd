package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestExampleValues renders each values file in examples/values and checks the decision that it is there for.
func TestExampleValues(t *testing.T) {
	const insecure = "--kubelet-insecure-tls"
	want := map[string]struct {
		insecure bool // kubelets with self-signed certificates are accepted
		replicas int32
		port     int32
	}{
		"eks":     {false, 2, 10251},
		"k3s":     {false, 1, 10250},
		"kind":    {true, 1, 10250},
		"kubeadm": {true, 2, 10250},
	}
	files, err := filepath.Glob("../../examples/values/*.yaml")
	if err != nil || len(files) != len(want) {
		t.Errorf("%d values files (%v): this test knows %d", len(files), err, len(want))
	}
	for name, want := range want {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("../../examples/values", name+".yaml")
			given := readValues(t, file)
			if err := lintErrors(given); err != nil {
				t.Errorf("lint: %v", err)
			}
			manifest, notes, err := render(load(t), given, release, namespace, nil)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(notes, "WARNING") {
				t.Errorf("the notes have a warning:\n%s", notes)
			}
			o := decode(t, manifest)
			checkReferences(t, o)
			server := o.deployment.Spec.Template.Spec.Containers[0]
			if got := slices.Contains(server.Args, insecure); got != want.insecure {
				t.Errorf("%s is given: %t, want %t, in %q", insecure, got, want.insecure, server.Args)
			}
			if got := server.Ports[0].ContainerPort; got != want.port {
				t.Errorf("port %d, want %d", got, want.port)
			}
			// The custom metrics server needs the same port, because it runs on the same kind of node.
			both, _, err := render(load(t), with(given, "customMetrics.enabled", true), release, namespace, nil)
			if err != nil {
				t.Fatal(err)
			}
			custom := decode(t, both).custom.deployment.Spec.Template.Spec.Containers[0]
			if got := custom.Ports[0].ContainerPort; got != want.port {
				t.Errorf("port %d of the custom metrics server, want %d", got, want.port)
			}
			if got := o.deployment.Spec.Replicas; got == nil || *got != want.replicas {
				t.Errorf("replicas %v, want %d", got, want.replicas)
			}
			if replicas, budget := want.replicas, strings.Contains(manifest,
				"kind: PodDisruptionBudget"); budget != (replicas > 1) {
				t.Errorf("%d replicas, and there is a PodDisruptionBudget: %t", replicas, budget)
			}
			checkAffinity(t, o)
		})
	}
}

// TestDocumentedValues renders the values with backends in the documents, and checks that every file that the backends
// name is below a volume.
func TestDocumentedValues(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n( *customMetrics:\n.*?)\n *```\n")
	file := regexp.MustCompile(`(?m)^ *(?:- )?(?:file|\w+File): (\S+)`)
	for _, doc := range []string{"backends.md", "moving.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", doc))
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, m := range block.FindAllSubmatch(text, -1) {
			given := parse(t, string(m[1]))
			given = with(given, "customMetrics.enabled", true)
			manifest, notes, err := render(load(t), given, release, namespace, nil)
			if err != nil {
				t.Fatalf("%s: %v in\n%s", doc, err, m[1])
			}
			if strings.Contains(notes, "WARNING") {
				t.Errorf("%s: the notes have a warning:\n%s", doc, notes)
			}
			pod := decode(t, manifest).custom.deployment.Spec.Template.Spec
			for _, f := range file.FindAllSubmatch(m[1], -1) {
				files++
				if !slices.ContainsFunc(pod.Containers[0].VolumeMounts, func(v corev1.VolumeMount) bool {
					return v.MountPath == path.Dir(string(f[1])) && slices.ContainsFunc(pod.Volumes,
						func(volume corev1.Volume) bool { return volume.Name == v.Name && v.Name != "backends" })
				}) {
					t.Errorf("%s: no volume has the file %s", doc, f[1])
				}
			}
		}
		if files == 0 {
			t.Errorf("%s has no values with backends and files", doc)
		}
	}
}

// checkAffinity checks that terms that keep pods apart select the server's own pods.
func checkAffinity(t *testing.T, o objects) {
	t.Helper()
	pod := o.deployment.Spec.Template
	var selectors []map[string]string
	if a := pod.Spec.Affinity; a != nil {
		for _, term := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			selectors = append(selectors, term.LabelSelector.MatchLabels)
		}
	}
	for _, c := range pod.Spec.TopologySpreadConstraints {
		selectors = append(selectors, c.LabelSelector.MatchLabels)
	}
	for _, selector := range selectors {
		for key, value := range selector {
			// The name is the chart's, whatever the release is called.
			if pod.Labels[key] != value {
				t.Errorf("%s=%s is selected, but the pod has the labels %v", key, value, pod.Labels)
			}
		}
	}
}
