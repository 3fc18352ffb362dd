package main

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// startSimulated starts the control plane on loopback and registers simulated kubelets with it.
func (c *cluster) startSimulated(ctx context.Context, r record, certificates *pki) error {
	l := r.Layout
	a, err := c.connect(r.Server)
	if err != nil {
		return err
	}
	serving, err := certificates.ca.server("simulated-kubelet", "127.0.0.1")
	if err != nil {
		return err
	}
	err = writeFiles(c.dir, map[string]string{
		"pki/kubelet.crt": string(serving.cert),
		"pki/kubelet.key": string(serving.key),
	})
	if err != nil {
		return err
	}
	if err := c.startControlPlane(ctx, l, a); err != nil {
		return err
	}

	program, objects := c.path("tmp", "kubelets"), c.path("tmp", "objects.json")
	err = step("simulated kubelets", func(*progress) error {
		return c.goBuild(ctx, filepath.Join(c.module(), "kubelets"), ".", program)
	})
	if err != nil {
		return err
	}
	p := l.program("kubelets", "-cert="+l.at("pki", "kubelet.crt"), "-key="+l.at("pki", "kubelet.key"),
		"-objects="+objects)
	p.Args[0] = program
	if err := c.startProcesses(p); err != nil {
		return err
	}
	if err := c.waitServiceAccount(ctx, a); err != nil {
		return err
	}
	return c.wait(ctx, "simulated nodes and pods", "kubelets", time.Minute, func(ctx context.Context) error {
		if _, err := os.Stat(objects); err != nil {
			return err
		}
		if _, err := c.runKubectl(ctx, "apply", "--server-side", "-f", objects); err != nil {
			return err
		}
		// A new pod is always pending, so its status is written separately.
		_, err := c.runKubectl(ctx, "apply", "--server-side", "--subresource=status", "-f", objects)
		return err
	})
}
