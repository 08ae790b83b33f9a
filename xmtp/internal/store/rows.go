package store

// Meta returns a fact about the client, nil if it isn't known.
func (tx *Tx) Meta(name string) (value []byte, err error) {
	_, err = tx.One("SELECT value FROM meta WHERE name = ?", []any{name}, func(r Row) { value = r.Bytes(0) })
	return value, err
}

// SetMeta stores a fact about the client.
func (tx *Tx) SetMeta(name string, value []byte) error {
	return tx.Exec("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2", name, value)
}

// Number returns a fact that is a number, 0 if it isn't known.
func (tx *Tx) Number(name string) (n int64, err error) {
	_, err = tx.One("SELECT number FROM numbers WHERE name = ?", []any{name}, func(r Row) { n = r.Int(0) })
	return n, err
}

// SetNumber stores a fact that is a number.
func (tx *Tx) SetNumber(name string, n int64) error {
	return tx.Exec("INSERT INTO numbers (name, number) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET number = ?2", name, n)
}

// Group is a conversation's row. Times are in nanoseconds since the Unix epoch.
type Group struct {
	ID          []byte
	Kind        int    // protocol.ConversationType
	DM          string // dm id, empty for a group
	Creator     string // inbox id
	Adder       string // inbox id of who let us in
	Membership  int
	Created     int64
	Welcome     uint64 // number of the welcome that let us in, 0 if we created it
	Cursor      uint64 // everything up to here has been applied
	Joined      uint64 // number of the commit that let us in
	Rotated     int64  // when we last renewed our leaf; 0 if never
	Checked     int64  // when members' installations were last looked at
	LastMessage int64  // time of the newest message
	Paused      string // the version that the group asks for
	Problem     string // why the group can't be used any more
}

const groupColumns = "id, kind, dm, creator, adder, membership, created, welcome, cursor, joined, rotated, checked, last_message, paused, problem"

func scanGroup(r Row) Group {
	return Group{
		ID: r.Bytes(0), Kind: int(r.Int(1)), DM: r.Text(2), Creator: r.Text(3), Adder: r.Text(4),
		Membership: int(r.Int(5)), Created: r.Int(6), Welcome: r.Uint(7), Cursor: r.Uint(8), Joined: r.Uint(9),
		Rotated: r.Int(10), Checked: r.Int(11), LastMessage: r.Int(12), Paused: r.Text(13), Problem: r.Text(14),
	}
}

// PutGroup stores all of a group's row.
func (tx *Tx) PutGroup(g Group) error {
	return tx.Exec("INSERT OR REPLACE INTO groups ("+groupColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		g.ID, g.Kind, g.DM, g.Creator, g.Adder, g.Membership, g.Created, g.Welcome, g.Cursor, g.Joined,
		g.Rotated, g.Checked, g.LastMessage, g.Paused, g.Problem)
}

// Group returns a group's row; false if there is none.
func (tx *Tx) Group(id []byte) (g Group, found bool, err error) {
	found, err = tx.One("SELECT "+groupColumns+" FROM groups WHERE id = ?", []any{id}, func(r Row) { g = scanGroup(r) })
	return g, found, err
}

// Groups returns all groups, the one with the latest activity first.
func (tx *Tx) Groups() (groups []Group, err error) {
	err = tx.Query("SELECT "+groupColumns+" FROM groups ORDER BY max(last_message, created) DESC, id DESC", nil, func(r Row) error {
		groups = append(groups, scanGroup(r))
		return nil
	})
	return groups, err
}

// DMs returns the groups of a dm id, the one with the newest message first.
func (tx *Tx) DMs(dm string) (groups []Group, err error) {
	err = tx.Query("SELECT "+groupColumns+" FROM groups WHERE dm = ? AND dm <> '' ORDER BY last_message DESC, id DESC", []any{dm}, func(r Row) error {
		groups = append(groups, scanGroup(r))
		return nil
	})
	return groups, err
}

// SetCursor moves a group's cursor forward; it never goes back. Neither does the time of
// the newest message, in ns, which may be 0.
func (tx *Tx) SetCursor(id []byte, cursor uint64, newest int64) error {
	return tx.Exec("UPDATE groups SET cursor = ?, last_message = max(last_message, ?3) WHERE id = ?2 AND cursor < ?1", cursor, id, newest)
}

// SetState stores a record of a group's MLS state; a nil value deletes it.
func (tx *Tx) SetState(group, key, value []byte) error {
	if value == nil {
		return tx.Exec("DELETE FROM mls WHERE group_id = ? AND key = ?", group, key)
	}
	return tx.Exec("INSERT INTO mls (group_id, key, value) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = ?3", group, key, value)
}

// State calls f with every record of a group's MLS state.
func (tx *Tx) State(group []byte, f func(key, value []byte) error) error {
	return tx.Query("SELECT key, value FROM mls WHERE group_id = ? ORDER BY key", []any{group}, func(r Row) error {
		return f(r.Bytes(0), r.Bytes(1))
	})
}

// ClearState deletes a group's MLS state.
func (tx *Tx) ClearState(group []byte) error {
	return tx.Exec("DELETE FROM mls WHERE group_id = ?", group)
}

// Intent is something that is to be published in a group.
type Intent struct {
	Row      int64
	Group    []byte
	Kind     int
	State    int
	Intent   []byte // what is wanted, whatever the epoch
	Message  []byte // id of the message that it is for
	Payload  []byte // what is published
	HMAC     []byte
	Hash     []byte // SHA-256 of Payload
	Epoch    uint64 // that Payload was made in
	After    []byte // what to send when Payload is in the log
	Attempts int
}

const intentColumns = "row, group_id, kind, state, intent, message, payload, hmac, hash, epoch, after, attempts"

func scanIntent(r Row) Intent {
	return Intent{
		Row: r.Int(0), Group: r.Bytes(1), Kind: int(r.Int(2)), State: int(r.Int(3)), Intent: r.Bytes(4), Message: r.Bytes(5),
		Payload: r.Bytes(6), HMAC: r.Bytes(7), Hash: r.Bytes(8), Epoch: r.Uint(9), After: r.Bytes(10), Attempts: int(r.Int(11)),
	}
}

// AddIntent puts an intent at the end of its group's outbox and returns its row.
func (tx *Tx) AddIntent(i Intent) (row int64, err error) {
	err = tx.Exec("INSERT INTO outbox (group_id, kind, state, intent, message, payload, hmac, hash, epoch, after, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		i.Group, i.Kind, i.State, i.Intent, i.Message, i.Payload, i.HMAC, i.Hash, i.Epoch, i.After, i.Attempts)
	return tx.db.conn.LastInsertRowID(), err
}

// SetIntent stores what may change of an intent.
func (tx *Tx) SetIntent(i Intent) error {
	return tx.Exec("UPDATE outbox SET state = ?, payload = ?, hmac = ?, hash = ?, epoch = ?, after = ?, attempts = ? WHERE row = ?",
		i.State, i.Payload, i.HMAC, i.Hash, i.Epoch, i.After, i.Attempts, i.Row)
}

// DeleteIntent takes an intent out of the outbox.
func (tx *Tx) DeleteIntent(row int64) error {
	return tx.Exec("DELETE FROM outbox WHERE row = ?", row)
}

// Intent returns an intent; false if it is done with.
func (tx *Tx) Intent(row int64) (i Intent, found bool, err error) {
	found, err = tx.One("SELECT "+intentColumns+" FROM outbox WHERE row = ?", []any{row}, func(r Row) { i = scanIntent(r) })
	return i, found, err
}

// IntentByHash returns the intent whose payload has that SHA-256.
func (tx *Tx) IntentByHash(group, hash []byte) (i Intent, found bool, err error) {
	found, err = tx.One("SELECT "+intentColumns+" FROM outbox WHERE hash = ? AND hash <> x'' AND group_id = ?", []any{hash, group}, func(r Row) { i = scanIntent(r) })
	return i, found, err
}

// IntentByMessage returns the intent by which a message is to be published.
func (tx *Tx) IntentByMessage(group, message []byte) (i Intent, found bool, err error) {
	found, err = tx.One("SELECT "+intentColumns+" FROM outbox WHERE group_id = ? AND message = ?", []any{group, message}, func(r Row) { i = scanIntent(r) })
	return i, found, err
}

// IntentHashes returns the hashes of payloads of a kind among the first entries of a
// group's outbox.
func (tx *Tx) IntentHashes(group []byte, kind, limit int) (hashes map[string]bool, err error) {
	hashes = map[string]bool{}
	err = tx.Query("SELECT hash FROM (SELECT kind, hash FROM outbox WHERE group_id = ? ORDER BY row LIMIT ?) WHERE kind = ? AND hash <> x''", []any{group, limit, kind}, func(r Row) error {
		hashes[string(r.Bytes(0))] = true
		return nil
	})
	return hashes, err
}

// IntentRows returns the rows of a group's whole outbox in order.
func (tx *Tx) IntentRows(group []byte) (rows []int64, err error) {
	err = tx.Query("SELECT row FROM outbox WHERE group_id = ? ORDER BY row", []any{group}, func(r Row) error {
		rows = append(rows, r.Int(0))
		return nil
	})
	return rows, err
}

// Intents returns a group's outbox in order, up to limit entries.
func (tx *Tx) Intents(group []byte, limit int) (intents []Intent, err error) {
	err = tx.Query("SELECT "+intentColumns+" FROM outbox WHERE group_id = ? ORDER BY row LIMIT ?", []any{group, limit}, func(r Row) error {
		intents = append(intents, scanIntent(r))
		return nil
	})
	return intents, err
}

// IntentState is how far an intent is.
type IntentState struct {
	Row   int64
	State int
	Epoch uint64
}

// IntentStates returns how far a group's outbox is, in order, up to limit entries.
func (tx *Tx) IntentStates(group []byte, limit int) (states []IntentState, err error) {
	err = tx.Query("SELECT row, state, epoch FROM outbox WHERE group_id = ? ORDER BY row LIMIT ?", []any{group, limit}, func(r Row) error {
		states = append(states, IntentState{r.Int(0), int(r.Int(1)), r.Uint(2)})
		return nil
	})
	return states, err
}

// HasIntents tells whether a group's outbox has anything.
func (tx *Tx) HasIntents(group []byte) (has bool, err error) {
	return tx.One("SELECT 1 FROM outbox WHERE group_id = ?", []any{group}, func(Row) {})
}

// HasIntent tells whether a group's outbox has an intent of a kind.
func (tx *Tx) HasIntent(group []byte, kind int) (has bool, err error) {
	return tx.One("SELECT 1 FROM outbox WHERE group_id = ? AND kind = ?", []any{group, kind}, func(Row) {})
}

// PendingGroups returns the groups whose outbox is not empty.
func (tx *Tx) PendingGroups() (ids [][]byte, err error) {
	err = tx.Query("SELECT DISTINCT group_id FROM outbox", nil, func(r Row) error {
		ids = append(ids, r.Bytes(0))
		return nil
	})
	return ids, err
}

// KeyPackage is one of our own key packages.
type KeyPackage struct {
	Row      int64
	Package  []byte   // with its private keys
	Keys     [][]byte // by which welcomes name it; not read back
	Created  int64
	Uploaded bool
	Expires  int64 // when to delete it; 0 while it is the newest
}

const keyPackageColumns = "row, package, created, uploaded, expires"

func scanKeyPackage(r Row) KeyPackage {
	return KeyPackage{Row: r.Int(0), Package: r.Bytes(1), Created: r.Int(2), Uploaded: r.Bool(3), Expires: r.Int(4)}
}

// AddKeyPackage stores a new key package and returns its row.
func (tx *Tx) AddKeyPackage(k KeyPackage) (row int64, err error) {
	err = tx.Exec("INSERT INTO key_packages (package, created, uploaded) VALUES (?, ?, 0)", k.Package, k.Created)
	if err != nil {
		return 0, err
	}
	row = tx.db.conn.LastInsertRowID()
	for _, key := range k.Keys {
		if err := tx.Exec("INSERT INTO key_package_keys (key, package) VALUES (?, ?)", key, row); err != nil {
			return 0, err
		}
	}
	return row, nil
}

// KeyPackageByKey finds the key package that welcomes name by a public key.
func (tx *Tx) KeyPackageByKey(public []byte) (k KeyPackage, found bool, err error) {
	found, err = tx.One("SELECT k.row, k.package, k.created, k.uploaded, k.expires FROM key_packages k JOIN key_package_keys n ON n.package = k.row WHERE n.key = ?", []any{public},
		func(r Row) { k = scanKeyPackage(r) })
	return k, found, err
}

// NewestKeyPackage returns the key package that was made last; false if there is none.
func (tx *Tx) NewestKeyPackage() (k KeyPackage, found bool, err error) {
	found, err = tx.One("SELECT "+keyPackageColumns+" FROM key_packages ORDER BY row DESC LIMIT 1", nil, func(r Row) { k = scanKeyPackage(r) })
	return k, found, err
}

// MarkUploaded notes that a key package is what others get from now on, and
// when those before it are to be deleted.
func (tx *Tx) MarkUploaded(row int64, expiry int64) error {
	err := tx.Exec("UPDATE key_packages SET uploaded = 1 WHERE row = ?", row)
	if err != nil {
		return err
	}
	return tx.Exec("UPDATE key_packages SET expires = ? WHERE expires IS NULL AND row < ?", expiry, row)
}

// DeleteKeyPackages deletes those whose time has come.
func (tx *Tx) DeleteKeyPackages(now int64) error {
	return tx.Exec("DELETE FROM key_packages WHERE expires <= ?", now)
}

// Skip is an envelope that could not be used. Group is empty for welcomes.
type Skip struct {
	Group          []byte
	Number         uint64
	Reason, Detail string
	At             int64
}

// maxSkips is how many envelopes that could not be used are remembered: strangers can
// send any number of them.
const maxSkips = 1000

// AddSkip notes an envelope that could not be used. Of many, the newest stay.
func (tx *Tx) AddSkip(s Skip) error {
	err := tx.Exec("INSERT OR REPLACE INTO skipped (group_id, number, reason, detail, at) VALUES (?, ?, ?, ?, ?)", s.Group, s.Number, s.Reason, s.Detail, s.At)
	if tx.db.skips++; err != nil || tx.db.skips%(maxSkips/10) != 0 {
		return err
	}
	return tx.Exec("DELETE FROM skipped WHERE (group_id, number) IN (SELECT group_id, number FROM skipped ORDER BY at DESC, number DESC LIMIT -1 OFFSET ?)", maxSkips)
}

// Skips calls f with all of them, oldest first.
func (tx *Tx) Skips(f func(Skip)) error {
	return tx.Query("SELECT group_id, number, reason, detail, at FROM skipped ORDER BY at, number", nil, func(r Row) error {
		f(Skip{r.Bytes(0), r.Uint(1), r.Text(2), r.Text(3), r.Int(4)})
		return nil
	})
}

// Deferred is a welcome that is kept for another try.
type Deferred struct {
	Number   uint64
	Welcome  []byte
	Attempts int
	Due      int64 // ns
}

// Defer keeps a welcome for another try, or notes the next one.
func (tx *Tx) Defer(d Deferred) error {
	return tx.Exec("INSERT OR REPLACE INTO deferred (number, welcome, attempts, due) VALUES (?, ?, ?, ?)", d.Number, d.Welcome, d.Attempts, d.Due)
}

// Deferred returns up to limit welcomes that are due, those that have waited longest
// first.
func (tx *Tx) Deferred(now int64, limit int) (list []Deferred, err error) {
	err = tx.Query("SELECT number, welcome, attempts, due FROM deferred WHERE due <= ? ORDER BY due, number LIMIT ?", []any{now, limit}, func(r Row) error {
		list = append(list, Deferred{r.Uint(0), r.Bytes(1), int(r.Int(2)), r.Int(3)})
		return nil
	})
	return list, err
}

// OverDeferred returns the number of the welcome that was tried most often, if more
// than limit are kept; 0 if they are not.
func (tx *Tx) OverDeferred(limit int) (number uint64, err error) {
	_, err = tx.One("SELECT number FROM deferred WHERE (SELECT count(*) FROM deferred) > ? ORDER BY attempts DESC, number LIMIT 1", []any{limit}, func(r Row) { number = r.Uint(0) })
	return number, err
}

// Undefer forgets a welcome that was kept for another try.
func (tx *Tx) Undefer(number uint64) error {
	return tx.Exec("DELETE FROM deferred WHERE number = ?", number)
}
