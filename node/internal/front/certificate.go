package front

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// A Certificate is one in two files, which may be replaced while it is in use.
type Certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	// seen is what the files had in them at the last look, or why they couldn't
	// be read, so that each change is looked at, and logged, once.
	seen [sha256.Size]byte
}

// LoadCertificate reads a certificate chain and its key, both in PEM.
func LoadCertificate(certFile, keyFile string, logger *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	if _, err := c.look(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get returns what is in the files, or was in them before they became unusable.
// It has the signature of [tls.Config.GetCertificate]. Reading two small files is
// little beside a handshake, and needs neither clock nor goroutine.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.look()
	switch {
	case err != nil && changed:
		c.logger.Error("the new TLS certificate can't be used; the old one stays", "error", err)
	case changed:
		c.logger.Info("TLS certificate replaced", "until", c.current.Leaf.NotAfter)
	}
	return c.current, nil
}

// look reads the files again and takes what is new, unless it can't be used.
func (c *Certificate) look() (changed bool, err error) {
	cert, certErr := os.ReadFile(c.certFile)
	key, keyErr := os.ReadFile(c.keyFile)
	defer clear(key)
	sum := sha256.New()
	fmt.Fprintf(sum, "%v %v %d ", certErr, keyErr, len(cert))
	sum.Write(cert)
	sum.Write(key)
	seen := [sha256.Size]byte(sum.Sum(nil))
	if seen == c.seen {
		return false, nil
	}
	c.seen = seen
	switch {
	case certErr != nil:
		return true, fmt.Errorf("TLS certificate: %w", certErr)
	case keyErr != nil:
		return true, fmt.Errorf("TLS key: %w", keyErr)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return true, fmt.Errorf("TLS certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current = &pair
	return true, nil
}
