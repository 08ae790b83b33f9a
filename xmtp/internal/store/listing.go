package store

// Filter restricts groups; zero values don't.
type Filter struct {
	Kinds   []int
	Consent []int    // states; a group about which nothing was decided is in state 0
	Groups  [][]byte // of these ids
	DM      string   // of this dm id
}

// consentOf is the state of consent to the row of groups that is looked at.
const consentOf = "coalesce((SELECT state FROM consent WHERE consent.kind = 1 AND consent.entity = lower(hex(groups.id))), 0)"

// and returns the filter as a condition on groups, to follow others.
func (f Filter) and(args []any) (string, []any) {
	sql := ""
	if len(f.Kinds) > 0 {
		sql, args = sql+" AND groups.kind IN "+list(len(f.Kinds)), appendAny(args, f.Kinds)
	}
	if len(f.Consent) > 0 {
		sql, args = sql+" AND "+consentOf+" IN "+list(len(f.Consent)), appendAny(args, f.Consent)
	}
	if len(f.Groups) > 0 {
		sql, args = sql+" AND groups.id IN "+list(len(f.Groups)), appendAny(args, f.Groups)
	}
	if f.DM != "" {
		sql, args = sql+" AND groups.dm = ? AND groups.dm <> ''", append(args, f.DM)
	}
	return sql, args
}

// shown is the condition on messages that they are shown to people: what members
// sent, but for receipts, requests to leave, deletions and what only clients make.
// Its parameter is the time, because of those that disappear.
const shown = `kind = 1 AND (expires IS NULL OR expires > ?)
	AND content_type NOT GLOB 'xmtp.org/readReceipt:*' AND content_type NOT GLOB 'xmtp.org/leave_request:*'
	AND content_type NOT GLOB 'xmtp.org/deleteMessage:*' AND content_type NOT GLOB 'xmtp.org/group_*'`

// Listed is a group with what a list of conversations shows of it.
type Listed struct {
	Group
	Shown int64 // when the last message was sent that is shown, 0 if there is none; ns
	State int   // of consent
}

// List returns groups with the time of their last message that is shown at a time.
func (tx *Tx) List(f Filter, now int64) (all []Listed, err error) {
	and, args := f.and([]any{now})
	err = tx.Query("SELECT "+groupColumns+", coalesce((SELECT sent FROM messages WHERE group_id = groups.id AND "+shown+" ORDER BY sent DESC LIMIT 1), 0), "+
		consentOf+" FROM groups WHERE true"+and, args, func(r Row) error {
		n := r.Columns()
		all = append(all, Listed{scanGroup(r), r.Int(n - 2), int(r.Int(n - 1))})
		return nil
	})
	return all, err
}

// LastShown returns the last message of groups that is shown at a time; false if there is none.
func (tx *Tx) LastShown(groups [][]byte, now int64) (m Message, found bool, err error) {
	found, err = tx.One("SELECT "+messageColumns+" FROM messages WHERE group_id IN "+list(len(groups))+" AND "+shown+" ORDER BY sent DESC, row DESC LIMIT 1",
		append(appendAny(nil, groups), now), func(r Row) { m = scanMessage(r) })
	return m, found, err
}

// FindMessage returns a message of any group; false if there is none of that id.
func (tx *Tx) FindMessage(id []byte) (m Message, found bool, err error) {
	found, err = tx.One("SELECT "+messageColumns+" FROM "+messagesByID+" WHERE "+hasID("?1"), []any{id}, func(r Row) { m = scanMessage(r) })
	return m, found, err
}

// MembershipChanges calls f with the content of what happened to groups, oldest first.
func (tx *Tx) MembershipChanges(groups [][]byte, f func(content []byte) error) error {
	return tx.Query("SELECT content FROM messages WHERE group_id IN "+list(len(groups))+" AND kind = ? ORDER BY row",
		append(appendAny(nil, groups), KindMembershipChange), func(r Row) error { return f(r.Bytes(0)) })
}

// streamedBytes is about how much content is read at once.
const streamedBytes = 1 << 20

// MessagesFrom returns published messages after a row, in the order of arrival: up to
// limit, and no more once that is a MiB. There may be more of them if it says so.
func (tx *Tx) MessagesFrom(row int64, f Filter, limit int) (messages []Message, more bool, err error) {
	and, args := f.and([]any{row, Published})
	size := 0
	err = tx.Query("SELECT "+messageColumns+" FROM messages WHERE row > ? AND delivery = ? AND "+
		"EXISTS (SELECT 1 FROM groups WHERE groups.id = messages.group_id"+and+") ORDER BY row LIMIT ?", append(args, limit), func(r Row) error {
		m := scanMessage(r)
		messages = append(messages, m)
		if size += len(m.Content); size >= streamedBytes || len(messages) == limit {
			more = true
			return errStop
		}
		return nil
	})
	return messages, more, err
}

// AddArrival notes that a group has come, also if it has come before.
func (tx *Tx) AddArrival(group []byte) error {
	return tx.Exec("INSERT OR REPLACE INTO arrivals (group_id) VALUES (?)", group)
}

// Arrived is a group that has come.
type Arrived struct {
	Row int64 // in the order of arrival
	Group
}

// ArrivalsFrom returns up to limit groups that came after a row, in the order of
// arrival. Of those of one direct message it is the first only, unless duplicates are
// wanted.
func (tx *Tx) ArrivalsFrom(row int64, f Filter, duplicates bool, limit int) (all []Arrived, err error) {
	and, args := f.and([]any{row, duplicates})
	err = tx.Query("SELECT "+groupColumns+", arrivals.row FROM arrivals JOIN groups ON groups.id = arrivals.group_id WHERE arrivals.row > ? AND (? OR NOT EXISTS ("+
		"SELECT 1 FROM groups AS other JOIN arrivals AS earlier ON earlier.group_id = other.id "+
		"WHERE other.dm = groups.dm AND other.dm <> '' AND earlier.row < arrivals.row))"+and+" ORDER BY arrivals.row LIMIT ?", append(args, limit), func(r Row) error {
		all = append(all, Arrived{r.Int(r.Columns() - 1), scanGroup(r)})
		return nil
	})
	return all, err
}

// LastArrival returns the row of the group that came last, 0 if there is none.
func (tx *Tx) LastArrival() (row int64, err error) {
	_, err = tx.One("SELECT coalesce(max(row), 0) FROM arrivals", nil, func(r Row) { row = r.Int(0) })
	return row, err
}
