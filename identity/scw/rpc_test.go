package scw

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	testChain   = "eip155:1"
	testAccount = testChain + ":0x1234567890abcdef1234567890abcdef12345678"
)

var testSignature = bytes.Repeat([]byte{7}, 65)

// call is what an endpoint is asked.
type call struct {
	JSONRPC string            `json:"jsonrpc"`
	ID      json.RawMessage   `json:"id"`
	Method  string            `json:"method"`
	Params  []json.RawMessage `json:"params"`
}

// answer is the usual one, with a result.
func answer(result string) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, c call) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, c.ID, result)
	}
}

// fault answers with an error object.
func fault(object string) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, c call) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":%s}`, c.ID, object)
	}
}

// raw answers with just that.
func raw(text string) func(http.ResponseWriter, call) {
	return func(w http.ResponseWriter, _ call) { io.WriteString(w, text) }
}

// serve runs an endpoint, which answers with the number of the newest block by itself.
func serve(t *testing.T, handle func(http.ResponseWriter, call)) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c call
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &c)
		}
		if err != nil || r.Method != http.MethodPost || c.JSONRPC != "2.0" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("a bad request: %v, %s %s", err, r.Method, body)
			return
		}
		if c.Method == "eth_blockNumber" && len(c.Params) == 0 {
			answer(`"0x7b"`)(w, c)
			return
		}
		handle(w, c)
	}))
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, o Options) *Verifier {
	t.Helper()
	v, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func openURL(t *testing.T, url string) *Verifier {
	t.Helper()
	return open(t, Options{Endpoints: map[string]string{testChain: url}})
}

func ask(ctx context.Context, v *Verifier, block *uint64) (bool, uint64, error) {
	return v.VerifyContractSignature(ctx, testAccount, [32]byte{1}, testSignature, block)
}

// What an endpoint says decides, and what is no verdict is an error of its kind.
func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		handle func(http.ResponseWriter, call)
		valid  bool
		err    error
		code   int
	}{
		{"yes", answer(`"0x01"`), true, nil, 0},
		{"no", answer(`"0x00"`), false, nil, 0},
		{"reverted", fault(`{"code":3,"message":"execution reverted"}`), false, nil, 0},
		{"reverted with data", fault(`{"code":3,"message":"execution reverted: why","data":"0x08c379a0"}`), false, nil, 0},
		{"reverted with data that says yes", fault(`{"code":3,"message":"execution reverted","data":"0x01"}`), false, nil, 0},
		{"reverted, an object as data", fault(`{"code":3,"message":"","data":{"reason":"why"}}`), false, nil, 0},
		{"reverted, Nethermind", fault(`{"code":-32015,"message":"VM execution error.","data":"Reverted 0x"}`), false, nil, 0},
		{"reverted, Besu", fault(`{"code":-32000,"message":"Execution reverted"}`), false, nil, 0},
		{"a block that isn't there", fault(`{"code":-32000,"message":"header not found"}`), false, ErrRPC, -32000},
		{"a block of long ago", fault(`{"code":-32000,"message":"missing trie node"}`), false, ErrRPC, -32000},
		{"out of gas", fault(`{"code":-32000,"message":"out of gas"}`), false, ErrRPC, -32000},
		{"too many requests", fault(`{"code":-32005,"message":"daily request count exceeded"}`), false, ErrRPC, -32005},
		{"error for no call", raw(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}`), false, ErrRPC, -32700},
		{"error and result", raw(`{"jsonrpc":"2.0","id":1,"result":"0x01","error":{"code":-1,"message":""}}`), false, ErrRPC, -1},
		{"no result", answer(`null`), false, ErrMalformed, 0},
		{"a number as result", answer(`1`), false, ErrMalformed, 0},
		{"nothing as result", answer(`"0x"`), false, ErrMalformed, 0},
		{"a word as result", answer(`"0x` + strings.Repeat("0", 63) + `1"`), false, ErrMalformed, 0},
		{"another verdict", answer(`"0x02"`), false, ErrMalformed, 0},
		{"the id of another call", raw(`{"jsonrpc":"2.0","id":77,"result":"0x01"}`), false, ErrMalformed, 0},
		{"no id", raw(`{"jsonrpc":"2.0","result":"0x01"}`), false, ErrMalformed, 0},
		{"a batch", raw(`[{"jsonrpc":"2.0","id":1,"result":"0x01"}]`), false, ErrMalformed, 0},
		{"no JSON", raw(`<html>sign in</html>`), false, ErrMalformed, 0},
		{"nothing", raw(``), false, ErrMalformed, 0},
		{"more than was asked for", raw(`{"jsonrpc":"2.0","id":1,"result":"0x01"} {}`), false, ErrMalformed, 0},
		{"a giant", func(w http.ResponseWriter, _ call) {
			for range 1000 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return // the asker has had enough
				}
			}
		}, false, ErrMalformed, 0},
		{"not found", func(w http.ResponseWriter, _ call) { w.WriteHeader(404) }, false, ErrStatus, 404},
		{"no content", func(w http.ResponseWriter, _ call) { w.WriteHeader(204) }, false, ErrStatus, 204},
		{"too many requests, HTTP", func(w http.ResponseWriter, _ call) { w.WriteHeader(429) }, false, ErrStatus, 429},
		{"unavailable", func(w http.ResponseWriter, _ call) { w.WriteHeader(503) }, false, ErrStatus, 503},
		{"unavailable, with a verdict", func(w http.ResponseWriter, c call) {
			w.WriteHeader(500)
			answer(`"0x01"`)(w, c)
		}, false, ErrStatus, 500},
		{"cut short", func(w http.ResponseWriter, c call) {
			w.Header().Set("Content-Length", "1000")
			answer(`"0x01"`)(w, c)
		}, false, ErrUnreachable, 0},
		{"broken", func(http.ResponseWriter, call) { panic(http.ErrAbortHandler) }, false, ErrUnreachable, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := openURL(t, serve(t, tc.handle).URL)
			valid, asked, err := ask(t.Context(), v, new(uint64(5)))
			if valid != tc.valid || asked != 5 {
				t.Errorf("valid: %v at %d", valid, asked)
			}
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if failure, ok := errors.AsType[*Error](err); tc.err != nil && (!ok || failure.Chain != testChain || failure.Code != tc.code) {
				t.Errorf("got %#v, want code %d", err, tc.code)
			}
		})
	}
}

// The question is one eth_call, that creates and has a bound on its gas, at the
// block that was named, also if that is 0.
func TestCall(t *testing.T) {
	var got call
	v := openURL(t, serve(t, func(w http.ResponseWriter, c call) { got = c; answer(`"0x01"`)(w, c) }).URL)
	for _, tc := range []struct {
		block *uint64
		want  string
		asked uint64
	}{{new(uint64(0)), `"0x0"`, 0}, {new(uint64(255)), `"0xff"`, 255}, {new(^uint64(0)), `"0xffffffffffffffff"`, ^uint64(0)}, {nil, `"0x7b"`, 123}} {
		valid, asked, err := ask(t.Context(), v, tc.block)
		if err != nil || !valid || asked != tc.asked {
			t.Fatalf("valid: %v at %d, %v", valid, asked, err)
		}
		var transaction map[string]string
		if err := json.Unmarshal(got.Params[0], &transaction); err != nil {
			t.Fatal(err)
		}
		if got.Method != "eth_call" || len(got.Params) != 2 || string(got.Params[1]) != tc.want ||
			len(transaction) != 2 || transaction["gas"] != "0xf42400" || !strings.HasPrefix(transaction["data"], fmt.Sprintf("%#x", validator)) {
			t.Errorf("called %s", got.Params)
		}
	}
}

// The newest block's number may be something else, too.
func TestNewestBlock(t *testing.T) {
	for _, result := range []string{`"7b"`, `"0x"`, `"0x1ffffffffffffffff"`, `123`, `null`} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var c call
			if err := json.NewDecoder(r.Body).Decode(&c); err != nil || c.Method != "eth_blockNumber" {
				t.Errorf("called %s, %v", c.Method, err)
			}
			answer(result)(w, c)
		}))
		v := openURL(t, s.URL)
		if valid, _, err := ask(t.Context(), v, nil); valid || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", result, valid, err)
		}
		s.Close()
	}
}

// A redirect is an answer that can't be used: nobody else is told the question.
func TestRedirect(t *testing.T) {
	var told atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told.Store(true) }))
	t.Cleanup(elsewhere.Close)
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, _ call) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(code)
		})
		valid, _, err := ask(t.Context(), openURL(t, s.URL), new(uint64(1)))
		if failure, ok := errors.AsType[*Error](err); valid || !ok || failure.Code != code {
			t.Errorf("%d: %v, %v", code, valid, err)
		}
	}
	if told.Load() {
		t.Error("a redirect was followed")
	}
}

// An endpoint that hangs, or sends its answer drop by drop, is given up in time.
func TestSlow(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(w, " ")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Millisecond):
			}
		}
	}
	for name, handle := range map[string]http.HandlerFunc{"hangs": hang, "drips": drip} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				handle(w, r)
			}))
			t.Cleanup(s.Close)
			v := open(t, Options{Endpoints: map[string]string{testChain: s.URL}, Timeout: 50 * time.Millisecond})
			for _, block := range []*uint64{nil, new(uint64(1))} {
				if valid, _, err := ask(t.Context(), v, block); valid || !errors.Is(err, ErrTimeout) {
					t.Errorf("got %v, %v", valid, err)
				}
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	if valid, _, err := ask(t.Context(), openURL(t, s.URL), nil); valid || !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, %v", valid, err)
	}
}

// Whoever leaves does so at once; the call ends with the last one.
func TestCancel(t *testing.T) {
	asked, gone := make(chan bool), make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		asked <- true
		<-r.Context().Done()
		close(gone)
	}))
	t.Cleanup(s.Close)
	v := openURL(t, s.URL)
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	results := make(chan error, 2)
	start := func(ctx context.Context) {
		go func() { _, _, err := ask(ctx, v, new(uint64(1))); results <- err }()
	}
	start(first)
	<-asked
	start(second) // shares the call, or has none if the first leaves before
	leaveFirst()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	leaveSecond()
	// Either call of the two.
	for n := 1; n > 0; {
		select {
		case <-asked:
		case err := <-results:
			n--
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}
	<-gone
}

// Those who ask the same at the same time share one call, other questions don't.
func TestSharedCall(t *testing.T) {
	var calls atomic.Int64
	release := make(chan bool)
	v := openURL(t, serve(t, func(w http.ResponseWriter, c call) {
		calls.Add(1)
		<-release
		answer(`"0x01"`)(w, c)
	}).URL)
	var group sync.WaitGroup
	block := uint64(1)
	for range 20 {
		group.Go(func() {
			if valid, _, err := ask(t.Context(), v, &block); err != nil || !valid {
				t.Errorf("got %v, %v", valid, err)
			}
		})
	}
	waitFor(t, &v.questions, 20)
	close(release)
	group.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// waitFor returns when as many callers share flights.
func waitFor[K comparable, V any](t *testing.T, f *flights[K, V], n int) {
	t.Helper()
	for t.Context().Err() == nil {
		f.mu.Lock()
		waiting := 0
		for _, c := range f.byKey {
			waiting += c.waiting
		}
		f.mu.Unlock()
		if waiting == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// A yes is remembered under everything it depends on, a no or an error never.
func TestRemembered(t *testing.T) {
	var calls atomic.Int64
	var result atomic.Value
	url := serve(t, func(w http.ResponseWriter, c call) { calls.Add(1); answer(result.Load().(string))(w, c) }).URL
	v := open(t, Options{Endpoints: map[string]string{testChain: url, "eip155:10": url}, Verdicts: 5})
	type asked struct {
		account string
		hash    byte
		sig     byte
		block   uint64
	}
	ask := func(a asked, want bool, wantCalls int64) {
		t.Helper()
		before := calls.Load()
		valid, _, err := v.VerifyContractSignature(t.Context(), a.account, [32]byte{a.hash}, bytes.Repeat([]byte{a.sig}, 65), &a.block)
		if err != nil || valid != want {
			t.Errorf("%+v: %v, %v", a, valid, err)
		}
		if n := calls.Load() - before; n != wantCalls {
			t.Errorf("%+v: %d calls, want %d", a, n, wantCalls)
		}
	}
	one := asked{testAccount, 1, 1, 1}
	result.Store(`"0x00"`)
	ask(one, false, 1)
	ask(one, false, 1)
	result.Store(`"0x01"`)
	ask(one, true, 1)
	result.Store(`"0x00"`)
	ask(one, true, 0)
	for _, other := range []asked{
		{"eip155:10" + strings.TrimPrefix(testAccount, testChain), 1, 1, 1},
		{testAccount[:len(testAccount)-1] + "9", 1, 1, 1},
		{testAccount, 2, 1, 1}, {testAccount, 1, 2, 1}, {testAccount, 1, 1, 0},
	} {
		ask(other, false, 1)
	}
	// The one that was not asked for longest makes room.
	result.Store(`"0x01"`)
	for block := uint64(2); block <= 5; block++ {
		ask(asked{testAccount, 1, 1, block}, true, 1)
	}
	ask(one, true, 0)
	ask(asked{testAccount, 1, 1, 6}, true, 1)
	ask(one, true, 0)
	ask(asked{testAccount, 1, 1, 2}, true, 1)
}

// Few calls are under way at a time, few wait, and the others are told at once;
// another chain is not disturbed.
func TestBusy(t *testing.T) {
	var under, most atomic.Int64
	release := make(chan bool)
	slow := serve(t, func(w http.ResponseWriter, c call) {
		most.Store(max(most.Load(), under.Add(1)))
		<-release
		under.Add(-1)
		answer(`"0x01"`)(w, c)
	})
	quick := serve(t, answer(`"0x01"`))
	v := open(t, Options{Endpoints: map[string]string{testChain: slow.URL, "eip155:10": quick.URL}, Concurrency: 2})
	results := make(chan error, 10)
	for i := range uint64(10) {
		go func() { _, _, err := ask(t.Context(), v, &i); results <- err }()
	}
	waitFor(t, &v.questions, 10)
	e := v.endpoints[testChain]
	for len(e.queue) < cap(e.queue) {
		time.Sleep(time.Millisecond)
	}
	if _, _, err := ask(t.Context(), v, new(uint64(11))); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want busy", err)
	}
	if valid, _, err := v.VerifyContractSignature(t.Context(), "eip155:10"+strings.TrimPrefix(testAccount, testChain), [32]byte{}, testSignature, nil); err != nil || !valid {
		t.Errorf("another chain: %v, %v", valid, err)
	}
	close(release)
	for range 10 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := most.Load(); n > 2 {
		t.Errorf("%d calls at a time", n)
	}
}

// A chain is known by exactly the name that it was given.
func TestUnknownChain(t *testing.T) {
	v := openURL(t, serve(t, answer(`"0x01"`)).URL)
	rest := strings.TrimPrefix(testAccount, testChain)
	for _, account := range []string{"eip155:10" + rest, "eip155:01" + rest, "solana:1" + rest, "", "::", rest} {
		if valid, _, err := v.VerifyContractSignature(t.Context(), account, [32]byte{}, testSignature, nil); valid || !errors.Is(err, ErrUnknownChain) {
			t.Errorf("%q: %v, %v", account, valid, err)
		}
	}
}

// What can't be asked is not valid, without a call.
func TestNoQuestion(t *testing.T) {
	v := openURL(t, "http://127.0.0.1:1")
	for _, tc := range []struct {
		name, account string
		signature     []byte
	}{
		{"no address", testChain + ":0x12", testSignature},
		{"a capital 0X", strings.Replace(testAccount, "0x", "0X", 1), testSignature},
		{"no hex", testChain + ":0x" + strings.Repeat("g", 40), testSignature},
		{"too long an address", testAccount + "00", testSignature},
		{"a short signature", testAccount, testSignature[:31]},
		{"a long signature", testAccount, make([]byte, maxInitcode)},
		{"a bad wrapper", testAccount, append(make([]byte, 95), wrapped...)},
	} {
		if valid, asked, err := v.VerifyContractSignature(t.Context(), tc.account, [32]byte{}, tc.signature, new(uint64(9))); valid || err != nil || asked != 9 {
			t.Errorf("%s: %v at %d, %v", tc.name, valid, asked, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for chain, url := range map[string]string{
		"1":            "https://example.org",
		"eip155:":      "https://example.org",
		"eip155:01":    "https://example.org",
		"eip155:0x1":   "https://example.org",
		"eip155:-1":    "https://example.org",
		"solana:1":     "https://example.org",
		"eip155:2":     "",
		"eip155:3":     "example.org/sesame",
		"eip155:4":     "ws://example.org/sesame",
		"eip155:5":     "https:///sesame",
		"eip155:6":     "https://example.org:sesame",
		"eip155:7":     "https://user:sesame@exa mple.org",
		"eip155:8":     "file:///sesame",
		"eip155:9\nno": "https://example.org/sesame",
	} {
		if v, err := New(Options{Endpoints: map[string]string{chain: url}}); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v, %v", chain, v, err)
		}
	}
	if _, err := New(Options{Timeout: -1}); err == nil {
		t.Error("a negative time is taken")
	}
}

// The secrets of a URL are in no error and no log, whoever repeats them.
func TestSecretsStaySecret(t *testing.T) {
	secrets := []string{"sesame-path", "sesame-user", "sesame-pass", "sesame-query"}
	everything := strings.Join(secrets, " ")
	for name, handle := range map[string]func(http.ResponseWriter, call){
		"error": fault(`{"code":-32000,"message":"no such project: ` + everything + `"}`),
		"html":  raw(everything),
		"redirect": func(w http.ResponseWriter, _ call) {
			w.Header().Set("Location", "/"+everything)
			w.WriteHeader(302)
		},
		"broken": func(http.ResponseWriter, call) { panic(http.ErrAbortHandler) },
		"gone":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, handle)
			if handle == nil {
				s.Close()
			}
			var log bytes.Buffer
			v := open(t, Options{
				Endpoints: map[string]string{testChain: strings.Replace(s.URL, "http://", "http://sesame-user:sesame-pass@", 1) + "/v3/sesame-path?key=sesame-query"},
				Logger:    slog.New(slog.NewTextHandler(&log, nil)),
			})
			_, _, err := ask(t.Context(), v, new(uint64(1)))
			if err == nil || log.Len() == 0 {
				t.Fatalf("%v, log %q", err, &log)
			}
			for _, secret := range append(secrets, strings.TrimPrefix(s.URL, "http://")) {
				if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err)+log.String(), secret) {
					t.Errorf("%q is in %v or %s", secret, err, &log)
				}
			}
		})
	}
}
