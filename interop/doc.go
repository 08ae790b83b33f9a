// Package interop tests the node and the client SDK against other people's software: the
// official XMTP SDKs, unmodified, as they come from the package registry.
//
// Each scenario runs on its own node with each SDK version that it is for. The tests need
// Node.js 20 or newer, npm, and a registry to install from; what this machine can't have
// is skipped by name, and is a failure where CI=true. XMTP_PROOF=1 adds the long ones.
// XMTP_SUMMARY names a file to which one line a scenario and version is appended.
package interop
