package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// fan is one writer and many watchers.
type fan struct {
	server
	watchers, events int
}

func declareFan(flags *flag.FlagSet) measure {
	f := &fan{server: server{encoding: "json"}}
	f.declareAddress(flags)
	flags.IntVar(&f.watchers, "c", 100, "how many watchers, each with a connection of its own")
	flags.IntVar(&f.events, "n", 100, "how many creates, one after the other")
	return f.measure
}

// measure creates an object, waits until every watcher has been sent it, and goes on with the next.
//
// Watchers count lines of JSON and decode nothing: they share the machine with the server that is measured.
func (f *fan) measure(ctx context.Context) (Figures, error) {
	client, err := f.ready(ctx)
	if err != nil {
		return nil, err
	}
	clients, err := f.connections(ctx, f.watchers)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var seen sync.WaitGroup
	failed := make(chan error, f.watchers)
	for _, watcher := range clients {
		stream, err := watchFan(ctx, watcher)
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		go func() { failed <- countLines(stream, f.events, seen.Done) }()
	}
	figures, name, start := Figures{}, unique("fan"), time.Now()
	for i := range f.events {
		seen.Add(f.watchers)
		begun := time.Now()
		object := configMap(name(i), "")
		object.Labels[label] = "fan"
		if _, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		if err := allSeen(&seen, failed); err != nil {
			return nil, err
		}
		figures.add("all_saw_ms", time.Since(begun))
	}
	figures["events_per_s"] = []float64{float64(f.events*f.watchers) / time.Since(start).Seconds()}
	return figures, client.CoreV1().ConfigMaps(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, selecting("fan"))
}

func watchFan(ctx context.Context, client *kubernetes.Clientset) (io.ReadCloser, error) {
	request := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("configmaps")
	return request.Param("watch", "true").Param("labelSelector", label+"=fan").Stream(ctx)
}

// countLines calls seen for each of the first lines of a stream.
func countLines(stream io.Reader, lines int, seen func()) error {
	reader := bufio.NewReaderSize(stream, 16<<10)
	for i := range lines {
		if _, err := reader.ReadSlice('\n'); err != nil {
			return fmt.Errorf("a watch ended after %d of %d events: %w", i, lines, err)
		}
		seen()
	}
	return nil
}

// allSeen waits for all watchers, or for one that fails.
func allSeen(seen *sync.WaitGroup, failed <-chan error) error {
	all := make(chan struct{})
	go func() {
		seen.Wait()
		close(all)
	}()
	late := time.After(patience)
	for {
		select {
		case <-all:
			return nil
		case err := <-failed:
			if err != nil {
				return err
			}
		case <-late:
			return fmt.Errorf("not every watcher saw a create within %s", patience)
		}
	}
}
