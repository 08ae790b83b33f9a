package observe

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// Source is what is asked each time that somebody looks. All are needed.
type Source struct {
	Store    func() *pebble.Metrics // nil: it is closed
	Room     func() (free uint64, known bool)
	Writable func() error // why nothing can be written
	Newest   func() uint64
	Waiting  func() int
	Topics   func() int
	Refused  func() map[string]uint64 // by limit
	Removed  func() (messages, welcomes, bytes uint64)
}

// Records counts what was stored.
type Records struct {
	records, bytes [len(kinds)]prometheus.Counter // by kind
	batch          prometheus.Histogram
}

var kinds = [...]string{
	order.GroupMessage:   "group-message",
	order.Welcome:        "welcome",
	order.KeyPackage:     "key-package",
	order.IdentityUpdate: "identity-update",
	order.CommitLog:      "commit-log",
}

// NewRecords counts in the registry.
func NewRecords(registry *prometheus.Registry) *Records {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "xmtp_records_total",
		Help: "Records stored.",
	}, []string{"kind"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "xmtp_record_bytes_total",
		Help: "Bytes of the payloads of records stored.",
	}, []string{"kind"})
	r := &Records{batch: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "xmtp_batch_records",
		Help:    "How many records were made durable together.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 11),
	})}
	for kind, name := range kinds {
		if name != "" {
			r.records[kind], r.bytes[kind] = total.WithLabelValues(name), bytes.WithLabelValues(name)
		}
	}
	registry.MustRegister(total, bytes, r.batch)
	return r
}

// Count counts a batch. A nil Records counts nothing.
func (r *Records) Count(records []*order.Record) {
	if r == nil {
		return
	}
	r.batch.Observe(float64(len(records)))
	for _, record := range records {
		r.records[record.Kind].Inc()
		r.bytes[record.Kind].Add(float64(len(record.Payload)))
	}
}

// NewRegistry returns a registry with what is known of every program.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return registry
}

// collector asks the source.
type collector struct{ Source }

// NewCollector returns what tells of a store and of what is above it.
func NewCollector(s Source) prometheus.Collector { return collector{s} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("xmtp_"+name, help, labels, nil)
}

var (
	newest   = desc("newest_number", "Number of the newest record.")
	queue    = desc("order_queue", "Requests that wait to be ordered.")
	topics   = desc("topics_watched", "Topics that somebody is subscribed to.")
	limits   = desc("limits_hit_total", "Calls refused, by the limit that refused them.", "limit")
	removed  = desc("removed_total", "Records removed because they were old.", "kind")
	freed    = desc("removed_bytes_total", "Bytes of records removed because they were old.")
	writable = desc("store_writable", "1 if the store takes records, 0 if not: see /readyz.")
	free     = desc("store_free_bytes", "Bytes free on the disk of the store.")
	fsync    = desc("store_fsync_seconds", "How long it took to sync the log to disk.")
	disk     = desc("store_disk_bytes", "Bytes that the store has on disk.")
	logBytes = desc("store_log_bytes", "Bytes of the log that are not in tables yet.")
	tables   = desc("store_tables", "Tables of the store.")
	readAmp  = desc("store_read_amplification", "Tables that a read may have to look into.")
	compact  = desc("store_compactions_total", "Compactions.")
	running  = desc("store_compactions_running", "Compactions under way.")
	debt     = desc("store_compaction_debt_bytes", "Bytes that compactions have yet to move, estimated.")
	flushes  = desc("store_flushes_total", "Times that records were written from memory to a table.")
	memory   = desc("store_memtable_bytes", "Bytes in memory that are not in tables yet.")
	cache    = desc("store_cache_bytes", "Bytes of the cache of blocks.")
	hits     = desc("store_cache_hits_total", "Blocks found in the cache.")
	misses   = desc("store_cache_misses_total", "Blocks read from disk.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		newest, queue, topics, limits, removed, freed, writable, free, fsync, disk, logBytes, tables, readAmp,
		compact, running, debt, flushes, memory, cache, hits, misses,
	} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	gauge(newest, float64(c.Newest()))
	gauge(queue, float64(c.Waiting()))
	gauge(topics, float64(c.Topics()))
	for limit, count := range c.Refused() {
		counter(limits, float64(count), limit)
	}
	messages, welcomes, bytes := c.Removed()
	counter(removed, float64(messages), kinds[order.GroupMessage])
	counter(removed, float64(welcomes), kinds[order.Welcome])
	counter(freed, float64(bytes))
	if c.Writable() == nil {
		gauge(writable, 1)
	} else {
		gauge(writable, 0)
	}
	if bytes, known := c.Room(); known {
		gauge(free, float64(bytes))
	}
	m := c.Store()
	if m == nil {
		return
	}
	if metric, ok := syncs(m.LogWriter.FsyncLatency); ok {
		ch <- metric
	}
	gauge(disk, float64(m.DiskSpaceUsage()))
	gauge(logBytes, float64(m.WAL.Size))
	gauge(tables, float64(m.Table.Local.LiveCount))
	gauge(readAmp, float64(m.ReadAmp()))
	counter(compact, float64(m.Compact.Count))
	gauge(running, float64(m.Compact.NumInProgress))
	gauge(debt, float64(m.Compact.EstimatedDebt))
	counter(flushes, float64(m.Flush.Count))
	gauge(memory, float64(m.MemTable.Size))
	gauge(cache, float64(m.BlockCache.Size))
	counter(hits, float64(m.BlockCache.Hits))
	counter(misses, float64(m.BlockCache.Misses))
}

// syncs is Pebble's histogram, which is in nanoseconds, in seconds, with fewer
// buckets than its hundred.
func syncs(histogram prometheus.Histogram) (prometheus.Metric, bool) {
	var m dto.Metric
	if histogram == nil || histogram.Write(&m) != nil || m.Histogram == nil {
		return nil, false
	}
	buckets := map[float64]uint64{}
	for i, b := range m.Histogram.Bucket {
		if bound := b.GetUpperBound(); bound > 0 && i%5 == 0 {
			buckets[bound/1e9] = b.GetCumulativeCount()
		}
	}
	h, err := prometheus.NewConstHistogram(fsync, m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum()/1e9, buckets)
	return h, err == nil
}
