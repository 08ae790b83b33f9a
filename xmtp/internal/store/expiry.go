package store

// Only what has come to stand in the log expires: what waits is still to be sent,
// and of what was refused its author is to know.
const expiring = "expires IS NOT NULL AND kind = 1 AND delivery = 2"

// NextExpiry returns when the next message expires, in nanoseconds; 0 if none does.
func (tx *Tx) NextExpiry() (at int64, err error) {
	_, err = tx.One("SELECT expires FROM messages WHERE "+expiring+" ORDER BY expires LIMIT 1", nil, func(r Row) { at = r.Int(0) })
	return at, err
}

// DeleteExpired deletes up to limit messages whose time has come, the earliest
// first, and calls f for each.
func (tx *Tx) DeleteExpired(now int64, limit int, f func(group, id []byte)) error {
	return tx.Query("DELETE FROM messages WHERE row IN (SELECT row FROM messages WHERE "+expiring+" AND expires <= ? ORDER BY expires LIMIT ?) RETURNING group_id, id",
		[]any{now, limit}, func(r Row) error {
			f(r.Bytes(0), r.Bytes(1))
			return nil
		})
}
