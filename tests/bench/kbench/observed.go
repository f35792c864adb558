package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// observed is what a watch has told of pods, and when.
type observed struct {
	watch watch.Interface

	mu      sync.Mutex
	readyAt map[string]time.Time
	goneAt  map[string]time.Time
	broken  error
	changed chan struct{} // closed and replaced at each change
}

// follow watches the pods of kbench from now on.
func follow(ctx context.Context, client kubernetes.Interface) (*observed, error) {
	watching, err := watchPods(ctx, client, selecting("pods"))
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	o := &observed{
		watch:   watching,
		readyAt: map[string]time.Time{},
		goneAt:  map[string]time.Time{},
		changed: make(chan struct{}),
	}
	go o.read()
	return o, nil
}

func (o *observed) stop() { o.watch.Stop() }

func (o *observed) read() {
	for event := range o.watch.ResultChan() {
		o.note(event, time.Now())
	}
	o.note(watch.Event{Type: watch.Error}, time.Now())
}

func (o *observed) note(event watch.Event, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	pod, isPod := event.Object.(*v1.Pod)
	switch {
	case !isPod:
		o.broken = fmt.Errorf("the watch of pods ended: %v", event.Object)
	case event.Type == watch.Deleted:
		o.goneAt[pod.Name] = now
	case isReady(pod):
		if _, known := o.readyAt[pod.Name]; !known {
			o.readyAt[pod.Name] = now
		}
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

func isReady(pod *v1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == v1.PodReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

// ready waits until a pod is Ready and answers when it was.
func (o *observed) ready(ctx context.Context, name string) (time.Time, error) {
	return o.wait(ctx, o.readyAt, name, "Ready")
}

// gone waits until a pod is no more and answers when it went.
func (o *observed) gone(ctx context.Context, name string) (time.Time, error) {
	return o.wait(ctx, o.goneAt, name, "gone")
}

func (o *observed) wait(ctx context.Context, times map[string]time.Time, name, what string) (time.Time, error) {
	late := time.After(patience)
	for {
		o.mu.Lock()
		at, known := times[name]
		broken, changed := o.broken, o.changed
		o.mu.Unlock()
		if known {
			return at, nil
		}
		if broken != nil {
			return time.Time{}, broken
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-late:
			return time.Time{}, fmt.Errorf("pod %s was not %s within %s", name, what, patience)
		}
	}
}
