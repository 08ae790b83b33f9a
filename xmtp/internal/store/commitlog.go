package store

// Commit is what this client did with a commit, or how it came into a group. What a
// group begins with, for this client, has the number 0.
type Commit struct {
	Row           int64
	Group         []byte
	Number        uint64 // the node's
	Result        int    // protocol.CommitResult
	Before        []byte // epoch authenticator before
	Epoch         uint64 // after
	Authenticator []byte // after
	Kind          string
	Sender        string // inbox id
	Installation  []byte
	Detail        string
}

const commitColumns = "l.row, l.group_id, l.number, l.result, l.before, l.epoch, l.authenticator, l.kind, l.sender, l.installation, l.detail"

func scanCommit(r Row) Commit {
	return Commit{
		Row: r.Int(0), Group: r.Bytes(1), Number: r.Uint(2), Result: int(r.Int(3)), Before: r.Bytes(4), Epoch: r.Uint(5),
		Authenticator: r.Bytes(6), Kind: r.Text(7), Sender: r.Text(8), Installation: r.Bytes(9), Detail: r.Text(10),
	}
}

// AddCommit notes what was done with a commit.
func (tx *Tx) AddCommit(c Commit) error {
	return tx.Exec("INSERT INTO commit_log (group_id, number, result, before, epoch, authenticator, kind, sender, installation, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		c.Group, c.Number, c.Result, c.Before, c.Epoch, c.Authenticator, c.Kind, c.Sender, c.Installation, c.Detail)
}

// LastCommit returns the newest entry of a group; false if there is none.
func (tx *Tx) LastCommit(group []byte) (c Commit, found bool, err error) {
	found, err = tx.One("SELECT "+commitColumns+" FROM commit_log l WHERE group_id = ? ORDER BY row DESC LIMIT 1", []any{group}, func(r Row) { c = scanCommit(r) })
	return c, found, err
}

// Commits returns up to limit entries of a group after a row, in order.
func (tx *Tx) Commits(group []byte, row int64, limit int) (list []Commit, err error) {
	err = tx.Query("SELECT "+commitColumns+" FROM commit_log l WHERE group_id = ? AND row > ? ORDER BY row LIMIT ?", []any{group, row, limit}, func(r Row) error {
		list = append(list, scanCommit(r))
		return nil
	})
	return list, err
}

// What can be compared: entries since we came into the group for the last time, but
// for that of our removal, of whose epoch we know nothing.
const comparable = " AND l.number > 0 AND l.kind <> 'RemovedFromGroup' AND l.row > " +
	"coalesce((SELECT max(row) FROM commit_log WHERE group_id = ?1 AND number = 0), 0) "

// NewestComparable returns the row of the newest entry that others may have, too; 0
// if there is none.
func (tx *Tx) NewestComparable(group []byte) (row int64, err error) {
	_, err = tx.One("SELECT l.row FROM commit_log l WHERE l.group_id = ?1"+comparable+"ORDER BY l.row DESC LIMIT 1", []any{group}, func(r Row) { row = r.Int(0) })
	return row, err
}

// NewestMatch returns the newest entry to which there is one of the same commit in
// the group's shared log, and that one.
func (tx *Tx) NewestMatch(group []byte) (own Commit, shared SharedCommit, found bool, err error) {
	found, err = tx.One("SELECT "+commitColumns+", r.log, r.number, r.result, r.epoch, r.authenticator FROM commit_log l "+
		"JOIN shared_commit_log r ON r.group_id = l.group_id AND r.number = l.number WHERE l.group_id = ?1"+comparable+
		"AND l.number <= (SELECT max(number) FROM shared_commit_log WHERE group_id = ?1) ORDER BY l.row DESC LIMIT 1",
		[]any{group}, func(r Row) {
			own = scanCommit(r)
			shared = SharedCommit{group, r.Uint(11), r.Uint(12), int(r.Int(13)), r.Uint(14), r.Bytes(15)}
		})
	return own, shared, found, err
}

// SharedCommit is what others have published of a commit.
type SharedCommit struct {
	Group         []byte
	Log           uint64 // its own number in the commit log
	Number        uint64 // the commit's
	Result        int
	Epoch         uint64
	Authenticator []byte
}

// AddShared notes what others have published of a commit.
func (tx *Tx) AddShared(s SharedCommit) error {
	return tx.Exec("INSERT OR REPLACE INTO shared_commit_log (group_id, log, number, result, epoch, authenticator) VALUES (?, ?, ?, ?, ?, ?)",
		s.Group, s.Log, s.Number, s.Result, s.Epoch, s.Authenticator)
}

// LastShared returns the newest entry of the shared log; false if there is none.
func (tx *Tx) LastShared(group []byte) (s SharedCommit, found bool, err error) {
	err = tx.shared("WHERE group_id = ? ORDER BY log DESC LIMIT 1", group, func(got SharedCommit) { s, found = got, true })
	return s, found, err
}

// Shared returns the shared log of a group, in order.
func (tx *Tx) Shared(group []byte) (list []SharedCommit, err error) {
	err = tx.shared("WHERE group_id = ? ORDER BY log", group, func(s SharedCommit) { list = append(list, s) })
	return list, err
}

func (tx *Tx) shared(where string, group []byte, f func(SharedCommit)) error {
	return tx.Query("SELECT group_id, log, number, result, epoch, authenticator FROM shared_commit_log "+where, []any{group}, func(r Row) error {
		f(SharedCommit{r.Bytes(0), r.Uint(1), r.Uint(2), int(r.Int(3)), r.Uint(4), r.Bytes(5)})
		return nil
	})
}

// Fork is how far a group's log of commits was shared and compared.
type Fork struct {
	Group      []byte
	Signer     []byte // public key of the shared log; nil if there is none yet
	Seed       []byte // by which we sign; nil if we have not
	Published  int64  // row up to which our entries are
	Considered int64  // row up to which it was looked at whether to publish them
	Downloaded uint64 // number up to which those of others are

	Status        int
	Compared      int64  // row of our entry that was compared last
	Commit        uint64 // its number
	Epoch         uint64
	Authenticator []byte
	TheirEpoch    uint64
	Theirs        []byte // their authenticator
	At            int64  // ns

	// A message of an epoch that we had not come to; 0 if there was none.
	AheadNumber, AheadEpoch, AheadOf uint64
}

const forkColumns = "group_id, signer, seed, published, considered, downloaded, status, compared, number, epoch, authenticator, their_epoch, theirs, at, ahead_number, ahead_epoch, ahead_of"

// Fork returns what is stored of a group; the zero value if nothing is.
func (tx *Tx) Fork(group []byte) (f Fork, err error) {
	f.Group = group
	_, err = tx.One("SELECT "+forkColumns+" FROM forks WHERE group_id = ?", []any{group}, func(r Row) {
		f = Fork{
			r.Bytes(0), r.Bytes(1), r.Bytes(2), r.Int(3), r.Int(4), r.Uint(5), int(r.Int(6)), r.Int(7), r.Uint(8), r.Uint(9), r.Bytes(10),
			r.Uint(11), r.Bytes(12), r.Int(13), r.Uint(14), r.Uint(15), r.Uint(16),
		}
	})
	return f, err
}

// SetFork stores all of it.
func (tx *Tx) SetFork(f Fork) error {
	return tx.Exec("INSERT OR REPLACE INTO forks ("+forkColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		f.Group, f.Signer, f.Seed, f.Published, f.Considered, f.Downloaded, f.Status, f.Compared, f.Commit, f.Epoch, f.Authenticator,
		f.TheirEpoch, f.Theirs, f.At, f.AheadNumber, f.AheadEpoch, f.AheadOf)
}

// ForgetComparison forgets what was found out about a group that we have come into
// anew. The shared log, and how far it was read, stays.
func (tx *Tx) ForgetComparison(group []byte) error {
	return tx.Exec("UPDATE forks SET status = 0, compared = 0, number = 0, epoch = 0, authenticator = x'', their_epoch = 0, theirs = x'', at = 0, "+
		"ahead_number = 0, ahead_epoch = 0, ahead_of = 0 WHERE group_id = ?", group)
}
