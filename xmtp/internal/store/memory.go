package store

import (
	"fmt"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/serdes"
)

// A Memory keeps a database in memory while no [DB] has it open. The zero value has
// nothing in it.
type Memory struct {
	mu    sync.Mutex
	taken bool
	pages []byte // of the database when it was closed
}

// take fills an empty database, which nobody else gets until it is given back.
func (m *Memory) take(conn *sqlite3.Conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken {
		return ErrInUse
	}
	if m.pages == nil {
		if err := fill(conn); err != nil {
			return err
		}
	} else if err := serdes.Deserialize(conn, "main", m.pages); err != nil {
		return fmt.Errorf("opening the database: %w", translate(err))
	}
	m.taken = true
	return nil
}

// giveBack keeps what is in the database.
func (m *Memory) giveBack(conn *sqlite3.Conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	pages, err := serdes.Serialize(conn, "main")
	if err != nil {
		return fmt.Errorf("keeping the database: %w", translate(err))
	}
	m.pages, m.taken = pages, false
	return nil
}
