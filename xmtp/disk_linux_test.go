package xmtp

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/go-xmtp/go-xmtp/content"
)

// diskNode tells the process that has a disk of its own where the node is.
const diskNode = "XMTP_TEST_DISK_NODE"

// A real file system that becomes full, and one that is read-only: as with the one in
// memory. It is that of a process of its own.
func TestFullDiskForReal(t *testing.T) {
	if url := os.Getenv(diskNode); url != "" {
		onASmallDisk(t, url)
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDiskForReal$", "-test.v")
	cmd.Env = append(os.Environ(), diskNode+"="+startNode(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	output, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		t.Skipf("this system lets nobody have a disk of his own: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	t.Logf("%s", output)
}

func onASmallDisk(t *testing.T, url string) {
	ctx := t.Context()
	dir := t.TempDir()
	mount := func(flags uintptr, options string) error { return syscall.Mount("tmpfs", dir, "tmpfs", flags, options) }
	// Nobody else is to see it.
	check(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	check(t, mount(0, "size=4m"))
	t.Cleanup(func() { check(t, syscall.Unmount(dir, 0)) })
	path := filepath.Join(dir, "client.db")
	signer := newSigner(t)
	open := func(path string) (*Client, error) {
		return NewClient(ctx, signer, WithNode(url), WithDatabase(path), WithoutWorkers())
	}
	alice := must(open(path))(t)
	bob := newClient(t, url, WithoutWorkers())
	v := must(alice.NewGroup(ctx, GroupOptions{}, bob.InboxID()))(t)
	must(v.SendText(ctx, "0"))(t)
	there := inConversation(t, bob, v.ID())

	ballast := must(os.Create(filepath.Join(dir, "ballast")))(t)
	for block := make([]byte, 1<<16); len(block) > 0; { // down to the last byte
		if _, err := ballast.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else {
			check(t, err)
		}
	}
	// What is allocated is used up first.
	large := make([]byte, 100_000)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = v.Prepare(content.Text(string(large)))
	}
	if !errors.Is(err, ErrDiskFull) {
		t.Errorf("preparing: %v", err)
	}
	for range 10 {
		must(there.SendText(ctx, string(large)))(t)
	}
	if err := alice.Sync(ctx); !errors.Is(err, ErrDiskFull) {
		t.Errorf("receiving: %v", err)
	}
	if _, err := open(filepath.Join(dir, "other.db")); !errors.Is(err, ErrDiskFull) {
		t.Errorf("opening another: %v", err)
	}
	check(t, errors.Join(ballast.Close(), os.Remove(ballast.Name())))
	check(t, alice.Sync(ctx))
	must(v.SendText(ctx, "1"))(t)
	check(t, bob.Sync(ctx))
	mine := slices.DeleteFunc(must(v.Messages(MessageOptions{}))(t), func(m *Message) bool { return m.Delivery != Published || m.Text() == "" })
	if got, want := len(mine), len(texts(t, there)); got != want {
		t.Errorf("alice has %d messages, bob %d", got, want)
	}

	check(t, alice.Close())
	check(t, mount(syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if _, err := open(path); !errors.Is(err, ErrReadOnly) {
		t.Errorf("opening on a read-only disk: %v", err)
	}
	if _, err := open(filepath.Join(dir, "new", "client.db")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a new one on a read-only disk: %v", err)
	}
	check(t, mount(syscall.MS_REMOUNT, ""))
	again := must(open(path))(t)
	must(must(again.Conversation(v.ID()))(t).SendText(ctx, "2"))(t)
	check(t, again.Close())
}
