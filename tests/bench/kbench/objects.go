package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
)

// objects are ConfigMaps of 1 KiB, written and read by clients with a connection of their own.
type objects struct {
	server
	count, clients int
}

func (o *objects) declare(flags *flag.FlagSet) {
	o.server.declare(flags)
	flags.IntVar(&o.count, "n", 1000, "how many objects")
	flags.IntVar(&o.clients, "c", 1, "how many clients")
}

func declareObjects(flags *flag.FlagSet) measure {
	o := &objects{}
	o.declare(flags)
	return o.verbs
}

var kibibyte = strings.Repeat("x", 1024)

func configMap(name, text string) *v1.ConfigMap {
	return &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "objects"}},
		Data:       map[string]string{"text": text},
	}
}

// verb is one request for the object of that name.
type verb struct {
	name    string
	request func(ctx context.Context, api core.ConfigMapInterface, name string) error
}

var verbs = []verb{
	{"create", create},
	{"get", func(ctx context.Context, api core.ConfigMapInterface, name string) error {
		_, err := api.Get(ctx, name, metav1.GetOptions{})
		return err
	}},
	{"update", func(ctx context.Context, api core.ConfigMapInterface, name string) error {
		_, err := api.Update(ctx, configMap(name, kibibyte+"y"), metav1.UpdateOptions{})
		return err
	}},
	{"delete", func(ctx context.Context, api core.ConfigMapInterface, name string) error {
		return api.Delete(ctx, name, metav1.DeleteOptions{})
	}},
}

func create(ctx context.Context, api core.ConfigMapInterface, name string) error {
	_, err := api.Create(ctx, configMap(name, kibibyte), metav1.CreateOptions{})
	return err
}

// verbs does each verb to each object, one verb after the other.
func (o *objects) verbs(ctx context.Context) (Figures, error) {
	clients, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	figures, name := Figures{}, unique("object")
	for _, verb := range verbs {
		took, each, err := o.each(ctx, clients, verb, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", verb.name, err)
		}
		figures[verb.name+"_per_s"] = []float64{float64(o.count) / took.Seconds()}
		figures[verb.name+"_ms"] = each
	}
	return figures, nil
}

func (o *objects) open(ctx context.Context) ([]*kubernetes.Clientset, error) {
	if _, err := o.ready(ctx); err != nil {
		return nil, err
	}
	return o.connections(ctx, o.clients)
}

// each deals the objects out to the clients and answers how long all took, and each.
func (o *objects) each(ctx context.Context, clients []*kubernetes.Clientset, verb verb, name func(int) string) (time.Duration, []float64, error) {
	each, start := make([]float64, o.count), time.Now()
	err := parallel(ctx, o.clients, o.clients, func(ctx context.Context, client int) error {
		api := clients[client].CoreV1().ConfigMaps(namespace)
		for i := client; i < o.count; i += o.clients {
			begun := time.Now()
			if err := verb.request(ctx, api, name(i)); err != nil {
				return err
			}
			each[i] = since(begun)
		}
		return nil
	})
	return time.Since(start), each, err
}

func declareFill(flags *flag.FlagSet) measure {
	o := &objects{}
	o.declare(flags)
	return o.fill
}

// fill creates objects that stay.
func (o *objects) fill(ctx context.Context) (Figures, error) {
	clients, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	took, _, err := o.each(ctx, clients, verb{"create", create}, unique("fill"))
	return Figures{"create_per_s": {float64(o.count) / took.Seconds()}}, err
}

func declareList(flags *flag.FlagSet) measure {
	o := &objects{}
	o.server.declare(flags)
	flags.IntVar(&o.count, "n", 5, "how many lists")
	return o.list
}

// list asks for all objects at whatever revision the server has. Answers are read to their end and not decoded: what is
// measured is the server.
func (o *objects) list(ctx context.Context) (Figures, error) {
	client, err := o.ready(ctx)
	if err != nil {
		return nil, err
	}
	there, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	figures := Figures{"list_objects": {float64(len(there.Items))}}
	for range o.count {
		start := time.Now()
		request := client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("configmaps").Param("resourceVersion", "0")
		body, err := request.DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		figures.add("list_ms", time.Since(start))
		figures["list_mib"] = []float64{float64(len(body)) / (1 << 20)}
	}
	return figures, nil
}
