package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// listening is what the web server of the image prints when it begins to answer.
const listening = "listening on port"

// bound are pods that are bound to a node as they are created: no scheduler is measured.
type bound struct {
	server
	recipe
	node  string
	count int
}

func (b *bound) declare(flags *flag.FlagSet) {
	b.server.declare(flags)
	flags.StringVar(&b.node, "node", "n1", "node to bind to")
	flags.StringVar(&b.image, "image", "docker.io/keelson/hello:1", "a web server on -port P with /healthz; it must be on the node")
	flags.StringVar(&b.shape, "shape", "plain", shapes)
	flags.IntVar(&b.count, "n", 10, "how many pods")
}

func declarePods(flags *flag.FlagSet) measure {
	b := &bound{}
	b.declare(flags)
	return b.oneByOne
}

// oneByOne creates a pod, waits until it is Ready, deletes it, waits until it is gone; again and again.
func (b *bound) oneByOne(ctx context.Context) (Figures, error) {
	client, pods, err := b.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer pods.stop()
	figures, name := Figures{}, unique(b.shape)
	for i := range b.count {
		if err := b.one(ctx, client, pods, name(i), b.delay(i, b.count), figures); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

func (b *bound) one(ctx context.Context, client *kubernetes.Clientset, pods *observed, name string, delay time.Duration, figures Figures) error {
	api := client.CoreV1().Pods(namespace)
	start := time.Now()
	pod, err := b.create(ctx, client, name, delay)
	if err != nil {
		return err
	}
	ready, err := pods.ready(ctx, name)
	if err != nil {
		return err
	}
	figures.add("ready_ms", ready.Sub(start))
	answers, err := answering(ctx, client, pod)
	if err != nil {
		return err
	}
	if pod.Spec.Containers[0].ReadinessProbe != nil {
		figures.add("ready_after_answer_ms", ready.Sub(answers))
	}
	start = time.Now()
	if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	gone, err := pods.gone(ctx, name)
	if err != nil {
		return err
	}
	figures.add("gone_ms", gone.Sub(start))
	return nil
}

func (f Figures) add(name string, d time.Duration) {
	f[name] = append(f[name], ms(d))
}

// answering waits until each server of a pod listens, and answers when the first one did, by the time that the runtime wrote into its
// log. A program that is told to end before it listens may not hear it.
func answering(ctx context.Context, client *kubernetes.Clientset, pod *v1.Pod) (time.Time, error) {
	var first time.Time
	for _, container := range slices.Backward(pod.Spec.Containers) {
		options := &v1.PodLogOptions{Container: container.Name, Timestamps: true}
		err := eventually(ctx, func() error {
			log, err := client.CoreV1().Pods(namespace).GetLogs(pod.Name, options).DoRaw(ctx)
			if err != nil {
				return fmt.Errorf("log of %s: %w", pod.Name, err)
			}
			first, err = logTime(log, listening)
			return err
		})
		if err != nil {
			return first, err
		}
	}
	return first, nil
}

// logTime finds the time of the first line that contains text.
func logTime(log []byte, text string) (time.Time, error) {
	for line := range bytes.Lines(log) {
		stamp, said, _ := bytes.Cut(line, []byte(" "))
		if bytes.Contains(said, []byte(text)) {
			return time.Parse(time.RFC3339Nano, string(stamp))
		}
	}
	return time.Time{}, fmt.Errorf("no line of the log says %q", text)
}

// begin makes what pods need and follows them.
func (b *bound) begin(ctx context.Context) (*kubernetes.Clientset, *observed, error) {
	client, err := b.ready(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := b.prepare(ctx, client); err != nil {
		return nil, nil, err
	}
	pods, err := follow(ctx, client)
	return client, pods, err
}

// prepare makes what the pods need beside themselves.
func (b *bound) prepare(ctx context.Context, client *kubernetes.Clientset) error {
	if b.shape != withConfigMap {
		return nil
	}
	config := &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: unique("mounted")(0)},
		Data:       map[string]string{"one": "1", "two": "2", "three": "3"},
	}
	b.configMap = config.Name
	_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, config, metav1.CreateOptions{})
	return err
}

func (b *bound) create(ctx context.Context, client *kubernetes.Clientset, name string, delay time.Duration) (*v1.Pod, error) {
	pod, err := b.pod(name, delay)
	if err != nil {
		return nil, err
	}
	pod.Spec.NodeName = b.node
	return client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
}
