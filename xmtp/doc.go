// Package xmtp is a client of XMTP, a network for end-to-end encrypted messages
// between wallets.
//
// A [Client] is one installation of a user's inbox: one device. [NewClient]
// registers it with a wallet's signature the first time and opens it without one
// after that. Its state is in a database, which is encrypted and which one process
// has open at a time. [Client.DM] and [Client.NewGroup] begin conversations,
// [Client.StreamAllMessages] brings what others send.
//
// Everything is end-to-end encrypted with MLS (RFC 9420), in groups as in direct
// messages; nodes see neither content nor lists of members. Clients made with the
// official SDKs can't tell the difference.
//
// # Inboxes
//
// A user is an inbox: wallets and passkeys by which he is found and which sign for
// it, and devices. Where a method asks for users, they are given by inbox id, by
// Ethereum address, or by a passkey's public key in hex. What an inbox is made of is
// public ([Client.InboxStates]); that nobody has slipped a device in, people make sure
// of by comparing its fingerprint ([InboxState.Fingerprint]).
//
// # Groups
//
// Who may change what in a group is said by its [Permissions]; whoever is not
// allowed to is refused by his own client, and by everybody else's. Methods that
// change a group return once the change is part of it. If somebody else changes the
// group at the same time, the change is made again on top of that. Errors: with
// [ErrNotPermitted] and other reasons that are [ErrRefused], [ErrRemoved] and
// [ErrPaused] nothing comes of it; with [ErrNotPublished] it is made later.
// What has changed stands among the messages: [content.Encoded.GroupUpdated].
//
// # Consent
//
// Anybody can write to anybody, so each user decides whom he wants to hear of:
// [Client.SetConsent]. Who creates a conversation or sends in it wants it. Lists and
// streams leave out conversations that were denied.
//
// # What lasts
//
// What a method has returned without error is on disk. A message that could not
// be published stays in an outbox in the database and is published later, in
// order, in the same bytes, also after a crash; [ErrNotPublished] tells of it. The
// database must not be copied and used twice, nor restored from an old copy: that
// is noticed, and ends the use of the conversation on this device
// ([ErrStateRolledBack]).
//
// The database's encryption hides its content; it does not reveal changes made by
// somebody who can write the file.
package xmtp
