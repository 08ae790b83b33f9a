package interop

import (
	"testing"

	"github.com/go-xmtp/go-xmtp/interop/official"
)

// Consent, as the SDKs number it.
const (
	consentOfInbox = 1
	consentDenied  = 2
)

// withSync creates a client that takes part in device sync.
func (w *world) withSync(process *official.Process, name string, wallet official.Wallet) *official.Client {
	w.t.Helper()
	return process.Installation(name, wallet, official.With("disableDeviceSync", false),
		official.With("historySyncUrl", w.history)) // for 5.5; the later ones are told when they are asked to sync
}

// TestDeviceSync: a new device asks for history and gets it from an older one that is
// online, by way of the node's history service.
func TestDeviceSync(t *testing.T) {
	scenario(t, "device sync", baseline, func(t *testing.T, w *world) { askForHistory(t, w, w.Process) })
}

// past is what an inbox has before its second device exists.
type past struct {
	laptop, bob, carol *official.Client
	group, dm          *official.Conversation
}

func newPast(w *world) *past {
	p := &past{laptop: w.withSync(w.Process, "laptop", w.Wallet()), bob: w.Client("bob"), carol: w.Client("carol")}
	p.group = p.laptop.Group([]*official.Client{p.bob, p.carol}, nil)
	p.group.Send("in the group, before")
	p.bob.SyncAll()
	p.bob.Find(p.group).Send("from bob, before")
	p.dm = p.laptop.DM(p.bob)
	p.dm.Send("in the DM, before")
	p.laptop.Call(nil, "preferences.setConsentStates", []any{map[string]any{
		"entityType": consentOfInbox, "entity": p.carol.InboxID, "state": consentDenied,
	}})
	p.laptop.SyncAll()
	return p
}

// arrives waits until a new device has all of the past, calling step over and over, and
// sees that it takes part from then on.
func (p *past) arrives(t *testing.T, phone *official.Client, step func()) {
	t.Helper()
	has := func(theirs *official.Conversation, texts ...string) bool {
		found, err := phone.TryFind(theirs)
		if err != nil {
			return false
		}
		have := map[string]bool{}
		for _, text := range found.Texts() {
			have[text] = true
		}
		for _, text := range texts {
			if !have[text] {
				return false
			}
		}
		return true
	}
	// MLS lets nobody read what was sent before he joined: it can only be from the archive.
	eventually(t, "the new device has the messages from before", func() bool {
		step()
		return has(p.group, "in the group, before", "from bob, before") && has(p.dm, "in the DM, before")
	})
	eventually(t, "the new device has the consent from before", func() bool {
		step()
		var state int
		phone.Call(&state, "preferences.getConsentState", consentOfInbox, p.carol.InboxID)
		return state == consentDenied
	})
	// The restored group comes to life when a member has added the new device, for which
	// he looks when he sends, though not each time unless he is asked to.
	eventually(t, "the new device is in the group", func() bool {
		p.bob.Call(nil, "preferences.fetchInboxStates", []string{p.laptop.InboxID})
		p.bob.Find(p.group).Send("who is here?")
		p.laptop.SyncAll()
		phone.SyncAll()
		var active bool
		phone.Find(p.group).Call(&active, "isActive")
		return active
	})
	phone.Find(p.group).Send("from the new device")
	theirs := p.bob.Find(p.group)
	theirs.Sync()
	contains(t, "bob", theirs.Texts(), "from the new device")
	theirs.Send("to both devices")
	p.laptop.SyncAll()
	phone.SyncAll()
	contains(t, "the new device", phone.Find(p.group).Texts(), "in the group, before", "from bob, before", "from the new device", "to both devices")
	contains(t, "the old device", p.group.Texts(), "from the new device", "to both devices")
}

// every calls f the first time and then each n-th time.
func every(n int, f func()) func() {
	calls := 0
	return func() {
		if calls%n == 0 {
			f()
		}
		calls++
	}
}

// askForHistory lets a new device in a process, perhaps of another SDK, ask for the past.
func askForHistory(t *testing.T, w *world, other *official.Process) {
	p := newPast(w)
	phone := w.withSync(other, "phone", p.laptop.Wallet)
	// A request that goes out before the older device is in the new one's sync group is
	// never read, so apps ask again.
	ask := every(20, func() { phone.Call(nil, "sendSyncRequest", nil, w.history) })
	p.arrives(t, phone, func() {
		ask()
		p.laptop.Call(nil, "preferences.sync")
		phone.Call(nil, "preferences.sync")
		phone.SyncAll()
	})
}

// sendHistory lets the older device send the past unasked, for a new one to take.
func sendHistory(t *testing.T, w *world, other *official.Process) {
	const pin = "12345"
	p := newPast(w)
	phone := w.withSync(other, "phone", p.laptop.Wallet)
	send := every(20, func() {
		p.laptop.Call(nil, "preferences.sync")
		p.laptop.Call(nil, "sendSyncArchive", pin, nil, w.history)
	})
	taken := false
	p.arrives(t, phone, func() {
		send()
		phone.Call(nil, "preferences.sync")
		if !taken { // until it is there, that is an error
			taken = phone.TryCall(nil, "processSyncArchive", pin) == nil
		}
		phone.SyncAll()
	})
	if other.SDK.InBrowser() { // where listing archives is a panic inside the SDK, on any node
		return
	}
	var archives []struct {
		Pin string `json:"pin"`
	}
	phone.Call(&archives, "listAvailableArchives", 7)
	if len(archives) == 0 || archives[0].Pin != pin {
		t.Errorf("archives: %+v", archives)
	}
}

// TestDeviceSyncEverywhere: from any SDK to any other, and the other way to do it, which
// 5.5 does not have.
func TestDeviceSyncEverywhere(t *testing.T) {
	long(t)
	all := append(everyVersion[:len(everyVersion):len(everyVersion)], browsers...)
	for _, newer := range all {
		olders := all
		if newer == official.Oldest { // it doesn't say in its request where to put the archive
			olders = []official.SDK{newer}
		}
		t.Run("to "+string(newer), func(t *testing.T) {
			scenario(t, "device sync to "+string(newer), olders, func(t *testing.T, w *world) {
				askForHistory(t, w, w.start(newer))
			})
		})
	}
	t.Run("sent", func(t *testing.T) {
		scenario(t, "device sync, sent unasked", all[1:], func(t *testing.T, w *world) {
			sendHistory(t, w, w.Process)
		})
	})
}
