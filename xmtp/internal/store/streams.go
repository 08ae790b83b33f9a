package store

// A stream's scope is what its positions are in, and of.

// Position returns up to which row a stream of a name has come; false if there is none.
func (tx *Tx) Position(name, scope string) (row int64, found bool, err error) {
	found, err = tx.One("SELECT position FROM streams WHERE name = ? AND scope = ?", []any{name, scope}, func(r Row) { row = r.Int(0) })
	return row, found, err
}

// SetPosition notes up to which row a stream of a name has come.
func (tx *Tx) SetPosition(name, scope string, row int64) error {
	return tx.Exec("INSERT INTO streams (name, scope, position) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET position = ?3", name, scope, row)
}

// StreamNames returns the names of all streams that have a position, in order.
func (tx *Tx) StreamNames() (names []string, err error) {
	err = tx.Query("SELECT DISTINCT name FROM streams ORDER BY name", nil, func(r Row) error {
		names = append(names, r.Text(0))
		return nil
	})
	return names, err
}

// DeletePositions forgets all streams of a name.
func (tx *Tx) DeletePositions(name string) error {
	return tx.Exec("DELETE FROM streams WHERE name = ?", name)
}
