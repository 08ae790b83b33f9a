package network

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dialAgain is after how long a second attempt to connect is made beside one that has
	// had no answer: while packets get lost TCP itself tries less and less often, and
	// would come late when they don't any more.
	dialAgain = 500 * time.Millisecond
	// dialTimeout bounds how long there is no answer.
	dialTimeout = 5 * time.Second
)

// conn is a connection that tells when something came over it, and when it is closed.
type conn struct {
	net.Conn
	opened time.Time
	read   atomic.Int64 // when something came last, in nanoseconds after opened; 0 for never
	once   sync.Once
	closed chan struct{}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.read.Store(max(1, int64(time.Since(c.opened))))
	}
	return n, err
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// lastRead returns when something came last, or when it was opened.
func (c *conn) lastRead() time.Time { return c.opened.Add(time.Duration(c.read.Load())) }

// silent tells whether nothing has ever come.
func (c *conn) silent() bool { return c.read.Load() == 0 }

// dialing opens connections, and knows the one that was opened last.
type dialing struct {
	dial Dialer
	// opened, if not nil, is told of each.
	opened func()
	last   atomic.Pointer[conn]
}

func (d *dialing) open(ctx context.Context, address string) (net.Conn, error) {
	raw, err := d.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, opened: time.Now(), closed: make(chan struct{})}
	d.last.Store(c)
	d.opened()
	return c, nil
}

// current returns the connection that is open, nil if there is none.
func (d *dialing) current() *conn {
	c := d.last.Load()
	if c == nil {
		return nil
	}
	select {
	case <-c.closed:
		return nil
	default:
		return c
	}
}

// persistent makes further attempts beside those of dial that have no answer. What
// comes first counts, also if it is an error.
func persistent(dial Dialer) Dialer {
	return func(ctx context.Context, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		type result struct {
			conn net.Conn
			err  error
		}
		results := make(chan result)
		var attempts sync.WaitGroup
		defer attempts.Wait()
		defer cancel()
		attempt := func() {
			conn, err := dial(ctx, address)
			select {
			case results <- result{conn, err}:
			case <-ctx.Done():
				if err == nil {
					conn.Close()
				}
			}
		}
		again := time.NewTicker(dialAgain)
		defer again.Stop()
		for {
			attempts.Go(attempt)
			select {
			case r := <-results:
				return r.conn, r.err
			case <-again.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// dialTCP connects to an address, through a proxy if the environment asks for one.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	// A resolver of its own, as attempts of one wait for each other's answer.
	d := net.Dialer{Resolver: &net.Resolver{}}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: address}})
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	host := proxy.Host
	if proxy.Port() == "" {
		host = net.JoinHostPort(proxy.Hostname(), "80")
	}
	raw, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	tunnel, err := connect(ctx, raw, address, proxy.User)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("by the proxy %s: %w", host, err)
	}
	return tunnel, nil
}

// connect asks a proxy for a connection (RFC 9110 §9.3.6).
func connect(ctx context.Context, raw net.Conn, address string, user *url.Userinfo) (net.Conn, error) {
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: address}, Host: address, Header: http.Header{}}
	if user != nil {
		password, _ := user.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := request.Write(raw); err != nil {
		return nil, err
	}
	r := bufio.NewReader(raw)
	response, err := http.ReadResponse(r, request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("no connection to %s: %s", address, response.Status)
	}
	return tunnel{raw, r}, nil
}

// tunnel reads first what came with a proxy's answer.
type tunnel struct {
	net.Conn
	r io.Reader
}

func (t tunnel) Read(b []byte) (int, error) { return t.r.Read(b) }
