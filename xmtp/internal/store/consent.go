package store

import "strings"

// Kinds of what one consents to.
const (
	ConsentConversation = 1
	ConsentInbox        = 2
)

// Consent is a decision about a conversation or an inbox.
type Consent struct {
	Kind   int
	Entity string // hex
	State  int
	At     int64 // ns since the Unix epoch
	Change int64 // its number among the announced changes, which is set by the database
}

const consentColumns = "kind, entity, state, at, change"

func scanConsent(r Row) Consent {
	return Consent{int(r.Int(0)), r.Text(1), int(r.Int(2)), r.Int(3), r.Int(4)}
}

// Consent returns what was decided about a conversation or inbox; false if nothing was.
func (tx *Tx) Consent(kind int, entity string) (c Consent, found bool, err error) {
	found, err = tx.One("SELECT "+consentColumns+" FROM consent WHERE kind = ? AND entity = ?", []any{kind, entity}, func(r Row) { c = scanConsent(r) })
	return c, found, err
}

// SetConsent stores a decision unless it is what was decided before. If it is to be
// announced, it gets the next number.
func (tx *Tx) SetConsent(c Consent, announce bool) error {
	err := tx.Exec("INSERT INTO consent ("+consentColumns+") VALUES (?1, ?2, ?3, ?4, iif(?5, (SELECT coalesce(max(change), 0) + 1 FROM consent), 0)) "+
		"ON CONFLICT DO UPDATE SET state = excluded.state, at = excluded.at, change = iif(?5, excluded.change, change) WHERE state <> excluded.state",
		c.Kind, c.Entity, c.State, c.At, announce)
	if err == nil && tx.Changes() > 0 {
		tx.db.decisions.Add(1)
	}
	return err
}

// Decisions grows whenever consent changes, so that who has read something by consent
// knows whether to read again.
func (db *DB) Decisions() int64 { return db.decisions.Load() }

// Consents returns all decisions of a kind and, if any are given, in these states, in
// the order of entities.
func (tx *Tx) Consents(kind int, states []int) ([]Consent, error) {
	sql, args := "SELECT "+consentColumns+" FROM consent WHERE kind = ?", []any{kind}
	if len(states) > 0 {
		sql, args = sql+" AND state IN "+list(len(states)), appendAny(args, states)
	}
	return tx.consents(sql+" ORDER BY entity", args...)
}

// ConsentsFrom returns up to limit decisions that were announced after a number, in
// that order. Of those about the same it knows the last.
func (tx *Tx) ConsentsFrom(change int64, limit int) ([]Consent, error) {
	return tx.consents("SELECT "+consentColumns+" FROM consent WHERE change > ? AND change > 0 ORDER BY change LIMIT ?", change, limit)
}

func (tx *Tx) consents(sql string, args ...any) (all []Consent, err error) {
	err = tx.Query(sql, args, func(r Row) error {
		all = append(all, scanConsent(r))
		return nil
	})
	return all, err
}

// LastConsent returns the number of the change that was announced last, 0 if none was.
func (tx *Tx) LastConsent() (change int64, err error) {
	_, err = tx.One("SELECT coalesce(max(change), 0) FROM consent", nil, func(r Row) { change = r.Int(0) })
	return change, err
}

// list is a list of n parameters.
func list(n int) string { return "(" + strings.Repeat("?, ", n-1) + "?)" }

func appendAny[T any](args []any, values []T) []any {
	for _, v := range values {
		args = append(args, v)
	}
	return args
}
