package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// servicePort is where Services answer.
const servicePort = 80

// services are Services without a selector, with EndpointSlices of our own.
type services struct {
	server
	// from and to number the ballast, so that more can be added to what is there.
	from, to int
	// address is the node's: where our listeners are, in whose network this runs.
	address string
	count   int
}

func declareBallast(flags *flag.FlagSet) measure {
	s := &services{}
	s.declare(flags)
	flags.IntVar(&s.from, "from", 0, "number of the first Service")
	flags.IntVar(&s.to, "to", 1000, "number after the last one")
	return s.ballast
}

// ballast creates Services whose endpoints nobody will ask.
func (s *services) ballast(ctx context.Context) (Figures, error) {
	client, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	start, name := time.Now(), unique("ballast")
	err = parallel(ctx, s.to-s.from, creators, func(ctx context.Context, i int) error {
		if _, err := createService(ctx, client, name(i)); err != nil {
			return err
		}
		slice := endpointSlice(name(i), 8080, ballastAddresses(s.from+i)...)
		_, err := client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{})
		return err
	})
	return Figures{"created_ms": {since(start)}}, err
}

// ballastAddresses are five pod addresses that no other Service has and no pod of the node: its network is below 10.244.10.0.
func ballastAddresses(service int) []string {
	addresses := make([]string, 5)
	for e := range addresses {
		number := service*len(addresses) + e
		addresses[e] = fmt.Sprintf("10.244.%d.%d", 10+number/240, 1+number%240)
	}
	return addresses
}

func createService(ctx context.Context, client *kubernetes.Clientset, name string) (string, error) {
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "services"}},
		Spec:       v1.ServiceSpec{Ports: []v1.ServicePort{{Port: servicePort}}},
	}
	made, err := client.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(made.Spec.ClusterIP, fmt.Sprint(servicePort)), nil
}

func endpointSlice(service string, port int32, addresses ...string) *discovery.EndpointSlice {
	ready, protocol := true, v1.ProtocolTCP
	slice := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   service,
			Labels: map[string]string{discovery.LabelServiceName: service, label: "services"},
		},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Port: &port, Protocol: &protocol}},
	}
	for _, address := range addresses {
		endpoint := discovery.Endpoint{Addresses: []string{address}, Conditions: discovery.EndpointConditions{Ready: &ready}}
		slice.Endpoints = append(slice.Endpoints, endpoint)
	}
	return slice
}

func (s *services) declareNode(flags *flag.FlagSet) {
	s.declare(flags)
	flags.StringVar(&s.address, "address", "", "the node's, in whose network namespace this must run")
}

func declareChange(flags *flag.FlagSet) measure {
	s := &services{}
	s.declareNode(flags)
	flags.IntVar(&s.count, "n", 5, "how many changes")
	return s.change
}

// pause lets a proxy come to rest between changes: kube-proxy writes at most once a second.
const pause = 1500 * time.Millisecond

// change moves a Service's one endpoint from one listener to another and waits until a connection follows.
func (s *services) change(ctx context.Context) (Figures, error) {
	client, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	var ports [2]int32
	for i, said := range []byte("AB") {
		if ports[i], err = listen(s.address, said); err != nil {
			return nil, err
		}
	}
	name := unique("changing")(0)
	to, err := createService(ctx, client, name)
	if err != nil {
		return nil, err
	}
	api, slice := client.DiscoveryV1().EndpointSlices(namespace), endpointSlice(name, ports[0], s.address)
	if _, err = api.Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	figures, start := Figures{}, time.Now()
	if err := answers(ctx, to, 'A'); err != nil {
		return nil, err
	}
	figures.add("first_ms", time.Since(start))
	for i := range s.count {
		time.Sleep(pause)
		next := (i + 1) % 2
		start = time.Now()
		if _, err := api.Update(ctx, endpointSlice(name, ports[next], s.address), metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		if err := answers(ctx, to, "AB"[next]); err != nil {
			return nil, err
		}
		figures.add("change_ms", time.Since(start))
	}
	return figures, nil
}

func declareConnect(flags *flag.FlagSet) measure {
	s := &services{}
	s.declareNode(flags)
	return s.connectLater
}

// connectLater creates a Service, says "polling" on standard error, and answers with the time at which a connection reached its endpoint.
// Whoever reads "polling" may start a proxy: how long that took to synchronise is known then.
func (s *services) connectLater(ctx context.Context) (Figures, error) {
	client, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	port, err := listen(s.address, 'A')
	if err != nil {
		return nil, err
	}
	name := unique("synced")(0)
	to, err := createService(ctx, client, name)
	if err != nil {
		return nil, err
	}
	slice := endpointSlice(name, port, s.address)
	if _, err := client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "polling")
	if err := answers(ctx, to, 'A'); err != nil {
		return nil, err
	}
	return Figures{"answered_unix_ms": {float64(time.Now().UnixMicro()) / 1000}}, nil
}
