package official

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// callTimeout bounds one SDK call. The slowest that should succeed, creating a group of
// fifty, takes seconds.
const callTimeout = 90 * time.Second

// Process is an [Agent] as a test uses it: what goes wrong fails the test.
type Process struct {
	*Agent
	t      testing.TB
	url    string
	folder string
	names  atomic.Int64
}

// StartProcess runs an agent whose clients talk to the node at url and keep their
// databases in a folder of the test; see [Toolchain.Start] for env. It ends with the test.
func StartProcess(t testing.TB, tools *Toolchain, sdk SDK, url string, env ...string) *Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	folder := t.TempDir()
	agent, err := tools.Start(ctx, sdk, url, folder, env...)
	if err != nil {
		t.Fatal(err)
	}
	process := &Process{Agent: agent, t: t, url: url, folder: folder}
	t.Cleanup(func() {
		agent.Close()
		logOf(t, agent)
	})
	return process
}

// Must sends a request within the usual time and fails the test if the SDK throws.
func (process *Process) Must(request Request, out any) {
	process.t.Helper()
	if err := process.Try(request, out); err != nil {
		process.t.Fatal(err)
	}
}

// Try sends a request within the usual time.
func (process *Process) Try(request Request, out any) error {
	ctx, cancel := context.WithTimeout(process.t.Context(), callTimeout)
	defer cancel()
	return process.Do(ctx, request, out)
}

// Wallet is an Ethereum account of a test.
type Wallet struct {
	Key     string `json:"key"`     // 0x and 64 hex digits
	Address string `json:"address"` // 0x and 40 hex digits, lower case
	// Contract is set if the account is a contract, which the key owns.
	Contract *Contract `json:"-"`
}

// Contract is a wallet that is a contract. With a factory it is yet to be created, by
// a call of the factory with the order.
type Contract struct {
	Address string `json:"address"` // 0x and 40 hex digits, lower case
	ChainID uint64 `json:"chainId"`
	Factory string `json:"factory,omitempty"`
	Order   string `json:"order,omitempty"` // 0x and hex digits
}

// Wallet makes a new account.
func (process *Process) Wallet() Wallet {
	process.t.Helper()
	var wallet Wallet
	process.Must(Request{Op: "wallet"}, &wallet)
	return wallet
}

// Client is an SDK client: one installation of an inbox.
type Client struct {
	*Process
	Name           string
	Wallet         Wallet
	InboxID        string `json:"inboxId"`
	InstallationID string `json:"installationId"`
	IsRegistered   bool   `json:"isRegistered"`
	database       string
}

// Option changes how a client is created; the keys are those of the SDK's ClientOptions.
type Option func(map[string]any)

// With sets one of the SDK's ClientOptions.
func With(name string, value any) Option {
	return func(options map[string]any) { options[name] = value }
}

// Client creates a client for a new account.
func (process *Process) Client(name string, options ...Option) *Client {
	process.t.Helper()
	return process.Installation(name, process.Wallet(), options...)
}

// Installation creates a client with a database of its own for an account that may have
// others, also on other processes.
func (process *Process) Installation(name string, wallet Wallet, options ...Option) *Client {
	process.t.Helper()
	client, err := process.TryInstallation(name, wallet, options...)
	if err != nil {
		process.t.Fatal(err)
	}
	return client
}

// TryInstallation is [Process.Installation] for a creation that may fail.
func (process *Process) TryInstallation(name string, wallet Wallet, options ...Option) (*Client, error) {
	database := fmt.Sprintf("%s-%d.db3", name, process.names.Add(1))
	client := &Client{Process: process, Name: name, Wallet: wallet, database: filepath.Join(process.folder, database)}
	request := Request{Op: "create", Client: name, Key: wallet.Key, Contract: wallet.Contract, Options: client.options(options)}
	return client, process.Try(request, client)
}

// Reopen builds the client again from its database, in this or another process and
// without its wallet, as an app does that is started again.
func (client *Client) Reopen(process *Process, options ...Option) *Client {
	process.t.Helper()
	again := &Client{Process: process, Name: client.Name, Wallet: client.Wallet, database: client.database}
	request := Request{Op: "build", Client: client.Name, Address: client.Wallet.Address, Options: again.options(options)}
	process.Must(request, again)
	return again
}

// Reload loads the client's page in the browser again and continues with what it stored.
func (client *Client) Reload() *Client {
	client.t.Helper()
	client.Must(Request{Op: "reload", Client: client.Name}, nil)
	return client.Reopen(client.Process)
}

// KeepPictures takes a picture of each client's page in the browser when the test ends.
func (process *Process) KeepPictures(folder string) {
	process.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if err := process.Do(ctx, Request{Op: "screenshot", Path: folder}, nil); err != nil {
			process.t.Logf("no pictures: %v", err)
		}
	})
}

func (client *Client) options(changes []Option) map[string]any {
	options := map[string]any{
		"env":    "local",
		"apiUrl": client.url,
		"dbPath": client.database,
		// Its archives are on a history service, which is a server of its own.
		"disableDeviceSync": true,
		"loggingLevel":      "Warn",
		"appVersion":        "go-xmtp-interop/1",
	}
	if client.SDK.InBrowser() { // where the level is a number
		options["loggingLevel"] = 2
	}
	for _, change := range changes {
		change(options)
	}
	return options
}

// Call runs a method of the client, or reads a property of it.
func (client *Client) Call(out any, path string, args ...any) {
	client.t.Helper()
	client.Must(Request{Op: "call", On: client.Name, Path: path, Args: args}, out)
}

// TryCall is [Client.Call] for a call that may be refused.
func (client *Client) TryCall(out any, path string, args ...any) error {
	return client.Try(Request{Op: "call", On: client.Name, Path: path, Args: args}, out)
}

// Identifier is how the SDKs name an account.
func (wallet Wallet) Identifier() map[string]any {
	return map[string]any{"identifier": wallet.Address, "identifierKind": 0}
}

// Signer is the account as an argument that asks for a signer.
func (wallet Wallet) Signer() map[string]any {
	return map[string]any{"$signer": wallet.Key, "contract": wallet.Contract}
}

// Bytes is an argument that asks for a Uint8Array.
func Bytes(b []byte) map[string]any { return map[string]any{"$bytes": b} }

// Ref is an argument that is a result kept before under that name.
func Ref(name string) map[string]any { return map[string]any{"$ref": name} }

// Conversation is a group or DM as one client sees it.
type Conversation struct {
	client      *Client
	ID          string `json:"id"`   // hex
	Type        string `json:"type"` // group or dm
	Name        string `json:"name"`
	Description string `json:"description"`
	ImageURL    string `json:"imageUrl"`
	PeerInboxID string `json:"peerInboxId"`
	IsActive    bool   `json:"isActive"`
	CreatedAtNs int64  `json:"createdAtNs,string"`
}

// Group creates a group with the given members.
func (client *Client) Group(members []*Client, options map[string]any) *Conversation {
	client.t.Helper()
	group := &Conversation{client: client}
	client.Call(group, "conversations.createGroup", inboxIDs(members), options)
	return group
}

// DM creates or finds the direct conversation with another client's inbox.
func (client *Client) DM(peer *Client) *Conversation {
	client.t.Helper()
	dm, err := client.TryDM(peer)
	if err != nil {
		client.t.Fatal(err)
	}
	return dm
}

// TryDM is [Client.DM] for a creation that may fail.
func (client *Client) TryDM(peer *Client) (*Conversation, error) {
	dm := &Conversation{client: client}
	return dm, client.TryCall(dm, "conversations.createDm", peer.InboxID)
}

func inboxIDs(clients []*Client) []string {
	ids := make([]string, len(clients))
	for i, client := range clients {
		ids[i] = client.InboxID
	}
	return ids
}

// SyncAll fetches everything: new conversations and the messages of all conversations.
func (client *Client) SyncAll() {
	client.t.Helper()
	client.Call(nil, "conversations.syncAll", []int{ConsentUnknown, ConsentAllowed, ConsentDenied})
}

// Conversations lists what the client holds, without asking the node.
func (client *Client) Conversations(path string, options map[string]any) []*Conversation {
	client.t.Helper()
	var list []*Conversation
	if options == nil {
		options = map[string]any{}
	}
	client.Call(&list, "conversations."+path, options)
	for _, conversation := range list {
		conversation.client = client
	}
	return list
}

// Find returns another client's conversation as this client sees it. It fails the test
// if the client does not know it.
func (client *Client) Find(theirs *Conversation) *Conversation {
	client.t.Helper()
	ours, err := client.TryFind(theirs)
	if err != nil {
		client.t.Fatal(err)
	}
	return ours
}

// TryFind is [Client.Find] for a conversation that the client need not know.
func (client *Client) TryFind(theirs *Conversation) (*Conversation, error) {
	var ours *Conversation
	if err := client.TryCall(&ours, "conversations.getConversationById", theirs.ID); err != nil {
		return nil, err
	}
	if ours == nil {
		return nil, fmt.Errorf("official: %s does not know conversation %s", client.Name, theirs.ID)
	}
	ours.client = client
	return ours, nil
}

// Call runs a method of the conversation.
func (c *Conversation) Call(out any, path string, args ...any) {
	c.client.t.Helper()
	if err := c.TryCall(out, path, args...); err != nil {
		c.client.t.Fatal(err)
	}
}

// TryCall is [Conversation.Call] for a call that may be refused.
func (c *Conversation) TryCall(out any, path string, args ...any) error {
	return c.client.Try(Request{Op: "call", On: c.client.Name, Conversation: c.ID, Path: path, Args: args}, out)
}

// Sync fetches the conversation's news.
func (c *Conversation) Sync() {
	c.client.t.Helper()
	c.Call(nil, "sync")
}

// Send sends a text and returns the message's id.
func (c *Conversation) Send(text string) string {
	c.client.t.Helper()
	var id string
	c.Call(&id, "sendText", text)
	return id
}

// SendAll queues texts and publishes them together.
func (c *Conversation) SendAll(texts []string) {
	c.client.t.Helper()
	c.client.Must(Request{Op: "sendAll", On: c.client.Name, Conversation: c.ID, Texts: texts}, nil)
}

// Message is a message as the SDK shows it to an app.
type Message struct {
	ID             string          `json:"id"`
	ConversationID string          `json:"conversationId"`
	SenderInboxID  string          `json:"senderInboxId"`
	Kind           int             `json:"kind"`
	DeliveryStatus int             `json:"deliveryStatus"`
	ContentType    ContentType     `json:"contentType"`
	Content        json.RawMessage `json:"content"`
	Reactions      []Message       `json:"reactions"`
	NumReplies     json.Number     `json:"numReplies"` // a bigint in browsers
	SentAtNs       int64           `json:"sentAtNs,string"`
}

// ContentType names what a message's content is.
type ContentType struct {
	AuthorityID  string `json:"authorityId"`
	TypeID       string `json:"typeId"`
	VersionMajor int    `json:"versionMajor"`
	VersionMinor int    `json:"versionMinor"`
}

// Text returns the content of a text message, and "" for any other.
func (m Message) Text() string {
	var text string
	if m.ContentType.TypeID == "text" && json.Unmarshal(m.Content, &text) == nil {
		return text
	}
	return ""
}

// Messages lists the conversation's messages, oldest first, without asking the
// node. It asks for pages: SDKs can't list more than 32,000 at once.
func (c *Conversation) Messages() []Message {
	c.client.t.Helper()
	const limit = 10_000
	var all []Message
	for after := int64(0); ; {
		var page []Message
		c.Call(&page, "messages", map[string]any{
			"limit":       limit,
			"sentAfterNs": map[string]any{"$bigint": strconv.FormatInt(after, 10)},
		})
		if len(page) < limit {
			return append(all, page...)
		}
		// Those of the page's last nanosecond may not all be in it.
		last := page[len(page)-1].SentAtNs
		page = slices.DeleteFunc(page, func(m Message) bool { return m.SentAtNs == last })
		all, after = append(all, page...), last-1
	}
}

// Texts lists the texts in the conversation, oldest first, without asking the node.
func (c *Conversation) Texts() []string {
	c.client.t.Helper()
	return textsOf(c.Messages())
}

func textsOf(messages []Message) []string {
	var texts []string
	for _, message := range messages {
		if text := message.Text(); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

// Member is one inbox in a conversation.
type Member struct {
	InboxID         string   `json:"inboxId"`
	InstallationIDs []string `json:"installationIds"`
	PermissionLevel int      `json:"permissionLevel"` // 0 member, 1 admin, 2 super admin
}

// Members lists the conversation's members by inbox id.
func (c *Conversation) Members() map[string]Member {
	c.client.t.Helper()
	var list []Member
	c.Call(&list, "members")
	members := make(map[string]Member, len(list))
	for _, member := range list {
		members[member.InboxID] = member
	}
	return members
}

// The SDKs' consent states.
const (
	ConsentUnknown = 0
	ConsentAllowed = 1
	ConsentDenied  = 2
)

// LiveStream is a stream of a client as a test uses it.
type LiveStream struct {
	*Stream
	client *Client
}

// Stream opens one of the client's streams; options are the SDK's StreamOptions.
func (client *Client) Stream(path string, options map[string]any) *LiveStream {
	client.t.Helper()
	return client.open(Request{On: client.Name, Path: path, Options: options})
}

// Stream opens the stream of one conversation's messages.
func (c *Conversation) Stream(options map[string]any) *LiveStream {
	c.client.t.Helper()
	return c.client.open(Request{On: c.client.Name, Conversation: c.ID, Path: "stream", Options: options})
}

func (client *Client) open(request Request) *LiveStream {
	client.t.Helper()
	options := maps.Clone(request.Options)
	if options == nil {
		options = map[string]any{}
	}
	if _, ok := options["retryDelay"]; !ok {
		// A minute by default, which is for apps and not for tests.
		options["retryDelay"] = 300
		options["retryAttempts"] = 100
	}
	request.Options = options
	ctx, cancel := context.WithTimeout(client.t.Context(), callTimeout)
	defer cancel()
	stream, err := client.Open(ctx, request)
	if err != nil {
		client.t.Fatal(err)
	}
	return &LiveStream{Stream: stream, client: client}
}

// Close ends the stream as an app does.
func (s *LiveStream) Close() {
	s.client.t.Helper()
	ctx, cancel := context.WithTimeout(s.client.t.Context(), callTimeout)
	defer cancel()
	if err := s.End(ctx); err != nil {
		s.client.t.Fatal(err)
	}
}

// Texts returns the texts that have come so far, in the order of arrival.
func (s *LiveStream) Texts() []string { return textsOf(values[Message](s.Events())) }

// WaitTexts waits until each of the texts has come on the stream and returns all texts
// that came, in the order of arrival.
func (s *LiveStream) WaitTexts(want ...string) []string {
	s.client.t.Helper()
	return s.WaitTextsFor(callTimeout, want...)
}

// WaitTextsFor is [LiveStream.WaitTexts] with a time limit of its own.
func (s *LiveStream) WaitTextsFor(limit time.Duration, want ...string) []string {
	s.client.t.Helper()
	var texts []string
	s.wait(limit, fmt.Sprintf("%d texts (%s)", len(want), brief(want)), func(events []Event) bool {
		texts = textsOf(values[Message](events))
		return len(missing(want, texts)) == 0
	})
	return texts
}

// WaitConversations waits until each of the conversations has come on the stream.
func (s *LiveStream) WaitConversations(want ...*Conversation) {
	s.client.t.Helper()
	ids := make([]string, len(want))
	for i, conversation := range want {
		ids[i] = conversation.ID
	}
	s.wait(callTimeout, "conversations "+brief(ids), func(events []Event) bool {
		var have []string
		for _, conversation := range values[Conversation](events) {
			have = append(have, conversation.ID)
		}
		return len(missing(ids, have)) == 0
	})
}

// WaitKind waits until so many events of a kind have happened.
func (s *LiveStream) WaitKind(kind string, count int) {
	s.client.t.Helper()
	s.wait(callTimeout, fmt.Sprintf("%d × %s", count, kind), func(events []Event) bool {
		n := 0
		for _, event := range events {
			if event.Kind == kind {
				n++
			}
		}
		return n >= count
	})
}

func (s *LiveStream) wait(limit time.Duration, what string, enough func([]Event) bool) {
	s.client.t.Helper()
	ctx, cancel := context.WithTimeout(s.client.t.Context(), limit)
	defer cancel()
	if events, err := s.Wait(ctx, enough); err != nil {
		s.client.t.Fatalf("%s's stream did not bring %s: %v\n%s", s.client.Name, what, err, describe(events))
	}
}

func values[T any](events []Event) []T {
	var list []T
	for _, event := range events {
		var value T
		if event.Kind == "value" && json.Unmarshal(event.Value, &value) == nil {
			list = append(list, value)
		}
	}
	return list
}

func missing(want, have []string) []string {
	got := make(map[string]bool, len(have))
	for _, text := range have {
		got[text] = true
	}
	var lack []string
	for _, text := range want {
		if !got[text] {
			lack = append(lack, text)
		}
	}
	return lack
}

func brief(texts []string) string {
	if len(texts) > 4 {
		return strings.Join(texts[:2], ", ") + ", …, " + texts[len(texts)-1]
	}
	return strings.Join(texts, ", ")
}

func describe(events []Event) string {
	var b strings.Builder
	if len(events) > 40 {
		fmt.Fprintf(&b, "(%d events before these)\n", len(events)-40)
		events = events[len(events)-40:]
	}
	for _, event := range events {
		fmt.Fprintf(&b, "%s %s\n", event.Kind, tail(string(event.Value), 200))
	}
	return b.String()
}

// Parallel runs do for 0…n-1 in a few goroutines and fails the test on the first error.
func Parallel(t testing.TB, n int, do func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	room := make(chan struct{}, 8)
	errs := make([]error, n)
	for i := range n {
		room <- struct{}{}
		group.Go(func() {
			defer func() { <-room }()
			errs[i] = do(i)
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
