package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs/memdb"
)

// migrations bring a database from the version that is their index to the
// next. One that has been released is never changed.
var migrations = []string{
	`
	-- Facts about the client itself: name and value.
	CREATE TABLE meta (
		name  TEXT PRIMARY KEY,
		value BLOB NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE numbers (
		name   TEXT PRIMARY KEY,
		number INTEGER NOT NULL
	) STRICT, WITHOUT ROWID;

	-- Downloaded identity logs; every entry was verified with those before it.
	CREATE TABLE identity_updates (
		inbox    TEXT NOT NULL,
		number   INTEGER NOT NULL, -- the node's sequence id
		verified BLOB NOT NULL,    -- identity.VerifiedUpdate
		PRIMARY KEY (inbox, number)
	) STRICT, WITHOUT ROWID;

	-- Own key packages, private parts included.
	CREATE TABLE key_packages (
		row      INTEGER PRIMARY KEY AUTOINCREMENT,
		package  BLOB NOT NULL,        -- protocol.KeyPackage
		created  INTEGER NOT NULL,     -- ns
		uploaded INTEGER NOT NULL,     -- 0 or 1
		expires  INTEGER               -- ns; when to delete it, once there is a newer one
	) STRICT;

	-- The public keys by which welcomes name a key package.
	CREATE TABLE key_package_keys (
		key BLOB PRIMARY KEY,
		package INTEGER NOT NULL REFERENCES key_packages (row) ON DELETE CASCADE
	) STRICT, WITHOUT ROWID;
	CREATE INDEX key_package_keys_package ON key_package_keys (package);

	CREATE TABLE groups (
		id           BLOB PRIMARY KEY,
		kind         INTEGER NOT NULL,   -- ConversationType
		dm           TEXT NOT NULL,      -- dm id, or empty
		creator      TEXT NOT NULL,      -- inbox id
		adder        TEXT NOT NULL,      -- inbox id
		membership   INTEGER NOT NULL,   -- membership state
		created      INTEGER NOT NULL,   -- ns
		welcome      INTEGER NOT NULL,   -- number of the welcome, or 0
		cursor       INTEGER NOT NULL,   -- everything up to here has been applied
		joined       INTEGER NOT NULL,   -- number of the commit that let us in
		rotated      INTEGER NOT NULL,   -- ns; when we last renewed our leaf
		checked      INTEGER NOT NULL,   -- ns; when members' installations were last looked at
		last_message INTEGER NOT NULL,   -- ns
		paused       TEXT NOT NULL,      -- the version that the group asks for, or empty
		problem      TEXT NOT NULL       -- why it is not used any more, or empty
	) STRICT, WITHOUT ROWID;
	CREATE INDEX groups_dm ON groups (dm) WHERE dm <> '';

	-- MLS state, as package mls hands it out.
	CREATE TABLE mls (
		group_id BLOB NOT NULL,
		key      BLOB NOT NULL,
		value    BLOB NOT NULL,
		PRIMARY KEY (group_id, key)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE messages (
		row          INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of arrival
		id           BLOB NOT NULL,
		group_id     BLOB NOT NULL,
		number       INTEGER NOT NULL,   -- the node's, 0 while unpublished
		sent         INTEGER NOT NULL,   -- ns; the node's time once published
		sender       TEXT NOT NULL,      -- inbox id
		installation BLOB NOT NULL,
		kind         INTEGER NOT NULL,   -- 1 application, 2 membership change
		delivery     INTEGER NOT NULL,   -- 1 unpublished, 2 published, 3 failed
		content_type TEXT NOT NULL,      -- authority/type:major.minor, or empty
		content      BLOB NOT NULL,      -- serialized EncodedContent
		expires      INTEGER             -- ns
	) STRICT;
	CREATE UNIQUE INDEX messages_id ON messages (group_id, id);
	CREATE INDEX messages_sent ON messages (group_id, sent, row);
	CREATE INDEX messages_expires ON messages (expires) WHERE expires IS NOT NULL;

	-- What is to be published, by group in the order of row.
	CREATE TABLE outbox (
		row      INTEGER PRIMARY KEY AUTOINCREMENT,
		group_id BLOB NOT NULL,
		kind     INTEGER NOT NULL,
		state    INTEGER NOT NULL,       -- see the constants beside the code
		intent   BLOB NOT NULL,          -- what is wanted, independent of the epoch
		message  BLOB NOT NULL,          -- id of the message row it is for, or empty
		payload  BLOB NOT NULL,          -- the bytes that are published, or empty
		hmac     BLOB NOT NULL,          -- sender HMAC of the payload
		hash     BLOB NOT NULL,          -- SHA-256 of the payload
		epoch    INTEGER NOT NULL,       -- that the payload was made in
		after    BLOB NOT NULL,          -- what to send once it is in the log (welcomes)
		attempts INTEGER NOT NULL
	) STRICT;
	CREATE INDEX outbox_group ON outbox (group_id, row);
	CREATE INDEX outbox_hash ON outbox (hash) WHERE hash <> x'';

	CREATE TABLE consent (
		kind   INTEGER NOT NULL,         -- 1 conversation, 2 inbox
		entity TEXT NOT NULL,            -- hex
		state  INTEGER NOT NULL,
		at     INTEGER NOT NULL,         -- ns
		PRIMARY KEY (kind, entity)
	) STRICT, WITHOUT ROWID;

	-- Welcome pointers whose shared welcome was not there yet.
	CREATE TABLE deferred (
		number  INTEGER PRIMARY KEY,     -- the node's
		welcome BLOB NOT NULL            -- serialized WelcomeMessage
	) STRICT;

	-- Envelopes that could not be used, and why.
	CREATE TABLE skipped (
		group_id BLOB NOT NULL,          -- empty for welcomes
		number   INTEGER NOT NULL,
		reason   TEXT NOT NULL,          -- for programs
		detail   TEXT NOT NULL,          -- for people
		at       INTEGER NOT NULL,       -- ns
		PRIMARY KEY (group_id, number)
	) STRICT, WITHOUT ROWID;
	`,
	`
	-- Members who have asked to be removed.
	CREATE TABLE leaving (
		group_id BLOB NOT NULL,
		inbox    TEXT NOT NULL,
		PRIMARY KEY (group_id, inbox)
	) STRICT, WITHOUT ROWID;

	-- Who is to be added as soon as there is a key package to do it with.
	CREATE TABLE awaited (
		group_id BLOB NOT NULL,
		inbox    TEXT NOT NULL,
		since    INTEGER NOT NULL,       -- ns
		PRIMARY KEY (group_id, inbox)
	) STRICT, WITHOUT ROWID;
	`,
	`
	-- Decisions of the user in their order; 0 for what followed by itself.
	ALTER TABLE consent ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
	CREATE INDEX consent_change ON consent (change) WHERE change > 0;

	-- Groups in the order in which they came, those that came again at their new place.
	CREATE TABLE arrivals (
		row      INTEGER PRIMARY KEY AUTOINCREMENT,
		group_id BLOB NOT NULL UNIQUE
	) STRICT;
	INSERT INTO arrivals (group_id) SELECT id FROM groups ORDER BY created, id;

	CREATE INDEX messages_any_group ON messages (id);
	`,
	`
	-- What this client did with each commit.
	CREATE TABLE commit_log (
		row           INTEGER PRIMARY KEY AUTOINCREMENT,
		group_id      BLOB NOT NULL,
		number        INTEGER NOT NULL,  -- the commit's; 0 for how we came into the group
		result        INTEGER NOT NULL,  -- CommitResult
		before        BLOB NOT NULL,     -- epoch authenticator before it
		epoch         INTEGER NOT NULL,  -- after it
		authenticator BLOB NOT NULL,     -- after it
		kind          TEXT NOT NULL,
		sender        TEXT NOT NULL,     -- inbox id
		installation  BLOB NOT NULL,
		detail        TEXT NOT NULL
	) STRICT;
	CREATE INDEX commit_log_group ON commit_log (group_id, row);

	-- What others have published of it, as far as it counts.
	CREATE TABLE shared_commit_log (
		group_id      BLOB NOT NULL,
		log           INTEGER NOT NULL,  -- the entry's number
		number        INTEGER NOT NULL,  -- the commit's
		result        INTEGER NOT NULL,
		epoch         INTEGER NOT NULL,
		authenticator BLOB NOT NULL,
		PRIMARY KEY (group_id, log)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX shared_commit_log_number ON shared_commit_log (group_id, number);

	-- How far the two were compared, and what came of it.
	CREATE TABLE forks (
		group_id      BLOB PRIMARY KEY,
		signer        BLOB NOT NULL,     -- public key of the shared log, or empty
		seed          BLOB NOT NULL,     -- by which we sign, or empty
		published     INTEGER NOT NULL,  -- row of commit_log
		considered    INTEGER NOT NULL,  -- row of commit_log
		downloaded    INTEGER NOT NULL,  -- number of the shared log
		status        INTEGER NOT NULL,
		compared      INTEGER NOT NULL,  -- row of commit_log
		number        INTEGER NOT NULL,  -- the commit's
		epoch         INTEGER NOT NULL,
		authenticator BLOB NOT NULL,
		their_epoch   INTEGER NOT NULL,
		theirs        BLOB NOT NULL,     -- their authenticator
		at            INTEGER NOT NULL,  -- ns
		ahead_number  INTEGER NOT NULL,  -- a message of a later epoch than ours, or 0
		ahead_epoch   INTEGER NOT NULL,
		ahead_of      INTEGER NOT NULL   -- our epoch then
	) STRICT, WITHOUT ROWID;
	`,
	`
	-- What lists ask about stands before the content, which may be long: what is
	-- behind it is read by going through all of it.
	CREATE TABLE new_messages (
		row          INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of arrival
		id           BLOB NOT NULL,
		group_id     BLOB NOT NULL,
		number       INTEGER NOT NULL,   -- the node's, 0 while unpublished
		sent         INTEGER NOT NULL,   -- ns; the node's time once published
		inserted     INTEGER NOT NULL,   -- ns; when it was stored, never twice the same
		sender       TEXT NOT NULL,      -- inbox id
		installation BLOB NOT NULL,
		kind         INTEGER NOT NULL,   -- 1 application, 2 membership change
		delivery     INTEGER NOT NULL,   -- 1 unpublished, 2 published, 3 failed
		content_type TEXT NOT NULL,      -- authority/type:major.minor, or empty
		expires      INTEGER,            -- ns
		key          TEXT NOT NULL,      -- idempotency key of an own message
		push         INTEGER NOT NULL,   -- 0 or 1; whether an own message wakes devices
		content      BLOB NOT NULL       -- serialized EncodedContent
	) STRICT;
	INSERT INTO new_messages
		SELECT row, id, group_id, number, sent, sent, sender, installation, kind, delivery, content_type, expires, '', 0, content FROM messages;
	DROP TABLE messages;
	ALTER TABLE new_messages RENAME TO messages;
	CREATE UNIQUE INDEX messages_id ON messages (id, group_id);
	CREATE INDEX messages_sent ON messages (group_id, sent, row);
	CREATE INDEX messages_inserted ON messages (group_id, inserted);
	CREATE INDEX messages_expires ON messages (expires) WHERE expires IS NOT NULL;
	`,
	`
	-- Where streams are that go on after a restart.
	CREATE TABLE streams (
		name     TEXT NOT NULL,          -- as the program has chosen it
		scope    TEXT NOT NULL,          -- what is streamed: everything, or which conversation
		position INTEGER NOT NULL,       -- row up to which everything was handled
		PRIMARY KEY (name, scope)
	) STRICT, WITHOUT ROWID;
	`,
	`
	-- Ids are random: each message would change another page of an index of whole ones.
	-- The beginning of an id finds it as well.
	DROP INDEX messages_id;
	CREATE INDEX messages_id ON messages (substr(id, 1, 6));

	-- Records of 1 to 4 KB have their place on a page of a table with rows, but not
	-- on one without.
	CREATE TABLE new_mls (
		row      INTEGER PRIMARY KEY,
		group_id BLOB NOT NULL,
		key      BLOB NOT NULL,
		value    BLOB NOT NULL
	) STRICT;
	INSERT INTO new_mls (group_id, key, value) SELECT group_id, key, value FROM mls;
	DROP TABLE mls;
	ALTER TABLE new_mls RENAME TO mls;
	CREATE UNIQUE INDEX mls_key ON mls (group_id, key);

	-- What is on its way is among the first of a group's outbox.
	DROP INDEX outbox_hash;
	`,
	`
	-- What a node or others were seen to do that they should not.
	CREATE TABLE alerts (
		row      INTEGER PRIMARY KEY AUTOINCREMENT,
		cause    BLOB NOT NULL,         -- hash; the same again is counted
		kind     TEXT NOT NULL,
		finding  BLOB NOT NULL,         -- JSON
		certain  INTEGER NOT NULL,      -- 0 or 1
		evidence BLOB NOT NULL,         -- what the node served, or empty
		hash     BLOB NOT NULL,         -- SHA-256 of it, or empty
		first    INTEGER NOT NULL,      -- ns
		last     INTEGER NOT NULL,      -- ns
		count    INTEGER NOT NULL
	) STRICT;
	CREATE INDEX alerts_cause ON alerts (cause, row);

	-- By which an update is recognised when the node serves it again; empty if it was
	-- stored before there was this column.
	ALTER TABLE identity_updates ADD COLUMN hash BLOB NOT NULL DEFAULT x'';

	-- Each try makes the next one wait longer.
	ALTER TABLE deferred ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE deferred ADD COLUMN due INTEGER NOT NULL DEFAULT 0; -- ns
	`,
}

func (db *DB) migrate() error {
	version, err := pragma(db.conn, "user_version")
	if err != nil {
		return fmt.Errorf("opening the database: %w", translate(err))
	}
	for v := version; v < int64(len(migrations)); v++ {
		if err := db.settle(); err != nil {
			return err
		}
		err := db.conn.Exec("BEGIN IMMEDIATE;" + migrations[v] + fmt.Sprintf(";PRAGMA user_version = %d; COMMIT", v+1))
		if err != nil {
			return errors.Join(fmt.Errorf("bringing the database to version %d: %w", v+1, translate(err)), db.undo())
		}
	}
	return nil
}

func (db *DB) undo() error {
	if db.conn.GetAutocommit() {
		return nil
	}
	return db.conn.Exec("ROLLBACK")
}

// create makes a new database. A crash leaves all of it or a file that still counts
// as new.
func create(ctx context.Context, o Options) error {
	conn, err := connect(ctx, o, o.fileSystem())
	if err != nil {
		return err
	}
	// As with settle, nothing is appended to what a crash has left.
	if err = conn.Exec(logged + "PRAGMA wal_checkpoint(TRUNCATE)"); err == nil {
		err = fill(conn)
	}
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("making the database: %w", translate(err))
	}
	return nil
}

// blankURI names the database that blank makes.
const blankURI = "file:/go-xmtp-blank?vfs=memdb"

// blank makes an empty database of the newest version in memory. A copy of it is made
// in a tenth of the time that all the migrations take.
var blank = sync.OnceValue(func() error {
	memdb.Create("go-xmtp-blank", nil) // stays when nobody has it open
	conn, err := sqlite3.Open(blankURI)
	if err != nil {
		return err
	}
	db := &DB{conn: conn}
	// The size of pages is that of encrypted blocks; in memory it would be another.
	header := fmt.Sprintf("PRAGMA page_size = %d; PRAGMA application_id = %d", cipherBlock, applicationID)
	return errors.Join(conn.Exec(header), db.migrate(), conn.Close())
})

// fill makes a database that has nothing one of the newest version, in one transaction.
func fill(conn *sqlite3.Conn) error {
	if err := blank(); err != nil {
		return err
	}
	return conn.Restore("main", blankURI)
}
