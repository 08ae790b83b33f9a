// Package protocol says how XMTP uses MLS (RFC 9420): what a group's extensions
// hold, who may change what in a group, how a welcome and a message are wrapped,
// and which commits all members agree to apply.
//
// The state of a group beside its ratchet tree is a [GroupState]. It lives in the
// extensions of the MLS GroupContext, so every change of it is a commit, and every
// member judges every commit by [CheckCommit] before merging it. The judgement is
// that of the official client, libxmtp 1.10, rule by rule: a member who accepts
// less or more than the others loses the group. What would be worth refusing but
// is not refused by others comes as a [Warning].
//
// The package is pure: no network, no disk. The logs of inboxes, by which commits
// and welcomes are judged, come from a [Directory] of the caller.
package protocol
