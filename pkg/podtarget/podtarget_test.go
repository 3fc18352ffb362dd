package podtarget

import (
	"errors"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/sample"
)

func port(name string, number int32) sample.ContainerPort {
	return sample.ContainerPort{Name: name, Number: number, Protocol: "TCP"}
}

// testPod returns a pod with one container for each argument.
func testPod(ports ...[]sample.ContainerPort) *sample.Pod {
	p := &sample.Pod{Object: sample.Object{Namespace: "shop", Name: "web-1"}, IP: "10.1.2.3"}
	for i, declared := range ports {
		p.Containers = append(p.Containers, sample.PodContainer{
			Name: string(rune('a' + i)), Started: time.Unix(int64(i+1), 0), Ports: declared,
		})
	}
	return p
}

func TestResolve(t *testing.T) {
	type ports = []sample.ContainerPort
	with := func(p *sample.Pod, change func(*sample.Pod)) *sample.Pod {
		change(p)
		return p
	}
	for _, tt := range []struct {
		name string
		pod  *sample.Pod
		hpa  sample.Ask
		want string // URL
		why  string
		from string // container
	}{
		{
			"only port", testPod(ports{port("", 8080), {Number: 53, Protocol: "UDP"}}),
			sample.Ask{},
			"http://10.1.2.3:8080/metrics", "the only TCP port that is declared", "a",
		},
		{
			"named port", testPod(ports{port("http", 8080), port("prometheus", 9090), port("http-metrics", 9091)}),
			sample.Ask{},
			"http://10.1.2.3:9091/metrics", "the container port named http-metrics", "a",
		},
		{
			"pod's annotations",
			with(testPod(ports{port("metrics", 8080)}), func(p *sample.Pod) {
				p.Ask = sample.Ask{
					Port: "9000", Path: "/m?a=b",
					Scheme: "https",
				}
			}),
			sample.Ask{},
			"https://10.1.2.3:9000/m?a=b", "annotation prometheus.io/port", "a",
		},
		{
			"HPA's annotations",
			with(testPod(ports{port("metrics", 8080)}), func(p *sample.Pod) { p.Ask = sample.Ask{Port: "9000", Path: "/m"} }),
			sample.Ask{Port: "metrics", Scheme: "https"},
			"https://10.1.2.3:8080/m", "the HorizontalPodAutoscaler", "a",
		},
		{
			"second container", testPod(ports{port("http", 8080)}, ports{port("metrics", 9000)}),
			sample.Ask{},
			"http://10.1.2.3:9000/metrics", "the container port named metrics", "b",
		},
		{
			"undeclared port, two containers", testPod(nil, nil),
			sample.Ask{Port: "9000"},
			"http://10.1.2.3:9000/metrics", "the HorizontalPodAutoscaler", "",
		},
		{
			"IPv6", with(testPod(ports{port("", 80)}), func(p *sample.Pod) { p.IP = "fd00::1" }),
			sample.Ask{},
			"http://[fd00::1]:80/metrics", "the only TCP port that is declared", "a",
		},
		{
			"host network", with(testPod(ports{port("", 80), port("x", 81)}), func(p *sample.Pod) { p.HostNetwork = true }),
			sample.Ask{Port: "81"},
			"http://10.1.2.3:81/metrics", "the HorizontalPodAutoscaler", "a",
		},
		{
			"one port declared twice", testPod(ports{port("a", 80)}, ports{port("b", 80)}),
			sample.Ask{},
			"http://10.1.2.3:80/metrics", "the only TCP port that is declared", "a",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Resolve(tt.pod, tt.hpa, "")
			if err != nil {
				t.Fatal(err)
			}
			if got.URL.String() != tt.want || got.Why != tt.why || got.Container != tt.from {
				t.Errorf("%s by %s in %q, want %s by %s in %q", got.URL.String(), got.Why, got.Container, tt.want, tt.why, tt.from)
			}
			var started time.Time
			if tt.from != "" {
				started = time.Unix(int64(tt.from[0]-'a')+1, 0)
			}
			if at := got.Started(tt.pod); !at.Equal(started) {
				t.Errorf("started at %v, want %v", at, started)
			}
		})
	}
}

func TestResolveMistakes(t *testing.T) {
	type ports = []sample.ContainerPort
	for _, tt := range []struct {
		name   string
		change func(*sample.Pod)
		hpa    sample.Ask
		cause  Cause
		want   []string // parts of the text
	}{
		{"no address", func(p *sample.Pod) { p.IP = "" }, sample.Ask{}, NoIP, []string{"web-1", "has no IP address yet"}},
		{
			"not an address", func(p *sample.Pod) { p.IP = "example.com" },
			sample.Ask{},
			BadAddress,
			[]string{"invalid IP address"},
		},
		{
			"loopback", func(p *sample.Pod) { p.IP = "127.0.0.1" },
			sample.Ask{},
			BadAddress,
			[]string{"loopback address 127.0.0.1"},
		},
		{
			"mapped loopback", func(p *sample.Pod) { p.IP = "::ffff:127.0.0.1" },
			sample.Ask{},
			BadAddress,
			[]string{"loopback"},
		},
		{
			"metadata service", func(p *sample.Pod) { p.IP = "169.254.169.254" },
			sample.Ask{},
			BadAddress,
			[]string{"link-local"},
		},
		{"IPv6 link-local", func(p *sample.Pod) { p.IP = "fe80::1%eth0" }, sample.Ask{}, BadAddress, []string{"link-local"}},
		{"multicast", func(p *sample.Pod) { p.IP = "ff02::1" }, sample.Ask{}, BadAddress, []string{"multicast"}},
		{"broadcast", func(p *sample.Pod) { p.IP = "255.255.255.255" }, sample.Ask{}, BadAddress, []string{"multicast"}},
		{"unspecified", func(p *sample.Pod) { p.IP = "0.0.0.0" }, sample.Ask{}, BadAddress, []string{"unspecified"}},
		{"no port", func(p *sample.Pod) { p.Containers[0].Ports = nil }, sample.Ask{}, NoPort, []string{
			"declares no ports",
			"metrics-server/port",
		}},
		{
			"two ports", func(p *sample.Pod) {
				p.Containers[0].Ports = ports{port("http", 80), port("",
					81)}
			},
			sample.Ask{},
			NoPort,
			[]string{"http=80 (container a), 81 (container a)", "prometheus.io/port"},
		},
		{
			"two ports named metrics", func(p *sample.Pod) {
				p.Containers = append(p.Containers, sample.PodContainer{Name: "b", Ports: ports{port("metrics", 81)}})
				p.Containers[0].Ports = ports{port("metrics", 80)}
			},
			sample.Ask{},
			NoPort,
			[]string{"more than one port"},
		},
		{"no such name", func(*sample.Pod) {}, sample.Ask{Port: "web"}, NoPort, []string{
			"no TCP port named web",
			"http=8080",
		}},
		{
			"host network", func(p *sample.Pod) { p.HostNetwork = true },
			sample.Ask{Port: "10250"},
			NoPort,
			[]string{"only declared ports are scraped", "10250", "http=8080"},
		},
		{
			"pod's port", func(p *sample.Pod) { p.Ask.Port = "70000" },
			sample.Ask{},
			BadAnnotation,
			[]string{"prometheus.io/port", "70000"},
		},
		{
			"pod's path", func(p *sample.Pod) { p.Ask.Path = "//evil.example/x" },
			sample.Ask{},
			BadAnnotation,
			[]string{"prometheus.io/path"},
		},
		{
			"pod's scheme", func(p *sample.Pod) { p.Ask.Scheme = "ftp" },
			sample.Ask{},
			BadAnnotation,
			[]string{"prometheus.io/scheme", "http or https"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testPod(ports{port("http", 8080)})
			tt.change(p)
			_, err := Resolve(p, tt.hpa, "")
			e, ok := errors.AsType[*Error](err)
			if !ok || e.cause != tt.cause {
				t.Fatalf("%v, want cause %s", err, tt.cause)
			}
			for _, part := range tt.want {
				if !strings.Contains(e.Error(), part) {
					t.Errorf("%q lacks %q", e.Error(), part)
				}
			}
		})
	}
}

// TestResolveService checks that errors about the targetPort of a Service do not say that the HPA asks for it.
func TestResolveService(t *testing.T) {
	p := testPod([]sample.ContainerPort{port("web", 8080)})
	_, err := Resolve(p, sample.Ask{Port: "http"}, "front")
	const want = "pod web-1 has no TCP port named http, which the targetPort of Service front asks for: it declares " +
		"web=8080 (container a): correct the name, or use a number"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if a, err := Resolve(p, sample.Ask{Port: "web"}, "front"); err != nil || a.Why != "the targetPort of Service front" {
		t.Errorf("by %s, %v", a.Why, err)
	}
}

// FuzzResolve checks that whatever a pod says, only its address is asked.
func FuzzResolve(f *testing.F) {
	f.Add("10.0.0.1", "8080", "/metrics?a=b", "http")
	f.Add("::ffff:169.254.169.254", "http", "//x", "https")
	f.Add("10.0.0.1", "80", "/@evil.example/%2e%2e\x00", "")
	f.Fuzz(func(t *testing.T, ip, port, path, scheme string) {
		p := testPod([]sample.ContainerPort{{Name: "http", Number: 80, Protocol: "TCP"}})
		p.IP, p.Ask = ip, sample.Ask{Port: port, Path: path, Scheme: scheme}
		a, err := Resolve(p, sample.Ask{}, "")
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("the error is a %T, want an *Error", err)
			}
			return
		}
		u := a.URL
		if u.User != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.HasPrefix(u.RequestURI(), "/") {
			t.Fatalf("%q is not a URL of a page without credentials", u.String())
		}
		if host := u.Hostname(); !strings.Contains(ip, host) && !strings.Contains(host, ".") && !strings.Contains(host, ":") {
			t.Fatalf("asks %q for %q", host, ip)
		}
	})
}
