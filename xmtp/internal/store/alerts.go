package store

// Alert is something that a node or another client was seen to do.
type Alert struct {
	Row         int64 // set by the database, in the order of what came first
	Cause       []byte
	Kind        string
	Finding     []byte
	Certain     bool
	Evidence    []byte
	Hash        []byte
	First, Last int64 // ns
	Count       int64
}

// maxAlerts is how many are remembered.
const maxAlerts = 1000

// AddAlert stores an alert, or counts it if there is one of its cause that came
// first after since. Of many, the newest stay.
func (tx *Tx) AddAlert(a Alert, since int64) (isNew bool, err error) {
	err = tx.Exec("UPDATE alerts SET count = count + 1, last = ? WHERE row = (SELECT max(row) FROM alerts WHERE cause = ?) AND first > ?", a.Last, a.Cause, since)
	if err != nil || tx.Changes() > 0 {
		return false, err
	}
	err = tx.Exec("INSERT INTO alerts (cause, kind, finding, certain, evidence, hash, first, last, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
		a.Cause, a.Kind, a.Finding, a.Certain, a.Evidence, a.Hash, a.First, a.Last)
	if err != nil {
		return false, err
	}
	return true, tx.Exec("DELETE FROM alerts WHERE row <= ?", tx.db.conn.LastInsertRowID()-maxAlerts)
}

// AlertsFrom returns up to limit alerts after a row, in order; all of them if it is
// negative.
func (tx *Tx) AlertsFrom(row int64, limit int) (list []Alert, err error) {
	err = tx.Query("SELECT row, cause, kind, finding, certain, evidence, hash, first, last, count FROM alerts WHERE row > ? ORDER BY row LIMIT ?", []any{row, limit}, func(r Row) error {
		list = append(list, Alert{r.Int(0), r.Bytes(1), r.Text(2), r.Bytes(3), r.Bool(4), r.Bytes(5), r.Bytes(6), r.Int(7), r.Int(8), r.Int(9)})
		return nil
	})
	return list, err
}

// LastAlert returns the row of the newest alert; 0 if there never was any.
func (tx *Tx) LastAlert() (row int64, err error) {
	_, err = tx.One("SELECT coalesce(max(row), 0) FROM alerts", nil, func(r Row) { row = r.Int(0) })
	return row, err
}
