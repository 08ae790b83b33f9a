package node_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/identityapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// A fact is something that a client knows of a node: that a record was
// acknowledged, or, with its number, that it was shown.
type fact struct {
	topic  order.Topic
	number uint64
	data   [16]byte // names what was sent
}

func dataOf[T string | []byte](payload T) (name [16]byte) {
	sum := sha256.Sum256([]byte(payload))
	copy(name[:], sum[:])
	return name
}

// A person publishes one thing after the other, and begins anew with what
// wasn't acknowledged.
type person struct {
	rng     *rand.Rand
	todo    *publication // not acknowledged yet
	count   int
	inbox   *inbox
	wallet  *identity.WalletKey // joins and leaves the inbox
	updates []*associations.IdentityUpdate
	uploads [][]byte // key packages, the oldest first
}

// A publication is one call.
type publication struct {
	send  func(context.Context, *client) error
	facts []fact
}

// load is traffic of several people, and what they know of it. It can go on
// with another node that has the same directory.
type load struct {
	people []*person
	groups [][]byte
	inst   map[string][][16]byte // uploads by installation
	pad    int                   // bytes by which payloads are longer than they need to be, at most

	mu           sync.Mutex
	acknowledged []fact
	shown        []fact
	known        map[fact]bool // what is in shown
	enough       int           // acknowledged records at which wanted is closed
	wanted       chan struct{}
	streamed     map[order.Topic][]fact // by streams that were resumed from their cursors
}

const loadGroups = 3

var discard = slog.New(slog.DiscardHandler)

func newLoad(t testing.TB, people, updates int, seed uint64) *load {
	l := &load{inst: map[string][][16]byte{}, pad: 8000, known: map[fact]bool{}, streamed: map[order.Topic][]fact{}}
	for range loadGroups {
		l.groups = append(l.groups, newGroupID())
	}
	for i := range people {
		p := &person{rng: rand.New(rand.NewPCG(seed, uint64(i))), inbox: newInbox(t), wallet: newWallet(t)}
		p.updates = append(p.updates, p.inbox.register(t))
		for len(p.updates) < updates {
			p.updates = append(p.updates, p.inbox.link(t, p.wallet), p.inbox.unlink(t, p.wallet))
		}
		key := string(publicKey(p.inbox.installation))
		for i := range updates {
			upload := newKeyPackage(t, p.inbox.installation, keyPackageOptions{
				inbox: p.inbox.id, notBefore: time.Now().Add(time.Duration(i-updates) * time.Minute),
			})
			p.uploads = append(p.uploads, upload)
			l.inst[key] = append(l.inst[key], dataOf(upload))
		}
		l.people = append(l.people, p)
	}
	return l
}

// connectTo is a connection that outlasts tests, and nodes at the address.
func connectTo(address string) (*client, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	return &client{mlsapi.NewMlsApiClient(conn), identityapi.NewIdentityApiClient(conn), conn}, nil
}

// welcomes is the installation that gets all of a person's welcomes.
func (p *person) welcomes() []byte { return publicKey(p.inbox.installation) }

// next returns what the person publishes next.
func (p *person) next(l *load) *publication {
	p.count++
	publication := &publication{}
	name := func(i int) string { return fmt.Sprintf("%s %d %d ", p.inbox.id, p.count, i) }
	pad := func() string { return string(make([]byte, p.rng.IntN(1+p.rng.IntN(l.pad)))) }
	switch turn := p.rng.IntN(10); {
	case turn == 0 && len(p.updates) > 0:
		update := p.updates[0]
		p.updates = p.updates[1:]
		data, err := proto.Marshal(update)
		if err != nil {
			panic(err)
		}
		publication.facts = []fact{{topic: inboxTopic(update.InboxId), data: dataOf(data)}}
		publication.send = func(ctx context.Context, c *client) error {
			_, err := c.publish(ctx, update)
			return err
		}
	case turn == 1 && len(p.uploads) > 0:
		upload := p.uploads[0]
		p.uploads = p.uploads[1:]
		publication.facts = []fact{{topic: order.Topic{Kind: order.KeyPackage, ID: string(p.welcomes())}, data: dataOf(upload)}}
		publication.send = func(ctx context.Context, c *client) error {
			_, err := c.mls.UploadKeyPackage(ctx, uploadRequest(upload))
			return err
		}
	case turn == 2 || turn == 3:
		to := l.people[p.rng.IntN(len(l.people))].welcomes()
		data := name(0) + pad()
		publication.facts = []fact{{topic: order.Topic{Kind: order.Welcome, ID: string(to)}, data: dataOf(data)}}
		publication.send = func(ctx context.Context, c *client) error {
			return welcomeLog.send(ctx, c, to, []byte(data))
		}
	default:
		var payloads [][]byte
		for i := range 1 + p.rng.IntN(3) {
			group := l.groups[p.rng.IntN(len(l.groups))]
			payload := application(group, name(i)+pad())
			payloads = append(payloads, payload)
			publication.facts = append(publication.facts, fact{topic: order.Topic{Kind: order.GroupMessage, ID: string(group)}, data: dataOf(payload)})
		}
		publication.send = func(ctx context.Context, c *client) error {
			return groupLog.send(ctx, c, nil, payloads...)
		}
	}
	return publication
}

func inboxTopic(id string) order.Topic {
	var raw []byte
	if _, err := fmt.Sscanf(id, "%x", &raw); err != nil {
		panic(err)
	}
	return order.Topic{Kind: order.IdentityUpdate, ID: string(raw)}
}

// publish makes the person publish a number of things, or until a call fails.
func (l *load) publish(ctx context.Context, p *person, c *client, calls int) error {
	for range calls {
		if p.todo == nil {
			p.todo = p.next(l)
		}
		if err := p.todo.send(ctx, c); err != nil {
			return err
		}
		l.mu.Lock()
		l.acknowledged = append(l.acknowledged, p.todo.facts...)
		if l.wanted != nil && len(l.acknowledged) >= l.enough {
			close(l.wanted)
			l.wanted = nil
		}
		l.mu.Unlock()
		p.todo = nil
	}
	return nil
}

func (l *load) show(f fact) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known[f] {
		l.known[f] = true
		l.shown = append(l.shown, f)
	}
}

// poll reads everything in all ways of reading but streams, until a call fails.
func (l *load) poll(ctx context.Context, c *client) error {
	cursors := map[order.Topic]uint64{}
	packages := map[string]string{} // by installation
	read := func(log *log, kind order.Kind, id []byte) error {
		topic := order.Topic{Kind: kind, ID: string(id)}
		entries, err := log.all(ctx, c, id, cursors[topic])
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.id <= cursors[topic] {
				return fmt.Errorf("record %d after %d", e.id, cursors[topic])
			}
			cursors[topic] = e.id
			l.show(fact{topic, e.id, dataOf(e.data)})
		}
		return nil
	}
	for {
		for _, group := range l.groups {
			if err := read(&groupLog, order.GroupMessage, group); err != nil {
				return err
			}
		}
		newest, err := c.mls.GetNewestGroupMessage(ctx, &mlsapi.GetNewestGroupMessageRequest{GroupIds: l.groups, IncludeContent: true})
		if err != nil {
			return err
		}
		for i, response := range newest.Responses {
			if response.GroupMessage != nil {
				e := groupEntry(response.GroupMessage)
				l.show(fact{order.Topic{Kind: order.GroupMessage, ID: string(l.groups[i])}, e.id, dataOf(e.data)})
			}
		}
		for _, p := range l.people {
			if err := read(&welcomeLog, order.Welcome, p.welcomes()); err != nil {
				return err
			}
			topic := inboxTopic(p.inbox.id)
			updates, err := c.identity.GetIdentityUpdates(ctx, &identityapi.GetIdentityUpdatesRequest{
				Requests: []*identityapi.GetIdentityUpdatesRequest_Request{{InboxId: p.inbox.id, SequenceId: cursors[topic]}},
			})
			if err != nil {
				return err
			}
			for _, u := range updates.Responses[0].Updates {
				data, err := proto.Marshal(u.Update)
				if err != nil {
					return err
				}
				l.show(fact{topic, u.SequenceId, dataOf(data)})
				cursors[topic] = u.SequenceId
			}
			fetched, err := c.mls.FetchKeyPackages(ctx, &mlsapi.FetchKeyPackagesRequest{InstallationKeys: [][]byte{p.welcomes()}})
			if err != nil {
				return err
			}
			key := string(p.welcomes())
			if kp := string(fetched.KeyPackages[0].GetKeyPackageTlsSerialized()); kp != packages[key] {
				packages[key] = kp
				l.show(fact{order.Topic{Kind: order.KeyPackage, ID: key}, 0, dataOf(kp)})
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// follow streams all topics of a kind from where the last stream stopped, until
// the stream fails.
func (l *load) follow(ctx context.Context, c *client, log *log, kind order.Kind) error {
	ids := l.groups
	if kind == order.Welcome {
		ids = nil
		for _, p := range l.people {
			ids = append(ids, p.welcomes())
		}
	}
	cursors := map[order.Topic]uint64{}
	var filters []filter
	for _, id := range ids {
		topic := order.Topic{Kind: kind, ID: string(id)}
		l.mu.Lock()
		if seen := l.streamed[topic]; len(seen) > 0 {
			cursors[topic] = seen[len(seen)-1].number
		}
		l.mu.Unlock()
		filters = append(filters, filter{id, cursors[topic]})
	}
	stream, err := log.open(ctx, c, filters...)
	if err != nil {
		return err
	}
	for {
		e, err := stream.next()
		if err != nil {
			return err
		}
		topic := order.Topic{Kind: kind, ID: e.topic}
		if e.id <= cursors[topic] {
			return fmt.Errorf("%w: record %d after %d", errDisorder, e.id, cursors[topic])
		}
		cursors[topic] = e.id
		f := fact{topic, e.id, dataOf(e.data)}
		l.show(f)
		l.mu.Lock()
		l.streamed[topic] = append(l.streamed[topic], f)
		l.mu.Unlock()
	}
}

var errDisorder = errors.New("a stream is out of order")

// run lets everybody publish a number of times while others read, and returns
// when all have published or a call has failed, and readers have ended.
func (l *load) run(ctx context.Context, calls int, dial func() *client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var reading, publishing sync.WaitGroup
	failures := make(chan error, len(l.people)+3)
	reading.Go(func() { failures <- ended(ctx, l.poll(ctx, dial())) })
	reading.Go(func() { failures <- ended(ctx, l.follow(ctx, dial(), &groupLog, order.GroupMessage)) })
	reading.Go(func() { failures <- ended(ctx, l.follow(ctx, dial(), &welcomeLog, order.Welcome)) })
	for _, p := range l.people {
		publishing.Go(func() { failures <- l.publish(ctx, p, dial(), calls) })
	}
	publishing.Wait()
	cancel()
	reading.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ended is nil if the error is that the context has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, errDisorder) {
		return nil
	}
	return err
}

// after returns a channel that is closed when n more records are acknowledged.
func (l *load) after(n int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enough, l.wanted = len(l.acknowledged)+n, make(chan struct{})
	return l.wanted
}

// mark returns how much is known by now; see [load.verify].
func (l *load) mark() (acknowledged, shown int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged), len(l.shown)
}

// verify compares a store with what was known at a mark: every record that was
// acknowledged is there once, every one that was shown is there with its
// number, and the state follows from the log. New records get new numbers.
func (l *load) verify(x *index.Index, acknowledged, shown int) error {
	l.mu.Lock()
	known := slices.Concat(l.acknowledged[:acknowledged], l.shown[:shown])
	l.mu.Unlock()

	var topics []order.Topic
	for _, group := range l.groups {
		topics = append(topics, order.Topic{Kind: order.GroupMessage, ID: string(group)})
	}
	for _, p := range l.people {
		topics = append(topics, order.Topic{Kind: order.Welcome, ID: string(p.welcomes())}, inboxTopic(p.inbox.id))
	}
	newest, _ := x.Last()
	stored := map[fact]bool{} // with and without numbers
	used := map[uint64]bool{}
	for _, topic := range topics {
		records, err := readAll(x, topic)
		if err != nil {
			return err
		}
		last, lastTime := uint64(0), uint64(0)
		for _, r := range records {
			if r.Number <= last || r.Time <= lastTime || used[r.Number] || r.Number > newest {
				return fmt.Errorf("record %d of time %d after %d of time %d, the newest is %d", r.Number, r.Time, last, lastTime, newest)
			}
			last, lastTime, used[r.Number] = r.Number, r.Time, true
			once := fact{topic: topic, data: dataOf(r.Payload)}
			if stored[once] {
				return fmt.Errorf("record %d is there twice", r.Number)
			}
			stored[once], stored[fact{topic, r.Number, once.data}] = true, true
		}
	}
	for _, f := range known {
		if f.topic.Kind == order.KeyPackage {
			if err := l.verifyKeyPackage(x, f); err != nil {
				return err
			}
		} else if !stored[f] {
			return fmt.Errorf("a record of kind %d that was acknowledged or shown as %d is lost", f.topic.Kind, f.number)
		}
	}
	if err := l.verifyInboxes(x); err != nil {
		return err
	}
	// The next record's number has not been seen before.
	r := &order.Record{Topic: order.Topic{Kind: order.GroupMessage, ID: "another"}, Payload: random(16)}
	e := order.NewEmbedded(x, time.Now, func([]*order.Record) {})
	_, err := e.Append(context.Background(), r)
	if err := errors.Join(err, e.Close()); err != nil {
		return err
	}
	for _, f := range known {
		if f.number >= r.Number {
			return fmt.Errorf("the next record has the number %d, %d has been shown", r.Number, f.number)
		}
	}
	return nil
}

func readAll(x *index.Index, topic order.Topic) (all []*order.Record, err error) {
	for cursor := uint64(0); ; cursor = all[len(all)-1].Number {
		page, _, err := x.Records(topic, index.Page{Cursor: cursor, Limit: 1000, MaxBytes: 1 << 20})
		if all = append(all, page...); err != nil || len(page) == 0 {
			return all, err
		}
	}
}

// verifyKeyPackage fails if an installation has an older key package than the one that is known.
func (l *load) verifyKeyPackage(x *index.Index, known fact) error {
	r, err := x.KeyPackage(context.Background(), known.topic.ID)
	if err != nil {
		return err
	}
	if r == nil {
		return errors.New("a key package is lost")
	}
	uploads := l.inst[known.topic.ID]
	if has, had := slices.Index(uploads, dataOf(r.Payload)), slices.Index(uploads, known.data); has < had {
		return fmt.Errorf("there is key package %d, there was %d", has, had)
	}
	return nil
}

// verifyInboxes folds the logs of all inboxes and compares who is in which.
func (l *load) verifyInboxes(x *index.Index) error {
	for _, p := range l.people {
		records, err := readAll(x, inboxTopic(p.inbox.id))
		if err != nil {
			return err
		}
		var state *identity.State
		for _, r := range records {
			update, err := identity.UnmarshalVerifiedUpdate(r.Facts)
			if err != nil {
				return err
			}
			if state, err = state.Apply(update); err != nil {
				return fmt.Errorf("update %d doesn't follow: %w", r.Number, err)
			}
		}
		for _, id := range []identity.Identifier{p.inbox.owner.Identifier(), p.wallet.Identifier()} {
			member := false
			if state != nil {
				_, member = state.Member(id)
			}
			inbox, found, err := x.InboxOf(id)
			if err != nil || found != member || found && inbox != inboxTopic(p.inbox.id).ID {
				return fmt.Errorf("an identifier is a member: %t; found: %t in %x, %w", member, found, inbox, err)
			}
		}
	}
	return nil
}

// verifyStreams fails unless the streams have delivered all that is stored.
func (l *load) verifyStreams(x *index.Index) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic, facts := range l.streamed {
		records, err := readAll(x, topic)
		if err != nil {
			return err
		}
		for i, r := range records {
			if i >= len(facts) || facts[i].number != r.Number || facts[i].data != dataOf(r.Payload) {
				return fmt.Errorf("streams, resumed from their cursors, missed record %d", r.Number)
			}
		}
		if len(facts) != len(records) {
			return fmt.Errorf("streams delivered %d records, %d are stored", len(facts), len(records))
		}
	}
	return nil
}

// hasStreamed tells whether a topic's newest record has been streamed.
func (l *load) hasStreamed(ctx context.Context, t testing.TB, c *client, log *log, kind order.Kind, id []byte) bool {
	t.Helper()
	newest, _, err := log.page(ctx, c, id, &mlsapi.PagingInfo{Direction: descending, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	streamed := l.streamed[order.Topic{Kind: kind, ID: string(id)}]
	return len(newest) == 0 || len(streamed) > 0 && streamed[len(streamed)-1].number == newest[0].id
}
