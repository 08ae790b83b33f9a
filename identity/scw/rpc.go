package scw

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// gas is more than any wallet in use needs, and less than endpoints allow.
	gas = 16_000_000
	// maxAnswer is the longest answer that is read. Those that are asked for are
	// a hundred bytes long; some endpoints explain their errors at length.
	maxAnswer = 64 << 10
	// codeReverted is the code of an execution that was reverted, where
	// endpoints agree on one.
	codeReverted = 3
)

// Why a chain gave no verdict; compare with [errors.Is]. All of them may be
// different the next time.
var (
	// ErrUnknownChain: no endpoint is configured for the chain.
	ErrUnknownChain = errors.New("no RPC endpoint is configured for this chain")
	// ErrBusy: too many questions wait for the chain already.
	ErrBusy = errors.New("too many signatures of this chain are being checked")
	// ErrTimeout: the endpoint did not answer in time.
	ErrTimeout = errors.New("the chain's RPC endpoint did not answer in time")
	// ErrUnreachable: there was no connection, or it broke.
	ErrUnreachable = errors.New("the chain's RPC endpoint can't be reached")
	// ErrStatus: the endpoint answered with another HTTP status than 200, the
	// error's code. Redirects are not followed.
	ErrStatus = errors.New("the chain's RPC endpoint answered with an HTTP status")
	// ErrRPC: the endpoint answered with a JSON-RPC error, whose code is the
	// error's. An execution that was reverted is none.
	ErrRPC = errors.New("the chain's RPC endpoint answered with a JSON-RPC error")
	// ErrMalformed: the answer was too long, or not one to the question.
	ErrMalformed = errors.New("the answer of the chain's RPC endpoint can't be used")
)

// Error tells why a chain gave no verdict. It holds nothing of the endpoint's
// URL, which is often a secret, nor of what the endpoint wrote: anybody may see it.
type Error struct {
	Chain string // CAIP-2, "eip155:8453"
	Code  int    // of [ErrStatus] and [ErrRPC], else 0
	Err   error  // one of the above
}

func (e *Error) Error() string {
	if e.Code != 0 {
		return fmt.Sprintf("scw: %s: %v (%d)", e.Chain, e.Err, e.Code)
	}
	return fmt.Sprintf("scw: %s: %v", e.Chain, e.Err)
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// endpoint is where a chain is asked.
type endpoint struct {
	chain   string
	url     string
	client  *http.Client
	timeout time.Duration
	logger  *slog.Logger
	secrets *strings.Replacer

	queue chan struct{} // holds a token for each question, under way or waiting
	calls chan struct{} // holds a token for each call
	ids   atomic.Uint64
}

// newEndpoint refuses what is not the URL of an endpoint, without repeating it.
func newEndpoint(chain, text string, o Options) (*endpoint, error) {
	number, ok := strings.CutPrefix(chain, "eip155:")
	if n, err := strconv.ParseUint(number, 10, 64); !ok || err != nil || strconv.FormatUint(n, 10) != number {
		return nil, fmt.Errorf("scw: chain %.50q: want eip155: and a decimal number, such as eip155:1", chain)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("scw: the URL of %s is none: want https://host/path or http://host:port", chain)
	}
	return &endpoint{
		chain:   chain,
		url:     text,
		client:  newClient(o.Concurrency),
		timeout: o.Timeout,
		logger:  o.Logger,
		secrets: strings.NewReplacer(secretsOf(u)...),
		queue:   make(chan struct{}, o.Concurrency*(1+waitingPerCall)),
		calls:   make(chan struct{}, o.Concurrency),
	}, nil
}

func newClient(concurrency int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			MaxConnsPerHost:        concurrency,
			MaxIdleConnsPerHost:    concurrency,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxAnswer,
			DisableCompression:     true, // so that the length of an answer is what was received
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// secretsOf lists what must not be repeated of a URL, each with what is written instead.
func secretsOf(u *url.URL) []string {
	found := []string{u.String(), u.Host, u.Hostname(), u.RawQuery, u.EscapedPath(), u.Path, u.Fragment}
	if u.User != nil {
		password, _ := u.User.Password()
		found = append(found, u.User.String(), u.User.Username(), password)
	}
	found = append(found, strings.Split(u.Path, "/")...)
	for _, values := range u.Query() {
		found = append(found, values...)
	}
	// The whole before its parts.
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range found {
		if len(s) > 3 { // "/", "v1", "rpc"
			pairs = append(pairs, s, "…")
		}
	}
	return pairs
}

// ask runs do with a call's share of the endpoint: one of few at a time, and
// not for ever.
func (e *endpoint) ask(ctx context.Context, do func(context.Context) error) error {
	select {
	case e.queue <- struct{}{}:
		defer func() { <-e.queue }()
	default:
		return &Error{Chain: e.chain, Err: ErrBusy}
	}
	limited, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	select {
	case e.calls <- struct{}{}:
		defer func() { <-e.calls }()
	case <-limited.Done():
		return e.ended(ctx)
	}
	err := do(limited)
	if err != nil && limited.Err() != nil {
		return e.ended(ctx)
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return e.tell(f)
	}
	return err
}

// ended is the error of a call whose time is over, or that nobody waits for any more.
func (e *endpoint) ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return e.tell(e.fail(ErrTimeout, 0, ""))
}

// failure is an error with what only whoever runs this may know of it.
type failure struct {
	public *Error
	detail string
}

func (f *failure) Error() string { return f.public.Error() }

func (e *endpoint) fail(err error, code int, detail string) *failure {
	return &failure{&Error{Chain: e.chain, Code: code, Err: err}, detail}
}

// tell logs a failure and returns what may be seen of it.
func (e *endpoint) tell(f *failure) error {
	detail := e.secrets.Replace(f.detail)
	e.logger.Warn("a chain can't be asked", "error", f.public, "detail", detail[:min(len(detail), 200)])
	return f.public
}

// newest asks for the number of the newest block.
func (e *endpoint) newest(ctx context.Context) (block uint64, err error) {
	err = e.ask(ctx, func(ctx context.Context) error {
		text, _, err := e.call(ctx, "eth_blockNumber")
		if err != nil {
			return err
		}
		digits, ok := strings.CutPrefix(text, "0x")
		if block, err = strconv.ParseUint(digits, 16, 64); err != nil || !ok {
			return e.fail(ErrMalformed, 0, "no block number")
		}
		return nil
	})
	return block, err
}

// create runs creation code on the state after a block and tells whether it
// answers 1.
func (e *endpoint) create(ctx context.Context, code []byte, block uint64) (yes bool, err error) {
	err = e.ask(ctx, func(ctx context.Context) error {
		transaction := map[string]string{
			"data": "0x" + hex.EncodeToString(code),
			"gas":  quantity(gas),
		}
		text, reverted, err := e.call(ctx, "eth_call", transaction, quantity(block))
		switch {
		case err != nil:
			return err
		case reverted || text == "0x00":
			return nil
		case text == "0x01":
			yes = true
			return nil
		}
		return e.fail(ErrMalformed, 0, "no verdict")
	})
	return yes, err
}

func quantity(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

// call is one JSON-RPC call whose result is a string.
func (e *endpoint) call(ctx context.Context, method string, params ...any) (result string, reverted bool, err error) {
	if params == nil {
		params = []any{}
	}
	id := e.ids.Add(1)
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	if err != nil {
		return "", false, fmt.Errorf("scw: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return "", false, e.fail(ErrUnreachable, 0, "no request can be made of the URL")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := e.client.Do(request)
	if err != nil {
		return "", false, e.fail(ErrUnreachable, 0, withoutURL(err).Error())
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", false, e.fail(ErrStatus, response.StatusCode, "")
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return "", false, e.fail(ErrUnreachable, 0, err.Error())
	}
	if len(answer) > maxAnswer {
		return "", false, e.fail(ErrMalformed, 0, "it is too long")
	}
	return e.parse(answer, id)
}

func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// parse reads the answer to the call id.
func (e *endpoint) parse(answer []byte, id uint64) (result string, reverted bool, err error) {
	var reply struct {
		ID     json.RawMessage `json:"id"`
		Result *string         `json:"result"`
		Error  *struct {
			Code    int             `json:"code"`
			Message string          `json:"message"`
			Data    json.RawMessage `json:"data"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return "", false, e.fail(ErrMalformed, 0, "it is not that of JSON-RPC")
	}
	if failure := reply.Error; failure != nil {
		// Endpoints that don't use the code say so in either text.
		said := strings.ToLower(failure.Message + string(failure.Data))
		if failure.Code == codeReverted || strings.Contains(said, "reverted") {
			return "", true, nil
		}
		return "", false, e.fail(ErrRPC, failure.Code, failure.Message)
	}
	if string(reply.ID) != strconv.FormatUint(id, 10) || reply.Result == nil {
		return "", false, e.fail(ErrMalformed, 0, "it is to another call, or has no result")
	}
	return *reply.Result, false, nil
}
