package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/go-xmtp/go-xmtp/node"
)

// A storeCommand looks at a node's store. It finds it as the node does.
type storeCommand struct {
	data, config string
}

const aboutStores = `

A node may be running there: it goes on, and is asked for its store as it is at
this moment. The directory is that of  xmtp node : given by --data, the variable
XMTP_NODE_DATA, or the file of --config. A backup can be given as well.`

func (c *storeCommand) flags(cmd *cobra.Command) *cobra.Command {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&c.data, "data", "", "the node's data `directory`, or a backup; by default where  xmtp node  keeps it")
	flags.StringVar(&c.config, configFlag, "", "TOML `file` with the settings of the node")
	return cmd
}

// dir is the data directory that a node with these settings has.
func (c *storeCommand) dir() (string, error) {
	s := newNodeSettings()
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	s.flags(flags)
	if c.data != "" {
		if err := flags.Set("data", c.data); err != nil {
			return "", usageError{err}
		}
	}
	if err := complete(flags, c.config, os.LookupEnv); err != nil {
		return "", usageError{err}
	}
	if s.data == "" {
		return "", usageError{errors.New("there is no home folder with data in it; say where it is with --data DIRECTORY")}
	}
	return s.data, nil
}

// open opens the store until do returns. Ctrl-C ends its context.
func (c *storeCommand) open(cmd *cobra.Command, do func(context.Context, *node.Store) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := c.dir()
	if err != nil {
		return err
	}
	store, err := node.OpenStore(ctx, dir)
	if err != nil {
		return explainStore(err)
	}
	return errors.Join(do(ctx, store), store.Close())
}

// explainStore says what to do about a store that can't be opened.
func explainStore(err error) error {
	advice := ""
	switch {
	case errors.Is(err, node.ErrForeignDirectory):
		advice = "Say where the node keeps its data, or where the backup is, with --data."
	case errors.Is(err, node.ErrInUse):
		advice = "If a node is running there, run this as its user; else wait until the other program is done."
	case errors.Is(err, node.ErrNewerFormat):
		advice = "Run the version of xmtp that wrote it, or a newer one."
	case errors.Is(err, os.ErrPermission):
		advice = "Run this as the node's user."
	case errors.Is(err, node.ErrDamaged):
		advice = "Restore it from a backup."
	default:
		return err
	}
	return fmt.Errorf("%w\n%s", err, advice)
}

func newBackup() *cobra.Command {
	var c storeCommand
	cmd := &cobra.Command{
		Use:   "backup DIRECTORY",
		Short: "Copy a node's store, also while it is running",
		Long: `Copy all that a node has stored to a new or empty directory, synced to disk. It
is consistent: everything acknowledged before the command began is in it.` + aboutStores + `

A node is started from a backup, or from a copy of one, by using it as --data. It
then counts from a number that was never given out, so that clients that have seen
newer messages than the backup has miss none to come. What a node's history service
holds for some days is not copied.`,
		Example: `  xmtp node backup /backups/$(date +%F)
  xmtp node backup --data /srv/xmtp /backups/today && xmtp node verify --data /backups/today`,
		Args: oneArgument("the directory for the backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.open(cmd, func(ctx context.Context, s *node.Store) error {
				if err := s.Backup(ctx, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s has everything up to number %d\n", args[0], s.Newest())
				return err
			})
		},
	}
	return c.flags(cmd)
}

func newVerify() *cobra.Command {
	var c storeCommand
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check all that a node has stored",
		Long: `Read all that a node has stored and check it: checksums, every record and its
number, and whether what is derived from records (inboxes, addresses, what was
published before) is as it follows from them. The exit code is 0 if all is well.` + aboutStores,
		Example: `  xmtp node verify
  xmtp node verify --data /backups/today`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.open(cmd, func(ctx context.Context, s *node.Store) error {
				report, err := s.Verify(ctx)
				if err != nil {
					return err
				}
				return printReport(cmd.OutOrStdout(), report)
			})
		},
	}
	return c.flags(cmd)
}

func printReport(w io.Writer, r node.Report) error {
	var text strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(r.Records)) {
		fmt.Fprintf(&text, "%-18s%12d\n", kind, r.Records[kind])
	}
	fmt.Fprintf(&text, "%-18s%12d\n%-18s%12d\n%-18s%12s\n", "inboxes", r.Inboxes, "newest number", r.Newest, "read", bytesText(r.Bytes))
	for _, problem := range r.Problems {
		fmt.Fprintf(&text, "wrong: %s\n", problem)
	}
	if more := r.Count - len(r.Problems); more > 0 {
		fmt.Fprintf(&text, "and %d more\n", more)
	}
	if r.Count == 0 {
		text.WriteString("all is well\n")
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return err
	}
	if r.Count > 0 {
		return fmt.Errorf("%d problems were found: don't go on with this store, restore a backup that is well", r.Count)
	}
	return nil
}

func newStats() *cobra.Command {
	var c storeCommand
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print how big a node's store is",
		Long:  `Print how big a node's store is, and what takes the room. No records are read.` + aboutStores,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.open(cmd, func(_ context.Context, s *node.Store) error {
				stats, err := s.Stats()
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(stats)
				}
				return printStats(cmd.OutOrStdout(), stats)
			})
		},
	}
	c.flags(cmd).Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func printStats(w io.Writer, s node.Stats) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%-20s%12d\n%-20s%12d\n", "format", s.Format, "newest number", s.Newest)
	if s.Newest > 0 {
		fmt.Fprintf(&text, "%-20s%s\n", "newest record", s.NewestTime.Format(time.RFC3339))
	}
	fmt.Fprintf(&text, "%-20s%12s  (%d)\n%-20s%12s\n", "tables", bytesText(s.TableBytes), s.Tables, "log", bytesText(s.LogBytes))
	for _, kind := range slices.Sorted(maps.Keys(s.Bytes)) {
		fmt.Fprintf(&text, "  %-19s%11s\n", kind, bytesText(s.Bytes[kind]))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func newExport() *cobra.Command {
	var c storeCommand
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print all records of a node as lines of JSON",
		Long: `Print all that a node has stored as lines of JSON on standard output: by kind,
topic and number. Payloads are what clients sent: messages are encrypted, identity
updates are public. docs/node.md describes the fields.` + aboutStores,
		Example: `  xmtp node export | gzip > records.jsonl.gz
  xmtp node export | jq -c 'select(.kind == "identity-update")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.open(cmd, func(ctx context.Context, s *node.Store) error {
				return s.Export(ctx, cmd.OutOrStdout())
			})
		},
	}
	return c.flags(cmd)
}

// bytesText is a number of bytes for people.
func bytesText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("%s takes one argument, %s, but got %d; see %s --help", cmd.CommandPath(), what, len(args), cmd.CommandPath())}
		}
		return nil
	}
}
