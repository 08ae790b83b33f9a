package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/go-xmtp/go-xmtp/xmtp"
)

// account says whose client to open, and how. Its flags are those of all
// commands that act for somebody.
type account struct {
	node     string
	keyFile  string
	database string
	json     bool
}

const keyVariable = "XMTP_KEY"

func (a *account) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&a.node, "node", envOr("XMTP_NODE", xmtp.Local), "local, dev, production or the `URL` of a node; also XMTP_NODE")
	flags.StringVar(&a.keyFile, "key-file", os.Getenv("XMTP_KEY_FILE"), "`file` with the wallet's private key in hex; also XMTP_KEY_FILE")
	flags.StringVar(&a.database, "database", os.Getenv("XMTP_DATABASE"), "`file` that the device's state is kept in; by default in your configuration folder; also XMTP_DATABASE")
	flags.BoolVar(&a.json, "json", false, "print JSON, one object a line")
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// open opens the client.
func (a *account) open(ctx context.Context) (*xmtp.Client, error) {
	signer, err := a.signer()
	if err != nil {
		return nil, err
	}
	options := []xmtp.Option{xmtp.WithNode(a.node), xmtp.WithAppVersion("xmtp-cli")}
	if a.database != "" {
		options = append(options, xmtp.WithDatabase(a.database))
	}
	client, err := xmtp.NewClient(ctx, signer, options...)
	if errors.Is(err, xmtp.ErrInUse) {
		err = fmt.Errorf("%w\nStop the other program, or choose another --database", err)
	}
	return client, err
}

// signer reads the wallet's key from the file, the environment or the keyboard.
func (a *account) signer() (*xmtp.PrivateKeySigner, error) {
	switch {
	case a.keyFile != "":
		content, err := os.ReadFile(a.keyFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w\nMake a new wallet with  xmtp id --new --key-file %s", err, a.keyFile)
		}
		if err != nil {
			return nil, err
		}
		defer clear(content)
		signer, err := xmtp.NewPrivateKeySigner(string(content))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.keyFile, err)
		}
		return signer, nil
	case os.Getenv(keyVariable) != "":
		signer, err := xmtp.NewPrivateKeySigner(os.Getenv(keyVariable))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keyVariable, err)
		}
		return signer, nil
	case term.IsTerminal(int(os.Stdin.Fd())):
		fmt.Fprint(os.Stderr, "Private key of the wallet (not shown): ")
		typed, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(os.Stderr)
		if err != nil {
			return nil, err
		}
		defer clear(typed)
		return xmtp.NewPrivateKeySigner(string(typed))
	}
	return nil, usageError{fmt.Errorf("whose wallet? Give its private key by --key-file or in %s", keyVariable)}
}

// makeKey writes the key of a new wallet to a file that isn't there yet.
func (a *account) makeKey() error {
	if a.keyFile == "" {
		return usageError{errors.New("--new needs --key-file, to keep the key in")}
	}
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(a.keyFile), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(a.keyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; without --new it is used as it is", a.keyFile)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(signer.PrivateKey() + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// print writes an object as a line of JSON, or as the text.
func (a *account) print(out io.Writer, object any, text string) error {
	if !a.json {
		_, err := fmt.Fprintln(out, text)
		return err
	}
	return json.NewEncoder(out).Encode(object)
}

// act opens the client, runs what a command does with it, and closes it.
func (a *account) act(cmd *cobra.Command, do func(context.Context, *xmtp.Client) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := a.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, client), client.Close())
}

func newID() *cobra.Command {
	var a account
	var create bool
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Show who a wallet is on XMTP, and register it the first time",
		Example: `  xmtp id --new --key-file alice.key      a new wallet, kept in alice.key
  xmtp id --key-file alice.key`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if create {
				if err := a.makeKey(); err != nil {
					return err
				}
			}
			return a.act(cmd, func(_ context.Context, c *xmtp.Client) error {
				object := map[string]string{"address": c.Address(), "inboxId": c.InboxID(), "installationId": c.InstallationID()}
				return a.print(cmd.OutOrStdout(), object,
					fmt.Sprintf("address       %s\ninbox         %s\ninstallation  %s", c.Address(), c.InboxID(), c.InstallationID()))
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&create, "new", false, "make a new wallet and write its key to --key-file")
	return cmd
}

func newSend() *cobra.Command {
	var a account
	cmd := &cobra.Command{
		Use:   "send TO TEXT",
		Short: "Send a text to a wallet, an inbox or a conversation",
		Long: `Send a text. TO is an Ethereum address or an inbox id, for a direct message, or
the id of a conversation. With - as TEXT it is read from standard input.`,
		Example: `  xmtp send 0x1234…cdef "hello" --key-file alice.key
  date | xmtp send 0x1234…cdef - --key-file alice.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("%s takes whom to send to and a text; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			to, text := args[0], args[1]
			if text == "-" {
				content, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return err
				}
				text = strings.TrimSuffix(string(content), "\n")
			}
			return a.act(cmd, func(ctx context.Context, c *xmtp.Client) error {
				v, err := conversation(ctx, c, to)
				if err != nil {
					return err
				}
				m, err := v.SendText(ctx, text)
				if err != nil {
					return err
				}
				return a.print(cmd.OutOrStdout(), object(c, m), "sent "+m.ID)
			})
		},
	}
	a.flags(cmd)
	return cmd
}

// conversation finds what somebody means by a conversation's id, an inbox id or
// an address.
func conversation(ctx context.Context, c *xmtp.Client, to string) (*xmtp.Conversation, error) {
	if raw, err := hex.DecodeString(to); err == nil && len(raw) == 16 {
		if err := c.Sync(ctx); err != nil {
			return nil, err
		}
		return c.Conversation(to)
	}
	return c.DM(ctx, to)
}

func newRead() *cobra.Command {
	var a account
	var follow bool
	cmd := &cobra.Command{
		Use:   "read [CONVERSATION]",
		Short: "Print messages, and wait for new ones with --follow",
		Long: `Print the messages that a wallet's device has, after getting what is new: those
of all conversations, or of one, given by its id, or by the address or inbox id
of the other side.`,
		Example: `  xmtp read --key-file alice.key
  xmtp read --follow --json --key-file alice.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes one conversation at most; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd, func(ctx context.Context, c *xmtp.Client) error {
				return a.read(ctx, cmd.OutOrStdout(), c, args, follow)
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	return cmd
}

func (a *account) read(ctx context.Context, out io.Writer, c *xmtp.Client, args []string, follow bool) error {
	if err := c.Sync(ctx); err != nil {
		return err
	}
	list, err := c.Conversations(xmtp.ConversationOptions{})
	if err != nil {
		return err
	}
	// The stream starts before the lists are read, so that no message is missed.
	stream := c.StreamAllMessages(ctx)
	if len(args) == 1 {
		v, err := conversation(ctx, c, args[0])
		if err != nil {
			return err
		}
		list, stream = []*xmtp.Conversation{v}, v.StreamMessages(ctx)
	}
	next, stop := iter.Pull2(stream)
	defer stop()
	seen := map[string]bool{}
	for _, v := range list {
		messages, err := v.Messages(xmtp.MessageOptions{})
		if err != nil {
			return err
		}
		for _, m := range messages {
			seen[m.ID] = true
			if err := a.show(out, c, m); err != nil {
				return err
			}
		}
	}
	for follow {
		m, err, _ := next()
		if ctx.Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		if err != nil {
			return err
		}
		if seen[m.ID] {
			continue
		}
		if err := a.show(out, c, m); err != nil {
			return err
		}
	}
	return nil
}

// show prints a message; changes of members are left out of the text form.
func (a *account) show(out io.Writer, c *xmtp.Client, m *xmtp.Message) error {
	text := m.Text()
	if text == "" && m.Content != nil && m.Content.Fallback != nil {
		text = *m.Content.Fallback
	}
	if !a.json && (m.Kind == xmtp.KindMembershipChange || text == "") {
		return nil
	}
	who := m.SenderInboxID[:min(8, len(m.SenderInboxID))]
	if m.SenderInboxID == c.InboxID() {
		who = "you"
	}
	return a.print(out, object(c, m), fmt.Sprintf("%s  %s  %-8s  %s", m.SentAt.Local().Format(time.DateTime), m.ConversationID[:8], who, text))
}

// object is the JSON form of a message.
func object(c *xmtp.Client, m *xmtp.Message) any {
	kind := "application"
	if m.Kind == xmtp.KindMembershipChange {
		kind = "membershipChange"
	}
	contentType, fallback := "", ""
	if m.Content != nil {
		contentType = m.Content.Type.String()
		if m.Content.Fallback != nil {
			fallback = *m.Content.Fallback
		}
	}
	return struct {
		ID             string    `json:"id"`
		ConversationID string    `json:"conversationId"`
		SenderInboxID  string    `json:"senderInboxId"`
		Own            bool      `json:"own"`
		SentAt         time.Time `json:"sentAt"`
		Kind           string    `json:"kind"`
		ContentType    string    `json:"contentType,omitempty"`
		Text           string    `json:"text,omitempty"`
		Fallback       string    `json:"fallback,omitempty"`
	}{m.ID, m.ConversationID, m.SenderInboxID, m.SenderInboxID == c.InboxID(), m.SentAt.UTC(), kind, contentType, m.Text(), fallback}
}

// isTerminal tells whether somebody looks at the output.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}
