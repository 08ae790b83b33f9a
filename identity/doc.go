// Package identity is everything an XMTP inbox is made of: the identifiers
// that belong to it, the signed updates that change it, and the association
// state that follows from replaying them.
//
// An inbox has an id, a set of members (wallets, passkeys, installations) and
// one recovery identifier. It exists only as a log of identity updates. Each
// update carries actions and, for each action, signatures over one text that
// a person can read. Everybody who cares replays the whole log:
//
//	verified, err := identity.Verify(ctx, update, contracts) // signatures
//	state, err = state.Apply(verified)                       // rules
//
// [Verify] does what costs time or needs a chain; its result holds verified
// facts only and can be stored. [State.Apply] is a pure function of these
// facts, so every replica of a node that folds the same log has the same
// state. A log with one update that fails is invalid as a whole.
//
// A client composes an update with [NewSignatureRequest].
//
// The package is deterministic, does no input or output, and never panics on
// what it is given. Its verdicts equal those of the reference implementation;
// so do the texts and codes of its errors ([ErrorCode]), because clients and
// other nodes match on them.
package identity
