package mls

import (
	"bytes"
	"fmt"

	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// RequiredCapabilities is the body of the required_capabilities extension of a
// group (§11.1): what every member has to list. Numbers keep their order.
type RequiredCapabilities struct {
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}

// Extension encodes the requirements as an extension of the group context.
func (c RequiredCapabilities) Extension() Extension {
	b := wire.AppendUint16s(nil, c.Extensions)
	b = wire.AppendUint16s(b, c.Proposals)
	return Extension{ExtensionRequiredCapabilities, wire.AppendUint16s(b, c.Credentials)}
}

// requirements is what a group asks of the leaves of its members (§7.3, §11.1).
type requirements struct {
	suite                              CipherSuite
	inContext                          []Extension
	extensions, proposals, credentials wire.Uint16s
}

// newRequirements reads the requirements of a group context, whose extensions that
// the package knows it checks.
func newRequirements(id CipherSuite, exts []Extension) (*requirements, error) {
	q := &requirements{suite: id, inContext: exts}
	if _, err := readExternalSenders(exts); err != nil {
		return nil, err
	}
	data, ok := extensionData(exts, ExtensionRequiredCapabilities)
	if !ok {
		return q, nil
	}
	r := wire.NewReader(data)
	q.extensions, q.proposals, q.credentials = r.Uint16s(), r.Uint16s(), r.Uint16s()
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("required capabilities: %w: %w", ErrMalformed, err)
	}
	return q, nil
}

// check tells whether a leaf is fit for the group, but for its signature and the
// credentials of the others (§7.3).
func (q *requirements) check(f *leafFields) error {
	if !f.supportsCredential(f.credential.Type) {
		return fmt.Errorf("%w: its own credential type %d", ErrCapabilities, f.credential.Type)
	}
	for i := range q.extensions.Len() {
		if t := ExtensionType(q.extensions.At(i)); !f.supportsExtension(t) {
			return fmt.Errorf("%w: required extension %#04x", ErrCapabilities, uint16(t))
		}
	}
	for i := range q.proposals.Len() {
		if t := ProposalType(q.proposals.At(i)); !f.supportsProposal(t) {
			return fmt.Errorf("%w: required proposal %#04x", ErrCapabilities, uint16(t))
		}
	}
	for i := range q.credentials.Len() {
		if t := CredentialType(q.credentials.At(i)); !f.supportsCredential(t) {
			return fmt.Errorf("%w: required credential type %d", ErrCapabilities, t)
		}
	}
	for _, e := range q.inContext {
		if !f.supportsExtension(e.Type) {
			return fmt.Errorf("%w: group extension %#04x", ErrCapabilities, uint16(e.Type))
		}
	}
	return f.checkExtensions()
}

// checkProtocol checks that a leaf lists the protocol version and the suite of the
// group. The RFC doesn't ask for it, and the members in its test vectors don't do
// it, but others refuse such a leaf: we add none.
func (q *requirements) checkProtocol(f *leafFields) error {
	if !f.versions.Contains(uint16(MLS10)) {
		return fmt.Errorf("%w: version %d", ErrCapabilities, MLS10)
	}
	if !f.suites.Contains(uint16(q.suite)) {
		return fmt.Errorf("%w: cipher suite %d", ErrCapabilities, q.suite)
	}
	return nil
}

// checkExtensions checks that the leaf lists its own extensions, each there once.
func (f *leafFields) checkExtensions() error {
	exts := f.extensionList()
	if err := checkExtensionsUnique(exts); err != nil {
		return err
	}
	for _, e := range exts {
		if !f.supportsExtension(e.Type) {
			return fmt.Errorf("%w: %#04x", ErrExtensionNotListed, uint16(e.Type))
		}
	}
	return nil
}

// covers tells whether leaves that are fit for q are fit for next.
func (q *requirements) covers(next *requirements) bool {
	if q == next {
		return true
	}
	if !bytes.Equal(q.extensions, next.extensions) || !bytes.Equal(q.proposals, next.proposals) ||
		!bytes.Equal(q.credentials, next.credentials) {
		return false
	}
	for _, e := range next.inContext {
		if _, ok := extensionData(q.inContext, e.Type); !ok {
			return false
		}
	}
	return true
}
