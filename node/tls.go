package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/go-xmtp/go-xmtp/node/internal/front"
)

// TLS says where the node's certificate comes from: from files, or from an
// authority that gives them out by ACME (RFC 8555). Without either, the node
// speaks cleartext.
type TLS struct {
	// CertFile and KeyFile are PEM files with the certificate chain and its key.
	// They may be replaced while the node is running; new connections get the new
	// certificate, or the old one if the new one can't be used.
	CertFile, KeyFile string
	// Domains are the names that certificates are asked for. Clients must use one of
	// them, and the authority must reach the node on port 443 of each (tls-alpn-01).
	// Who sets it agrees to the authority's terms.
	Domains []string
	// Cache is the directory that these certificates and their keys are kept in. It
	// is needed with Domains, since authorities limit how often they are asked.
	Cache string
	// Email is where the authority can reach who runs the node; it may be empty.
	Email string
	// Directory is the URL of the authority; Let's Encrypt's if empty.
	Directory string
}

func (t *TLS) check() error {
	files, domains := t.CertFile != "" || t.KeyFile != "", len(t.Domains) > 0
	switch {
	case files && domains:
		return errors.New("node: both TLS files and domains for ACME were given: choose one")
	case files && (t.CertFile == "" || t.KeyFile == ""):
		return errors.New("node: TLS needs both a certificate and its key")
	case domains && t.Cache == "":
		return errors.New("node: certificates by ACME need a directory to be kept in")
	case domains && slices.Contains(t.Domains, ""):
		return errors.New("node: a domain for ACME is empty")
	}
	return nil
}

// certificates are ready for use until their context ends.
type certificates struct {
	config *tls.Config // nil: cleartext
	// obtain gets what isn't there yet, if that needs others.
	obtain func()
}

func (t *TLS) certificates(running context.Context, logger *slog.Logger) (certificates, error) {
	if err := t.check(); err != nil {
		return certificates{}, err
	}
	switch {
	case t.CertFile != "":
		files, err := front.LoadCertificate(t.CertFile, t.KeyFile, logger)
		if err != nil {
			return certificates{}, fmt.Errorf("node: %w", err)
		}
		return certificates{&tls.Config{GetCertificate: files.Get, NextProtos: front.Protocols}, func() {}}, nil
	case len(t.Domains) > 0:
		return t.acme(running, logger), nil
	default:
		return certificates{nil, func() {}}, nil
	}
}

func (t *TLS) acme(running context.Context, logger *slog.Logger) certificates {
	network := http.DefaultTransport.(*http.Transport).Clone()
	context.AfterFunc(running, network.CloseIdleConnections)
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(t.Cache),
		HostPolicy: autocert.HostWhitelist(t.Domains...),
		Email:      t.Email,
		Client:     &acme.Client{DirectoryURL: t.Directory, HTTPClient: &http.Client{Transport: ending{network, running}}},
	}
	if t.Directory == "" {
		manager.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	config := &tls.Config{
		GetCertificate: manager.GetCertificate,
		NextProtos:     append(slices.Clone(front.Protocols), acme.ALPNProto),
	}
	return certificates{config, func() {
		for _, domain := range t.Domains {
			// What all clients can use.
			_, err := manager.GetCertificate(&tls.ClientHelloInfo{
				ServerName:   domain,
				CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			})
			switch {
			case running.Err() != nil:
				return
			case err != nil:
				logger.Error("no TLS certificate; it is tried again when a client connects", "domain", domain, "error", err)
			default:
				logger.Info("TLS certificate is there", "domain", domain)
			}
		}
	}}
}

// ending ends requests with a context, which the manager has no way to be told.
type ending struct {
	base    http.RoundTripper
	running context.Context
}

// maxACMEBytes is more than any answer of an authority.
const maxACMEBytes = 1 << 20

// RoundTrip reads the whole answer, while the context can still end it.
func (e ending) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	defer context.AfterFunc(e.running, cancel)()
	res, err := e.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxACMEBytes))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}
