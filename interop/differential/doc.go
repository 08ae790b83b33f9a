// Package differential compares our mls with ts-mls, an implementation of RFC 9420 by
// others: random groups of both, and every message of them also damaged in thousands of
// ways, some by a member who has the keys to make the damage look signed. Both have to
// judge all of them alike, but for differences that are listed with who is right.
//
// The forger in the tests has an encoding and a key schedule of its own, so that what it
// makes doesn't depend on either of the two. docs/mls-differential.md tells more.
package differential
