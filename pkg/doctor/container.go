package doctor

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const program = "metrics-server"

// serverContainer returns the pod's container that runs the server. Other containers, such as
// resizers and service mesh proxies, may come before it and have the server's name in their own.
func serverContainer(pod *corev1.Pod) *corev1.Container {
	best, most := 0, -1
	for i := range pod.Spec.Containers {
		if likeness := likeness(&pod.Spec.Containers[i]); likeness > most {
			best, most = i, likeness
		}
	}
	return &pod.Spec.Containers[best]
}

// likeness returns how likely c runs the server. Each sign outweighs all that follow it.
func likeness(c *corev1.Container) int {
	score := 0
	for _, sign := range []bool{
		c.Name == program,
		isProgram(c),
		slices.ContainsFunc(slices.Concat(c.Command, c.Args), isServerFlag),
		slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == "https" }),
		len(c.Ports) > 0,
	} {
		score *= 2
		if sign {
			score++
		}
	}
	return score
}

// isIncumbent reports whether pod runs kubernetes-sigs/metrics-server, whose releases have tags such as v0.9.0.
// Releases of this program have tags from v1.0.0 on, and developer builds have v0.0.0.
func isIncumbent(pod *corev1.Pod) bool {
	image, _, _ := strings.Cut(path.Base(serverContainer(pod).Image), "@")
	_, tag, _ := strings.Cut(image, ":")
	tag = strings.TrimPrefix(tag, "v")
	return strings.HasPrefix(tag, "0.") && !strings.HasPrefix(tag, "0.0.")
}

// isProgram reports whether c's command or image has the server's name.
func isProgram(c *corev1.Container) bool {
	if len(c.Command) > 0 && path.Base(strings.TrimSpace(c.Command[0])) == program {
		return true
	}
	image, _, _ := strings.Cut(path.Base(c.Image), "@")
	image, _, _ = strings.Cut(image, ":")
	return image == program || strings.HasPrefix(image, program+"-")
}

// runsServer reports whether pod seems to run metrics-server, this one or another program of that name.
func runsServer(pod *corev1.Pod) bool {
	c := serverContainer(pod)
	own := func(arg string) bool { // every aggregated API server has --secure-port
		return isServerFlag(arg) && !strings.Contains(arg, "--secure-port")
	}
	return c.Name == program || isProgram(c) || slices.ContainsFunc(slices.Concat(c.Command, c.Args), own)
}

// serverFlags are the beginnings of flags that the server has, and containers next to it do not have.
var serverFlags = []string{"--kubelet-", "--secure-port", "--metric-resolution", "--serving-certificate-secret"}

// isServerFlag reports whether arg has one of serverFlags.
func isServerFlag(arg string) bool {
	return slices.ContainsFunc(serverFlags, func(flag string) bool {
		return strings.Contains(arg, flag) // in a shell's script, flags are in the middle
	})
}

// commandLine returns the arguments of the pod's server. Arguments that depend on something outside
// of the pod, such as a ConfigMap, are in unknown instead.
func commandLine(pod *corev1.Pod) (args, unknown []string) {
	c := serverContainer(pod)
	all := append(fromShell(c.Command), c.Args...)
	if script := fromShell(c.Args); len(c.Command) == 0 && len(script) > 0 {
		all = script
	}
	env := newEnvironment(pod, c)
	for _, a := range all {
		if len(args)+len(unknown) == 0 && !strings.HasPrefix(strings.TrimSpace(a), "-") {
			continue // the program comes before the first flag
		}
		if expanded, known := env.expand(a); known {
			args = append(args, expanded)
		} else {
			unknown = append(unknown, a)
		}
	}
	return args, unknown
}

// fromShell returns the server's command in a shell's script, or command if it runs no shell.
func fromShell(command []string) []string {
	if len(command) < 3 || !slices.Contains([]string{"sh", "ash", "bash", "dash"}, path.Base(command[0])) {
		return slices.Clone(command)
	}
	i := slices.IndexFunc(command, func(s string) bool { return strings.HasPrefix(s, "-") && strings.HasSuffix(s, "c") })
	if i < 0 || i+1 == len(command) {
		return slices.Clone(command)
	}
	words := strings.Fields(command[i+1])
	start := slices.IndexFunc(words, func(w string) bool { return path.Base(strings.Trim(w, `"'`)) == program })
	if start < 0 {
		return nil
	}
	var own []string
	for _, w := range words[start:] {
		if strings.ContainsAny(w, ";&|<>") {
			break
		}
		if w != `\` {
			own = append(own, strings.NewReplacer(`"`, "", `'`, "").Replace(w))
		}
	}
	return own
}

// environment has what is known about a container's environment.
type environment struct {
	values  map[string]string
	unknown func(name string) bool // whether the variable may exist with a value that is not in the pod
}

func newEnvironment(pod *corev1.Pod, c *corev1.Container) *environment {
	elsewhere := map[string]bool{}
	e := &environment{values: map[string]string{}, unknown: func(name string) bool {
		return elsewhere[name] || len(c.EnvFrom) > 0 ||
			strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") // variables of Services
	}}
	for _, v := range c.Env {
		value, known := e.expand(v.Value)
		if v.ValueFrom != nil {
			value, known = field(pod, v.ValueFrom.FieldRef)
		}
		if elsewhere[v.Name] = !known; known {
			e.values[v.Name] = value
		} else {
			delete(e.values, v.Name)
		}
	}
	return e
}

// field returns the value of a field of the pod, as far as it is supported.
func field(pod *corev1.Pod, ref *corev1.ObjectFieldSelector) (value string, known bool) {
	if ref == nil {
		return "", false
	}
	value, known = map[string]string{
		"metadata.name":           pod.Name,
		"metadata.namespace":      pod.Namespace,
		"metadata.uid":            string(pod.UID),
		"spec.nodeName":           pod.Spec.NodeName,
		"spec.serviceAccountName": pod.Spec.ServiceAccountName,
		"status.hostIP":           pod.Status.HostIP,
		"status.podIP":            pod.Status.PodIP,
	}[ref.FieldPath]
	return value, known && value != ""
}

// expand replaces references $(NAME) in an argument as the kubelet does, and reports whether all
// values are known. A reference to a variable that does not exist stays as it is.
func (e *environment) expand(arg string) (expanded string, known bool) {
	var b strings.Builder
	known = true
	for {
		i := strings.IndexByte(arg, '$')
		if i < 0 || i+1 == len(arg) {
			b.WriteString(arg)
			return b.String(), known
		}
		b.WriteString(arg[:i])
		arg = arg[i:]
		end := strings.IndexByte(arg, ')')
		switch {
		case arg[1] == '$': // an escaped dollar
			b.WriteByte('$')
			arg = arg[2:]
		case arg[1] == '(' && end > 0:
			name := arg[2:end]
			value, ok := e.values[name]
			if !ok {
				value = arg[:end+1]
				known = known && !e.unknown(name)
			}
			b.WriteString(value)
			arg = arg[end+1:]
		default:
			b.WriteByte('$')
			arg = arg[1:]
		}
	}
}
