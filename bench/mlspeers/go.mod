module github.com/go-xmtp/go-xmtp/bench/mlspeers

go 1.26.4

require (
	github.com/emersion/go-mls v0.0.0
	github.com/go-xmtp/go-xmtp v0.0.0
	github.com/thomas-vilte/mls-go v0.0.0
	github.com/trevex/mls-go v0.0.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/cloudflare/circl v1.6.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace (
	github.com/emersion/go-mls => ./.peers/emersion
	github.com/go-xmtp/go-xmtp => ../..
	github.com/thomas-vilte/mls-go => ./.peers/thomas-vilte
	github.com/trevex/mls-go => ./.peers/trevex
)
