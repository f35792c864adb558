package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	toolswatch "k8s.io/client-go/tools/watch"
)

const (
	// namespace holds everything that kbench makes.
	namespace = "kbench"
	// label is on everything that kbench makes; its value names the measurement.
	label = "kbench"
	// patience is how long anything may take before the measurement fails.
	patience = 10 * time.Minute
)

// server is the API server that is measured.
type server struct {
	kubeconfig string
	encoding   string
}

func (s *server) declare(flags *flag.FlagSet) {
	s.declareAddress(flags)
	flags.StringVar(&s.encoding, "encoding", "protobuf", "on the wire: protobuf or json")
}

func (s *server) declareAddress(flags *flag.FlagSet) {
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "whom to ask")
}

// connect makes a client with a connection of its own, without a rate limit and past any HTTP proxy.
func (s *server) connect() (*kubernetes.Clientset, error) {
	if s.kubeconfig == "" {
		return nil, errors.New("-kubeconfig is missing")
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.UserAgent = "kbench"
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	// client-go shares connections between clients unless they dial for themselves.
	config.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	if err := encode(config, s.encoding); err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func encode(config *rest.Config, encoding string) error {
	switch encoding {
	case "protobuf":
		config.ContentType = runtime.ContentTypeProtobuf
		config.AcceptContentTypes = runtime.ContentTypeProtobuf
	case "json":
		config.ContentType = runtime.ContentTypeJSON
		config.AcceptContentTypes = runtime.ContentTypeJSON
	default:
		return fmt.Errorf("-encoding is protobuf or json, not %q", encoding)
	}
	return nil
}

// ready makes a client and the namespace, with the ServiceAccount that pods need.
func (s *server) ready(ctx context.Context) (*kubernetes.Clientset, error) {
	client, err := s.connect()
	if err != nil {
		return nil, err
	}
	_, err = client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("create namespace: %w", err)
	}
	return client, eventually(ctx, func() error {
		_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// eventually asks again and again until there is no error, for a minute.
func eventually(ctx context.Context, ask func() error) error {
	for start := time.Now(); ; {
		err := ask()
		if err == nil || time.Since(start) > time.Minute {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// connections makes so many clients, each with a connection of its own that has been used once: the first request pays for the handshake.
func (s *server) connections(ctx context.Context, count int) ([]*kubernetes.Clientset, error) {
	clients := make([]*kubernetes.Clientset, count)
	err := parallel(ctx, count, 16, func(ctx context.Context, i int) error {
		client, err := s.connect()
		if err != nil {
			return err
		}
		clients[i] = client
		_, err = client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		return err
	})
	return clients, err
}

// parallel calls work for 0 … count-1, so many at a time, and stops at the first error.
func parallel(ctx context.Context, count, workers int, work func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range count {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return work(ctx, i)
		})
	}
	return group.Wait()
}

func selecting(value string) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: label + "=" + value}
}

// watchPods watches the pods that options select from now on, and goes on where it was when the server ends a watch: servers do that
// to clients that cannot keep up.
func watchPods(ctx context.Context, client kubernetes.Interface, options metav1.ListOptions) (watch.Interface, error) {
	api := client.CoreV1().Pods(namespace)
	now := options
	now.Limit = 1
	there, err := api.List(ctx, now)
	if err != nil {
		return nil, err
	}
	begin := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, more metav1.ListOptions) (watch.Interface, error) {
		more.LabelSelector, more.FieldSelector = options.LabelSelector, options.FieldSelector
		return api.Watch(ctx, more)
	}}
	return toolswatch.NewRetryWatcherWithContext(ctx, there.ResourceVersion, begin)
}

// unique makes names that earlier runs have not used.
func unique(prefix string) func(i int) string {
	run := time.Now().UnixMilli()
	return func(i int) string { return fmt.Sprintf("%s-%x-%d", prefix, run, i) }
}

func ms(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}

func since(start time.Time) float64 {
	return ms(time.Since(start))
}
