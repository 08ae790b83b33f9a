package xmtp

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// crowd is what a process is asked to hold.
type crowd struct {
	Node, Folder string
	Clients      int
}

// usage is what a process takes.
type usage struct {
	Resident    int64 // bytes
	Descriptors int
	Threads     int
}

func init() {
	roles["crowd"] = func(ctx context.Context, p *process) error {
		order, err := hear[crowd](p)
		if err != nil {
			return err
		}
		for n := range order.Clients {
			signer, err := GeneratePrivateKeySigner()
			if err != nil {
				return err
			}
			c, err := NewClient(ctx, signer, WithNode(order.Node), WithDatabase(filepath.Join(order.Folder, fmt.Sprint(n, ".db"))))
			if err != nil {
				return err
			}
			defer c.Close()
			if n == 0 {
				// What all share is there from here on.
				if err := p.tell(used()); err != nil {
					return err
				}
			}
		}
		if err := p.tell(used()); err != nil {
			return err
		}
		_, err = hear[bool](p)
		return err
	}
}

// used is what this process takes when the memory that it doesn't need is given back.
func used() usage {
	debug.FreeOSMemory()
	var u usage
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &u.Resident)
		fmt.Sscanf(line, "Threads: %d", &u.Threads)
	}
	u.Resident <<= 10
	files, _ := os.ReadDir("/proc/self/fd")
	u.Descriptors = len(files)
	return u
}

func TestIdleClients(t *testing.T) {
	clients := 50
	if proof {
		clients = 1000
	}
	p := startProcess(t, "crowd")
	check(t, p.tell(crowd{startNode(t), t.TempDir(), clients}))
	one := must(hear[usage](p))(t)
	all := must(hear[usage](p))(t)
	n := int64(clients - 1)
	t.Log(one, all)
	t.Logf("each of %d: %d KiB resident, %.2f descriptors, %.2f threads", clients,
		(all.Resident-one.Resident)/n>>10, float64(all.Descriptors-one.Descriptors)/float64(n), float64(all.Threads-one.Threads)/float64(n))
}
