package mls

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
)

// vectorsPassiveClient plays a passive-client file: the whole protocol as one
// member sees it. Every few epochs the group is loaded from its records, or parked.
func vectorsPassiveClient(file string) func(*testing.T, *tally) {
	type vector struct {
		Suite int `json:"cipher_suite"`
		PSKs  []struct {
			ID  hexBytes `json:"psk_id"`
			PSK hexBytes `json:"psk"`
		} `json:"external_psks"`
		KeyPackage    hexBytes `json:"key_package"`
		SignatureKey  hexBytes `json:"signature_priv"`
		EncryptionKey hexBytes `json:"encryption_priv"`
		InitKey       hexBytes `json:"init_priv"`
		Welcome       hexBytes `json:"welcome"`
		Tree          hexBytes `json:"ratchet_tree"`
		Authenticator hexBytes `json:"initial_epoch_authenticator"`
		Epochs        []struct {
			Proposals     []hexBytes `json:"proposals"`
			Commit        hexBytes   `json:"commit"`
			Authenticator hexBytes   `json:"epoch_authenticator"`
		} `json:"epochs"`
	}
	return func(t *testing.T, c *tally) {
		for i, v := range vectortest.Load[vector](t, file) {
			s, ok := c.suite(v.Suite)
			if !ok {
				continue
			}
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				kp := privateKeyPackage(t, s, v.KeyPackage, v.InitKey, v.EncryptionKey)
				signer, err := s.Signature().NewSigner(v.SignatureKey)
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "signature key", signer.Public(), kp.public.SignatureKey())
				config := Config{Suites: moreSuites, PreSharedKey: func(id PreSharedKeyID) ([]byte, error) {
					for _, psk := range v.PSKs {
						if id.Type == PSKExternal && bytes.Equal(psk.ID, id.ID) {
							return psk.PSK, nil
						}
					}
					return nil, fmt.Errorf("PSK %x", id.ID)
				}}
				m := &member{t: t, client: Client{Signer: signer}, store: store{}, config: config}
				p, err := Join(v.Welcome, kp, signer, v.Tree, config)
				m.group = done(m, p, err).Group
				equal(t, "initial epoch authenticator", m.group.EpochAuthenticator(), v.Authenticator)
				for k, epoch := range v.Epochs {
					switch k % 4 {
					case 1:
						m.reload()
					case 3:
						m.group.Park()
					}
					for _, message := range epoch.Proposals {
						m.process(message)
					}
					if s, ok := m.process(epoch.Commit).(*StagedCommit); !ok || s.Own {
						t.Fatalf("epoch %d: %+v", k, s)
					}
					equal(t, fmt.Sprint("authenticator of epoch ", k), m.group.EpochAuthenticator(), epoch.Authenticator)
				}
			})
		}
	}
}

// privateKeyPackage puts a key package in an MLSMessage together with its keys and
// checks that they fit.
func privateKeyPackage(t *testing.T, s *suite.Suite, message, initKey, leafKey []byte) *PrivateKeyPackage {
	t.Helper()
	m, err := UnmarshalMessage(message, moreSuites...)
	if err != nil {
		t.Fatal(err)
	}
	// P-521 scalars come without their leading zero byte at times.
	if n := len(m.keyPackage.initKey); n == 133 {
		pad := func(key []byte) []byte { return slices.Concat(make([]byte, 66-len(key)), key) }
		initKey, leafKey = pad(initKey), pad(leafKey)
	}
	kp := &PrivateKeyPackage{m.keyPackage, suite.Secret(initKey), suite.Secret(leafKey)}
	if err := kp.check(); err != nil {
		t.Fatal(err)
	}
	if err := kp.public.verify(s); err != nil {
		t.Fatal(err)
	}
	return kp
}
