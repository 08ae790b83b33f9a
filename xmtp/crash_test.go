package xmtp

import (
	crand "crypto/rand"
	"encoding/binary"
	"go/ast"
	"go/parser"
	"go/token"
	"hash/fnv"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/xmtp/internal/crashtest"
)

// proof tells whether to try every point, which takes long, or a sample.
var proof = os.Getenv("XMTP_PROOF") != ""

// An attempt does something while alice's client is stopped at a point, or its disk
// fails there; lets her go on; and checks what has come of it. It tells whether the
// point came before all was done.
type attempt func(at cut, loss crashtest.Loss) (came bool)

// A scenario prepares a world for attempts.
type scenario struct {
	begin  func(*testing.T, *world) attempt
	covers []string // operations of the package, and workers
}

var scenarios = map[string]scenario{
	"registering":                {whileRegistering, []string{"NewClient"}},
	"replacing":                  {whileReplacing, []string{"NewClient"}},
	"making room":                {whileMakingRoom, []string{"InstallationLimitError.Revoke", "RevokeInstallations"}},
	"revoking":                   {whileRevoking, []string{"Client.RevokeInstallations", "Client.RevokeOtherInstallations"}},
	"devices meet":               {whileDevicesMeet, []string{"Client.Sync"}},
	"meeting devices":            {whileMeetingDevices, []string{"WorkerDevices"}},
	"changing the inbox":         {whileChangingTheInbox, []string{"Client.AddIdentifier", "Client.RemoveIdentifier", "Client.ChangeRecovery", "Client.ReassignIdentifier"}},
	"asking about inboxes":       {whileAskingAboutInboxes, []string{"Client.InboxStates", "Client.InboxHistory", "Client.IsAuthorized", "Client.IsRevoked", "Client.Reach", "Client.WaitRegistered", "Conversation.Members"}},
	"creating a group":           {whileCreatingAGroup, []string{"Client.NewGroup"}},
	"creating a direct message":  {whileCreatingADirectMessage, []string{"Client.DM"}},
	"a duplicate comes":          {whileADuplicateComes, []string{"Client.Sync", "Conversation.SendText"}},
	"sending":                    {whileSending, []string{"Conversation.SendText"}},
	"sending on a slow disk":     {whileSendingOnASlowDisk, []string{"Conversation.SendText"}},
	"sending for the first time": {whileSendingForTheFirstTime, []string{"Conversation.SendText"}},
	"sending optimistically":     {whileSendingOptimistically, []string{"Conversation.Send", "Conversation.SendOptimistic", "Conversation.PublishMessages"}},
	"publishing":                 {whilePublishingWhatWasPrepared, []string{"Conversation.Prepare", "Conversation.Publish"}},
	"trying again":               {whileTryingAgain, []string{"Conversation.Publish"}},
	"receiving":                  {whileReceiving, []string{"Client.Sync", "Conversation.Sync"}},
	"streaming":                  {whileStreaming, []string{"Client.StreamAllMessages"}},
	"streaming conversations":    {whileStreamingConversations, []string{"Client.StreamConversations", "Conversation.StreamMessages"}},
	"streaming durably":          {whileStreamingDurably, []string{"Client.StreamAllMessages", "Client.ForgetDurable"}},
	"joining":                    {whileJoining, []string{"Client.Sync"}},
	"being let in again":         {whileBeingLetInAgain, []string{"Client.Sync"}},
	"rotating the key package":   {whileRotatingTheKeyPackage, []string{"WorkerKeyPackages"}},
	"changing members":           {whileChangingMembers, []string{"Conversation.AddMembers", "Conversation.RemoveMembers"}},
	"losing a race":              {whileLosingARace, []string{"Conversation.AddMembers", "Conversation.RemoveMembers"}},
	"adding who is out of reach": {whileAddingWhoIsOutOfReach, []string{"Conversation.AddMembers", "WorkerAwaited"}},
	"changing settings": {whileChangingSettings, []string{
		"Conversation.SetName", "Conversation.SetImageURL", "Conversation.SetAppData", "Conversation.SetDescription", "Conversation.SetPermissions",
		"Conversation.AddAdmin", "Conversation.RemoveAdmin", "Conversation.AddSuperAdmin", "Conversation.RemoveSuperAdmin",
		"Conversation.SetDisappearing", "Conversation.SetMinimumVersion", "Conversation.UpdateKeys",
	}},
	"losing a race for settings":    {whileLosingARaceForSettings, nil},
	"leaving":                       {whileLeaving, []string{"Conversation.Leave"}},
	"letting go":                    {whileLettingGo, []string{"WorkerLeaves"}},
	"deciding":                      {whileDeciding, []string{"Client.SetConsent"}},
	"deciding about a conversation": {whileDecidingAboutAConversation, []string{"Conversation.SetConsent"}},
	"comparing commit logs":         {whileComparingCommitLogs, []string{"Client.CheckForks", "WorkerCommitLog"}},
	"deleting what has expired":     {whileDeletingExpired, []string{"WorkerExpiry", "WorkerScrub"}},
	"doing upkeep":                  {whileDoingUpkeep, []string{"Client.Upkeep", "WorkerOutbox", "WorkerSelfUpdate", "WorkerScrub"}},
	"closing":                       {whileClosing, []string{"Client.Close"}},
}

// unchanging are the operations that leave the client's state as it is.
var unchanging = strings.Fields(`
	CanMessage InboxHistory InboxIDs InboxStates IsAuthorized KeyPackageStatuses NewestMessages
	Client.Address Client.Alerts Client.CanMessage Client.Consent Client.Consents Client.Conversation Client.Conversations Client.Decode
	Client.DurableStreams Client.FindDM Client.InboxID Client.InboxIDOf Client.InboxIDs Client.InstallationID
	Client.KeyPackageStatuses Client.Message Client.Requests Client.SignWithInstallationKey Client.Skipped Client.StoredInboxStates
	Client.StreamAlerts Client.StreamConsent Client.StreamDeletions Client.StreamInstallations
	Conversation.AddedByInboxID Conversation.Awaited Conversation.Consent Conversation.CountMessages Conversation.CreatedAt
	Conversation.CreatorInboxID Conversation.DebugInfo Conversation.Duplicates Conversation.Epoch Conversation.Fork
	Conversation.ID Conversation.Info Conversation.IsActive Conversation.IsDM Conversation.KeysUpdatedAt
	Conversation.LastMessage Conversation.MembershipState Conversation.Messages Conversation.PausedForVersion
	Conversation.PeerInboxID PasskeySigner.SignText PrivateKeySigner.SignText
`)

// Whoever adds an operation, or a worker, says by which scenario it is stopped anywhere,
// or that it changes nothing.
func TestCrashScenariosAreWhole(t *testing.T) {
	covered := map[string]bool{}
	for _, s := range scenarios {
		for _, name := range s.covers {
			covered[name] = true
		}
	}
	used := selectors(t)
	for name := range covered {
		if last := name[strings.LastIndex(name, ".")+1:]; !strings.HasPrefix(name, "Worker") && !used[last] {
			t.Errorf("no scenario calls %s", name)
		}
	}
	all := operations(t)
	for _, name := range all {
		if plain := slices.Contains(unchanging, name); covered[name] == plain {
			t.Errorf("%s: covered by a scenario is %v, unchanging is %v", name, covered[name], plain)
		}
	}
	for _, name := range append(slices.Collect(maps.Keys(covered)), unchanging...) {
		if !slices.Contains(all, name) {
			t.Errorf("there is no %s", name)
		}
	}
}

// operations are the workers, the methods of clients and conversations, and what else
// takes a context.
func operations(t *testing.T) (names []string) {
	files := parseFiles(t, func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
	for _, file := range files {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.CONST && strings.HasPrefix(v.Names[0].Name, "Worker") {
						names = append(names, v.Names[0].Name)
					}
				}
			case *ast.FuncDecl:
				owner := ""
				if d.Recv != nil {
					star, ok := d.Recv.List[0].Type.(*ast.StarExpr)
					if !ok {
						continue
					}
					if owner = star.X.(*ast.Ident).Name; !ast.IsExported(owner) {
						continue
					}
					owner += "."
				}
				if d.Name.IsExported() && (owner == "Client." || owner == "Conversation." || takesContext(d.Type)) {
					names = append(names, owner+d.Name.Name)
				}
			}
		}
	}
	return names
}

func takesContext(f *ast.FuncType) bool {
	if len(f.Params.List) == 0 {
		return false
	}
	s, ok := f.Params.List[0].Type.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Context"
}

// selectors are the names that the scenarios select, or call.
func selectors(t *testing.T) map[string]bool {
	used := map[string]bool{}
	for _, file := range parseFiles(t, func(name string) bool { return strings.HasPrefix(name, "crash_") }) {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				used[n.Sel.Name] = true
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok {
					used[id.Name] = true
				}
			}
			return true
		})
	}
	return used
}

func parseFiles(t *testing.T, wanted func(name string) bool) (files []*ast.File) {
	t.Helper()
	names, err := fs.Glob(os.DirFS("."), "*.go")
	check(t, err)
	for _, name := range names {
		if wanted(name) {
			files = append(files, must(parser.ParseFile(token.NewFileSet(), name, nil, 0))(t))
		}
	}
	return files
}

// losses are what a cut may do to what was not synced.
func losses(seed int) []crashtest.Loss {
	return []crashtest.Loss{crashtest.LoseUnsynced(), crashtest.LoseNothing(), crashtest.LoseSome(uint64(seed))}
}

// play is a scenario under way.
type play struct {
	t       *testing.T
	w       *world
	attempt attempt
	lengths map[string]int // how many points of each kind there are
}

func begin(t *testing.T, s scenario) *play {
	t.Helper()
	w := newWorld(t)
	p := &play{t: t, w: w, attempt: s.begin(t, w)}
	clear(w.alice.spent)
	if p.attempt(cut{atWrite, 1 << 30}, crashtest.LoseNothing()) {
		t.Error("stopped by nothing")
	}
	p.lengths = maps.Clone(w.alice.spent)
	w.verify(t)
	return p
}

// try stops the client at a point and checks what must hold whatever it did.
func (p *play) try(at cut, loss int) (came bool) {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			p.t.Fatalf("%s %d of %d, loss %d", at.kind, at.n, p.length(at.kind), loss)
		}
	}()
	came = p.attempt(at, losses(at.n)[loss])
	p.w.verify(p.t)
	return came
}

// cuts are the kinds of points at which the power goes.
var cuts = []string{atWrite, beforeCall, beforeReply}

// random is any point of a kind.
func (p *play) random(lots *rand.Rand, kind string) cut {
	return cut{kind, 1 + lots.IntN(max(p.length(kind), 1))}
}

// length is how many points of a kind there are.
func (p *play) length(kind string) int {
	switch diskFaults[kind] {
	case 0:
		return p.lengths[kind]
	case crashtest.FailRead:
		return p.lengths[atRead]
	}
	return p.lengths[atWrite]
}

// everywhere stops the client at every point, with all that may be lost then.
func (p *play) everywhere() (points int) {
	for k, kind := range cuts {
		for loss := range 3 {
			for n := 1; ; n++ {
				points++
				if !p.try(cut{kind, n}, (n+k+loss)%3) {
					break
				}
			}
		}
	}
	return points
}

// lotsOf makes the same lots for a scenario each time.
func lotsOf(name string) *rand.Rand {
	h := fnv.New64()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(h.Sum64(), 0))
}

// faults lets the disk fail in each way at some points.
func (p *play) faults(lots *rand.Rand, points int) {
	for _, kind := range slices.Sorted(maps.Keys(diskFaults)) {
		for range min(p.length(kind), points) {
			p.try(p.random(lots, kind), 0)
		}
	}
}

// The client is stopped at any write and any call of the network: it can be opened and
// goes on, nothing that was confirmed is lost, nothing is doubled, no key is used
// twice, and nobody else has trouble with it. Or the disk fails once, can't be read
// once, is full or read-only from some point on: the error says so, and the client goes
// on, without being opened anew, when it is in order.
//
// In the short form that is a handful of points, always the same.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := begin(t, s)
			lots := lotsOf(name)
			if proof {
				t.Logf("%d points", p.everywhere())
				p.faults(lots, 30)
				return
			}
			for i := range 6 {
				p.try(p.random(lots, cuts[i%3]), i/2)
			}
			p.faults(lots, 1)
		})
	}
}

// slowly lets each sync of a disk take so long that a message can be on its way meanwhile.
func slowly(fs *crashtest.FS) {
	var wait func()
	wait = func() {
		fs.HoldSync(wait)
		time.Sleep(2 * time.Millisecond)
	}
	fs.HoldSync(wait)
}

// TestCrashAtRandom stops the client 1,000 times in all scenarios in turn, half of them on a
// slow disk, as lots say. To repeat what the log tells, set XMTP_SEED.
func TestCrashAtRandom(t *testing.T) {
	t.Parallel()
	kills, seed := 10, uint64(1)
	if proof {
		var b [8]byte
		crand.Read(b[:])
		kills, seed = 1000, binary.BigEndian.Uint64(b[:])
	}
	if text := os.Getenv("XMTP_SEED"); text != "" {
		seed = must(strconv.ParseUint(text, 10, 64))(t)
	}
	t.Logf("seed %d", seed)
	lots := rand.New(rand.NewPCG(seed, 1))
	names := slices.Sorted(maps.Keys(scenarios))
	plays := map[string]*play{}
	done := map[string]int{}
	for done[""] < kills {
		name := names[lots.IntN(len(names))]
		p := plays[name]
		if p == nil {
			p = begin(t, scenarios[name])
			plays[name] = p
		}
		kind, loss := cuts[lots.IntN(len(cuts))], lots.IntN(3)
		if lots.IntN(2) == 0 {
			slowly(p.w.fs)
		}
		came := p.try(p.random(lots, kind), loss)
		p.w.fs.HoldSync(nil)
		if came {
			done[""]++
			done[name]++
		}
		if t.Failed() {
			t.Fatalf("after %d kills, in %q", done[""], name)
		}
	}
	t.Logf("kills: %v", done)
}
