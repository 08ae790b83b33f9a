package store

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func update(t *testing.T, db *DB, f func(*Tx) error) {
	t.Helper()
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
}

func TestGroupRow(t *testing.T) {
	db := open(t, Options{})
	want := Group{
		ID: []byte{1}, Kind: 2, DM: "dm:a:b", Creator: "a", Adder: "b", Membership: 3, Created: 4, Welcome: 5, Cursor: 6,
		Joined: 7, Rotated: 8, Checked: 9, LastMessage: 10, Paused: "1.2.3", Problem: "none",
	}
	update(t, db, func(tx *Tx) error { return tx.PutGroup(want) })
	update(t, db, func(tx *Tx) error {
		got, found, err := tx.Group(want.ID)
		if !found || !cmp.Equal(got, want) {
			t.Errorf("found %v\n%s", found, cmp.Diff(want, got))
		}
		return err
	})
	update(t, db, func(tx *Tx) error {
		if err := tx.SetCursor(want.ID, 20, 0); err != nil {
			return err
		}
		return tx.SetCursor(want.ID, 15, 0)
	})
	update(t, db, func(tx *Tx) error {
		got, _, err := tx.Group(want.ID)
		if got.Cursor != 20 {
			t.Errorf("the cursor went back: %d", got.Cursor)
		}
		return err
	})
}

func TestMessageRow(t *testing.T) {
	db := open(t, Options{})
	want := Message{
		Row: 1, ID: []byte{1}, Group: []byte{2}, Number: 3, Sent: 4, Sender: "s", Installation: []byte{5}, Kind: KindApplication,
		Delivery: Unpublished, ContentType: "xmtp.org/text:1.0", Content: []byte{6}, Expires: 7, Inserted: 8, Key: "k", Push: true,
	}
	update(t, db, func(tx *Tx) error {
		if err := tx.PutGroup(Group{ID: []byte{2}, Kind: 1}); err != nil {
			return err
		}
		for i, want := range []bool{true, false} {
			m := message(want, i)
			added, err := tx.AddMessage(&m)
			if added != want || err != nil {
				t.Errorf("time %d: added %v, %v", i, added, err)
			}
		}
		return nil
	})
	update(t, db, func(tx *Tx) error {
		got, _, err := tx.MessageByID([]byte{2}, []byte{1})
		if !cmp.Equal(got, want) {
			t.Error(cmp.Diff(want, got))
		}
		return err
	})
	for i, want := range [][]byte{want.Content, nil} {
		update(t, db, func(tx *Tx) error {
			content, err := tx.MarkPublished([]byte{2}, []byte{1}, 30, 40, 50)
			if !bytes.Equal(content, want) {
				t.Errorf("time %d: %x", i, content)
			}
			return err
		})
	}
	update(t, db, func(tx *Tx) error { return tx.MarkFailed([]byte{2}, []byte{1}) }) // too late
	want.Row, want.Number, want.Sent, want.Expires, want.Delivery = 2, 30, 40, 50, Published
	update(t, db, func(tx *Tx) error {
		got, _, err := tx.MessagesFrom(0, Filter{}, 10)
		if !cmp.Equal(got, []Message{want}) {
			t.Error(cmp.Diff([]Message{want}, got))
		}
		g, _, _ := tx.Group([]byte{2})
		if g.LastMessage != 40 {
			t.Errorf("last message at %d", g.LastMessage)
		}
		return err
	})
}

// message is the same message with another content each time.
func message(_ bool, i int) Message {
	return Message{
		ID: []byte{1}, Group: []byte{2}, Number: 3, Sent: 4, Sender: "s", Installation: []byte{5}, Kind: KindApplication,
		Delivery: Unpublished, ContentType: "xmtp.org/text:1.0", Content: []byte{byte(6 + i)}, Expires: 7, Inserted: 8, Key: "k", Push: true,
	}
}

func TestOutboxKeepsItsOrder(t *testing.T) {
	db := open(t, Options{})
	group := []byte{9}
	var rows []int64
	update(t, db, func(tx *Tx) error {
		for i := range 3 {
			row, err := tx.AddIntent(Intent{Group: group, Kind: i, State: 1, Intent: []byte{byte(i)}})
			rows = append(rows, row)
			if err != nil {
				return err
			}
		}
		return tx.SetIntent(Intent{Row: rows[1], State: 2, Payload: []byte("p"), HMAC: []byte("m"), Hash: []byte("h"), Epoch: 4, After: []byte("w"), Attempts: 5})
	})
	update(t, db, func(tx *Tx) error {
		got, err := tx.Intents(group, 10)
		want := []Intent{
			{Row: rows[0], Group: group, Kind: 0, State: 1, Intent: []byte{0}},
			{Row: rows[1], Group: group, Kind: 1, State: 2, Intent: []byte{1}, Payload: []byte("p"), HMAC: []byte("m"), Hash: []byte("h"), Epoch: 4, After: []byte("w"), Attempts: 5},
			{Row: rows[2], Group: group, Kind: 2, State: 1, Intent: []byte{2}},
		}
		empty := cmp.Transformer("empty", func(b []byte) string { return string(b) })
		if !cmp.Equal(got, want, empty) {
			t.Error(cmp.Diff(want, got, empty))
		}
		byHash, found, _ := tx.IntentByHash(group, []byte("h"))
		if !found || byHash.Row != rows[1] {
			t.Errorf("by hash: %v, row %d", found, byHash.Row)
		}
		if _, found, _ := tx.IntentByHash(group, nil); found {
			t.Error("found an intent without payload by an empty hash")
		}
		return err
	})
}

func TestKeyPackagesAreKeptForAWhile(t *testing.T) {
	db := open(t, Options{})
	update(t, db, func(tx *Tx) error {
		var row int64
		for i := range byte(2) {
			var err error
			if row, err = tx.AddKeyPackage(KeyPackage{Package: []byte{i}, Keys: [][]byte{{10 + i}, {20 + i}}, Created: int64(i)}); err != nil {
				return err
			}
		}
		return tx.MarkUploaded(row, 100)
	})
	found := func(public byte) (found bool) {
		update(t, db, func(tx *Tx) (err error) {
			k, ok, err := tx.KeyPackageByKey([]byte{public})
			found = ok && k.Package[0] == public%10
			return err
		})
		return found
	}
	update(t, db, func(tx *Tx) error { return tx.DeleteKeyPackages(99) })
	if !found(10) || !found(20) || !found(11) || !found(21) {
		t.Error("a key package went too early")
	}
	update(t, db, func(tx *Tx) error { return tx.DeleteKeyPackages(100) })
	if found(10) || found(20) {
		t.Error("the older key package is still there")
	}
	if !found(11) || !found(21) {
		t.Error("the newest key package is gone")
	}
	update(t, db, func(tx *Tx) error {
		k, ok, err := tx.NewestKeyPackage()
		if !ok || !k.Uploaded || k.Expires != 0 {
			t.Errorf("the newest: %v, %+v", ok, k)
		}
		return err
	})
}

func TestMemberRows(t *testing.T) {
	db := open(t, Options{})
	one, two := []byte{1}, []byte{2}
	update(t, db, func(tx *Tx) error {
		return errors.Join(
			tx.AddLeaving(one, "b"), tx.AddLeaving(one, "a"), tx.AddLeaving(one, "a"), tx.AddLeaving(two, "c"), tx.DeleteLeaving(two, "x"),
			tx.AddAwaited(one, "b", 5), tx.AddAwaited(one, "b", 9), tx.AddAwaited(one, "a", 7), tx.AddAwaited(two, "c", 8),
		)
	})
	expect := func(leaving, awaited []string, groups []AwaitingGroup) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			l, err := tx.Leaving(one)
			a, err2 := tx.Awaited(one)
			g, err3 := tx.AwaitingGroups()
			if !cmp.Equal(l, leaving) || !cmp.Equal(a, awaited) || !cmp.Equal(g, groups) {
				t.Errorf("leaving %v, awaited %v, groups %v", l, a, g)
			}
			return errors.Join(err, err2, err3)
		})
	}
	expect([]string{"a", "b"}, []string{"a", "b"}, []AwaitingGroup{{one, 7}, {two, 8}})
	update(t, db, func(tx *Tx) error { return errors.Join(tx.DeleteLeaving(one, "a"), tx.DeleteAwaited(one, "a")) })
	expect([]string{"b"}, []string{"b"}, []AwaitingGroup{{one, 5}, {two, 8}})
	update(t, db, func(tx *Tx) error { return tx.ForgetMembers(one) })
	expect(nil, nil, []AwaitingGroup{{two, 8}})
	update(t, db, func(tx *Tx) error {
		ids, err := tx.LeavingGroups()
		if !cmp.Equal(ids, [][]byte{two}) {
			t.Errorf("groups %v", ids)
		}
		return err
	})
}
