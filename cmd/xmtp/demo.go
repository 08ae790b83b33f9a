package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/xmtp"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Watch three people chat, and see what the node sees of it",
		Long: `Play a short story on this machine: a node is started in memory, three people
with new wallets chat in a direct message and in a group, one is removed, and a
device is stolen. Beside it stands what the node saw of each step.

Nothing is kept, and nothing leaves this machine.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return playDemo(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

// story is a demo while it is told.
type story struct {
	out     io.Writer
	colour  bool
	url     string
	folder  string // for the databases; gone at the end
	api     mlsapi.MlsApiClient
	cursors map[string]uint64 // what the node's view has been told of already
}

// person is somebody in the story.
type person struct {
	*xmtp.Client
	name     string
	database string
}

func playDemo(ctx context.Context, out io.Writer) (err error) {
	n, err := node.Start(ctx, node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		return err
	}
	defer n.Close()
	folder, err := os.MkdirTemp("", "xmtp-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	conn, err := grpc.NewClient(n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &story{
		out: out, colour: isTerminal(out), url: "http://" + n.Addr(), folder: folder,
		api: mlsapi.NewMlsApiClient(conn), cursors: map[string]uint64{},
	}
	return s.play(ctx)
}

func (s *story) play(ctx context.Context) error {
	s.title("A node, and two people")
	s.tell("A node runs at %s, in memory.", s.url)
	alice, err := s.person(ctx, "Alice")
	if err != nil {
		return err
	}
	defer alice.Close()
	bob, err := s.person(ctx, "Bob")
	if err != nil {
		return err
	}
	defer bob.Close()

	s.title("A direct message")
	dm, err := alice.DM(ctx, bob.Address())
	if err != nil {
		return err
	}
	if err := s.say(ctx, alice, dm, "Bob, lunch at noon?"); err != nil {
		return err
	}
	if err := s.read(ctx, bob, dm); err != nil {
		return err
	}
	atBob, err := bob.Conversation(dm.ID())
	if err != nil {
		return err
	}
	if err := s.say(ctx, bob, atBob, "Yes! At the usual place."); err != nil {
		return err
	}
	if err := s.read(ctx, alice, dm); err != nil {
		return err
	}

	s.title("A group, with Carol")
	carol, err := s.person(ctx, "Carol")
	if err != nil {
		return err
	}
	defer carol.Close()
	group, err := alice.NewGroup(ctx, xmtp.GroupOptions{}, bob.Address(), carol.Address())
	if err != nil {
		return err
	}
	s.tell("Alice makes a group and lets Bob and Carol in.")
	if err := s.say(ctx, alice, group, "The surprise party is on Friday."); err != nil {
		return err
	}
	if err := s.read(ctx, carol, group); err != nil {
		return err
	}
	if err := s.read(ctx, bob, group); err != nil {
		return err
	}

	s.title("Carol is removed: it is her party")
	if err := group.RemoveMembers(ctx, carol.Address()); err != nil {
		return err
	}
	if err := s.say(ctx, alice, group, "Phew. Who brings the cake?"); err != nil {
		return err
	}
	if err := s.read(ctx, carol, group); err != nil {
		return err
	}
	if err := s.read(ctx, bob, group); err != nil {
		return err
	}
	return s.theft(ctx, alice, bob, group)
}

// theft tells of a device whose state is copied, and of how the group gets over it.
func (s *story) theft(ctx context.Context, alice, bob *person, group *xmtp.Conversation) error {
	s.title("Bob's device is copied")
	atBob, err := bob.Conversation(group.ID())
	if err != nil {
		return err
	}
	if err := s.say(ctx, bob, atBob, "I do."); err != nil {
		return err
	}
	thief, err := s.steal(ctx, bob)
	if err != nil {
		return err
	}
	defer thief.Close()
	s.tell("Somebody copies all of Bob's keys, and listens.")
	if err := s.say(ctx, alice, group, "The key is under the mat."); err != nil {
		return err
	}
	if err := s.read(ctx, thief, group); err != nil {
		return err
	}
	s.tell("Bob's device renews its keys, as it does from time to time.")
	if err := atBob.UpdateKeys(ctx); err != nil {
		return err
	}
	if err := group.Sync(ctx); err != nil {
		return err
	}
	if err := s.say(ctx, alice, group, "I moved the key."); err != nil {
		return err
	}
	if err := s.read(ctx, bob, group); err != nil {
		return err
	}
	if err := s.read(ctx, thief, group); err != nil {
		return err
	}
	s.title("The end")
	s.tell("The node carried it all and saw sizes, times and group ids: not one word, name or")
	s.tell("list of members. Run one yourself:  xmtp node")
	return nil
}

// person registers a new wallet.
func (s *story) person(ctx context.Context, name string) (*person, error) {
	signer, err := xmtp.GeneratePrivateKeySigner()
	if err != nil {
		return nil, err
	}
	database := filepath.Join(s.folder, name, "client.db")
	client, err := xmtp.NewClient(ctx, signer, xmtp.WithNode(s.url), xmtp.WithDatabase(database), xmtp.WithoutWorkers())
	if err != nil {
		return nil, err
	}
	s.tell("%s has a new wallet, %s…, and registers.", name, client.Address()[:10])
	s.saw("wallet %s…, inbox %s…, device %s…: all of that is public", client.Address()[:10], client.InboxID()[:8], client.InstallationID()[:8])
	return &person{client, name, database}, nil
}

// steal opens a copy of a device's database.
func (s *story) steal(ctx context.Context, victim *person) (*person, error) {
	folder := filepath.Join(s.folder, "thief")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(victim.database + "*")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(file)), content, 0o600); err != nil {
			return nil, err
		}
	}
	// The wallet is not needed any more: the device is registered.
	wallet := xmtp.WalletSigner(victim.Address(), nil)
	database := filepath.Join(folder, filepath.Base(victim.database))
	client, err := xmtp.NewClient(ctx, wallet, xmtp.WithNode(s.url), xmtp.WithDatabase(database), xmtp.WithoutWorkers())
	if err != nil {
		return nil, err
	}
	return &person{client, "The thief", database}, nil
}

func (s *story) say(ctx context.Context, who *person, in *xmtp.Conversation, text string) error {
	if _, err := in.SendText(ctx, text); err != nil {
		return err
	}
	s.quote(who.name, text)
	return s.node(ctx, in.ID())
}

// read shows the newest message that somebody can read in a conversation.
func (s *story) read(ctx context.Context, who *person, in *xmtp.Conversation) error {
	// That a copied device can't go on is part of the story.
	syncErr := who.Sync(ctx)
	v, err := who.Conversation(in.ID())
	if err != nil {
		return err
	}
	newest, err := in.Messages(xmtp.MessageOptions{Limit: 1, Descending: true})
	if err != nil || len(newest) == 0 {
		return err
	}
	theirs, err := v.Messages(xmtp.MessageOptions{})
	if err != nil {
		return err
	}
	for _, m := range theirs {
		if m.ID == newest[0].ID {
			s.tell("%s reads it.", who.name)
			return nil
		}
	}
	active, err := v.IsActive()
	if err != nil {
		return err
	}
	if !active {
		s.tell("%s can't read it.", who.name)
		return nil
	}
	return syncErr
}

// node tells what the node has come to know of a conversation.
func (s *story) node(ctx context.Context, id string) error {
	group, err := hex.DecodeString(id)
	if err != nil {
		return err
	}
	response, err := s.api.QueryGroupMessages(ctx, &mlsapi.QueryGroupMessagesRequest{
		GroupId:    group,
		PagingInfo: &mlsapi.PagingInfo{Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING, IdCursor: s.cursors[id]},
	})
	if err != nil {
		return err
	}
	for _, m := range response.Messages {
		v1 := m.GetV1()
		s.cursors[id] = v1.Id
		header, _, err := mls.ParseHeader(v1.Data)
		if err != nil {
			return err
		}
		what := "message"
		if header.ContentType == mls.ContentTypeCommit {
			what = "commit "
		}
		s.saw("group %s…, epoch %d: a %s of %4d bytes  %x…", id[:8], header.Epoch, what, len(v1.Data), v1.Data[len(v1.Data)-8:])
	}
	return nil
}

// Forms of what is told: ANSI colours on a terminal, none elsewhere.
const (
	bold  = "1"
	faint = "2"
)

func (s *story) print(style, text string) {
	if s.colour && style != "" {
		text = "\x1b[" + style + "m" + text + "\x1b[0m"
	}
	fmt.Fprintln(s.out, text)
}

func (s *story) title(text string) {
	s.print(bold, "\n"+text)
}

func (s *story) tell(format string, args ...any) {
	s.print("", "  "+fmt.Sprintf(format, args...))
}

func (s *story) quote(name, text string) {
	s.print("", fmt.Sprintf("  %s: “%s”", name, text))
}

func (s *story) saw(format string, args ...any) {
	s.print(faint, strings.Repeat(" ", 8)+"the node sees  "+fmt.Sprintf(format, args...))
}
