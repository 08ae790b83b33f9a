package front

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
)

// Protocols are the names that TLS has for what is served (ALPN).
var Protocols = []string{protocolHTTP2, protocolHTTP1}

const (
	protocolHTTP2 = "h2"
	protocolHTTP1 = "http/1.1"
)

// offering is a connection that knows what its client can speak.
type offering struct {
	net.Conn
	protocols []string
}

// recording returns a configuration that notes what clients offer.
func recording(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		hello.Conn.(*offering).protocols = hello.SupportedProtos
		return nil, nil
	}
	return c
}

// handshake looks at what the client offers. One that knows nothing but HTTP/2
// speaks gRPC; one that can also do without is a browser or a tool.
func (f *Front) handshake(conn net.Conn) (*Listener, net.Conn) {
	client := &offering{Conn: conn}
	session := tls.Server(client, f.config.TLS)
	if err := session.HandshakeContext(context.Background()); err != nil {
		if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && e.Conn != nil && isHTTP(e.RecordHeader[:]) {
			// Lost only if the caller is gone.
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis node speaks TLS: use https.\n")
		}
		return nil, nil
	}
	switch session.ConnectionState().NegotiatedProtocol {
	case protocolHTTP2:
		if !slices.Contains(client.protocols, protocolHTTP1) {
			return f.grpc, session
		}
		return f.web, session
	case protocolHTTP1, "":
		return f.web, session
	default: // such as a certificate authority's, which has seen what it wanted
		return nil, nil
	}
}

// isHTTP recognises HTTP/1 without TLS by its first bytes.
func isHTTP(head []byte) bool {
	switch string(head[:min(4, len(head))]) {
	case "GET ", "HEAD", "POST", "PUT ", "OPTI":
		return true
	}
	return false
}
