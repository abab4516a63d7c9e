package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// startDocker starts containerd and dockerd on folders of their own, in the
// cluster's network, loads the ceph-common image and returns what stands
// before the arguments of rbd in the usual wrapper script. The daemons end
// with the function that it returns, or with this process.
func startDocker(ctx context.Context, c *cluster.Cluster, dir string) (wrapper []string, stop func() error, err error) {
	// Of the Debian that the genuine rbd of this machine is from, to compare like with like.
	const suite, image = "bookworm", "build/bench/ceph-common.tar"
	if _, err := os.Stat(image); err != nil {
		build := c.Command(ctx, "image/build", suite, image)
		// The packages come from the machine's network, not from the cluster's.
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Cmd.Run(); err != nil {
			return nil, nil, fmt.Errorf("image/build: %w", err)
		}
	}

	var daemons []*cluster.Cmd
	stop = func() error {
		var errs []error
		for i := len(daemons) - 1; i >= 0; i-- {
			d := daemons[i]
			_ = d.Process.Signal(syscall.SIGTERM)
			timer := time.AfterFunc(20*time.Second, func() { _ = d.Process.Kill() })
			if err := d.Wait(); err != nil && !timer.Stop() {
				errs = append(errs, fmt.Errorf("%s had to be killed", filepath.Base(d.Path)))
			}
			timer.Stop()
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	start := func(name string, args ...string) error {
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			return err
		}
		defer log.Close()
		// Not bound to ctx: the daemons end in order, by stop.
		d := c.Command(context.WithoutCancel(ctx), name, args...)
		d.Stdout, d.Stderr = log, log
		d.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := d.Start(); err != nil {
			return err
		}
		daemons = append(daemons, d)
		return nil
	}

	d := filepath.Join(dir, "docker")
	if err := os.MkdirAll(d, 0o711); err != nil {
		return nil, nil, err
	}
	config := filepath.Join(d, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o644); err != nil {
		return nil, nil, err
	}
	sock, ctd := filepath.Join(d, "docker.sock"), filepath.Join(d, "containerd.sock")
	if err := start("containerd", "--address", ctd, "--root", filepath.Join(d, "ctd"), "--state", filepath.Join(d, "ctd-run")); err != nil {
		return nil, nil, err
	}
	if err := await(ctx, ctd); err != nil {
		return nil, nil, fmt.Errorf("containerd: %w", err)
	}
	if err := start("dockerd", "--config-file", config, "--data-root", filepath.Join(d, "data"), "--exec-root", filepath.Join(d, "exec"),
		"-p", filepath.Join(d, "pid"), "-H", "unix://"+sock, "--containerd", ctd,
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"); err != nil {
		return nil, nil, err
	}
	if err := await(ctx, sock); err != nil {
		return nil, nil, fmt.Errorf("dockerd: %w", err)
	}

	docker := []string{"docker", "-H", "unix://" + sock}
	if out, err := c.Command(ctx, docker[0], append(docker[1:], "load", "--input", image)...).CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("docker load: %w: %s", err, strings.TrimSpace(string(out)))
	}
	conf := filepath.Dir(c.Conf())
	return append(docker, "run", "--rm", "--net=host", "-v", conf+":"+conf+":ro", "-v", "/dev:/dev", "-v", "/sys:/sys",
		"-e", "CEPH_CONF="+c.Conf(), "ceph-common", "/usr/bin/rbd"), stop, nil
}

// await waits until a daemon listens on its socket, for at most half a minute.
func await(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not appear; see its log in the same folder: %w", socket, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
