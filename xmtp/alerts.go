package xmtp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
	"github.com/go-xmtp/go-xmtp/xmtp/internal/store"
)

// Alert tells of something that the node, or another client, should not have done,
// and that this client has noticed. Nothing that was refused has changed anything; what
// every client of the network accepts, such as a [CommitFlawed], was accepted. See
// docs/threats.md.
type Alert struct {
	// Finding is what was noticed, one of the types of this package that are one.
	Finding Finding
	// Certain tells that there is no innocent explanation. Else there can be one, which
	// the type of the finding names.
	Certain bool
	// First and Last are when it was noticed, and Count is how often: what is found
	// again within a day is one alert.
	First, Last time.Time
	Count       int
	// Hash is the SHA-256 of what was served and shows it, and Evidence is that itself,
	// encoded, if it is public and has at most 8 KiB. Neither is there where nothing
	// was served.
	Hash, Evidence []byte
}

// A Finding is what an alert tells of: what was known, and what was served or sent
// instead. It holds neither keys nor anything that members have said.
type Finding interface {
	fmt.Stringer
	// subject is what the finding is about: the same again is counted.
	subject() string
}

// Findings about identity logs, which the node keeps and everybody verifies.
type (
	// IdentityRollback: the log of an inbox ended at Known, and now ends at Served, 0 for
	// nowhere. The known log counts. A node of several processes may lag behind itself for
	// a moment, and one that was restored from a backup has lost what came after.
	IdentityRollback struct {
		InboxID       string
		Known, Served uint64
	}
	// IdentityRewritten: the log of an inbox has another update at Number than before,
	// or none, though it goes on. The known log counts.
	IdentityRewritten struct {
		InboxID string
		Number  uint64
	}
	// IdentityInvalid: an update that the node serves has a wrong signature or breaks the
	// rules, so that no client can take it, nor what follows it.
	IdentityInvalid struct {
		InboxID string
		Number  uint64
		Reason  string
	}
	// IdentityWithheld: a conversation refers to the update Referenced of an inbox, whose
	// log ends at Known. The node withholds it, lags behind, or a member has lied.
	IdentityWithheld struct {
		InboxID           string
		Known, Referenced uint64
	}
	// WrongInbox: the node says that an address or passkey belongs to an inbox, by whose
	// log it doesn't. What was to be sent there was not. It is certain unless it
	// was removed from the inbox at about that time.
	WrongInbox struct {
		Identifier, InboxID string
	}
	// InboxDenied: the node says that an address or passkey has no inbox, though by the
	// log that it serves it belongs to this one. It may have been reassigned to another
	// inbox and removed from that.
	InboxDenied struct {
		Identifier, InboxID string
	}
	// WrongKeyPackage: what the node serves as the key package of an installation is
	// forged, or another's. The installation was not added by it.
	WrongKeyPackage struct {
		InboxID, InstallationID string
		Reason                  string
	}
)

// Findings about the logs of conversations.
type (
	// LogRolledBack: the log of a conversation was read up to Known, and now ends at
	// Served, 0 for nowhere. Own is the number of our newest message that was in the log
	// and isn't any more; 0 if there is none. If what was read last was of no use, the
	// log is read again from there. A node may be restored from a backup, lag behind
	// itself, or delete messages after less than a month.
	LogRolledBack struct {
		ConversationID string
		Known, Served  uint64
		Own            uint64
	}
	// JoinPointWrong: who let us in named a point of the log, Claimed, that the log, which
	// ends at Served, has not come to. It is read from its beginning.
	JoinPointWrong struct {
		ConversationID, AdderInboxID string
		Claimed, Served              uint64
	}
	// MessageWithheld: the node took a message or commit of ours, whose hash the alert
	// has, and doesn't show it. It stays in the outbox. The node may lag behind itself.
	MessageWithheld struct {
		ConversationID string
	}
	// MessagesMissing: a sender's messages First to Last of an epoch, by his own count, are
	// not in the log before one that follows them. The node withholds or reorders them, or
	// he could not send what he had encrypted; a single one may be the key that his program
	// had reserved when it was killed.
	MessagesMissing struct {
		ConversationID, SenderInboxID, SenderInstallationID string
		Epoch                                               uint64
		First, Last                                         uint32
	}
	// CommitMissing: a message is of Epoch, when we have come to Own: the commits in
	// between are not in the log before it. The node withholds or reorders them, or its
	// sender has forked: see [Conversation.Fork].
	CommitMissing struct {
		ConversationID string
		Number         uint64
		Epoch, Own     uint64
	}
	// MessageReplayed: a message came under Number by a key that was used before or is too
	// old: the node repeats or delays it. A node that doesn't recognise a publish that
	// was repeated stores it twice.
	MessageReplayed struct {
		ConversationID string
		Number         uint64
	}
	// MessageForged: what came under Number was made, or changed, by somebody without
	// the members' keys, or can't be decoded at all: anybody can send something of that
	// kind to a node. Who has forked from the others, or they from him, sees it, too.
	MessageForged struct {
		ConversationID string
		Number         uint64
		Reason         SkipReason
	}
)

// Findings about members.
type (
	// MessageRefused: a member has sent a message or commit that breaks the rules, and
	// that all members refuse. He may have acted before he read of a change.
	MessageRefused struct {
		ConversationID string
		Number         uint64
		Reason         SkipReason
	}
	// CommitFlawed: a member has made a commit that all members accept, and that no
	// honest client makes.
	CommitFlawed struct {
		ConversationID, ActorInboxID, ActorInstallationID string
		Number                                            uint64
		Flaw                                              protocol.Warning
	}
	// ConversationForked: commit Commit has led to something else for us than for those
	// who publish the conversation's commit log: the node has shown other things to us
	// than to them, or a client is at fault. It is certain, if it is, that members say so:
	// see [Conversation.Fork].
	ConversationForked struct {
		ConversationID string
		Commit         uint64
	}
	// StateRolledBack: the log has a message of this installation that it doesn't know:
	// see [ErrStateRolledBack].
	StateRolledBack struct {
		ConversationID string
		Number         uint64
	}
)

// Findings about the node.
type (
	// InvalidAnswer: the node's answer to a call was none to what was asked, see
	// [ErrNodeAnswer], or broke the order of a log, see [ErrNodeOrder].
	InvalidAnswer struct {
		Call, Detail string
	}
	// WelcomeFlood: there are so many welcomes that a sync has left the rest, from After
	// on, to the next one.
	WelcomeFlood struct {
		After uint64
	}
)

func (f IdentityRollback) subject() string   { return f.InboxID }
func (f IdentityRewritten) subject() string  { return f.InboxID }
func (f IdentityInvalid) subject() string    { return fmt.Sprint(f.InboxID, f.Number) }
func (f IdentityWithheld) subject() string   { return f.InboxID }
func (f WrongInbox) subject() string         { return f.Identifier }
func (f InboxDenied) subject() string        { return f.Identifier }
func (f WrongKeyPackage) subject() string    { return f.InstallationID }
func (f LogRolledBack) subject() string      { return f.ConversationID }
func (f JoinPointWrong) subject() string     { return f.ConversationID }
func (f MessageWithheld) subject() string    { return f.ConversationID }
func (f MessagesMissing) subject() string    { return f.ConversationID + f.SenderInstallationID }
func (f CommitMissing) subject() string      { return f.ConversationID }
func (f MessageReplayed) subject() string    { return f.ConversationID }
func (f MessageForged) subject() string      { return f.ConversationID + string(f.Reason) }
func (f MessageRefused) subject() string     { return f.ConversationID + string(f.Reason) }
func (f CommitFlawed) subject() string       { return f.ConversationID + string(f.Flaw) }
func (f ConversationForked) subject() string { return f.ConversationID }
func (f StateRolledBack) subject() string    { return f.ConversationID }
func (f InvalidAnswer) subject() string      { return f.Call }
func (f WelcomeFlood) subject() string       { return "" }

func (f IdentityRollback) String() string {
	return fmt.Sprintf("the log of inbox %s ended at %d and now ends at %d", f.InboxID, f.Known, f.Served)
}

func (f IdentityRewritten) String() string {
	return fmt.Sprintf("the log of inbox %s has something else at %d than before", f.InboxID, f.Number)
}

func (f IdentityInvalid) String() string {
	return fmt.Sprintf("update %d of inbox %s is not valid: %s", f.Number, f.InboxID, f.Reason)
}

func (f IdentityWithheld) String() string {
	return fmt.Sprintf("update %d of inbox %s is not served, whose log ends at %d", f.Referenced, f.InboxID, f.Known)
}

// String leaves the address out, for logs.
func (f WrongInbox) String() string {
	return fmt.Sprintf("an address is said to be of inbox %s, which doesn't have it", f.InboxID)
}

// String leaves the address out, for logs.
func (f InboxDenied) String() string {
	return fmt.Sprintf("an address is said to have no inbox, but is in %s", f.InboxID)
}

func (f WrongKeyPackage) String() string {
	return fmt.Sprintf("the key package of installation %s is not its own: %s", f.InstallationID, f.Reason)
}

func (f LogRolledBack) String() string {
	return fmt.Sprintf("the log of conversation %s was read up to %d and now ends at %d", f.ConversationID, f.Known, f.Served)
}

func (f JoinPointWrong) String() string {
	return fmt.Sprintf("who let us into conversation %s named message %d of a log that ends at %d", f.ConversationID, f.Claimed, f.Served)
}

func (f MessageWithheld) String() string {
	return fmt.Sprintf("the node took a message to conversation %s and doesn't show it", f.ConversationID)
}

func (f MessagesMissing) String() string {
	return fmt.Sprintf("messages %d to %d of a sender in epoch %d of conversation %s are missing", f.First, f.Last, f.Epoch, f.ConversationID)
}

func (f CommitMissing) String() string {
	return fmt.Sprintf("message %d of conversation %s is of epoch %d, we have come to %d", f.Number, f.ConversationID, f.Epoch, f.Own)
}

func (f MessageReplayed) String() string {
	return fmt.Sprintf("message %d of conversation %s came before, or late", f.Number, f.ConversationID)
}

func (f MessageForged) String() string {
	return fmt.Sprintf("message %d of conversation %s is of no member: %s", f.Number, f.ConversationID, f.Reason)
}

func (f MessageRefused) String() string {
	return fmt.Sprintf("message %d of conversation %s breaks the rules: %s", f.Number, f.ConversationID, f.Reason)
}

func (f CommitFlawed) String() string {
	return fmt.Sprintf("message %d of conversation %s: %s", f.Number, f.ConversationID, f.Flaw)
}

func (f ConversationForked) String() string {
	return fmt.Sprintf("commit %d of conversation %s has led to something else for others", f.Commit, f.ConversationID)
}

func (f StateRolledBack) String() string {
	return fmt.Sprintf("message %d of conversation %s is ours and not known here", f.Number, f.ConversationID)
}

func (f InvalidAnswer) String() string { return fmt.Sprintf("%s: %s", f.Call, f.Detail) }

func (f WelcomeFlood) String() string {
	return fmt.Sprintf("welcomes after %d were left to the next sync", f.After)
}

// findings are all types of findings, by name as stored.
var findings = func() map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for _, f := range []Finding{
		IdentityRollback{}, IdentityRewritten{}, IdentityInvalid{}, IdentityWithheld{}, WrongInbox{}, InboxDenied{}, WrongKeyPackage{},
		LogRolledBack{}, JoinPointWrong{}, MessageWithheld{}, MessagesMissing{}, CommitMissing{}, MessageReplayed{}, MessageForged{},
		MessageRefused{}, CommitFlawed{}, ConversationForked{}, StateRolledBack{}, InvalidAnswer{}, WelcomeFlood{},
	} {
		t := reflect.TypeOf(f)
		all[t.Name()] = t
	}
	return all
}()

func newAlert(row store.Alert) (Alert, error) {
	t := findings[row.Kind]
	if t == nil {
		return Alert{}, fmt.Errorf("stored alert of kind %q", row.Kind)
	}
	v := reflect.New(t)
	if err := json.Unmarshal(row.Finding, v.Interface()); err != nil {
		return Alert{}, fmt.Errorf("stored alert: %w", err)
	}
	return Alert{
		Finding: v.Elem().Interface().(Finding), Certain: row.Certain,
		First: time.Unix(0, row.First), Last: time.Unix(0, row.Last), Count: int(row.Count), Hash: row.Hash, Evidence: row.Evidence,
	}, nil
}

// Alerts returns what was noticed, the newest 1,000 alerts at most, in the order in
// which they came first.
func (c *Client) Alerts() ([]Alert, error) {
	var list []Alert
	err := c.db.View(func(tx *store.Tx) error {
		rows, err := tx.AlertsFrom(0, -1)
		for _, row := range rows {
			a, err := newAlert(row)
			if err != nil {
				return err
			}
			list = append(list, a)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("xmtp: alerts: %w", err)
	}
	return list, nil
}

// StreamAlerts yields alerts that come after the call, until ctx ends or the loop is
// left. One that is only counted again is not yielded. The error, with which the
// iteration ends, is ctx's, [ErrClosed], or the database's.
func (c *Client) StreamAlerts(ctx context.Context) iter.Seq2[Alert, error] {
	return follow(ctx, c, source[Alert]{
		last: (*store.Tx).LastAlert,
		from: func(tx *store.Tx, position int64) (list []item[Alert], more bool, err error) {
			rows, err := tx.AlertsFrom(position, pageSize)
			if err != nil {
				return nil, false, err
			}
			for _, row := range rows {
				a, err := newAlert(row)
				if err != nil {
					return nil, false, err
				}
				list = append(list, item[Alert]{row.Row, a})
			}
			return list, len(rows) == pageSize, nil
		},
	}, streamOptions{})
}

// alertPeriod is for how long the same again is the same alert.
const alertPeriod = 24 * time.Hour

// maxEvidence bounds what is kept of what was served.
const maxEvidence = 8 << 10

// evidence is what was served.
type evidence struct {
	data []byte
	keep bool // it is public
}

// shown is something that everybody may see.
func shown(m proto.Message) evidence {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return evidence{}
	}
	return evidence{b, true}
}

// raise notes a finding as part of a transaction.
func (c *Client) raise(tx *store.Tx, f Finding, certain bool, served evidence) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	kind := reflect.TypeOf(f).Name()
	cause := sha256.Sum256([]byte(kind + "\n" + f.subject()))
	row := store.Alert{Cause: cause[:], Kind: kind, Finding: b, Certain: certain, First: c.now(), Last: c.now()}
	if served.data != nil {
		hash := sha256.Sum256(served.data)
		row.Hash = hash[:]
		if served.keep && len(served.data) <= maxEvidence {
			row.Evidence = served.data
		}
	}
	isNew, err := tx.AddAlert(row, c.now()-int64(alertPeriod))
	if err == nil && isNew {
		c.options.logger.Warn("alert", "kind", kind, "finding", f.String(), "certain", certain, "hash", hex.EncodeToString(row.Hash))
		defer c.news.publish()
	}
	return err
}

// alert notes a finding outside of a transaction. What was found stands whether it
// can be noted or not. Without a client there is nothing to note it in.
func (c *Client) alert(f Finding, certain bool, served evidence) {
	if c == nil {
		return
	}
	err := c.db.Update(func(tx *store.Tx) error { return c.raise(tx, f, certain, served) })
	if err != nil {
		c.options.logger.Warn("an alert could not be kept", "finding", f.String(), "error", err)
	}
}

// wrongAnswer is [ErrNodeAnswer] with the reason, which is also noted.
func (c *Client) wrongAnswer(call, format string, args ...any) error {
	return c.invalid(ErrNodeAnswer, call, fmt.Sprintf(format, args...))
}

// wrongOrder is [ErrNodeOrder] with the reason, which is also noted.
func (c *Client) wrongOrder(call, format string, args ...any) error {
	return c.invalid(ErrNodeOrder, call, fmt.Sprintf(format, args...))
}

func (c *Client) invalid(as error, call, detail string) error {
	c.alert(InvalidAnswer{call, detail}, true, evidence{})
	return fmt.Errorf("%w: %s", as, detail)
}

// lies tells whether an error says that the node's answer is wrong, so that something
// else may well be right.
func lies(err error) bool { return errors.Is(err, ErrNodeAnswer) || errors.Is(err, ErrNodeOrder) }

// What a message that can't be used says of who made it. First of all: replays, then
// what nobody with the group's keys has made. The rest is of members.
var (
	replays = []error{mls.ErrSecretReused, mls.ErrTooDistantInPast}
	forged  = []error{mls.ErrMalformed, mls.ErrDecrypt, mls.ErrSignature, mls.ErrWrongGroup, mls.ErrWireFormat, mls.ErrSender, mls.ErrMembershipTag}
)

func isOne(err error, of []error) bool {
	for _, e := range of {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// judge notes what a message that can't be used tells. One of an earlier epoch is
// late, which tells nothing.
func (g *group) judge(tx *store.Tx, number uint64, data []byte, reason error) error {
	id := g.String()
	served := evidence{data: data}
	epoch, other := errors.AsType[*mls.EpochError](reason)
	switch {
	case other && epoch.Message <= epoch.Group || errors.Is(reason, mls.ErrInactive) || errors.Is(reason, protocol.ErrNoContent):
		return nil
	case other:
		return g.client.raise(tx, CommitMissing{id, number, epoch.Message, epoch.Group}, false, served)
	case isOne(reason, replays):
		return g.client.raise(tx, MessageReplayed{id, number}, false, served)
	case isOne(reason, forged) && !errors.Is(reason, protocol.ErrEnvelope):
		return g.client.raise(tx, MessageForged{id, number, skipReason(reason)}, false, served)
	}
	return g.client.raise(tx, MessageRefused{id, number, skipReason(reason)}, false, served)
}
