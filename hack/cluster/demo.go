package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const firstServerBuild = "(the first build takes a few minutes)"

//go:embed manifests/demo
var demoManifests embed.FS

// demo shows the metrics-server of this repository at work.
func (c *cluster) demo(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	begun := time.Now()
	start := c.start
	if c.preferKind {
		image, reason := c.chooseKind(ctx)
		if image != "" {
			start = func(ctx context.Context) (record, bool, error) { return c.startKind(ctx, image) }
		} else if reason != "" {
			sayf("Without kind: %s.", reason)
		}
	}
	r, started, err := start(ctx)
	if err != nil {
		return err
	}
	if err := c.show(ctx, r); err != nil {
		if started {
			return c.giveUp(ctx, err)
		}
		return err
	}
	sayf("\nAll of it took %.1f s.", time.Since(begun).Seconds())
	c.sayHow("demo-down")
	return nil
}

// show deploys the server and the workloads, waits for the first metrics and prints them.
func (c *cluster) show(ctx context.Context, r record) error {
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	deploy, known := c.deployImage, knownPod
	if r.Mode == simulatedKubelet {
		deploy = c.deployProcess
		if known, err = simulatedUsage(c.path("tmp", "objects.json")); err != nil {
			return err
		}
	}
	digest, err := deploy(ctx, r)
	if err != nil {
		return err
	}
	changed := digest != r.Deployed
	commands := [][]string{
		{"top", "nodes"},
		{"top", "pods", "-A", "--containers"},
		{"get", "apiservices", "-l", "k8s-app=metrics-server"},
	}
	r.Deployed = digest
	if err := c.save(r); err != nil {
		return err
	}

	applied := time.Now()
	if r.Mode != simulatedKubelet {
		if err := c.waitRollout(ctx, r); err != nil {
			return err
		}
	}
	for _, version := range []string{"v1", "v1beta1"} {
		err := c.waitServer(ctx, r, "APIService "+version+" Available", func(ctx context.Context) error {
			return a.condition(ctx, "/apis/apiregistration.k8s.io/v1/apiservices/"+version+".metrics.k8s.io", "Available")
		})
		if err != nil {
			return err
		}
	}
	if err := c.waitServer(ctx, r, "metrics of the nodes", a.nodeMetrics); err != nil {
		return err
	}
	var served usage
	podServed := func(ctx context.Context) (err error) {
		served, err = a.podUsage(ctx, known)
		return err
	}
	if err := c.waitServer(ctx, r, "metrics of pod "+known.pod, podServed); err != nil {
		return err
	}
	if changed {
		sayf("First metrics %.1f s after the server was deployed.", time.Since(applied).Seconds())
	}
	// The first usage of a workload may still include what it needed to start.
	err = c.waitServer(ctx, r, "its usage within 5 %", func(ctx context.Context) error {
		return errors.Join(podServed(ctx), known.compare(served, 0.05))
	})
	if err != nil {
		return err
	}

	if r.Mode != simulatedKubelet {
		if err := c.waitServer(ctx, r, "HPA scales by packets", a.packetsScaled); err != nil {
			return err
		}
		commands = append(commands, []string{"get", "hpa", "-n", "demo"})
	}

	for _, args := range commands {
		fmt.Printf("\n$ kubectl %s\n", strings.Join(args, " "))
		out, err := c.runKubectl(ctx, args...)
		fmt.Print(out)
		if err != nil {
			return err
		}
	}
	fmt.Printf("\nPod %s/%s, container %s:\n  uses    %s\n  served  %s\n",
		known.namespace, known.pod, known.container, known, served)
	return nil
}

// waitServer waits like wait, for something that the server has to do.
func (c *cluster) waitServer(ctx context.Context, r record, title string, ready func(context.Context) error) error {
	if r.Mode == simulatedKubelet {
		return c.wait(ctx, title, "metrics-server", time.Minute, ready)
	}
	var err error
	if r.Mode == kindNodes {
		err = waitUntil(ctx, title, 90*time.Second, ready, func() error { return nil })
	} else {
		err = c.wait(ctx, title, "kubelet", 90*time.Second, ready)
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, errors.New("the end of the server's log:\n"+c.serverLog(ctx)))
	}
	return err
}

// serverLabels select the pods of both servers.
const serverLabels = "k8s-app in (metrics-server, custom-metrics-server)"

func (c *cluster) serverLog(ctx context.Context) string {
	pods, _ := c.runKubectl(ctx, "-n", "kube-system", "get", "pods", "-l", serverLabels, "-o", "wide")
	log, err := c.runKubectl(ctx, "-n", "kube-system", "logs", "-l", serverLabels, "--prefix", "--tail=20")
	if err != nil {
		log += err.Error()
	}
	return pods + log
}

// deployImage deploys both servers as users do, and the workloads. It returns the image's digest.
func (c *cluster) deployImage(ctx context.Context, r record) (string, error) {
	archive := c.path("images", "metrics-server.tar")
	err := step("image of the server", func(p *progress) error {
		p.updatef(firstServerBuild)
		return c.packImage(ctx, archive, serverImage)
	})
	if err != nil {
		return "", err
	}
	digest, err := fileDigest(archive)
	if err != nil {
		return "", err
	}
	if digest != r.Deployed {
		err := step("image to the nodes", func(*progress) error { return c.loadIntoNodes(ctx, r, archive) })
		if err != nil {
			return "", err
		}
	}
	err = step("deploy/ and workloads applied", func(*progress) error {
		workloads, err := c.writeManifest("workloads.yaml", nil)
		if err != nil {
			return err
		}
		if _, err := c.runKubectl(ctx, "apply", "-f", workloads); err != nil {
			return err
		}
		base := "base"
		if r.Layout.Options.KubeletCerts == selfSigned {
			base = "overlays/insecure-kubelet-tls"
		}
		image := map[string]string{"$DIGEST": digest, "$IMAGE": serverImage}
		return errors.Join(
			c.applyOverlay(ctx, "real.yaml", base, image),
			c.applyOverlay(ctx, "custom.yaml", "custom-metrics", image),
		)
	})
	return digest, err
}

// waitRollout waits until the newest servers answer and no older one is left.
func (c *cluster) waitRollout(ctx context.Context, r record) error {
	for _, name := range []string{"metrics-server", "custom-metrics-server"} {
		err := c.waitServer(ctx, r, name+" rolled out", func(ctx context.Context) error {
			out, err := c.runKubectl(ctx, "-n", "kube-system", "rollout", "status", "deployment/"+name, "--watch=false")
			if err == nil && !strings.Contains(out, "successfully rolled out") {
				err = errors.New(strings.TrimSpace(out))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deployProcess runs the server as a process of this machine. It returns the program's digest.
func (c *cluster) deployProcess(ctx context.Context, r record) (string, error) {
	program := c.path("tmp", "metrics-server.new")
	err := step("the server", func(p *progress) error {
		p.updatef(firstServerBuild)
		return c.goBuild(ctx, c.root, "./cmd/metrics-server", program)
	})
	if err != nil {
		return "", err
	}
	digest, err := fileDigest(program)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(r.Layout.MetricsServer)
	if err != nil {
		return "", err
	}
	return digest, step("deploy/ applied, server started", func(*progress) error {
		if _, err := c.writeManifest("service.yaml", nil); err != nil {
			return err
		}
		if err := c.applyOverlay(ctx, "simulated.yaml", "base", map[string]string{"$PORT": port}); err != nil {
			return err
		}
		if digest == r.Deployed {
			return nil
		}
		return c.restartServer(ctx, r, program, port)
	})
}

// restartServer runs program as the cluster's metrics-server and replaces an earlier one.
func (c *cluster) restartServer(ctx context.Context, r record, program, port string) error {
	if err := c.supervisor().stop("metrics-server"); err != nil {
		return err
	}
	if err := os.Rename(program, c.path("tmp", "metrics-server")); err != nil {
		return err
	}
	token, err := c.runKubectl(ctx, "-n", "kube-system", "create", "token", "metrics-server", "--duration=24h")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	config := c.path("conf", "metrics-server.kubeconfig")
	content := kubeconfig(r.Server, ca, fmt.Sprintf("{token: %q}", strings.TrimSpace(token)))
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return err
	}
	p := r.Layout.program("metrics-server", "--kubeconfig="+config,
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+c.path("tmp"),
		"--kubelet-use-node-status-port", "--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority="+c.path("pki", "ca.crt"), "--serving-certificate-secret=metrics-server-serving",
		"--kubelet-service-account=metrics-server-kubelets")
	p.Env = append(p.Env, "POD_NAMESPACE=kube-system")
	p.Args[0] = c.path("tmp", "metrics-server")
	return c.startProcesses(p)
}

// writeManifest writes one of the demo's manifests with its variables filled in.
func (c *cluster) writeManifest(name string, fill map[string]string) (path string, err error) {
	b, err := demoManifests.ReadFile("manifests/demo/" + name)
	if err != nil {
		return "", err
	}
	content := string(b)
	for from, to := range fill {
		content = strings.ReplaceAll(content, from, to)
	}
	path = c.path("deploy", name)
	return path, writeFiles(c.dir, map[string]string{"deploy/" + name: content})
}

// applyOverlay applies base, a directory of deploy/kustomize, through one of the demo's overlays.
func (c *cluster) applyOverlay(ctx context.Context, name, base string, fill map[string]string) error {
	// Kustomize takes no absolute paths, and resolves symbolic links before it looks.
	dir, err := filepath.EvalSymlinks(c.dir)
	if err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(c.root)
	if err != nil {
		return err
	}
	if fill["$BASE"], err = filepath.Rel(filepath.Join(dir, "deploy"),
		filepath.Join(root, "deploy", "kustomize", base)); err != nil {
		return err
	}
	path, err := c.writeManifest(name, fill)
	if err != nil {
		return err
	}
	if err := os.Rename(path, c.path("deploy", "kustomization.yaml")); err != nil {
		return err
	}
	_, err = c.runKubectl(ctx, "apply", "-k", c.path("deploy"))
	return err
}
