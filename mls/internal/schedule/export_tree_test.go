package schedule

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// byHand derives the secret of a component from the root, without a tree.
func byHand(s *suite.Suite, epochSecret []byte, component uint16) suite.Secret {
	secret := s.DeriveSecret(epochSecret, "application_export")
	for bit := 15; bit >= 0; bit-- {
		side := "left"
		if component>>bit&1 == 1 {
			side = "right"
		}
		next := make(suite.Secret, s.HashSize())
		s.ExpandWithLabel(next, secret, "tree", []byte(side))
		secret = next
	}
	return secret
}

// Each component has one secret, to be had once, in any order and over restarts.
func TestExportTree(t *testing.T) {
	s := mustSuite(t, 3)
	epoch := s.Extract(nil, []byte("epoch"))
	tree := NewExportTree(s, epoch)
	for _, component := range []uint16{0, 1, 0xffff, 5, 4, 0x8000, 0x7fff, 2} {
		secret, rest := tree.Take(component)
		check(t, fmt.Sprint("secret of ", component), secret, byHand(s, epoch, component))
		before := tree.Append(nil)
		if again, _ := tree.Take(component); !bytes.Equal(again, secret) {
			t.Error("taking changes the tree")
		}
		if !bytes.Equal(tree.Append(nil), before) {
			t.Error("taking changes the tree")
		}
		tree.Spent(rest)
		if secret, _ := rest.Take(component); secret != nil {
			t.Errorf("the secret of %d is there twice", component)
		}
		r := wire.NewReader(rest.Append(nil))
		tree = ReadExportTree(s, r)
		if err := r.Done(); err != nil {
			t.Fatal(err)
		}
	}
	if text := fmt.Sprintf("%v %+v %x", tree, tree, tree); strings.Contains(text, fmt.Sprintf("%x", []byte(tree.nodes[3]))) && tree.nodes[3] != nil {
		t.Errorf("%q shows a secret", text)
	}
	kept := tree.nodes
	tree.Wipe()
	for x, secret := range kept {
		if !bytes.Equal(secret, make([]byte, 32)) {
			t.Errorf("node %d is left", x)
		}
	}
}

func FuzzReadExportTree(f *testing.F) {
	s := mustSuite(f, 3)
	tree := NewExportTree(s, make([]byte, 32))
	_, rest := tree.Take(7)
	f.Add(tree.Append(nil))
	f.Add(rest.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := wire.NewReader(b)
		tree := ReadExportTree(s, r)
		if r.Done() != nil {
			return
		}
		again := ReadExportTree(s, wire.NewReader(tree.Append(nil)))
		if !bytes.Equal(again.Append(nil), tree.Append(nil)) {
			t.Errorf("%x is stored as %x", b, again.Append(nil))
		}
		tree.Take(7)
	})
}
