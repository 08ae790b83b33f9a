package observe

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

func TestCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{status.Error(codes.NotFound, "x"), codes.NotFound},
		{fmt.Errorf("more: %w", status.Error(codes.Aborted, "x")), codes.Aborted},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{errors.New("x"), codes.Unknown},
	} {
		if got := Code(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// service has one method, which fails when it is told to.
var service = grpc.ServiceDesc{
	ServiceName: "test.Service",
	Methods: []grpc.MethodDesc{{
		MethodName: "Do",
		Handler: func(srv any, _ context.Context, _ func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			err, _ := srv.(error)
			return nil, err
		},
	}},
}

func sum(t *testing.T, registry *prometheus.Registry, name string) (values map[string]float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.Metric {
			key := ""
			for _, label := range m.Label {
				key += label.GetValue() + " "
			}
			values[key] = value(m)
		}
	}
	return values
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return float64(m.Histogram.GetSampleCount())
}

func TestCalls(t *testing.T) {
	registry := prometheus.NewRegistry()
	calls := NewCalls(registry, nil)
	native, web := calls.Service(&service, GRPC), calls.Service(&service, Web)
	for range 3 {
		if _, err := native.Methods[0].Handler(nil, t.Context(), nil, nil); err != nil {
			t.Error(err)
		}
	}
	refusal := status.Error(codes.ResourceExhausted, "too much")
	if _, err := web.Methods[0].Handler(refusal, t.Context(), nil, nil); !errors.Is(err, refusal) {
		t.Errorf("the error is %v", err)
	}
	total := sum(t, registry, "xmtp_calls_total")
	if len(total) != 2 || total["OK test.Service/Do grpc "] != 3 || total["ResourceExhausted test.Service/Do web "] != 1 {
		t.Errorf("calls %v", total)
	}
	if took := sum(t, registry, "xmtp_call_seconds"); took["test.Service/Do "] != 4 {
		t.Errorf("durations %v", took)
	}
	if open := sum(t, registry, "xmtp_calls_open"); len(open) != 2 || open["test.Service/Do grpc "] != 0 {
		t.Errorf("open %v", open)
	}
	if service.Methods[0].Handler == nil || (*Calls)(nil).Service(&service, GRPC) != &service {
		t.Error("without metrics a service is not as it was")
	}
}

// What the store doesn't tell when it is closed is left out; all else is there.
func TestCollectorOfClosedStore(t *testing.T) {
	registry := NewRegistry()
	registry.MustRegister(NewCollector(Source{
		Store:    func() *pebble.Metrics { return nil },
		Room:     func() (uint64, bool) { return 0, false },
		Writable: func() error { return errors.New("closed") },
		Newest:   func() uint64 { return 7 },
		Waiting:  func() int { return 2 },
		Topics:   func() int { return 3 },
		Refused:  func() map[string]uint64 { return map[string]uint64{"writes": 4} },
		Removed:  func() (uint64, uint64, uint64) { return 5, 6, 7 },
	}))
	NewRecords(registry).Count([]*order.Record{{Topic: order.Topic{Kind: order.CommitLog}, Payload: make([]byte, 9)}})
	(*Records)(nil).Count(nil)
	for name, want := range map[string]map[string]float64{
		"xmtp_newest_number":    {"": 7},
		"xmtp_order_queue":      {"": 2},
		"xmtp_topics_watched":   {"": 3},
		"xmtp_limits_hit_total": {"writes ": 4},
		"xmtp_removed_total":    {"group-message ": 5, "welcome ": 6},
		"xmtp_store_writable":   {"": 0},
		"xmtp_store_disk_bytes": {},
	} {
		got := sum(t, registry, name)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := sum(t, registry, "xmtp_record_bytes_total"); got["commit-log "] != 9 {
		t.Errorf("bytes %v", got)
	}
}

// BenchmarkCall is what measuring adds to a call.
func BenchmarkCall(b *testing.B) {
	measured := NewCalls(prometheus.NewRegistry(), nil).Service(&service, GRPC)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = measured.Methods[0].Handler(nil, b.Context(), nil, nil)
	}
}
