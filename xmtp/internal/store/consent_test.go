package store

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestConsentIsNumberedByChange(t *testing.T) {
	db := open(t, Options{})
	set := func(entity string, state int, at int64, announce bool) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			return tx.SetConsent(Consent{Kind: ConsentInbox, Entity: entity, State: state, At: at}, announce)
		})
	}
	from := func(change int64, want ...Consent) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			got, err := tx.ConsentsFrom(change, 10)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from %d:\n%s", change, diff)
			}
			return err
		})
	}
	set("a", 1, 10, true)
	set("b", 2, 20, true)
	set("c", 2, 30, false)
	set("a", 1, 40, true) // as before
	from(0, Consent{ConsentInbox, "a", 1, 10, 1}, Consent{ConsentInbox, "b", 2, 20, 2})
	set("a", 2, 50, true)
	set("b", 0, 60, false) // keeps its place
	from(0, Consent{ConsentInbox, "b", 0, 60, 2}, Consent{ConsentInbox, "a", 2, 50, 3})
	from(2, Consent{ConsentInbox, "a", 2, 50, 3})
	from(3)
	update(t, db, func(tx *Tx) error {
		last, err := tx.LastConsent()
		if last != 3 {
			t.Errorf("the last is %d", last)
		}
		all, listErr := tx.Consents(ConsentInbox, []int{2})
		if want := []Consent{{ConsentInbox, "a", 2, 50, 3}, {ConsentInbox, "c", 2, 30, 0}}; listErr != nil || !cmp.Equal(all, want) {
			t.Errorf("denied: %v, %v", all, listErr)
		}
		return err
	})
}

// The filters against what they say, on groups, messages and decisions at random.
func TestFilters(t *testing.T) {
	kinds, states, dms := []int{1, 2, 3}, []int{0, 1, 2}, []string{"", "dm:a:b", "dm:a:c"}
	db := open(t, Options{})
	rapid.Check(t, func(r *rapid.T) {
		state := map[string]int{}
		var groups []Group
		for i := range rapid.IntRange(1, 6).Draw(r, "groups") {
			g := Group{ID: []byte{byte(i)}, Kind: rapid.SampledFrom(kinds).Draw(r, "kind"), DM: rapid.SampledFrom(dms).Draw(r, "dm"), Created: int64(i)}
			groups = append(groups, g)
			state[string(g.ID)] = rapid.SampledFrom(states).Draw(r, "state")
		}
		arrivals := rapid.Permutation(groups).Draw(r, "arrivals")
		var messages []Message
		err := db.Update(func(tx *Tx) error {
			for _, table := range []string{"groups", "messages", "arrivals", "consent"} {
				if err := tx.Exec("DELETE FROM " + table); err != nil {
					return err
				}
			}
			for _, g := range groups {
				if err := tx.PutGroup(g); err != nil {
					return err
				}
				if s := state[string(g.ID)]; s != 0 || rapid.Bool().Draw(r, "stored") {
					if err := tx.SetConsent(Consent{Kind: ConsentConversation, Entity: hex.EncodeToString(g.ID), State: s, At: 1}, true); err != nil {
						return err
					}
				}
			}
			for _, g := range arrivals {
				if err := tx.AddArrival(g.ID); err != nil {
					return err
				}
			}
			for i := range rapid.IntRange(0, 10).Draw(r, "messages") {
				m := Message{
					ID: []byte{byte(i)}, Group: rapid.SampledFrom(groups).Draw(r, "group").ID, Sent: int64(i), Kind: rapid.IntRange(1, 2).Draw(r, "kind"),
					Delivery:    rapid.IntRange(1, 3).Draw(r, "delivery"),
					ContentType: rapid.SampledFrom([]string{"xmtp.org/text:1.0", "xmtp.org/readReceipt:1.0", "xmtp.org/readReceipts:1.0", "xmtp.org/group_updated:1.0", "example.org/deleteMessage:1.0", "xmtp.org/deleteMessage:1.2", "xmtp.org/leave_request:1.0", ""}).Draw(r, "type"),
					Expires:     rapid.SampledFrom([]int64{0, 100, 101}).Draw(r, "expires"),
				}
				messages = append(messages, m)
				if _, err := tx.AddMessage(&m); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.Fatal(err)
		}
		var f Filter
		f.Kinds = rapid.SliceOfNDistinct(rapid.SampledFrom(kinds), 0, 3, rapid.ID).Draw(r, "kinds")
		f.Consent = rapid.SliceOfNDistinct(rapid.SampledFrom(states), 0, 3, rapid.ID).Draw(r, "states")
		f.DM = rapid.SampledFrom(dms).Draw(r, "dm")
		if rapid.Bool().Draw(r, "by id") {
			f.Groups = [][]byte{groups[0].ID}
		}
		duplicates := rapid.Bool().Draw(r, "duplicates")
		in := func(list []int, v int) bool {
			for _, x := range list {
				if x == v {
					return true
				}
			}
			return len(list) == 0
		}
		matches := func(g Group) bool {
			return in(f.Kinds, g.Kind) && in(f.Consent, state[string(g.ID)]) && (f.DM == "" || f.DM == g.DM) &&
				(len(f.Groups) == 0 || string(f.Groups[0]) == string(g.ID))
		}
		hidden := map[string]bool{"xmtp.org/readReceipt:1.0": true, "xmtp.org/group_updated:1.0": true, "xmtp.org/deleteMessage:1.2": true, "xmtp.org/leave_request:1.0": true}
		byID := map[string]Group{}
		shown := map[string]int64{}
		for _, g := range groups {
			byID[string(g.ID)] = g
		}
		var wantMessages, wantArrivals, gotMessages, gotArrivals []byte
		for _, m := range messages {
			if m.Delivery == Published && matches(byID[string(m.Group)]) {
				wantMessages = append(wantMessages, m.ID...)
			}
			if m.Kind == KindApplication && m.Expires != 100 && !hidden[m.ContentType] {
				shown[string(m.Group)] = m.Sent
			}
		}
		before := map[string]bool{}
		for _, g := range arrivals {
			if matches(g) && (duplicates || !before[g.DM]) {
				wantArrivals = append(wantArrivals, g.ID...)
			}
			before[g.DM] = g.DM != ""
		}
		err = db.View(func(tx *Tx) error {
			rows, _, err := tx.MessagesFrom(0, f, 100)
			if err != nil {
				return err
			}
			for _, m := range rows {
				gotMessages = append(gotMessages, m.ID...)
			}
			came, err := tx.ArrivalsFrom(0, f, duplicates, 100)
			if err != nil {
				return err
			}
			for _, a := range came {
				gotArrivals = append(gotArrivals, a.ID...)
			}
			list, err := tx.List(f, 100)
			listed := map[string]bool{}
			for _, l := range list {
				id := string(l.ID)
				listed[id] = true
				if l.Shown != shown[id] || l.State != state[id] {
					r.Errorf("group %x: last shown at %d in state %d, want %d, %d", l.ID, l.Shown, l.State, shown[id], state[id])
				}
				if m, found, err := tx.LastShown([][]byte{l.ID}, 100); err != nil || (found && m.Sent != l.Shown) || (!found && l.Shown != 0) {
					r.Errorf("last shown of group %x: %+v, %v", l.ID, m, err)
				}
			}
			for _, g := range groups {
				if listed[string(g.ID)] != matches(g) {
					r.Errorf("group %x is listed: %v", g.ID, listed[string(g.ID)])
				}
			}
			return err
		})
		if err != nil {
			r.Fatal(err)
		}
		if string(gotMessages) != string(wantMessages) || string(gotArrivals) != string(wantArrivals) {
			r.Errorf("messages %x, want %x; arrivals %x, want %x", gotMessages, wantMessages, gotArrivals, wantArrivals)
		}
	})
}

func BenchmarkList(b *testing.B) {
	db, err := Open(b.Context(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *Tx) error {
		for i := range 1000 {
			id := []byte{byte(i >> 8), byte(i)}
			if err := tx.PutGroup(Group{ID: id, Kind: 1}); err != nil {
				return err
			}
			for n := range 20 {
				if _, err := tx.AddMessage(&Message{ID: []byte{byte(n)}, Group: id, Sent: int64(n), Kind: KindApplication, ContentType: "xmtp.org/text:1.0"}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		err := db.View(func(tx *Tx) error {
			list, err := tx.List(Filter{Kinds: []int{1, 2}}, 1)
			if len(list) != 1000 {
				b.Fatalf("%d groups", len(list))
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
