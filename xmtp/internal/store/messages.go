package store

import (
	"encoding/json"
	"math"
	"slices"
)

// Kinds of message.
const (
	KindApplication      = 1
	KindMembershipChange = 2
)

// Where an own message is on its way; others' are published.
const (
	Unpublished = 1
	Published   = 2
	Failed      = 3
)

// Message is a message's row.
type Message struct {
	Row          int64 // set by the database, in the order of arrival
	ID           []byte
	Group        []byte
	Number       uint64 // the node's, 0 while it is unpublished
	Sent         int64  // ns; the node's time once it is published
	Inserted     int64  // ns; when it was stored
	Sender       string // inbox id
	Installation []byte
	Kind         int
	Delivery     int
	ContentType  string // authority/type:major.minor
	Expires      int64  // ns; 0 for never
	Key          string // idempotency key of an own message
	Push         bool   // whether an own message wakes devices
	Content      []byte // serialized EncodedContent
}

const messageColumns = "row, id, group_id, number, sent, inserted, sender, installation, kind, delivery, content_type, expires, key, push, content"

func scanMessage(r Row) Message {
	return Message{
		Row: r.Int(0), ID: r.Bytes(1), Group: r.Bytes(2), Number: r.Uint(3), Sent: r.Int(4), Inserted: r.Int(5),
		Sender: r.Text(6), Installation: r.Bytes(7), Kind: int(r.Int(8)), Delivery: int(r.Int(9)), ContentType: r.Text(10),
		Expires: r.Int(11), Key: r.Text(12), Push: r.Bool(13), Content: r.Bytes(14),
	}
}

// messagesByID are messages to be looked up by their id.
const messagesByID = "messages INDEXED BY messages_id"

// hasID is the condition on messagesByID that the id is that of a parameter.
func hasID(p string) string { return "substr(id, 1, 6) = substr(" + p + ", 1, 6) AND id = " + p }

// AddMessage stores a message unless the group has one with its id. Its time of
// insertion is moved on if need be, so that it is later than that of all before it.
func (tx *Tx) AddMessage(m *Message) (added bool, err error) {
	if added, err = tx.AddReceived(*m); !added || err != nil {
		return added, err
	}
	m.Inserted = tx.db.inserted
	return true, tx.Exec("UPDATE groups SET last_message = max(last_message, ?) WHERE id = ?", m.Sent, m.Group)
}

// AddReceived is AddMessage for one of many, after which [Tx.SetCursor] tells the group
// of the newest.
func (tx *Tx) AddReceived(m Message) (added bool, err error) {
	last, err := tx.lastInserted()
	if err != nil {
		return false, err
	}
	inserted := max(m.Inserted, last+1)
	err = tx.Exec("INSERT INTO messages (id, group_id, number, sent, inserted, sender, installation, kind, delivery, content_type, expires, key, push, content) "+
		"SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM "+messagesByID+" WHERE "+hasID("?1")+" AND group_id = ?2)",
		m.ID, m.Group, m.Number, m.Sent, inserted, m.Sender, m.Installation, m.Kind, m.Delivery, m.ContentType, orNull(m.Expires), m.Key, m.Push, m.Content)
	if err != nil || tx.Changes() == 0 {
		return false, err
	}
	tx.db.inserted = inserted
	return true, nil
}

func orNull(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// lastInserted returns the latest time at which a message was stored.
func (tx *Tx) lastInserted() (ns int64, err error) {
	if tx.db.inserted == 0 {
		_, err = tx.One("SELECT coalesce(max((SELECT max(inserted) FROM messages WHERE group_id = groups.id)), 0) FROM groups", nil, func(r Row) { tx.db.inserted = r.Int(0) })
	}
	return tx.db.inserted, err
}

// MarkPublished notes where an own message came to stand in the log, and when it
// expires (0 for never). For streams it has arrived only now, and so it gets a new
// row; the time of its insertion stays. It returns the content, nil if there is no such
// message, or it was published before.
func (tx *Tx) MarkPublished(group, id []byte, number uint64, sent, expires int64) (content []byte, err error) {
	last, err := tx.LastRow()
	if err != nil {
		return nil, err
	}
	found := false
	err = tx.Query("UPDATE "+messagesByID+" SET delivery = ?, number = ?, sent = ?, expires = ?, row = ? WHERE "+hasID("?6")+" AND group_id = ?7 AND delivery <> ?1 RETURNING content",
		[]any{Published, number, sent, orNull(expires), last + 1, id, group}, func(r Row) error {
			found, content = true, r.Bytes(0)
			return nil
		})
	if err != nil || !found {
		return nil, err
	}
	// No row is used twice, even if this one is deleted.
	if err := tx.Exec("UPDATE sqlite_sequence SET seq = ? WHERE name = 'messages'", last+1); err != nil {
		return nil, err
	}
	return content, tx.Exec("UPDATE groups SET last_message = max(last_message, ?) WHERE id = ?", sent, group)
}

// LastApplied returns the highest number of a message or commit of a group that was of
// use, and that of a message which an installation has sent; 0 if there is none.
func (tx *Tx) LastApplied(group, installation []byte) (number, own uint64, err error) {
	_, err = tx.One("SELECT coalesce(max(number), 0), coalesce(max(number) FILTER (WHERE installation = ?2), 0) FROM messages WHERE group_id = ?1 AND kind = ?3",
		[]any{group, installation, KindApplication}, func(r Row) { number, own = r.Uint(0), r.Uint(1) })
	if err != nil {
		return 0, 0, err
	}
	_, err = tx.One("SELECT coalesce(max(number), 0) FROM commit_log WHERE group_id = ? AND result = ?", []any{group, commitApplied}, func(r Row) { number = max(number, r.Uint(0)) })
	return number, own, err
}

// commitApplied is the result of a commit that was applied.
const commitApplied = 1

// MarkFailed notes that an own message will not be published.
func (tx *Tx) MarkFailed(group, id []byte) error {
	return tx.setDelivery(group, id, Unpublished, Failed)
}

// MarkUnpublished notes that an own message that failed is tried again.
func (tx *Tx) MarkUnpublished(group, id []byte) error {
	return tx.setDelivery(group, id, Failed, Unpublished)
}

func (tx *Tx) setDelivery(group, id []byte, from, to int) error {
	return tx.Exec("UPDATE "+messagesByID+" SET delivery = ?1 WHERE "+hasID("?2")+" AND group_id = ?3 AND delivery = ?4", to, id, group, from)
}

// MessageByID returns a message's row; false if there is none.
func (tx *Tx) MessageByID(group, id []byte) (m Message, found bool, err error) {
	found, err = tx.One("SELECT "+messageColumns+" FROM "+messagesByID+" WHERE "+hasID("?1")+" AND group_id = ?2", []any{id, group}, func(r Row) { m = scanMessage(r) })
	return m, found, err
}

// MessageQuery says which messages of groups to read. Zero values don't restrict.
type MessageQuery struct {
	SentAfter, SentBefore         int64 // exclusive
	InsertedAfter, InsertedBefore int64 // exclusive
	Kind, Delivery                int
	// Types and ExcludeTypes are authorities and names without versions, "authority/type:".
	Types, ExcludeTypes []string
	ExcludeSenders      []string
	Now                 int64 // what has expired by then is left out
	ByInserted          bool  // in the order of insertion rather than of sending
	Descending          bool
	Limit               int
}

// conditions are the same for lists and counts. What is left of a content type
// without the version at its end tells the type.
const conditions = `group_id = ?1 AND sent > ?2 AND sent < ?3 AND inserted > ?4 AND inserted < ?5
	AND (?6 = 0 OR kind = ?6) AND (?7 = 0 OR delivery = ?7)
	AND (?8 IS NULL OR rtrim(content_type, '0123456789.') IN (SELECT value FROM json_each(?8)))
	AND (?9 IS NULL OR rtrim(content_type, '0123456789.') NOT IN (SELECT value FROM json_each(?9)))
	AND (?10 IS NULL OR sender NOT IN (SELECT value FROM json_each(?10)))
	AND (expires IS NULL OR expires > ?11)`

func (q MessageQuery) args(group []byte) []any {
	return []any{
		group, after(q.SentAfter), before(q.SentBefore), after(q.InsertedAfter), before(q.InsertedBefore),
		q.Kind, q.Delivery, jsonArray(q.Types), jsonArray(q.ExcludeTypes), jsonArray(q.ExcludeSenders), q.Now,
	}
}

func after(ns int64) int64 {
	if ns == 0 {
		return math.MinInt64
	}
	return ns
}

func before(ns int64) int64 {
	if ns == 0 {
		return math.MaxInt64
	}
	return ns
}

func jsonArray(all []string) any {
	if all == nil {
		return nil
	}
	b, _ := json.Marshal(all) // strings can't fail
	return string(b)
}

// sql reads from the index that has the wanted order, so that a page of a long
// history costs what the page holds.
func (q MessageQuery) sql() string {
	index, order, direction := "messages_sent", "sent", " ASC"
	if q.ByInserted {
		index, order = "messages_inserted", "inserted"
	}
	if q.Descending {
		direction = " DESC"
	}
	return "SELECT " + messageColumns + " FROM messages INDEXED BY " + index + " WHERE " + conditions +
		" ORDER BY " + order + direction + ", row" + direction + " LIMIT ?12"
}

// compare orders as sql does.
func (q MessageQuery) compare(a, b Message) int {
	x, y := a.Sent, b.Sent
	if q.ByInserted {
		x, y = a.Inserted, b.Inserted
	}
	if x == y {
		x, y = a.Row, b.Row
	}
	switch {
	case x == y:
		return 0
	case (x < y) != q.Descending:
		return -1
	}
	return 1
}

// Messages returns the messages of groups in the order of the query; those sent at
// the same time in the order of arrival.
func (tx *Tx) Messages(groups [][]byte, q MessageQuery) (messages []Message, err error) {
	limit := q.Limit
	if limit == 0 {
		limit = -1
	}
	for _, g := range groups {
		err := tx.Query(q.sql(), append(q.args(g), limit), func(r Row) error {
			messages = append(messages, scanMessage(r))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(groups) > 1 {
		slices.SortFunc(messages, q.compare)
	}
	if q.Limit > 0 && len(messages) > q.Limit {
		messages = messages[:q.Limit]
	}
	return messages, nil
}

const countMessages = "SELECT count(*) FROM messages INDEXED BY messages_sent WHERE " + conditions

// CountMessages returns how many messages of groups there are, whatever the limit.
func (tx *Tx) CountMessages(groups [][]byte, q MessageQuery) (n int64, err error) {
	for _, g := range groups {
		if _, err := tx.One(countMessages, q.args(g), func(r Row) { n += r.Int(0) }); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// LastRow returns the row of the message that arrived last, which may have been
// deleted since; 0 if there never was one.
func (tx *Tx) LastRow() (row int64, err error) {
	_, err = tx.One("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)", nil, func(r Row) { row = r.Int(0) })
	return row, err
}
