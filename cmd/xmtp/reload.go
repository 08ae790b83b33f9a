package main

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/go-xmtp/go-xmtp/node"
)

// A reloader reads the settings of a running node again.
type reloader struct {
	inUse  map[string]string // values of all settings, by flag
	level  *slog.LevelVar
	logger *slog.Logger
}

func newReloader(flags *pflag.FlagSet, level *slog.LevelVar, logger *slog.Logger) *reloader {
	return &reloader{values(flags), level, logger}
}

func values(flags *pflag.FlagSet) map[string]string {
	all := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		if setting(f) {
			all[f.Name] = f.Value.String()
		}
	})
	return all
}

// reload reads command line, environment and config file again, of which the file
// can have changed, and makes the node use what it can while it is running. If
// anything is wrong nothing is changed.
func (r *reloader) reload(n *node.Node) {
	fresh, flags, err := settingsAgain()
	if err == nil {
		err = r.apply(n, fresh, flags)
	}
	if err != nil {
		r.logger.Error("settings were read again, but something is wrong, so nothing was changed", "error", err)
	}
}

func (r *reloader) apply(n *node.Node, fresh *nodeSettings, flags *pflag.FlagSet) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(fresh.logLevel.value)); err != nil {
		return err
	}
	limits := pflag.NewFlagSet("limits", pflag.ContinueOnError)
	new(limitFlags).add(limits)
	var changed, later []string
	now := values(flags)
	for name, value := range now {
		switch {
		case value == r.inUse[name]:
		case name == "log-level" || limits.Lookup(name) != nil:
			changed = append(changed, name)
		default:
			later = append(later, name)
		}
	}
	if err := n.SetLimits(fresh.limits.limits()); err != nil {
		return err
	}
	// At whichever of both levels is told.
	r.level.Set(min(r.level.Level(), level))
	for _, name := range changed {
		r.inUse[name] = now[name]
	}
	slices.Sort(changed)
	r.logger.Info("settings were read again", "changed", strings.Join(changed, ", "))
	if len(later) > 0 {
		slices.Sort(later)
		r.logger.Warn("these settings have changed, but need a restart", "settings", strings.Join(later, ", "))
	}
	r.level.Set(level)
	return nil
}

// settingsAgain is what the node would be started with now.
func settingsAgain() (*nodeSettings, *pflag.FlagSet, error) {
	_, args, err := newRoot().Find(os.Args[1:])
	if err != nil {
		return nil, nil, err
	}
	s := newNodeSettings()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	config := s.flags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, nil, fmt.Errorf("command line: %w", err)
	}
	return s, flags, complete(flags, *config, os.LookupEnv)
}
