package node_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// look asks an operator's page.
func look(t testing.TB, n *node.Node, path string) (status int, body string) {
	t.Helper()
	request := must(http.NewRequestWithContext(short(t), http.MethodGet, "http://"+n.MetricsAddr()+path, nil))(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response := must(client.Do(request))(t)
	defer response.Body.Close()
	return response.StatusCode, string(must(io.ReadAll(response.Body))(t))
}

// traffic is some of everything, from native clients and browsers, with refusals.
func traffic(t *testing.T, n *node.Node) *load {
	t.Helper()
	l := newLoad(t, 4, 4, 5)
	c := dial(t, n)
	if err := l.run(short(t), 30, func() *client { return c }); err != nil {
		t.Fatal(err)
	}
	ctx := short(t)
	if _, err := c.mls.SendGroupMessages(ctx, groupRequest([]byte("no message"))); err == nil {
		t.Error("garbage was taken")
	}
	if _, err := c.publish(ctx, newInbox(t).draft().signed(t)); err == nil {
		t.Error("an update without actions was taken")
	}
	if _, err := c.mls.SendGroupMessages(ctx, groupRequest(slices.Repeat([][]byte{application(l.groups[0], "flood")}, 3001)...)); err == nil {
		t.Error("the limit did not hold")
	}
	response := must(browser(t).Do(webPost(ctx, t, "http://"+n.Addr(), mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &mlsapi.QueryGroupMessagesRequest{GroupId: l.groups[0]})))(t)
	_ = must(io.ReadAll(response.Body))(t)
	response.Body.Close()
	return l
}

var limited = node.Limits{Rates: true}

// What a node tells its operator is there and names nobody.
func TestMetrics(t *testing.T) {
	t.Parallel()
	n := start(t, node.Options{Data: t.TempDir(), MetricsListen: "127.0.0.1:0", Limits: limited})
	l := traffic(t, n)
	_, metrics := look(t, n, "/metrics")
	for _, want := range []string{
		`xmtp_calls_total{code="OK",method="xmtp.mls.api.v1.MlsApi/SendGroupMessages",transport="grpc"} [1-9]`,
		`xmtp_calls_total{code="OK",method="xmtp.mls.api.v1.MlsApi/QueryGroupMessages",transport="web"} 1`,
		`xmtp_calls_total{code="InvalidArgument",method="xmtp.mls.api.v1.MlsApi/SendGroupMessages",transport="grpc"} 1`,
		`xmtp_call_seconds_count{method="xmtp.identity.api.v1.IdentityApi/PublishIdentityUpdate"} [1-9]`,
		`xmtp_calls_open{method="xmtp.mls.api.v1.MlsApi/SubscribeGroupMessages",transport="grpc"} 0`,
		`xmtp_stream_messages_total{method="xmtp.mls.api.v1.MlsApi/SubscribeGroupMessages"} [1-9]`,
		`xmtp_records_total{kind="group-message"} [1-9]`,
		`xmtp_records_total{kind="welcome"} [1-9]`,
		`xmtp_record_bytes_total{kind="identity-update"} [1-9]`,
		`xmtp_batch_records_count [1-9]`,
		`xmtp_limits_hit_total{limit="writes"} 1`,
		`xmtp_order_queue 0`,
		`xmtp_store_writable 1`,
		`xmtp_store_fsync_seconds_count [1-9]`,
		`xmtp_store_disk_bytes [1-9]`,
		`xmtp_store_free_bytes [1-9]`,
		`xmtp_store_compactions_total \d`,
		`xmtp_newest_number [1-9]`,
		`go_goroutines [1-9]`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(metrics) {
			t.Errorf("no line %s", want)
		}
	}
	quiet(t, metrics, l)
	if t.Failed() {
		t.Log(metrics)
	}
}

// secrets are what nothing that is written down may hold.
func secrets(l *load) (all []string) {
	bytes := slices.Clone(l.groups)
	for _, p := range l.people {
		bytes = append(bytes, p.welcomes())
		all = append(all, p.inbox.id, p.wallet.Identifier().String(), p.inbox.owner.Identifier().String())
	}
	for _, b := range bytes {
		all = append(all, string(b), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b))
	}
	return all
}

func quiet(t *testing.T, text string, l *load) {
	t.Helper()
	for _, secret := range secrets(l) {
		if strings.Contains(strings.ToLower(text), strings.ToLower(secret)) {
			t.Errorf("%q can be read", secret)
		}
	}
}

// At level info no payloads, topics or addresses are logged.
func TestLogNamesNobody(t *testing.T) {
	t.Parallel()
	log := &warnings{}
	dir := t.TempDir()
	n := start(t, node.Options{
		Data: dir, MetricsListen: "127.0.0.1:0", WebListen: "127.0.0.1:0", Limits: limited, Reflection: true,
		Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	l := traffic(t, n)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * garbage", "\x16\x03\x01\x00\x05hello"} {
		conn := must(net.Dial("tcp", n.Addr()))(t)
		if _, err := io.WriteString(conn, garbage); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	store := must(node.OpenStore(short(t), dir))(t)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Shutdown(short(t)); err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if !strings.Contains(text, "node started") || !strings.Contains(text, "node ended") {
		t.Errorf("not the log of a node:\n%s", text)
	}
	quiet(t, text, l)
	_, rest, _ := strings.Cut(text, "node started") // its own addresses
	_, rest, _ = strings.Cut(rest, "\n")
	if strings.Contains(rest, "127.0.0.1") {
		t.Errorf("an address is logged:\n%s", rest)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	full := &smallDisk{FS: vfs.NewMem()}
	n := start(t, node.Options{Data: "/data", MetricsListen: "127.0.0.1:0"}.On(full))
	want := func(path string, status int, text string) {
		t.Helper()
		eventually(t, path+" says "+text, func() bool {
			gotStatus, got := look(t, n, path)
			return gotStatus == status && strings.Contains(got, text)
		})
	}
	want("/healthz", http.StatusOK, "ok")
	want("/readyz", http.StatusOK, "ready")
	full.full.Store(true)
	want("/readyz", http.StatusServiceUnavailable, "the disk is full")
	want("/healthz", http.StatusOK, "ok")
	want("/metrics", http.StatusOK, "xmtp_store_writable 0")
	full.full.Store(false)
	want("/readyz", http.StatusOK, "ready")

	// A call keeps the node from ending, and its readiness tells that it is about to.
	c := dial(t, n)
	stalled := must(c.conn.NewStream(short(t), &grpc.StreamDesc{ClientStreams: true}, mlsapi.MlsApi_SendGroupMessages_FullMethodName))(t)
	if _, err := c.mls.QueryGroupMessages(short(t), &mlsapi.QueryGroupMessagesRequest{GroupId: newGroupID()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Shutdown(ctx) }()
	want("/readyz", http.StatusServiceUnavailable, "it is stopping")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = stalled.CloseSend()
}

// smallDisk can be full.
type smallDisk struct {
	vfs.FS
	full atomic.Bool
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	if d.full.Load() {
		return vfs.DiskUsage{}, nil
	}
	return vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40}, nil
}

// Each call is a span, with the method and status and nothing of what was said.
func TestTraces(t *testing.T) {
	t.Parallel()
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	n := start(t, node.Options{TracerProvider: provider, Limits: limited})
	l := traffic(t, n)
	if err := n.Shutdown(short(t)); err != nil {
		t.Fatal(err)
	}
	spans := map[string]int{}
	var text strings.Builder
	for _, s := range exporter.GetSpans() {
		spans[s.Name]++
		if err := json.NewEncoder(&text).Encode([]any{s.Name, s.Attributes, s.Events, s.Status, s.Resource}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"xmtp.mls.api.v1.MlsApi/SendGroupMessages", "xmtp.mls.api.v1.MlsApi/SubscribeWelcomeMessages",
		"xmtp.identity.api.v1.IdentityApi/PublishIdentityUpdate", "order",
	} {
		if spans[name] == 0 {
			t.Errorf("no span %s", name)
		}
	}
	quiet(t, text.String(), l)
	if strings.Contains(text.String(), "127.0.0.1") {
		t.Error("an address is traced")
	}
}

// The dashboard shows nothing that isn't there.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text := must(os.ReadFile(filepath.Join("..", "ops", "grafana.json")))(t)
	var dashboard any
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	n := start(t, node.Options{Data: t.TempDir(), MetricsListen: "127.0.0.1:0", Limits: limited})
	traffic(t, n)
	_, metrics := look(t, n, "/metrics")
	name := regexp.MustCompile(`\b(xmtp|go|process)_[a-z_]+\b`)
	there := map[string]bool{}
	labels := map[string]bool{"le": true}
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, "#") {
			there[name.FindString(line)] = true
			for _, m := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(line, -1) {
				labels[m[1]] = true
			}
		}
	}
	queries := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if expr, ok := v["expr"].(string); ok {
				queries++
				names := name.FindAllString(expr, -1)
				if len(names) == 0 {
					t.Errorf("%s names no metric", expr)
				}
				for _, metric := range names {
					if !there[metric] {
						t.Errorf("%s: there is no metric %s", expr, metric)
					}
				}
				for _, m := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
					for label := range strings.SplitSeq(m[1], ",") {
						if !labels[strings.TrimSpace(label)] {
							t.Errorf("%s: there is no label %s", expr, label)
						}
					}
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(dashboard)
	if queries < 15 {
		t.Errorf("only %d queries", queries)
	}
}
