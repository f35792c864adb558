// kbench measures a node, a control plane or a service proxy from the outside: through the Kubernetes API, through CRI, and by
// connecting to Services. It is the same program for stock components and for ours, and knows nothing of either.
//
// It prints one JSON object: what was measured -> values, in the unit that the name ends with. Judging them is not its work.
//
//	file          measures
//	pods.go       create -> Ready and delete -> gone, pods one by one
//	burst.go      the same, many at once
//	floor.go      the same pods made by bare CRI calls
//	objects.go    creates, gets, updates, deletes, lists
//	fan.go        one write until many watchers have seen it
//	schedule.go   unbound pods until they are bound
//	services.go   a change of a Service's endpoints until a connection follows it
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Figures are measured values by name. A name ends with its unit: "_ms", "_per_s", "_unix_ms".
type Figures map[string][]float64

// measure runs a measurement whose flags have been parsed.
type measure func(ctx context.Context) (Figures, error)

// command declares its flags and answers with the measurement that will read them.
type command struct {
	does    string
	declare func(flags *flag.FlagSet) measure
}

var commands = map[string]command{
	"pods":     {"create -> Ready and delete -> gone, one by one", declarePods},
	"burst":    {"pods at once until all are Ready; they stay", declareBurst},
	"remove":   {"delete all pods of kbench at once until they are gone", declareRemove},
	"floor":    {"the same pods by bare CRI calls", declareFloor},
	"objects":  {"creates, gets, updates and deletes of ConfigMaps", declareObjects},
	"fill":     {"create ConfigMaps; they stay", declareFill},
	"list":     {"lists of all ConfigMaps of kbench", declareList},
	"fan":      {"a create until every watcher has seen it", declareFan},
	"schedule": {"unbound pods on hollow nodes until all are bound", declareSchedule},
	"ballast":  {"create Services with five endpoints each; they stay", declareBallast},
	"change":   {"a change of endpoints until a connection follows it", declareChange},
	"connect":  {"wait until a Service answers", declareConnect},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "kbench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return usage()
	}
	chosen, known := commands[args[0]]
	if !known {
		return fmt.Errorf("no measurement is called %q\n%w", args[0], usage())
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	work := chosen.declare(flags)
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	figures, err := work(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return json.NewEncoder(out).Encode(figures)
}
