package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bare are pods made by the calls that no node agent can do without.
type bare struct {
	endpoint, cgroup, logs, image string
	count, callers, containers    int

	runtime cri.RuntimeServiceClient
	mu      sync.Mutex
	figures Figures
}

// made is a bare pod that runs.
type made struct {
	sandbox    string
	containers []string
}

func declareFloor(flags *flag.FlagSet) measure {
	b := &bare{figures: Figures{}}
	flags.StringVar(&b.endpoint, "endpoint", "unix:///run/containerd/containerd.sock", "of the runtime")
	flags.StringVar(&b.cgroup, "cgroup", "/kbench", "cgroup parent of the sandboxes")
	flags.StringVar(&b.logs, "logs", "/tmp/kbench-logs", "folder for the containers' logs")
	flags.StringVar(&b.image, "image", "docker.io/keelson/hello:1", "the image of bound pods")
	flags.IntVar(&b.count, "n", 10, "how many pods")
	flags.IntVar(&b.callers, "c", 1, "how many at the same time; with more than one, all are made before the first is removed")
	flags.IntVar(&b.containers, "containers", 1, "of each pod")
	return b.measure
}

func (b *bare) measure(ctx context.Context) (Figures, error) {
	connection, err := grpc.NewClient(b.endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	b.runtime = cri.NewRuntimeServiceClient(connection)
	name := unique("floor")
	if b.callers > 1 {
		return b.figures, b.atOnce(ctx, name)
	}
	for i := range b.count {
		pod, err := b.up(ctx, name(i))
		if err != nil {
			return nil, err
		}
		if err := b.listening(ctx, name(i)); err != nil {
			return nil, err
		}
		if err := b.down(ctx, pod); err != nil {
			return nil, err
		}
	}
	return b.figures, nil
}

func (b *bare) atOnce(ctx context.Context, name func(int) string) error {
	pods, start := make([]made, b.count), time.Now()
	err := parallel(ctx, b.count, b.callers, func(ctx context.Context, i int) (err error) {
		pods[i], err = b.up(ctx, name(i))
		return err
	})
	if err != nil {
		return err
	}
	b.add("all_up_ms", start)
	for i := range b.count {
		if err := b.listening(ctx, name(i)); err != nil {
			return err
		}
	}
	start = time.Now()
	err = parallel(ctx, b.count, b.callers, func(ctx context.Context, i int) error { return b.down(ctx, pods[i]) })
	b.add("all_down_ms", start)
	return err
}

func (b *bare) add(name string, start time.Time) {
	took := time.Since(start)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.figures.add(name, took)
}

func (b *bare) up(ctx context.Context, name string) (made, error) {
	config := b.sandbox(name)
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return made{}, err
	}
	start := time.Now()
	ran, err := b.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return made{}, fmt.Errorf("RunPodSandbox: %w", err)
	}
	b.add("sandbox_ms", start)
	pod := made{sandbox: ran.PodSandboxId}
	for number := range b.containers {
		request := &cri.CreateContainerRequest{PodSandboxId: pod.sandbox, SandboxConfig: config, Config: b.container(number)}
		created, err := b.runtime.CreateContainer(ctx, request)
		if err != nil {
			return made{}, fmt.Errorf("CreateContainer: %w", err)
		}
		if _, err := b.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
			return made{}, fmt.Errorf("StartContainer: %w", err)
		}
		pod.containers = append(pod.containers, created.ContainerId)
	}
	b.add("up_ms", start)
	return pod, nil
}

// listening waits until each server of a pod listens: a program that is told to end before may not hear it.
func (b *bare) listening(ctx context.Context, name string) error {
	for number := range b.containers {
		path := filepath.Join(b.sandbox(name).LogDirectory, b.container(number).LogPath)
		err := eventually(ctx, func() error {
			log, err := os.ReadFile(path)
			if err == nil && !bytes.Contains(log, []byte(listening)) {
				err = fmt.Errorf("%s does not say %q", path, listening)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bare) down(ctx context.Context, pod made) error {
	start := time.Now()
	for _, id := range pod.containers {
		if _, err := b.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: 30}); err != nil {
			return fmt.Errorf("StopContainer: %w", err)
		}
	}
	if _, err := b.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.sandbox}); err != nil {
		return fmt.Errorf("StopPodSandbox: %w", err)
	}
	for _, id := range pod.containers {
		if _, err := b.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
			return fmt.Errorf("RemoveContainer: %w", err)
		}
	}
	if _, err := b.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.sandbox}); err != nil {
		return fmt.Errorf("RemovePodSandbox: %w", err)
	}
	b.add("down_ms", start)
	return nil
}

func (b *bare) sandbox(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: name},
		Hostname:     name,
		LogDirectory: filepath.Join(b.logs, name),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: b.cgroup,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}
}

func (b *bare) container(number int) *cri.ContainerConfig {
	name := fmt.Sprintf("c%d", number)
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: b.image},
		Args:     serverArgs(number, 0),
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{CpuShares: 2, OomScoreAdj: 1000},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}
}
