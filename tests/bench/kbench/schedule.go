package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// hollow are nodes that exist as objects only, and pods that a scheduler binds to them.
type hollow struct {
	server
	nodes, pods int
}

func declareSchedule(flags *flag.FlagSet) measure {
	h := &hollow{}
	h.server.declare(flags)
	flags.IntVar(&h.nodes, "nodes", 1000, "hollow nodes")
	flags.IntVar(&h.pods, "n", 3000, "pods")
	return h.measure
}

// measure answers the pods bound in a second, from the first create to the last binding.
func (h *hollow) measure(ctx context.Context) (Figures, error) {
	client, err := h.ready(ctx)
	if err != nil {
		return nil, err
	}
	name := unique("hollow")
	err = parallel(ctx, h.nodes, creators, func(ctx context.Context, i int) error {
		_, err := client.CoreV1().Nodes().Create(ctx, hollowNode(name(i)), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create nodes: %w", err)
	}
	// Whoever follows nodes has seen them when a pod that is created after them is bound.
	if _, err := h.bind(ctx, client, "first", 1); err != nil {
		return nil, err
	}
	took, err := h.bind(ctx, client, "many", h.pods)
	if err != nil {
		return nil, err
	}
	return Figures{"bound_per_s": {float64(h.pods) / took.Seconds()}, "all_bound_ms": {ms(took)}}, nil
}

// bind creates pods and waits until all are bound.
func (h *hollow) bind(ctx context.Context, client *kubernetes.Clientset, kind string, count int) (time.Duration, error) {
	options := selecting(kind)
	options.FieldSelector = "spec.nodeName!="
	watching, err := watchPods(ctx, client, options)
	if err != nil {
		return 0, err
	}
	defer watching.Stop()
	name, start := unique(kind), time.Now()
	created := make(chan error, 1)
	go func() {
		created <- parallel(ctx, count, 2*creators, func(ctx context.Context, i int) error {
			_, err := client.CoreV1().Pods(namespace).Create(ctx, unbound(name(i), kind), metav1.CreateOptions{})
			return err
		})
	}()
	if err := countAdded(ctx, watching, count); err != nil {
		return 0, err
	}
	took := time.Since(start)
	return took, <-created
}

// countAdded waits until so many objects have come into a watch.
func countAdded(ctx context.Context, watching watch.Interface, count int) error {
	late := time.After(patience)
	for left := count; left > 0; {
		select {
		case event, open := <-watching.ResultChan():
			if !open || event.Type == watch.Error {
				return fmt.Errorf("the watch of bound pods ended with %d of %d missing: %v", left, count, event.Object)
			}
			if event.Type == watch.Added {
				left--
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("%d of %d pods were not bound within %s", left, count, patience)
		}
	}
	return nil
}

func unbound(name, kind string) *v1.Pod {
	requests := v1.ResourceList{v1.ResourceCPU: resource.MustParse("1m"), v1.ResourceMemory: resource.MustParse("1Mi")}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: kind}},
		Spec: v1.PodSpec{
			NodeSelector: map[string]string{label: "hollow"},
			// Nobody renews the leases of hollow nodes.
			Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}},
			Containers:  []v1.Container{{Name: "c", Image: "none", Resources: v1.ResourceRequirements{Requests: requests}}},
		},
	}
}

func hollowNode(name string) *v1.Node {
	size := v1.ResourceList{
		v1.ResourceCPU:    resource.MustParse("32"),
		v1.ResourceMemory: resource.MustParse("64Gi"),
		v1.ResourcePods:   resource.MustParse("110"),
	}
	ready := v1.NodeCondition{
		Type:               v1.NodeReady,
		Status:             v1.ConditionTrue,
		Reason:             "KubeletReady",
		LastHeartbeatTime:  metav1.Now(),
		LastTransitionTime: metav1.Now(),
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "hollow", v1.LabelHostname: name}},
		Status:     v1.NodeStatus{Capacity: size, Allocatable: size, Conditions: []v1.NodeCondition{ready}},
	}
}
