package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"google.golang.org/grpc"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

const (
	groupMessages = 500 // that each group of a filled store has
	smallGroups   = 100 // of a store of 50 thousand
	bigGroups     = 10_000
	pageCallers   = 64
)

// filled makes a store.
func (b *bench) filled(ctx context.Context, name string, groups int) (string, error) {
	data := b.folder(name)
	command := exec.CommandContext(ctx, b.fill, "-data", data,
		"-groups", strconv.Itoa(groups), "-each", strconv.Itoa(groupMessages), "-size", strconv.Itoa(messageSize))
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("filling a store: %w\n%s", err, out)
	}
	return data, nil
}

// pageCaller asks for the page of 100 after a number, of the group that pick
// names each time. All numbers of the store's groups are known.
func pageCaller(conn *grpc.ClientConn, groups int, pick func() int) caller {
	page := &raw{}
	return func(ctx context.Context) error {
		i, skip := pick(), random(groupMessages-pageLimit+1)
		// Of group i the message j has the number j*groups+i+1.
		want := uint64(skip*groups + i + 1)
		if err := conn.Invoke(ctx, mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &raw{pageRequest(groupID(i), want-1)}, page); err != nil {
			return err
		}
		count := 0
		if err := eachMessage(page.bytes, func(id uint64, data []byte) error {
			if id != want || markOf(data) != want {
				return fmt.Errorf("message %d of %d, not %d", id, markOf(data), want)
			}
			want += uint64(groups)
			count++
			return nil
		}); err != nil {
			return err
		}
		if count != pageLimit {
			return fmt.Errorf("a page of %d messages", count)
		}
		return nil
	}
}

// readers ask for pages of random groups, of the first some.
func readers(conns connections, groups, some int) []caller {
	all := make([]caller, pageCallers)
	for i := range all {
		all[i] = pageCaller(conns[i%len(conns)], groups, func() int { return random(some) * (groups / some) })
	}
	return all
}

// pageSize is how many bytes a page of 100 has.
func pageSize(ctx context.Context, conn *grpc.ClientConn) (int, error) {
	page := &raw{}
	err := conn.Invoke(ctx, mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &raw{pageRequest(groupID(0), 0)}, page)
	return len(page.bytes), err
}

// page compares rates of reading with those of a server that has the bytes ready.
func (b *bench) page(ctx context.Context) error {
	data, err := b.filled(ctx, "page", smallGroups)
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	node, err := startNode(ctx, b.xmtp, data)
	if err != nil {
		return err
	}
	defer node.stop()
	return b.withConnections(node, pageCallers/perConnection, func(_ *process, ours, bare connections) error {
		size, err := pageSize(ctx, ours[0])
		if err != nil {
			return err
		}
		rates, err := b.rates(ctx, side{node, readers(ours, smallGroups, smallGroups)},
			side{b.echo, echoCallers(bare, pageCallers, len(pageRequest(groupID(0), 1<<20)), size)})
		if err != nil {
			return err
		}
		rate, echo := rates.medians()
		b.report(rates.ratio() >= 1./2, "page of 100 from 64 callers", "at least 1/2 of the echo's rate",
			"%.0f/s, echo of %d bytes %.0f/s, ratio %.2f", rate, size, echo, rates.ratio())
		return nil
	})
}
