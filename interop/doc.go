// Package interop tests the node and the client SDK against other people's software: the
// official XMTP SDKs, unmodified, as they come from the package registry.
//
// Each scenario runs on its own node with each SDK version that it is for. The tests need
// Node.js 20 or newer, npm, and a registry to install from; what this machine can't have
// is skipped by name, and is a failure where CI=true. XMTP_PROOF=1 adds the long ones.
// XMTP_SUMMARY names a file to which one line a scenario and version is appended.
//
// The official SDKs' own suites run in that tier too, where XMTP_JS_SUITE names a clone of
// the GitHub repository xmtp/xmtp-js and LIBXMTP_SUITE one of xmtp/libxmtp, with tags.
// They use the node's default port 5556, and 8475 and 6010 for a proxy.
package interop
