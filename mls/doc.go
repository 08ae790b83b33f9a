// Package mls is Messaging Layer Security, RFC 9420: end-to-end encrypted groups
// with forward secrecy and post-compromise security.
//
// Section signs (§) in this package are sections of RFC 9420.
package mls
