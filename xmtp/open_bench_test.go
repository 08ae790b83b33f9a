package xmtp

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/go-xmtp/go-xmtp/node"
)

func BenchmarkRegister(b *testing.B) {
	n, err := node.Start(b.Context(), node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	b.ReportAllocs()
	dir, i := b.TempDir(), 0
	for b.Loop() {
		signer, err := GeneratePrivateKeySigner()
		if err != nil {
			b.Fatal(err)
		}
		c, err := NewClient(b.Context(), signer, WithNode("http://"+n.Addr()), WithDatabase(filepath.Join(dir, fmt.Sprint(i))))
		if err != nil {
			b.Fatal(err)
		}
		i++
		b.StopTimer()
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkReopen(b *testing.B) {
	n, err := node.Start(b.Context(), node.Options{Listen: "127.0.0.1:0", Ephemeral: true})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	signer, err := GeneratePrivateKeySigner()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	path := filepath.Join(b.TempDir(), "client.db")
	open := func() {
		c, err := NewClient(b.Context(), signer, WithNode("http://"+n.Addr()), WithDatabase(path))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.StopTimer()
	open()
	for b.Loop() {
		open()
	}
}
