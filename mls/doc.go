// Package mls is Messaging Layer Security, RFC 9420: end-to-end encrypted groups
// with forward secrecy and post-compromise security. It knows nothing of XMTP, whose
// implementation it is a part of, and needs neither network nor disk.
//
// Beside this reference, the repository has a guide (docs/mls.md), a threat model
// (docs/mls-threats.md) and measurements (docs/mls-benchmarks.md).
//
// # Members, groups, messages
//
// A [Client] is who one is in groups. It publishes key packages ([NewKeyPackage])
// so that others can add it. A group begins with [New]; its members add others by
// [Group.Commit], and these come in by [Join] with the Welcome that the commit makes.
// [Group.Encrypt] makes application messages, [Group.Process] takes in all that
// others send: application messages, proposals and commits. Everything that is sent
// is an encoded MLSMessage; bringing it to the others, commits in one order to all,
// is up to the application, which is also the one that judges credentials
// ([Authenticator]). Who isn't a member can join by a commit of its own
// ([JoinExternal]) or make proposals ([OutsideProposal]). A group can go on in another
// one ([Group.Reinitialize]), and some of its members in a branch ([Group.Branch]).
//
// A server that brings the messages can follow a group whose handshakes are public
// without any secret, and judge them ([Follower]).
//
// A commit, one's own or another's, is worked out before it takes effect: see
// [StagedCommit].
//
// # State
//
// The package stores nothing. Each call that changes a group returns a [Pending]
// with the few [Record] values that change; the application writes them in one
// transaction, along with what belongs to them, and then calls Done. [Load] makes
// the group again from all its records. Nothing may be sent whose records are not
// stored, or a restart could use a key twice.
//
//	p, err := group.Encrypt(text, nil)
//	if err != nil {
//		return err
//	}
//	defer p.Discard() // if the transaction fails, the group is as before
//	if err := db.Write(p.Changes(), p.Result()); err != nil {
//		return err
//	}
//	send(p.Done())
//
// Records hold the group's secrets: store them encrypted, and overwrite what is
// deleted, since the forward secrecy of a thief's finds depends on it. What one version
// of this package has stored each later one loads; an earlier one refuses it by
// [ErrNewerState].
//
// A [Group] is used by one goroutine at a time; different groups are independent.
//
// # Scope
//
// The package is all of the RFC, with cipher suites 1, 2, 3, 5 and 7; package x448 has
// 4 and 6, and there are post-quantum ones ([XWingAES128SHA256Ed25519]). Of
// draft-ietf-mls-extensions it has SelfRemove, application data in the group context
// ([UnresolvedCommit]) and in commits ([AppEphemeral]), the pre-shared keys of components
// and the forward-secure exporter ([Group.SafeExport]). Credentials are judged by the
// application, X.509 chains too ([Credential.Certificates]).
//
// Section signs (§) in this package are sections of RFC 9420.
package mls
