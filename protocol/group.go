package protocol

import (
	"context"
	"errors"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
)

// GroupIDSize is the length of a group id in bytes. Ids are random.
const GroupIDSize = 16

// CheckCommit judges a commit that the group has staged, before it is merged: one
// that was received, or one of our own before it is sent. The error is a
// [CommitError] if nobody will apply the commit, a [VersionError] if it pauses the
// group, and anything else if the directory could not answer. Identity look-ups are
// made by one call of the directory.
func CheckCommit(ctx context.Context, g *mls.Group, staged *mls.StagedCommit, d Directory) (*Change, error) {
	c := stagedCommit{
		before:  g.Extensions(),
		after:   staged.Extensions,
		members: g.Members(),
		member:  g.Member,
	}
	if staged.HasPath {
		for _, m := range staged.Updated {
			if m.Index == staged.Committer {
				c.path = &m.LeafNode
			}
		}
	}
	for _, p := range staged.Proposals {
		leaf, member := p.Sender.Leaf()
		c.proposals = append(c.proposals, stagedProposal{leaf, member, p.Proposal})
	}
	return c.check(ctx, d)
}

// SenderOf tells who sent a message. The error is [ErrInvalidSender]: a message of an
// earlier epoch counts only while its sender's place in the group is still that of
// the same inbox.
func SenderOf(g *mls.Group, m *mls.ApplicationMessage) (Actor, error) {
	member, ok := g.Member(m.Sender)
	if !ok {
		return Actor{}, ErrInvalidSender
	}
	inboxID, err := identity.ParseCredential(m.Credential)
	if err != nil {
		return Actor{}, ErrInvalidSender.because(err)
	}
	now := member.LeafNode.Credential()
	if now.Type != m.Credential.Type || string(now.Data) != string(m.Credential.Data) {
		return Actor{}, ErrInvalidSender
	}
	return Actor{inboxID, identity.Installation(m.SignatureKey)}, nil
}

// IsVerdict reports whether err condemns what it is about for good: the message is
// skipped and the cursor moves on. Other errors are to be tried again, and a
// [VersionError] pauses the group.
func IsVerdict(err error) bool {
	_, ok := errors.AsType[*CommitError](err)
	return ok
}

// GroupConfig is how groups of this network work: handshakes are encrypted, and the
// windows are those of the official client. pad tells whether the messages that we
// send are padded to length classes ([Padding]); commits never are. One message at a
// time may leave while it is stored (see [mls.Config].Ahead).
func GroupConfig(pad bool) mls.Config {
	windows := mls.DefaultWindows()
	config := mls.Config{OneFormat: true, IgnoreReInit: true, Windows: &windows, Ahead: 1}
	if pad {
		config.Padding = func(t mls.ContentType, n int) int {
			if t != mls.ContentTypeApplication {
				return 0
			}
			return Padding(n)
		}
	}
	return config
}

// CheckJoined judges a group that a welcome leads to, before it is joined, and
// returns its state and who added us. own is our inbox id. The error is a
// [CommitError] if the welcome is to be skipped for good, and anything else if the
// directory could not answer.
func CheckJoined(ctx context.Context, j *mls.Joined, own string, d Directory) (*GroupState, Actor, error) {
	adder, ok := j.Group.Member(j.Sender)
	if !ok {
		return nil, Actor{}, ErrTreeMembership.detail("the one who added us is not in it")
	}
	g := joinedGroup{extensions: j.Group.Extensions(), members: j.Group.Members(), adder: adder.LeafNode, own: own}
	return g.check(ctx, d)
}
