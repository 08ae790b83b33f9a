package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

func openStore(t *testing.T, dir string) *node.Store {
	t.Helper()
	s := must(node.OpenStore(short(t), dir))(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wantSound fails if anything is wrong with a store.
func wantSound(t *testing.T, dir string) node.Report {
	t.Helper()
	s := must(node.OpenStore(short(t), dir))(t)
	defer s.Close()
	report := must(s.Verify(short(t)))(t)
	if report.Count > 0 {
		t.Errorf("%s: %d problems:\n%s", dir, report.Count, strings.Join(report.Problems, "\n"))
	}
	return report
}

// TestBackup: backups that are made while everybody writes hold all that was
// acknowledged before, and a node that is started from one gives no number again
// that somebody has seen.
func TestBackup(t *testing.T) {
	t.Parallel()
	dir, backups := t.TempDir(), t.TempDir()
	n := start(t, node.Options{Data: dir})
	l := newLoad(t, 4, 6, 7)
	c := dial(t, n)
	ctx, cancel := context.WithCancel(long(t))
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := l.run(ctx, 1<<30, func() *client { return c }); ctx.Err() == nil {
			t.Errorf("writing ended: %v", err)
		}
	})
	type mark struct{ acknowledged, shown int }
	marks := make([]mark, scaled(3, 20))
	for i := range marks {
		<-l.after(60)
		marks[i].acknowledged, marks[i].shown = l.mark()
		s := must(node.OpenStore(ctx, dir))(t)
		if err := s.Backup(ctx, filepath.Join(backups, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-l.after(60)
	cancel()
	writing.Wait()
	_, shown := l.mark()
	highest := uint64(0)
	for _, f := range l.shown[:shown] {
		highest = max(highest, f.number)
	}
	eventually(t, "snapshots are gone", func() bool {
		left, err := os.ReadDir(filepath.Join(dir, "snapshots"))
		return err == nil && len(left) == 0
	})
	for i, mark := range marks {
		backup := filepath.Join(backups, fmt.Sprint(i))
		report := wantSound(t, backup)
		x := must(index.Open(index.Options{FS: vfs.Default, Dir: backup, Logger: discard, OnFailure: func(err error) { t.Error(err) }}))(t)
		if next, _ := x.Last(); next < highest || report.Newest > highest+100 {
			t.Errorf("backup %d goes on after %d; %d was shown", i, next, highest)
		}
		if err := errors.Join(l.verify(x, mark.acknowledged, mark.shown), x.Close()); err != nil {
			t.Errorf("backup %d: %v", i, err)
		}
	}
	if !t.Failed() {
		t.Logf("CHECK backups of a busy node: made: %d, acknowledged records lost: 0, numbers given out again: 0", len(marks))
	}
}

// A client that has seen more than the backup has goes on from its cursor.
func TestStartFromBackup(t *testing.T) {
	t.Parallel()
	dir, backup, group := t.TempDir(), filepath.Join(t.TempDir(), "backup"), newGroupID()
	first := must(launch(node.Options{Data: dir}))(t)
	send := func(n *node.Node, name string) {
		t.Helper()
		if _, err := dial(t, n).mls.SendGroupMessages(short(t), groupRequest(application(group, name))); err != nil {
			t.Fatal(err)
		}
	}
	after := func(n *node.Node, cursor uint64) []*mlsapi.GroupMessage {
		t.Helper()
		return must(dial(t, n).mls.QueryGroupMessages(short(t), &mlsapi.QueryGroupMessagesRequest{
			GroupId: group, PagingInfo: &mlsapi.PagingInfo{IdCursor: cursor, Direction: mlsapi.SortDirection_SORT_DIRECTION_ASCENDING},
		}))(t).Messages
	}
	send(first, "one")
	s := must(node.OpenStore(short(t), dir))(t)
	if err := errors.Join(s.Backup(short(t), backup), s.Close()); err != nil {
		t.Fatal(err)
	}
	send(first, "two")
	cursor := after(first, 0)[1].GetV1().Id
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	log := &warnings{}
	second := start(t, node.Options{Data: backup, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if !strings.Contains(log.String(), "started from a backup: numbers jump ahead") {
		t.Errorf("the log does not say so:\n%s", log.String())
	}
	send(second, "three")
	got := after(second, cursor)
	if len(got) != 1 || !bytes.Contains(got[0].GetV1().Data, []byte("three")) {
		t.Errorf("after %d there are %d messages", cursor, len(got))
	}
}

// Who can't be asked, or has nothing, is said; nothing is made or changed.
func TestOpenStoreErrors(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := node.OpenStore(short(t), missing); !errors.Is(err, node.ErrForeignDirectory) {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was made")
	}
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "FORMAT"), []byte("go-xmtp node store, format 999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := node.OpenStore(short(t), newer); !errors.Is(err, node.ErrNewerFormat) {
		t.Errorf("newer: %v", err)
	}
	dir := t.TempDir()
	if err := must(launch(node.Options{Data: dir}))(t).Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir)
	if _, err := node.OpenStore(short(t), dir); !errors.Is(err, node.ErrInUse) || !strings.Contains(err.Error(), "can't be asked") {
		t.Errorf("in use by something that is no node: %v", err)
	}
	if _, err := launch(node.Options{Data: dir}); !errors.Is(err, node.ErrInUse) {
		t.Errorf("a node beside a reader: %v", err)
	}
}

var makeStore = flag.String("make-store", "", "write a golden store to the folder testdata/stores/NAME")

// TestGoldenStores: stores that earlier versions wrote are opened: all that was in
// them is there, bit by bit, is sound, and a node goes on with it. For a new format:
// go test ./node -run GoldenStores -make-store 2
func TestGoldenStores(t *testing.T) {
	t.Parallel()
	golden := filepath.Join("testdata", "stores")
	if *makeStore != "" {
		makeGoldenStore(t, filepath.Join(golden, *makeStore))
	}
	versions := must(os.ReadDir(golden))(t)
	if len(versions) == 0 {
		t.Fatal("there are none")
	}
	for _, version := range versions {
		t.Run(version.Name(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(golden, version.Name(), "data"))); err != nil {
				t.Fatal(err)
			}
			want := must(os.ReadFile(filepath.Join(golden, version.Name(), "export.jsonl")))(t)
			before := wantSound(t, dir)
			if got := export(t, dir); !bytes.Equal(got, want) {
				t.Errorf("an export of %d bytes is not the %d bytes that it was", len(got), len(want))
			}
			n := must(launch(node.Options{Data: dir}))(t)
			c := dial(t, n)
			l := newLoad(t, 2, 2, 3)
			if err := l.run(short(t), 10, func() *client { return c }); err != nil {
				t.Error(err)
			}
			groups := exportedGroups(t, want)
			for group, count := range groups {
				got := must(c.mls.QueryGroupMessages(short(t), &mlsapi.QueryGroupMessagesRequest{GroupId: []byte(group)}))(t)
				if len(got.Messages) != min(count, 100) {
					t.Errorf("group %x has %d messages, want %d", group, len(got.Messages), count)
				}
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			if after := wantSound(t, dir); after.Newest <= before.Newest || len(groups) == 0 {
				t.Errorf("the newest is %d, it was %d; %d groups", after.Newest, before.Newest, len(groups))
			}
		})
	}
}

func export(t *testing.T, dir string) []byte {
	t.Helper()
	s := must(node.OpenStore(short(t), dir))(t)
	defer s.Close()
	var out bytes.Buffer
	if err := s.Export(short(t), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// exportedGroups counts messages by group.
func exportedGroups(t *testing.T, lines []byte) map[string]int {
	t.Helper()
	groups := map[string]int{}
	for line := range bytes.Lines(lines) {
		var record struct {
			Kind    string
			GroupID string `json:"group_id"`
			Payload []byte
		}
		if err := json.Unmarshal(line, &record); err != nil {
			t.Fatal(err)
		}
		var id []byte
		if _, err := fmt.Sscanf(record.GroupID, "%x", &id); err == nil && record.Kind == "group-message" {
			groups[string(id)]++
		}
		if len(record.Payload) == 0 {
			t.Errorf("a record without payload: %.200s", line)
		}
	}
	return groups
}

func makeGoldenStore(t *testing.T, dir string) {
	data := filepath.Join(dir, "data")
	l := newLoad(t, 3, 4, 11)
	l.pad = 50
	for range 2 { // what was written before the second start is in tables then
		n := must(launch(node.Options{Data: data}))(t)
		c := dial(t, n)
		if err := l.run(short(t), 40, func() *client { return c }); err != nil {
			t.Fatal(err)
		}
		if _, err := c.mls.BatchPublishCommitLog(short(t), logRequest(logEntry(l.groups[0], "entry"))); err != nil {
			t.Fatal(err)
		}
		if _, err := c.mls.SendGroupMessages(short(t), groupRequest(publicProposal(l.groups[0]))); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "export.jsonl"), export(t, data), 0o644),
		os.Remove(filepath.Join(data, "LOCK")),
		os.Remove(filepath.Join(data, "store", "LOCK")),
	); err != nil {
		t.Fatal(err)
	}
}
