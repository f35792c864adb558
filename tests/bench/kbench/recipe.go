package main

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What pods can be like.
const (
	plain           = "plain"
	probed          = "probed"
	late            = "late" // probed, and the server takes its time to start
	threeContainers = "three"
	withConfigMap   = "configmap"
)

const shapes = "plain, probed (http, each second), late (probed, slow to start), three (containers), configmap (volume)"

// port is where the image's web server listens unless told otherwise.
const port = 8080

// recipe says what pods are like.
type recipe struct {
	image, shape string
	// configMap is what a pod of that shape mounts.
	configMap string
}

// pod is a pod whose server takes a while until it listens.
func (r *recipe) pod(name string, delay time.Duration) (*v1.Pod, error) {
	no := false
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "pods"}},
		Spec: v1.PodSpec{
			AutomountServiceAccountToken: &no,
			EnableServiceLinks:           &no,
			// A node that was busy with something else may have missed a lease.
			Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}},
			Containers:  r.containers(delay),
		},
	}
	first := &pod.Spec.Containers[0]
	switch r.shape {
	case plain, threeContainers:
	case probed, late:
		handler := v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(port)}}
		first.ReadinessProbe = &v1.Probe{PeriodSeconds: 1, ProbeHandler: handler}
	case withConfigMap:
		source := v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: r.configMap}}
		pod.Spec.Volumes = []v1.Volume{{Name: "config", VolumeSource: v1.VolumeSource{ConfigMap: &source}}}
		first.VolumeMounts = []v1.VolumeMount{{Name: "config", MountPath: "/config"}}
	default:
		return nil, fmt.Errorf("-shape is %s, not %q", shapes, r.shape)
	}
	return pod, nil
}

// delay is how long the server of the i-th of so many pods takes until it listens. Where that falls in a probe's period decides how long
// the pod waits for the next one: delays are spread over it.
func (r *recipe) delay(i, count int) time.Duration {
	if r.shape != late {
		return 0
	}
	return time.Second * time.Duration(2*i+1) / time.Duration(2*count)
}

func (r *recipe) containers(delay time.Duration) []v1.Container {
	count := 1
	if r.shape == threeContainers {
		count = 3
	}
	containers := make([]v1.Container, count)
	for number := range containers {
		containers[number] = r.container(number, delay)
	}
	return containers
}

// container is a web server on a port of its own: containers of a pod share its network.
func (r *recipe) container(number int, delay time.Duration) v1.Container {
	requests := v1.ResourceList{v1.ResourceCPU: resource.MustParse("1m"), v1.ResourceMemory: resource.MustParse("1Mi")}
	return v1.Container{
		Name:            fmt.Sprintf("c%d", number),
		Image:           r.image,
		Args:            serverArgs(number, delay),
		ImagePullPolicy: v1.PullNever,
		Resources:       v1.ResourceRequirements{Requests: requests},
	}
}

func serverArgs(number int, delay time.Duration) []string {
	return []string{"--port", fmt.Sprint(port + number), "--start-delay", fmt.Sprint(delay.Seconds())}
}
