package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// usage lists the measurements with their flags.
func usage() error {
	var text strings.Builder
	text.WriteString("usage: kbench MEASUREMENT [flags]")
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		fmt.Fprintf(&text, "\n  %-9s %s", name, commands[name].does)
		flags := flag.NewFlagSet(name, flag.ContinueOnError)
		commands[name].declare(flags)
		flags.VisitAll(func(f *flag.Flag) { fmt.Fprintf(&text, "\n      -%s (%s) %s", f.Name, f.DefValue, f.Usage) })
	}
	return errors.New(text.String())
}
