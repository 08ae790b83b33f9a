package node

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Memory is where an [Options.Ephemeral] node keeps everything. It outlives the
// node; one node at a time can use it ([ErrInUse]). The zero value has nothing in it.
type Memory struct {
	mu   sync.Mutex
	disk *vfs.MemFS
}

func (m *Memory) fs() *vfs.MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disk == nil {
		m.disk = vfs.NewCrashableMem()
	}
	return m.disk
}

// PowerCut returns what would be left of a disk if its power were cut now: all
// that was acknowledged. A node that runs goes on with the original.
func (m *Memory) PowerCut() *Memory {
	return &Memory{disk: m.fs().CrashClone(vfs.CrashCloneCfg{})}
}
