package mls

import (
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// welcome is Welcome (§12.4.3.1), which lets new members in.
type welcome struct {
	suite              CipherSuite
	secrets            []encryptedGroupSecrets
	encryptedGroupInfo []byte
}

// encryptedGroupSecrets is the part for the owner of one key package.
type encryptedGroupSecrets struct {
	newMember  []byte // KeyPackageRef
	kemOutput  []byte
	ciphertext []byte
}

func (w *welcome) append(b []byte) []byte {
	b = wire.AppendUint16(b, uint16(w.suite))
	b = wire.AppendVector(b, func(b []byte) []byte {
		for _, s := range w.secrets {
			b = wire.AppendOpaque(b, s.newMember)
			b = wire.AppendOpaque(b, s.kemOutput)
			b = wire.AppendOpaque(b, s.ciphertext)
		}
		return b
	})
	return wire.AppendOpaque(b, w.encryptedGroupInfo)
}

func readWelcome(r *wire.Reader) *welcome {
	w := &welcome{suite: CipherSuite(r.Uint16())}
	r.Vector(func(r *wire.Reader) {
		w.secrets = append(w.secrets, encryptedGroupSecrets{r.Opaque(), r.Opaque(), r.Opaque()})
	})
	w.encryptedGroupInfo = r.Opaque()
	return w
}

// groupSecrets is GroupSecrets (§12.4.3.1), what a new member gets encrypted.
type groupSecrets struct {
	joinerSecret []byte
	pathSecret   []byte // nil if absent
	psks         []PreSharedKeyID
}

func (s *groupSecrets) append(b []byte) []byte {
	b = wire.AppendOpaque(b, s.joinerSecret)
	b = wire.AppendPresence(b, s.pathSecret != nil)
	if s.pathSecret != nil {
		b = wire.AppendOpaque(b, s.pathSecret)
	}
	return wire.AppendVector(b, func(b []byte) []byte {
		for _, id := range s.psks {
			b = id.append(b)
		}
		return b
	})
}

func readGroupSecrets(r *wire.Reader) *groupSecrets {
	s := &groupSecrets{joinerSecret: r.Opaque()}
	if r.Optional() {
		s.pathSecret = r.Opaque()
	}
	r.Vector(func(r *wire.Reader) { s.psks = append(s.psks, readPreSharedKeyID(r)) })
	return s
}
