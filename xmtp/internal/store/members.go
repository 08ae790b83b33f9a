package store

// AddLeaving notes that a member has asked to be removed.
func (tx *Tx) AddLeaving(group []byte, inbox string) error {
	return tx.Exec("INSERT INTO leaving (group_id, inbox) VALUES (?, ?) ON CONFLICT DO NOTHING", group, inbox)
}

// Leaving returns the members of a group who have asked to be removed.
func (tx *Tx) Leaving(group []byte) ([]string, error) {
	return tx.inboxes("SELECT inbox FROM leaving WHERE group_id = ? ORDER BY inbox", group)
}

// LeavingGroups returns the groups with members who have asked to be removed.
func (tx *Tx) LeavingGroups() (ids [][]byte, err error) {
	err = tx.Query("SELECT DISTINCT group_id FROM leaving", nil, func(r Row) error {
		ids = append(ids, r.Bytes(0))
		return nil
	})
	return ids, err
}

// DeleteLeaving forgets a member's request.
func (tx *Tx) DeleteLeaving(group []byte, inbox string) error {
	return tx.Exec("DELETE FROM leaving WHERE group_id = ? AND inbox = ?", group, inbox)
}

// AddAwaited notes that an inbox is to be added to a group once it can be.
func (tx *Tx) AddAwaited(group []byte, inbox string, since int64) error {
	return tx.Exec("INSERT INTO awaited (group_id, inbox, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", group, inbox, since)
}

// Awaited returns the inboxes that are to be added to a group.
func (tx *Tx) Awaited(group []byte) ([]string, error) {
	return tx.inboxes("SELECT inbox FROM awaited WHERE group_id = ? ORDER BY inbox", group)
}

// AwaitingGroup is a group with inboxes that are to be added, and when the last of
// them was noted, in nanoseconds.
type AwaitingGroup struct {
	ID    []byte
	Since int64
}

// AwaitingGroups returns the groups with inboxes that are to be added.
func (tx *Tx) AwaitingGroups() (groups []AwaitingGroup, err error) {
	err = tx.Query("SELECT group_id, max(since) FROM awaited GROUP BY group_id", nil, func(r Row) error {
		groups = append(groups, AwaitingGroup{r.Bytes(0), r.Int(1)})
		return nil
	})
	return groups, err
}

// DeleteAwaited forgets an inbox that was to be added.
func (tx *Tx) DeleteAwaited(group []byte, inbox string) error {
	return tx.Exec("DELETE FROM awaited WHERE group_id = ? AND inbox = ?", group, inbox)
}

// ForgetMembers forgets who was to be added to a group and who wanted to leave it.
func (tx *Tx) ForgetMembers(group []byte) error {
	if err := tx.Exec("DELETE FROM awaited WHERE group_id = ?", group); err != nil {
		return err
	}
	return tx.Exec("DELETE FROM leaving WHERE group_id = ?", group)
}

func (tx *Tx) inboxes(query string, group []byte) (list []string, err error) {
	err = tx.Query(query, []any{group}, func(r Row) error {
		list = append(list, r.Text(0))
		return nil
	})
	return list, err
}
