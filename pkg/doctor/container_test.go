package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func nanny() corev1.Container {
	return corev1.Container{
		Name: "metrics-server-vpa", Image: "registry.k8s.io/autoscaling/addon-resizer:1.8.23",
		Command: []string{
			"/pod_nanny", "--config-dir=/etc/config", "--cpu=150m", "--extra-cpu=0.5m", "--memory=100Mi",
			"--extra-memory=4Mi", "--threshold=5", "--deployment=metrics-server", "--container=metrics-server",
		},
	}
}

func sidecar() corev1.Container {
	return corev1.Container{
		Name: "istio-proxy", Image: "docker.io/istio/proxyv2:1.28.0",
		Args:  []string{"proxy", "sidecar", "--proxyLogLevel=warning"},
		Ports: []corev1.ContainerPort{{Name: "http-envoy-prom", ContainerPort: 15090}},
	}
}

// The server is found among the containers of its pod, regardless of its position and its name.
func TestServerContainer(t *testing.T) {
	https := []corev1.ContainerPort{{Name: "https", ContainerPort: 4443}}
	for name, server := range map[string]corev1.Container{
		"by its name":      {Name: "metrics-server", Image: "mirror.example/a1b2"},
		"by its image":     {Name: "main", Image: "registry.k8s.io/metrics-server/metrics-server:v0.9.0"},
		"by its digest":    {Name: "main", Image: "registry.example:5000/metrics-server@sha256:0123"},
		"by its old image": {Name: "main", Image: "k8s.gcr.io/metrics-server-amd64:v0.3.6"},
		"by its command":   {Name: "main", Image: "mirror.example/a1b2", Command: []string{"/metrics-server"}},
		"by its flags":     {Name: "main", Image: "mirror.example/a1b2", Args: []string{" --kubelet-insecure-tls"}},
		"by a script": {
			Name: "main", Image: "mirror.example/a1b2",
			Command: []string{"sh", "-c", "exec /metrics-server --kubelet-insecure-tls"},
		},
		"by its port": {Name: "main", Image: "mirror.example/a1b2", Ports: https},
	} {
		for at := range 3 {
			containers := slices.Insert([]corev1.Container{nanny(), sidecar()}, at, server)
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: containers}}
			if got := serverContainer(pod).Name; got != server.Name {
				t.Errorf("%s, at %d: it is taken to be %s", name, at, got)
			}
		}
	}
	unknown := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}}
	if got := serverContainer(unknown).Name; got != "a" {
		t.Errorf("without any sign it is %s", got)
	}
}

func TestCommandLine(t *testing.T) {
	from := func(source *corev1.EnvVarSource) *corev1.EnvVarSource { return source }
	path := func(p string) *corev1.EnvVarSource {
		return from(&corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: p}})
	}
	env := []corev1.EnvVar{
		{Name: "PORT", Value: "4443"},
		{Name: "BOTH", Value: "$(PORT)-$(PORT)"},
		{Name: "NODE", ValueFrom: path("spec.nodeName")},
		{Name: "SPACE", ValueFrom: path("metadata.namespace")},
		{Name: "LIMIT", ValueFrom: from(&corev1.EnvVarSource{
			ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"},
		})},
		{Name: "CONFIG", ValueFrom: from(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{Key: "k"}})},
		{Name: "DERIVED", Value: "$(CONFIG)"},
	}
	for name, tc := range map[string]struct {
		command, args, want, unknown []string
		envFrom                      bool
	}{
		"args":    {args: []string{"--a", "--b=c"}, want: []string{"--a", "--b=c"}},
		"command": {command: []string{"/metrics-server", "--a", "b"}, want: []string{"--a", "b"}},
		"both":    {command: []string{"/metrics-server"}, args: []string{"-v", "2"}, want: []string{"-v", "2"}},
		"both with flags": {
			command: []string{"/metrics-server", "--a"},
			args:    []string{"--b"},
			want:    []string{"--a", "--b"},
		},
		"none":            {},
		"program in args": {args: []string{"/metrics-server", "--a"}, want: []string{"--a"}},
		"blanks":          {args: []string{" --a", "--b=c "}, want: []string{" --a", "--b=c "}},
		"variables": {
			args: []string{"--secure-port=$(PORT)", "--x=$(BOTH)/$(NODE)"},
			want: []string{"--secure-port=4443", "--x=4443-4443/n1"},
		},
		"field":            {args: []string{"--s=$(SPACE)"}, want: []string{"--s=kube-system"}},
		"no such variable": {args: []string{"--a=$(NOBODY)"}, want: []string{"--a=$(NOBODY)"}},
		"escaped": {
			args: []string{"--a=$$(PORT)", "--b=$", "--c=$x", "--d=$(PORT"},
			want: []string{"--a=$(PORT)", "--b=$", "--c=$x", "--d=$(PORT"},
		},
		"ConfigMap": {
			args:    []string{"--a=$(CONFIG)", "--b"},
			want:    []string{"--b"},
			unknown: []string{"--a=$(CONFIG)"},
		},
		"derived": {
			args:    []string{"--a=$(DERIVED)", "--b=$(LIMIT)"},
			unknown: []string{"--a=$(DERIVED)", "--b=$(LIMIT)"},
		},
		"all of a ConfigMap": {
			args:    []string{"--a=$(ANY)", "--b=$(PORT)"},
			envFrom: true,
			want:    []string{"--b=4443"},
			unknown: []string{"--a=$(ANY)"},
		},
		"variable of a Service": {
			args:    []string{"--a=$(KUBERNETES_SERVICE_HOST)"},
			unknown: []string{"--a=$(KUBERNETES_SERVICE_HOST)"},
		},
		"script": {
			command: []string{
				"/bin/sh", "-ec", "sleep 1; exec /metrics-server \\\n  --a --b=\"c\" '--d=e' 2>&1",
			}, want: []string{"--a", "--b=c", "--d=e"},
		},
		"script in args":   {args: []string{"bash", "-c", "exec metrics-server --a && true"}, want: []string{"--a"}},
		"script of others": {command: []string{"sh", "-c", "/start.sh --a"}},
		"no script":        {command: []string{"sh", "/start.sh", "--a"}, want: []string{"--a"}},
	} {
		pod := serverPod("p")
		c := &pod.Spec.Containers[0]
		c.Command, c.Args, c.Env = tc.command, tc.args, env
		if tc.envFrom {
			c.EnvFrom = []corev1.EnvFromSource{{}}
		}
		pod.Spec.Containers = []corev1.Container{nanny(), pod.Spec.Containers[0]}
		args, unknown := commandLine(&pod)
		if d := cmp.Diff(tc.want, args); d != "" {
			t.Errorf("%s: -want +got:\n%s", name, d)
		}
		if d := cmp.Diff(tc.unknown, unknown); d != "" {
			t.Errorf("%s, unknown: -want +got:\n%s", name, d)
		}
	}
}

// A resizer that comes first and has the server's name in its own is not the server.
func TestResizerFirst(t *testing.T) {
	c := newCluster(t)
	var asked [][]string
	flags := c.config.Flags
	c.config.Flags = func(args []string) (Flags, error) {
		asked = append(asked, args)
		f, err := flags(args)
		if f.Port = 443; slices.Contains(args, "--secure-port=4443") {
			f.Port = 4443
		}
		return f, err
	}
	c.pod(func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{nanny(), {
			Name: "metrics-server", Image: "localhost/metrics-server:demo",
			Command: []string{"/metrics-server", "--cert-dir=/tmp", "--secure-port=4443"},
			Ports:   []corev1.ContainerPort{{Name: "https", ContainerPort: 4443}},
		}}
	})
	c.objects[pathService].(*corev1.Service).Spec.Ports[0].TargetPort = intstr.FromString("https")
	r := c.run()
	if len(find(r, Line{Check: checkService, Status: OK})) != 1 || len(find(r, Line{
		Check: checkPods, Status: OK, Message: "localhost/metrics-server:demo",
	})) != 1 {
		t.Error(text(t, r))
	}
	for _, args := range asked {
		if slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "threshold") }) {
			t.Errorf("flags of the resizer are taken for the server's: %v", args)
		}
	}
}

// If only a ConfigMap has the port, it is compared with nothing.
func TestUnknownArguments(t *testing.T) {
	c := newCluster(t)
	c.flags.Port = 443
	c.pod(func(p *corev1.Pod) {
		server := &p.Spec.Containers[0]
		server.Args = []string{"--secure-port=$(PORT)", "--serving-certificate-secret=metrics-server-serving"}
		server.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
	})
	r := c.run()
	if len(find(r, Line{Check: checkService, Status: OK})) != 1 || len(find(r, Line{
		Check: checkPods, Status: Unknown, Message: "--secure-port=$(PORT)", Cause: "ConfigMap",
	})) != 1 {
		t.Error(text(t, r))
	}
}
