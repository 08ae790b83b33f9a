package protocol

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestHMACKeys(t *testing.T) {
	v := groupsFile().HMAC
	root, err := ParseHMACRoot(v.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range v.Keys {
		if got := root.Key(v.GroupID, k.Epoch); got.Epoch != k.Epoch || !bytes.Equal(got.Key, k.Key) {
			t.Errorf("epoch %d: %x, want %x", k.Epoch, got.Key, k.Key)
		}
	}
	for _, s := range v.Samples {
		if got := root.Key(v.GroupID, s.Epoch).SenderHMAC(s.Data); !bytes.Equal(got, s.HMAC) {
			t.Errorf("sender HMAC %x, want %x", got, s.HMAC)
		}
	}
	now := time.Unix(v.Keys[1].Epoch*hmacPeriod, 0)
	for i, got := range root.Keys(v.GroupID, now) {
		if got.Epoch != v.Keys[i].Epoch || !bytes.Equal(got.Key, v.Keys[i].Key) {
			t.Errorf("key %d of three is of epoch %d", i, got.Epoch)
		}
	}
	if e := HMACEpoch(now.Add(-time.Second)); e != v.Keys[0].Epoch {
		t.Errorf("a second earlier is epoch %d", e)
	}
}

// TestSenderHMACs finds for every row of the scene the client that marked it.
func TestSenderHMACs(t *testing.T) {
	for _, row := range rowsFile() {
		fits := 0
		for _, c := range clientsFile() {
			for _, key := range c.HMACKeys {
				root, err := ParseHMACRoot(key)
				if err != nil {
					t.Fatal(err)
				}
				epoch := HMACEpoch(time.Unix(0, int64(row.CreatedNS)))
				if bytes.Equal(root.Key(row.GroupID, epoch).SenderHMAC(row.Data), row.SenderHMAC) {
					fits++
				}
			}
		}
		if fits == 0 {
			t.Errorf("row %d: no client's key fits", row.ID)
		}
	}
}

func TestHMACRedacted(t *testing.T) {
	root := NewHMACRoot()
	key := root.Key([]byte("group"), 7)
	if bytes.Equal(root.Bytes(), NewHMACRoot().Bytes()) {
		t.Fatal("two roots are the same")
	}
	for _, s := range []string{fmt.Sprintf("%v %x %+v", root, root, root), fmt.Sprintf("%v %x %+v", key, key, key)} {
		if strings.Contains(s, fmt.Sprintf("%x", root.Bytes())) || strings.Contains(s, fmt.Sprintf("%x", key.Key)) {
			t.Errorf("a secret is in %q", s)
		}
	}
	if _, err := ParseHMACRoot(root.Bytes()[1:]); err == nil {
		t.Error("a root of 41 bytes was taken")
	}
}
