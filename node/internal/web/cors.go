package web

import "net/http"

// What scripts of any page may do. The node has no cookies and trusts nobody for
// where he comes from, so there is nothing to protect by origin.
const (
	exposedHeaders = "grpc-status,grpc-message,grpc-status-details-bin"
	allowedMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	// allowedHeaders are those that official clients are allowed by the
	// reference deployment, and the two of the Connect protocol.
	allowedHeaders = "keep-alive, user-agent, cache-control, content-type, content-transfer-encoding, accept, authorization, " +
		"x-accept-content-transfer-encoding, x-accept-response-streaming, x-user-agent, x-grpc-web, grpc-timeout, " +
		"x-client-version, x-app-version, x-libxmtp-version, baggage, dnt, sec-ch-ua, sec-ch-ua-mobile, " +
		"sec-ch-ua-platform, sentry-trace, connect-protocol-version, connect-timeout-ms"
	preflightSeconds = "86400"
)

// allowOrigins sets the headers by which browsers let scripts of other origins
// see the response (CORS). It is false if that was all that was asked.
func allowOrigins(w http.ResponseWriter, r *http.Request) bool {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Expose-Headers", exposedHeaders)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return true
	}
	header.Set("Access-Control-Allow-Methods", allowedMethods)
	header.Set("Access-Control-Allow-Headers", allowedHeaders)
	header.Set("Access-Control-Max-Age", preflightSeconds)
	w.WriteHeader(http.StatusNoContent)
	return false
}
