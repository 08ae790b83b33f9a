// Package proto holds the definitions of XMTP's public API. The .proto files
// below xmtp/ are written here; package, message and field names, numbers and
// types are those of the network. The Go code in gen/ is made from them.
package proto

//go:generate go run ./internal/protogen
