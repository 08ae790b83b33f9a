// Package descriptors divides the files that a process may have open between
// connections, which anybody can open, and the store, which can't go on without.
package descriptors

import "net"

// Connections beyond what they may have are closed at once, so that very many of
// them end no node.
const (
	// maxTables is how many tables the store keeps open at most.
	maxTables = 1000
	// maxReserve is what the store, its logs and everything else need together.
	maxReserve = 2 * maxTables
)

// reserve is what connections leave of all descriptors.
func reserve(limit uint64) uint64 { return min(limit/2, maxReserve) }

// Tables returns how many tables the store may keep open.
func Tables() int {
	if limit, known := limit(); known {
		return int(reserve(limit) / 2)
	}
	return maxTables
}

// Listener is a port whose connections leave descriptors to the store.
type Listener struct {
	net.Listener
	most   uint64
	refuse func()
}

// Leave returns the port as a [Listener], which calls refuse for each connection
// that it closes. Where the limit isn't known it is the port itself.
func Leave(port net.Listener, refuse func()) net.Listener {
	limit, known := limit()
	if !known {
		return port
	}
	return &Listener{port, limit - reserve(limit), refuse}
}

// Accept waits for a connection that there is a descriptor for. The system gives
// out the lowest that is free, so a high one tells that all below are in use.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || descriptor(conn) < l.most {
			return conn, err
		}
		conn.Close()
		l.refuse()
	}
}
