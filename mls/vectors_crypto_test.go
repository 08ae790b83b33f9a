package mls

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/mls/internal/schedule"
	"github.com/go-xmtp/go-xmtp/mls/internal/secrettree"
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/treemath"
	"github.com/go-xmtp/go-xmtp/mls/internal/vectortest"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

func vectorsTreeMath(t *testing.T, c *tally) {
	type vector struct {
		Leaves                       treemath.LeafCount `json:"n_leaves"`
		Nodes                        uint32             `json:"n_nodes"`
		Root                         nodeIndex
		Left, Right, Parent, Sibling []*nodeIndex
	}
	for _, v := range vectortest.Load[vector](t, "tree-math.json") {
		c.run[0]++
		if v.Leaves.NodeWidth() != v.Nodes || v.Leaves.Root() != v.Root {
			t.Errorf("%d leaves: %d nodes, root %d", v.Leaves, v.Leaves.NodeWidth(), v.Leaves.Root())
		}
		for x := range nodeIndex(v.Nodes) {
			for _, tc := range []struct {
				name string
				want *nodeIndex
				get  func() nodeIndex
				none bool
			}{
				{"left", v.Left[x], x.Left, x.IsLeaf()}, {"right", v.Right[x], x.Right, x.IsLeaf()},
				{"parent", v.Parent[x], x.Parent, x == v.Root}, {"sibling", v.Sibling[x], x.Sibling, x == v.Root},
			} {
				if tc.none != (tc.want == nil) || !tc.none && tc.get() != *tc.want {
					t.Errorf("%d leaves: %s of node %d", v.Leaves, tc.name, x)
				}
			}
		}
	}
}

func vectorsCryptoBasics(t *testing.T, c *tally) {
	type vector struct {
		Suite   int `json:"cipher_suite"`
		RefHash struct {
			Label      string
			Value, Out hexBytes
		} `json:"ref_hash"`
		Expand struct {
			Label                string
			Length               int
			Secret, Context, Out hexBytes
		} `json:"expand_with_label"`
		Derive struct {
			Label       string
			Secret, Out hexBytes
		} `json:"derive_secret"`
		DeriveTree struct {
			Label       string
			Length      int
			Generation  uint32
			Secret, Out hexBytes
		} `json:"derive_tree_secret"`
		Sign struct {
			Label                         string
			Priv, Pub, Content, Signature hexBytes
		} `json:"sign_with_label"`
		Encrypt struct {
			Label                                     string
			Priv, Pub, Context, Plaintext, Ciphertext hexBytes
			KEMOutput                                 hexBytes `json:"kem_output"`
		} `json:"encrypt_with_label"`
	}
	for _, v := range vectortest.Load[vector](t, "crypto-basics.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint("suite ", v.Suite), func(t *testing.T) {
			equal(t, "RefHash", s.RefHash(v.RefHash.Label, v.RefHash.Value), v.RefHash.Out)
			out := make([]byte, v.Expand.Length)
			s.ExpandWithLabel(out, v.Expand.Secret, v.Expand.Label, v.Expand.Context)
			equal(t, "ExpandWithLabel", out, v.Expand.Out)
			equal(t, "DeriveSecret", s.DeriveSecret(v.Derive.Secret, v.Derive.Label), v.Derive.Out)
			out = make([]byte, v.DeriveTree.Length)
			s.DeriveTreeSecret(out, v.DeriveTree.Secret, v.DeriveTree.Label, v.DeriveTree.Generation)
			equal(t, "DeriveTreeSecret", out, v.DeriveTree.Out)

			sign := v.Sign
			if !s.VerifyWithLabel(sign.Pub, sign.Label, sign.Signature, sign.Content) {
				t.Error("signature does not verify")
			}
			signer, err := s.Signature().NewSigner(sign.Priv)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := suite.SignWithLabel(signer, sign.Label, sign.Content)
			if err != nil || !s.VerifyWithLabel(sign.Pub, sign.Label, sig, sign.Content) {
				t.Errorf("own signature does not verify: %v", err)
			}

			enc := v.Encrypt
			key := hpke.KeyPair{Private: enc.Priv, Public: enc.Pub}
			plain, err := s.DecryptWithLabel(key, enc.Label, enc.Context, enc.KEMOutput, enc.Ciphertext)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "plaintext", plain, enc.Plaintext)
			kem, ciphertext, err := s.Encryptor(enc.Label, enc.Context).Encrypt(nil, enc.Pub, enc.Plaintext)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err = s.DecryptWithLabel(key, enc.Label, enc.Context, kem, ciphertext); err != nil {
				t.Fatal(err)
			}
			equal(t, "own plaintext", plain, enc.Plaintext)
		})
	}
}

func vectorsSecretTree(t *testing.T, c *tally) {
	type generation struct {
		Generation       uint32
		HandshakeKey     hexBytes `json:"handshake_key"`
		HandshakeNonce   hexBytes `json:"handshake_nonce"`
		ApplicationKey   hexBytes `json:"application_key"`
		ApplicationNonce hexBytes `json:"application_nonce"`
	}
	type vector struct {
		Suite      int      `json:"cipher_suite"`
		Encryption hexBytes `json:"encryption_secret"`
		SenderData struct {
			Secret     hexBytes `json:"sender_data_secret"`
			Ciphertext hexBytes
			Key, Nonce hexBytes
		} `json:"sender_data"`
		Leaves [][]generation
	}
	for i, v := range vectortest.Load[vector](t, "secret-tree.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			key := senderDataKey(s, suite.Secret(v.SenderData.Secret), v.SenderData.Ciphertext)
			equal(t, "sender data key", key.Key[:s.KeySize()], v.SenderData.Key)
			equal(t, "sender data nonce", key.Nonce[:], v.SenderData.Nonce)

			window := secrettree.Window{Backward: 20, Forward: 20}
			for _, backwards := range []bool{false, true} {
				tree := secrettree.New(s, treemath.LeafCount(len(v.Leaves)), v.Encryption, window)
				for leaf, generations := range v.Leaves {
					for k := range generations {
						g := generations[k]
						if backwards {
							g = generations[len(generations)-1-k]
						}
						for kind, want := range map[secrettree.Kind][2]hexBytes{
							secrettree.Handshake:   {g.HandshakeKey, g.HandshakeNonce},
							secrettree.Application: {g.ApplicationKey, g.ApplicationNonce},
						} {
							use, err := tree.Key(LeafIndex(leaf), kind, g.Generation)
							if err != nil {
								t.Fatal(err)
							}
							equal(t, "key", use.Key().Key[:s.KeySize()], want[0])
							equal(t, "nonce", use.Key().Nonce[:], want[1])
							if err := use.Commit(); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
			}
		})
	}
}

func vectorsKeySchedule(t *testing.T, c *tally) {
	type vector struct {
		Suite   int      `json:"cipher_suite"`
		GroupID hexBytes `json:"group_id"`
		Init    hexBytes `json:"initial_init_secret"`
		Epochs  []struct {
			Commit        hexBytes `json:"commit_secret"`
			PSK           hexBytes `json:"psk_secret"`
			ConfirmedHash hexBytes `json:"confirmed_transcript_hash"`
			TreeHash      hexBytes `json:"tree_hash"`
			Context       hexBytes `json:"group_context"`
			Joiner        hexBytes `json:"joiner_secret"`
			Welcome       hexBytes `json:"welcome_secret"`
			Init          hexBytes `json:"init_secret"`
			SenderData    hexBytes `json:"sender_data_secret"`
			Encryption    hexBytes `json:"encryption_secret"`
			ExporterKey   hexBytes `json:"exporter_secret"`
			Authenticator hexBytes `json:"epoch_authenticator"`
			External      hexBytes `json:"external_secret"`
			ExternalPub   hexBytes `json:"external_pub"`
			Confirmation  hexBytes `json:"confirmation_key"`
			Membership    hexBytes `json:"membership_key"`
			Resumption    hexBytes `json:"resumption_psk"`
			Exporter      struct {
				Label   string
				Length  int
				Context hexBytes
				Secret  hexBytes
			}
		}
	}
	for i, v := range vectortest.Load[vector](t, "key-schedule.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			e := &epoch{
				suite: s, secrets: &schedule.Epoch{Init: suite.Secret(v.Init)},
				context: &groupContext{version: MLS10, suite: CipherSuite(v.Suite), groupID: v.GroupID, epoch: 1<<64 - 1},
			}
			tree := newTree(s) // its hash is put in from the file below
			for _, want := range v.Epochs {
				context := e.context.next(want.TreeHash, want.ConfirmedHash, nil)
				equal(t, "group context", context.raw, want.Context)
				joiner := schedule.JoinerSecret(s, e.secrets.Init, want.Commit, context.raw)
				equal(t, "joiner secret", joiner, want.Joiner)
				member := schedule.MemberSecret(s, joiner, want.PSK)
				equal(t, "welcome secret", schedule.WelcomeSecret(s, member), want.Welcome)
				all := schedule.Derive(s, schedule.EpochSecret(s, member, context.raw))
				equal(t, "encryption secret", all.Encryption, want.Encryption)
				e = &epoch{suite: s, context: context, tree: tree}
				e.derive(schedule.EpochSecret(s, member, context.raw), secrettree.Window{})
				if e.secrets.Encryption != nil {
					t.Error("the encryption secret is kept")
				}
				equal(t, "init secret", e.secrets.Init, want.Init)
				equal(t, "sender data secret", e.secrets.SenderData, want.SenderData)
				equal(t, "exporter secret", e.secrets.Exporter, want.ExporterKey)
				equal(t, "epoch authenticator", e.secrets.Authenticator, want.Authenticator)
				equal(t, "external secret", e.secrets.External, want.External)
				equal(t, "confirmation key", e.secrets.Confirmation, want.Confirmation)
				equal(t, "membership key", e.secrets.Membership, want.Membership)
				equal(t, "resumption PSK", e.secrets.Resumption, want.Resumption)
				pair, err := s.DeriveKeyPair(e.secrets.External)
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "external public key", pair.Public, want.ExternalPub)
				g := &Group{publicState: publicState{current: e}}
				exported, err := g.Export(want.Exporter.Label, want.Exporter.Context, want.Exporter.Length)
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "exported secret", exported, want.Exporter.Secret)
			}
		})
	}
}

func vectorsPSKSecret(t *testing.T, c *tally) {
	type vector struct {
		Suite int `json:"cipher_suite"`
		PSKs  []struct {
			ID    hexBytes `json:"psk_id"`
			PSK   hexBytes `json:"psk"`
			Nonce hexBytes `json:"psk_nonce"`
		} `json:"psks"`
		Secret hexBytes `json:"psk_secret"`
	}
	for i, v := range vectortest.Load[vector](t, "psk_secret.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		var ids []PreSharedKeyID
		for _, p := range v.PSKs {
			ids = append(ids, PreSharedKeyID{Type: PSKExternal, ID: p.ID, Nonce: p.Nonce})
		}
		secret, err := foldPSKs(s, ids, func(id PreSharedKeyID) ([]byte, error) {
			for _, p := range v.PSKs {
				if bytes.Equal(p.ID, id.ID) {
					return p.PSK, nil
				}
			}
			return nil, ErrPreSharedKey
		})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprint("PSK secret of case ", i), secret, v.Secret)
	}
}

func vectorsTranscriptHashes(t *testing.T, c *tally) {
	type vector struct {
		Suite           int      `json:"cipher_suite"`
		ConfirmationKey hexBytes `json:"confirmation_key"`
		Content         hexBytes `json:"authenticated_content"`
		InterimBefore   hexBytes `json:"interim_transcript_hash_before"`
		ConfirmedAfter  hexBytes `json:"confirmed_transcript_hash_after"`
		InterimAfter    hexBytes `json:"interim_transcript_hash_after"`
	}
	for i, v := range vectortest.Load[vector](t, "transcript-hashes.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r := wire.NewReader(v.Content)
			m := readAuthenticatedContent(r)
			if err := r.Done(); err != nil {
				t.Fatal(err)
			}
			equal(t, "content", m.append(nil), v.Content)
			confirmed := m.confirmedHash(&epoch{suite: s, interim: v.InterimBefore})
			equal(t, "confirmed transcript hash", confirmed, v.ConfirmedAfter)
			e := &epoch{suite: s, secrets: &schedule.Epoch{Confirmation: suite.Secret(v.ConfirmationKey)},
				context: &groupContext{confirmedTranscriptHash: confirmed}}
			if err := e.verifyTag(m.auth.confirmationTag); err != nil {
				t.Error(err)
			}
			equal(t, "interim transcript hash", e.interim, v.InterimAfter)
			equal(t, "confirmation tag", e.confirm(), m.auth.confirmationTag)
		})
	}
}

func vectorsWelcome(t *testing.T, c *tally) {
	type vector struct {
		Suite      int      `json:"cipher_suite"`
		InitKey    hexBytes `json:"init_priv"`
		KeyPackage hexBytes `json:"key_package"`
		SignerKey  hexBytes `json:"signer_pub"`
		Welcome    hexBytes `json:"welcome"`
	}
	for i, v := range vectortest.Load[vector](t, "welcome.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			message := func(b []byte) *Message {
				m, err := UnmarshalMessage(b, moreSuites...)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}
			w := message(v.Welcome)
			kp := &PrivateKeyPackage{public: message(v.KeyPackage).KeyPackage(), initKey: suite.Secret(v.InitKey)}
			ref, err := kp.public.Ref()
			if err != nil {
				t.Fatal(err)
			}
			if refs := w.NewMembers(); len(refs) != 1 || !bytes.Equal(refs[0], ref) {
				t.Errorf("Welcome for %x, key package %x", refs, ref)
			}
			secrets, err := w.welcome.open(s, kp)
			if err != nil {
				t.Fatal(err)
			}
			zero, err := foldPSKs(s, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			member := schedule.MemberSecret(s, secrets.joinerSecret, zero)
			info, err := w.welcome.groupInfo(s, member)
			if err != nil {
				t.Fatal(err)
			}
			if !s.VerifyWithLabel(v.SignerKey, "GroupInfoTBS", info.signature, info.unsigned) {
				t.Error("GroupInfo's signature does not verify")
			}
			e := &epoch{suite: s, context: info.context, tree: newTree(s)}
			e.derive(schedule.EpochSecret(s, member, info.context.raw), secrettree.Window{})
			if err := e.verifyTag(info.confirmationTag); err != nil {
				t.Error(err)
			}
		})
	}
}

func vectorsMessageProtection(t *testing.T, c *tally) {
	type vector struct {
		Suite           int      `json:"cipher_suite"`
		GroupID         hexBytes `json:"group_id"`
		Epoch           uint64   `json:"epoch"`
		TreeHash        hexBytes `json:"tree_hash"`
		ConfirmedHash   hexBytes `json:"confirmed_transcript_hash"`
		SignaturePriv   hexBytes `json:"signature_priv"`
		SignaturePub    hexBytes `json:"signature_pub"`
		Encryption      hexBytes `json:"encryption_secret"`
		SenderData      hexBytes `json:"sender_data_secret"`
		MembershipKey   hexBytes `json:"membership_key"`
		Proposal        hexBytes `json:"proposal"`
		ProposalPriv    hexBytes `json:"proposal_priv"`
		ProposalPub     hexBytes `json:"proposal_pub"`
		Commit          hexBytes `json:"commit"`
		CommitPriv      hexBytes `json:"commit_priv"`
		CommitPub       hexBytes `json:"commit_pub"`
		Application     hexBytes `json:"application"`
		ApplicationPriv hexBytes `json:"application_priv"`
	}
	for i, v := range vectortest.Load[vector](t, "message-protection.json") {
		s, ok := c.suite(v.Suite)
		if !ok {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			const from = LeafIndex(1)
			signer, err := s.Signature().NewSigner(v.SignaturePriv)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "signature key", signer.Public(), v.SignaturePub)
			// Each message has a secret tree of its own.
			newEpoch := func() *epoch {
				e := &epoch{
					suite: s, own: from,
					context: (&groupContext{version: MLS10, suite: CipherSuite(v.Suite), groupID: v.GroupID, epoch: v.Epoch - 1}).
						next(v.TreeHash, v.ConfirmedHash, nil),
					secrets:  &schedule.Epoch{SenderData: suite.Secret(v.SenderData), Membership: suite.Secret(v.MembershipKey)},
					messages: secrettree.New(s, 2, v.Encryption, secrettree.Window{Backward: 5, Forward: 1000}),
				}
				return e
			}
			unprotect := func(message []byte) *authenticatedContent {
				t.Helper()
				e := newEpoch()
				m, err := UnmarshalMessage(message)
				if err != nil {
					t.Fatal(err)
				}
				if p := m.public; p != nil {
					if err := e.verifyMembershipTag(p); err != nil {
						t.Fatal(err)
					}
					if err := verifyContent(s, v.SignaturePub, p.auth.signature, m.format, p.content.raw, nil, e.context.raw); err != nil {
						t.Fatal(err)
					}
					return &authenticatedContent{m.format, p.content, p.auth}
				}
				data, err := m.private.openSenderData(s, e.secrets.SenderData)
				if err != nil {
					t.Fatal(err)
				}
				if data.leaf != from {
					t.Errorf("sender is leaf %d", data.leaf)
				}
				kind := secrettree.Handshake
				if m.private.contentType == ContentTypeApplication {
					kind = secrettree.Application
				}
				use, err := e.messages.Key(data.leaf, kind, data.generation)
				if err != nil {
					t.Fatal(err)
				}
				a, err := m.private.open(s, use, data, v.SignaturePub, e.context.raw)
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			body := func(a *authenticatedContent) []byte {
				switch a.content.contentType {
				case ContentTypeApplication:
					return a.content.applicationData
				case ContentTypeProposal:
					return appendProposal(nil, a.content.proposal)
				default:
					return a.content.commit.append(nil)
				}
			}
			protect := func(format WireFormat, ct ContentType, bare []byte) []byte {
				t.Helper()
				e := newEpoch()
				content := &framedContent{groupID: v.GroupID, epoch: v.Epoch, sender: Sender{SenderMember, uint32(from)},
					authenticatedData: []byte("aad"), contentType: ct}
				if ct == ContentTypeApplication {
					content.applicationData = bare
				} else {
					content.readBody(wire.NewReader(bare))
				}
				content.raw = content.append(nil)
				auth := contentAuth{confirmationTag: bytes.Repeat([]byte{7}, s.HashSize())}
				if auth.signature, err = signContent(signer, format, content.raw, nil, e.context.raw); err != nil {
					t.Fatal(err)
				}
				if format == WireFormatPublicMessage {
					return e.protectPublic(content, auth)
				}
				kind := secrettree.Handshake
				if ct == ContentTypeApplication {
					kind = secrettree.Application
				}
				use, err := e.messages.Next(from, kind)
				if err != nil {
					t.Fatal(err)
				}
				message, err := e.protectPrivate(use, ct, content.authenticatedData, content.appendBody(nil), auth, 13)
				if err != nil {
					t.Fatal(err)
				}
				return message
			}
			for _, tc := range []struct {
				name            string
				ct              ContentType
				bare            []byte
				public, private []byte
			}{
				{"proposal", ContentTypeProposal, v.Proposal, v.ProposalPub, v.ProposalPriv},
				{"commit", ContentTypeCommit, v.Commit, v.CommitPub, v.CommitPriv},
				{"application", ContentTypeApplication, v.Application, nil, v.ApplicationPriv},
			} {
				equal(t, tc.name+" in PrivateMessage", body(unprotect(tc.private)), tc.bare)
				equal(t, tc.name+" in own PrivateMessage", body(unprotect(protect(WireFormatPrivateMessage, tc.ct, tc.bare))), tc.bare)
				if tc.public == nil {
					continue
				}
				equal(t, tc.name+" in PublicMessage", body(unprotect(tc.public)), tc.bare)
				equal(t, tc.name+" in own PublicMessage", body(unprotect(protect(WireFormatPublicMessage, tc.ct, tc.bare))), tc.bare)
			}
		})
	}
}
