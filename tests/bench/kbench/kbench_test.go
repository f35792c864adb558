package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

func TestShapes(t *testing.T) {
	for shape, containers := range map[string]int{plain: 1, probed: 1, late: 1, threeContainers: 3, withConfigMap: 1} {
		pod, err := (&recipe{image: "i", shape: shape, configMap: "m"}).pod("p", 0)
		if err != nil || len(pod.Spec.Containers) != containers {
			t.Errorf("%s: %v, %v", shape, pod, err)
		}
		if has := pod.Spec.Containers[0].ReadinessProbe != nil; has != (shape == probed || shape == late) {
			t.Errorf("%s: has a probe: %v", shape, has)
		}
		if mounts := len(pod.Spec.Containers[0].VolumeMounts) == 1; mounts != (shape == withConfigMap) {
			t.Errorf("%s: has a mount: %v", shape, mounts)
		}
	}
	if _, err := (&recipe{shape: "round"}).pod("p", 0); err == nil || !strings.Contains(err.Error(), `"round"`) {
		t.Errorf("an unknown shape: %v", err)
	}
}

func TestServersOfAPodHavePortsOfTheirOwn(t *testing.T) {
	if a, b := serverArgs(0, 0)[1], serverArgs(1, 0)[1]; a != "8080" || b != "8081" {
		t.Errorf("%s, %s", a, b)
	}
}

func TestDelaysAreSpreadOverAProbesPeriod(t *testing.T) {
	r := &recipe{shape: late}
	if a, b := r.delay(0, 2), r.delay(1, 2); a != 250*time.Millisecond || b != 750*time.Millisecond {
		t.Errorf("%v, %v", a, b)
	}
	if args := serverArgs(0, r.delay(0, 2)); args[3] != "0.25" {
		t.Errorf("%v", args)
	}
	if delay := (&recipe{shape: plain}).delay(1, 2); delay != 0 {
		t.Errorf("%v", delay)
	}
}

func TestLogTime(t *testing.T) {
	log := "2026-11-26T10:00:00.5Z starting\n2026-11-26T10:00:01.123456789Z listening on port 8080\n"
	at, err := logTime([]byte(log), listening)
	if err != nil || at.Format(time.RFC3339Nano) != "2026-11-26T10:00:01.123456789Z" {
		t.Errorf("%v, %v", at, err)
	}
	if _, err := logTime([]byte("2026-11-26T10:00:00Z bye\n"), listening); err == nil {
		t.Error("found a line that is not there")
	}
}

func TestBallastAddressesAreUniqueAndValid(t *testing.T) {
	seen := map[string]bool{}
	for service := range 10_000 {
		for _, address := range ballastAddresses(service) {
			if seen[address] || strings.HasPrefix(address, "10.244.1.") || strings.Contains(address, ".256") {
				t.Fatalf("service %d: %s", service, address)
			}
			seen[address] = true
		}
	}
}

func TestObservedTellsWhenPodsWereReadyAndGone(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	client := fake.NewClientset()
	client.PrependReactor("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, &v1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, nil
	})
	server := watch.NewFake()
	client.PrependWatchReactor("pods", k8stesting.DefaultWatchReactor(server, nil))
	pods, err := follow(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", ResourceVersion: "2"}}
	server.Add(pod.DeepCopy())
	pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}
	server.Modify(pod.DeepCopy())
	ready, err := pods.ready(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	server.Delete(pod)
	gone, err := pods.gone(ctx, "p")
	if err != nil || gone.Before(ready) {
		t.Errorf("ready %v, gone %v, %v", ready, gone, err)
	}
	pods.stop()
	if _, err := pods.ready(ctx, "other"); err == nil || !strings.Contains(err.Error(), "watch of pods ended") {
		t.Errorf("a watch that ended: %v", err)
	}
}

func TestCountLines(t *testing.T) {
	var seen atomic.Int32
	count := func() { seen.Add(1) }
	if err := countLines(strings.NewReader("{}\n{}\n{}\n"), 2, count); err != nil || seen.Load() != 2 {
		t.Errorf("%d seen, %v", seen.Load(), err)
	}
	if err := countLines(strings.NewReader("{}\n{"), 2, count); err == nil {
		t.Error("half a line counted as an event")
	}
}

func TestAllSeenFailsWithTheFirstWatcherThatFails(t *testing.T) {
	var seen sync.WaitGroup
	seen.Add(1)
	defer seen.Done()
	failed := make(chan error, 2)
	failed <- nil
	failed <- errors.New("gone")
	if err := allSeen(&seen, failed); err == nil || err.Error() != "gone" {
		t.Errorf("%v", err)
	}
}

func TestAnswersFollowsTheListenerThatIsWanted(t *testing.T) {
	port, err := listen("127.0.0.1", 'B')
	if err != nil {
		t.Fatal(err)
	}
	to := fmt.Sprintf("127.0.0.1:%d", port)
	if err := answers(t.Context(), to, 'B'); err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if err := answers(short, to, 'A'); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the wrong listener satisfied: %v", err)
	}
}

func TestPausesGrowWithWhatHasPassed(t *testing.T) {
	if a, b := between(time.Millisecond), between(10*time.Second); a != 500*time.Microsecond || b != 100*time.Millisecond {
		t.Errorf("%v, %v", a, b)
	}
}

func TestParallelStopsAtTheFirstError(t *testing.T) {
	var calls atomic.Int32
	err := parallel(t.Context(), 1000, 2, func(context.Context, int) error {
		calls.Add(1)
		return errors.New("no")
	})
	if err == nil || calls.Load() > 4 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestRunNamesWhatItDoesNotKnow(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "admin.conf")
	text := `{"clusters":[{"name":"c","cluster":{"server":"https://127.0.0.1:1"}}],"contexts":[{"name":"x","context":{"cluster":"c"}}],"current-context":"x"}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":              "usage: kbench",
		"nothing":       `no measurement is called "nothing"`,
		"pods -nothing": "flag provided but not defined",
		"list":          "-kubeconfig is missing",
		"list -encoding=yaml -kubeconfig=" + kubeconfig: "-encoding is protobuf or json",
		"floor -endpoint=\x00":                          "floor",
	} {
		var out bytes.Buffer
		err := run(t.Context(), strings.Fields(args), &out)
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() != 0 {
			t.Errorf("%q: %v, %q", args, err, out.String())
		}
	}
}
