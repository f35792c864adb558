package main

import (
	"context"
	"flag"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// creators is how many clients share the creating of many pods.
const creators = 16

func declareBurst(flags *flag.FlagSet) measure {
	b := &bound{}
	b.declare(flags)
	return b.burst
}

// burst creates pods at once and waits until each is Ready. They stay, so that their idle cost can be measured.
func (b *bound) burst(ctx context.Context) (Figures, error) {
	client, pods, err := b.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer pods.stop()
	names, name := make([]string, b.count), unique("burst")
	for i := range names {
		names[i] = name(i)
	}
	figures, start := Figures{}, time.Now()
	err = parallel(ctx, b.count, creators, func(ctx context.Context, i int) error {
		_, err := b.create(ctx, client, names[i], 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return figures, figures.addEach(ctx, "ready_ms", start, names, pods.ready)
}

func declareRemove(flags *flag.FlagSet) measure {
	s := &server{}
	s.declare(flags)
	return s.remove
}

// remove deletes all pods of kbench with one request and waits until each is gone.
func (s *server) remove(ctx context.Context) (Figures, error) {
	client, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := follow(ctx, client)
	if err != nil {
		return nil, err
	}
	defer pods.stop()
	api := client.CoreV1().Pods(namespace)
	there, err := api.List(ctx, selecting("pods"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, pod := range there.Items {
		names = append(names, pod.Name)
	}
	figures, start := Figures{}, time.Now()
	if err := api.DeleteCollection(ctx, metav1.DeleteOptions{}, selecting("pods")); err != nil {
		return nil, err
	}
	return figures, figures.addEach(ctx, "gone_ms", start, names, pods.gone)
}

// addEach waits for each pod, and notes how long each took since start and, as "all_…", the last one.
func (f Figures) addEach(ctx context.Context, figure string, start time.Time, names []string, wait func(context.Context, string) (time.Time, error)) error {
	last := start
	for _, name := range names {
		at, err := wait(ctx, name)
		if err != nil {
			return err
		}
		if at.After(last) {
			last = at
		}
		f.add(figure, at.Sub(start))
	}
	f.add("all_"+figure, last.Sub(start))
	return nil
}
