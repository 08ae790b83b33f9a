package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMessagesOfGroupsInOneOrder(t *testing.T) {
	db := open(t, Options{})
	update(t, db, func(tx *Tx) error {
		for i, sent := range []int64{30, 10, 20, 20} {
			if _, err := tx.AddMessage(&Message{ID: []byte{byte(i)}, Group: []byte{byte(i % 2)}, Sent: sent, Kind: 1, Delivery: 2}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct {
		query MessageQuery
		want  []byte
	}{
		{MessageQuery{}, []byte{1, 2, 3, 0}},
		{MessageQuery{Descending: true}, []byte{0, 3, 2, 1}},
		{MessageQuery{SentAfter: 10, SentBefore: 30}, []byte{2, 3}},
		{MessageQuery{Limit: 1, Descending: true}, []byte{0}},
		{MessageQuery{ByInserted: true}, []byte{0, 1, 2, 3}},
		{MessageQuery{ByInserted: true, InsertedAfter: 1, InsertedBefore: 4, Descending: true}, []byte{2, 1}},
	} {
		update(t, db, func(tx *Tx) error {
			messages, err := tx.Messages([][]byte{{0}, {1}}, c.query)
			var got []byte
			for _, m := range messages {
				got = append(got, m.ID...)
			}
			if !cmp.Equal(got, c.want) {
				t.Errorf("%+v: got %v, want %v", c.query, got, c.want)
			}
			return err
		})
	}
}

// Whatever is asked for, the database answers as going through all messages does.
func TestMessageQueries(t *testing.T) {
	types := []string{"xmtp.org/text:1.0", "xmtp.org/reaction:1.0", "xmtp.org/reaction:2.0", "example.com/poll2:1.11", ""}
	db := open(t, Options{})
	rapid.Check(t, func(r *rapid.T) {
		var all []Message
		time := rapid.Int64Range(1, 8)
		update(t, db, func(tx *Tx) error {
			db.inserted = 0
			if err := tx.Exec("DELETE FROM messages"); err != nil {
				return err
			}
			for i := range rapid.IntRange(0, 12).Draw(r, "messages") {
				m := Message{
					ID: []byte{byte(i)}, Group: []byte{byte(rapid.IntRange(0, 2).Draw(r, "group"))}, Sent: time.Draw(r, "sent"),
					Inserted: time.Draw(r, "inserted"), Sender: rapid.SampledFrom([]string{"alix", "bo"}).Draw(r, "sender"),
					Kind: rapid.IntRange(1, 2).Draw(r, "kind"), Delivery: rapid.IntRange(1, 3).Draw(r, "delivery"),
					ContentType: rapid.SampledFrom(types).Draw(r, "type"), Expires: rapid.Int64Range(0, 8).Draw(r, "expires"),
				}
				if _, err := tx.AddMessage(&m); err != nil {
					return err
				}
				m, _, err := tx.MessageByID(m.Group, m.ID)
				if err != nil {
					return err
				}
				all = append(all, m)
			}
			return nil
		})
		bound := rapid.Int64Range(0, 12)
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"xmtp.org/text:", "xmtp.org/reaction:", "example.com/poll2:", ""}), 0, 3, rapid.ID)
		q := MessageQuery{
			SentAfter: bound.Draw(r, "after"), SentBefore: bound.Draw(r, "before"),
			InsertedAfter: bound.Draw(r, "inserted after"), InsertedBefore: bound.Draw(r, "inserted before"),
			Kind: rapid.IntRange(0, 2).Draw(r, "kind"), Delivery: rapid.IntRange(0, 3).Draw(r, "delivery"),
			ExcludeTypes: names.Draw(r, "exclude"), ExcludeSenders: rapid.SampledFrom([][]string{nil, {}, {"alix"}, {"alix", "bo"}}).Draw(r, "senders"),
			Now: bound.Draw(r, "now"), ByInserted: rapid.Bool().Draw(r, "by inserted"), Descending: rapid.Bool().Draw(r, "descending"),
		}
		if rapid.Bool().Draw(r, "types") {
			q.Types = names.Draw(r, "types")
		}
		groups := [][]byte{{0}, {2}}
		var want []Message
		for _, m := range all {
			name := strings.TrimRight(m.ContentType, "0123456789.")
			switch {
			case m.Group[0] == 1, q.SentAfter != 0 && m.Sent <= q.SentAfter, q.SentBefore != 0 && m.Sent >= q.SentBefore,
				q.InsertedAfter != 0 && m.Inserted <= q.InsertedAfter, q.InsertedBefore != 0 && m.Inserted >= q.InsertedBefore,
				q.Kind != 0 && m.Kind != q.Kind, q.Delivery != 0 && m.Delivery != q.Delivery,
				q.Types != nil && !slices.Contains(q.Types, name), slices.Contains(q.ExcludeTypes, name),
				slices.Contains(q.ExcludeSenders, m.Sender), m.Expires != 0 && m.Expires <= q.Now:
			default:
				want = append(want, m)
			}
		}
		slices.SortFunc(want, q.compare)
		update(t, db, func(tx *Tx) error {
			n, err := tx.CountMessages(groups, q)
			if err != nil || n != int64(len(want)) {
				t.Errorf("%+v: %d counted, want %d, %v", q, n, len(want), err)
			}
			if q.Limit = rapid.IntRange(0, 5).Draw(r, "limit"); q.Limit > 0 {
				want = want[:min(len(want), q.Limit)]
			}
			got, err := tx.Messages(groups, q)
			if diff := cmp.Diff(want, got); diff != "" {
				r.Errorf("%+v: %s", q, diff)
			}
			return err
		})
	})
}

// A page of a history costs the same however long it is: it is read from an index in
// its order, from where it begins.
func TestListingUsesAnIndex(t *testing.T) {
	db := open(t, Options{})
	plan := func(sql string, args []any) (steps []string) {
		update(t, db, func(tx *Tx) error {
			return tx.Query("EXPLAIN QUERY PLAN "+sql, args, func(r Row) error {
				steps = append(steps, r.Text(3))
				return nil
			})
		})
		return steps
	}
	for _, q := range []MessageQuery{{}, {Descending: true}, {ByInserted: true}, {ByInserted: true, Descending: true}} {
		want := "SEARCH messages USING INDEX messages_sent (group_id=? AND sent>? AND sent<?)"
		if q.ByInserted {
			want = "SEARCH messages USING INDEX messages_inserted (group_id=? AND inserted>? AND inserted<?)"
		}
		steps := plan(q.sql(), append(q.args([]byte{1}), 10))
		if steps[0] != want || slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, "B-TREE") }) {
			t.Errorf("%+v: %q", q, steps)
		}
	}
	for sql, want := range map[string]string{
		countMessages: "SEARCH messages USING INDEX messages_sent (group_id=? AND sent>? AND sent<?)",
		"SELECT " + messageColumns + " FROM " + messagesByID + " WHERE " + hasID("?1"):                    "SEARCH messages USING INDEX messages_id (<expr>=?)",
		"SELECT " + messageColumns + " FROM messages WHERE row > ? AND delivery = ? ORDER BY row LIMIT ?": "SEARCH messages USING INTEGER PRIMARY KEY (rowid>?)",
		"SELECT expires FROM messages WHERE " + expiring + " ORDER BY expires LIMIT 1":                    "SEARCH messages USING INDEX messages_expires (expires>?)",
		"SELECT row FROM messages WHERE expires <= ?":                                                     "SEARCH messages USING COVERING INDEX messages_expires (expires<?)",
		"SELECT max(inserted) FROM messages WHERE group_id = x'01'":                                       "SEARCH messages USING COVERING INDEX messages_inserted (group_id=?)",
	} {
		if steps := plan(sql, nil); steps[0] != want {
			t.Errorf("%s: %q", sql, steps)
		}
	}
}

// No two messages have the same time of insertion, also with a clock that stands or
// is set back, and after the database was opened again.
func TestInsertionTimesGrow(t *testing.T) {
	path := t.TempDir() + "/client.db"
	var last int64
	for run := range 3 {
		db := open(t, Options{Path: path})
		update(t, db, func(tx *Tx) error {
			if err := tx.PutGroup(Group{ID: []byte{1}}); err != nil {
				return err
			}
			for i := range 3 {
				id := fmt.Append(nil, run, i)
				if _, err := tx.AddMessage(&Message{ID: id, Group: []byte{1}, Inserted: 100 - int64(run)}); err != nil {
					return err
				}
				m, _, err := tx.MessageByID([]byte{1}, id)
				if err != nil || m.Inserted <= last {
					t.Errorf("%d after %d, %v", m.Inserted, last, err)
				}
				last = m.Inserted
			}
			return nil
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A message that is published has a row that no message has had, also if the newest
// ones were deleted, so that no stream passes it over.
func TestPublishedRowsAreNew(t *testing.T) {
	db := open(t, Options{})
	update(t, db, func(tx *Tx) error {
		seen := map[int64]bool{}
		for i := range 4 {
			id := []byte{byte(i)}
			if _, err := tx.AddMessage(&Message{ID: id, Group: []byte{1}, Delivery: Unpublished}); err != nil {
				return err
			}
			before, _, _ := tx.MessageByID([]byte{1}, id)
			if _, err := tx.MarkPublished([]byte{1}, id, uint64(i), 1, 0); err != nil {
				return err
			}
			after, _, err := tx.MessageByID([]byte{1}, id)
			if err != nil {
				return err
			}
			if after.Row <= before.Row || seen[before.Row] || seen[after.Row] {
				t.Errorf("row %d, then %d, of %v", before.Row, after.Row, seen)
			}
			seen[before.Row], seen[after.Row] = true, true
			if err := tx.Exec("DELETE FROM messages WHERE id = ?", id); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkPage reads the newest page of a long history.
func BenchmarkPage(b *testing.B) {
	for _, history := range []int{100, 10_000} {
		b.Run(fmt.Sprint(history), func(b *testing.B) {
			db, err := Open(b.Context(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			err = db.Update(func(tx *Tx) error {
				for i := range history {
					m := Message{ID: fmt.Append(nil, i), Group: []byte{1}, Sent: int64(i), Kind: 1, Delivery: 2, ContentType: "xmtp.org/text:1.0", Content: make([]byte, 100)}
					if _, err := tx.AddMessage(&m); err != nil {
						return err
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
					_, err := tx.Messages([][]byte{{1}}, MessageQuery{Limit: 50, Descending: true})
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
