// Package metrics shows the appliance to Prometheus: /metrics in the text
// format, from a registry of its own.
//
// Names, units and help stand in one table. No label names a machine, a volume
// or anything else that an operator or a stranger can make more of: what is
// wrong with one machine is on its page. It imports no service: what it shows is
// read by a function that it is given.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lunboot/store"
	"lunboot/web/auth"
)

// Path is where the metrics are.
const Path = "/metrics"

// Bounds of a scrape.
const (
	readTime    = 5 * time.Second
	maxInFlight = 2
	// maxCodes bounds the diagnoses that are told apart. They are a closed list;
	// the bound is for what an older version left.
	maxCodes = 200
)

// Value is one number with the values of its labels, in the table's order.
type Value struct {
	Metric *Metric
	Labels []string
	Value  float64
}

// Metric is one line of the table.
type Metric struct {
	Name    string
	Help    string
	Counter bool // it only rises while the appliance runs
	Labels  []string
	// Joined marks a counter that is put together from parts that live and
	// parts that ended. It may for a moment miss one that is between them, and
	// one that falls reads as a restart: it is kept from falling.
	Joined bool
}

// The table. Counters count since the start.
var (
	BuildInfo          = &Metric{"lunboot_build_info", "The version that runs; the value is 1.", false, []string{"version"}, false}
	Machines           = &Metric{"lunboot_machines", "Enrolled machines.", false, nil, false}
	Volumes            = &Metric{"lunboot_volumes", "Volumes, by their state.", false, []string{"state"}, false}
	VolumeBytes        = &Metric{"lunboot_volume_size_bytes", "Size of all volumes as machines see them.", false, nil, false}
	FreeBytes          = &Metric{"lunboot_volume_free_bytes", "Room left in the file system that holds the volumes.", false, nil, false}
	DiskBytes          = &Metric{"lunboot_volume_filesystem_size_bytes", "Size of the file system that holds the volumes.", false, nil, false}
	UsedBytes          = &Metric{"lunboot_volume_used_bytes", "Room that the volumes' files take.", false, nil, false}
	LowBytes           = &Metric{"lunboot_volume_low_bytes", "Room below which there is a warning.", false, nil, false}
	FillRate           = &Metric{"lunboot_volume_fill_bytes_per_day", "How much room is taken a day, by what was seen of at most the last day; 0 when it does not shrink, or was not watched for half an hour.", false, nil, false}
	Leases             = &Metric{"lunboot_dhcp_leases", "Leases, by their state.", false, []string{"state"}, false}
	DHCPDropped        = &Metric{"lunboot_dhcp_dropped_packets_total", "DHCP packets that were not answered, by network and reason.", true, []string{"interface", "subnet", "reason"}, false}
	DHCPUntold         = &Metric{"lunboot_dhcp_untold_packets_total", "DHCP packets that were answered and left out of the boots' story, because too many unknown machines came at once, by network.", true, []string{"interface", "subnet"}, false}
	TFTPMalformed      = &Metric{"lunboot_tftp_malformed_packets_total", "Packets to the TFTP port that were no request.", true, nil, false}
	TFTPRefused        = &Metric{"lunboot_tftp_refused_requests_total", "TFTP requests above the bounds, which were not answered.", true, nil, false}
	HTTPRefused        = &Metric{"lunboot_http_refused_connections_total", "HTTP connections that were closed for want of room, by listener.", true, []string{"listener"}, false}
	Sessions           = &Metric{"lunboot_iscsi_sessions", "Live iSCSI sessions, by initiator: ipxe or os.", false, []string{"initiator"}, false}
	ReadBytes          = &Metric{"lunboot_iscsi_read_bytes_total", "Bytes that machines read from their volumes.", true, nil, true}
	WrittenBytes       = &Metric{"lunboot_iscsi_written_bytes_total", "Bytes that machines wrote to their volumes.", true, nil, true}
	Events             = &Metric{"lunboot_events_total", "Events, by kind: what the services saw of boots.", true, []string{"kind"}, false}
	EventsDropped      = &Metric{"lunboot_events_dropped_total", "Events that were left out because the log could not be written fast enough.", true, nil, false}
	EventsWaiting      = &Metric{"lunboot_events_waiting", "Events that are not in the log yet.", false, nil, false}
	FileBytes          = &Metric{"lunboot_database_size_bytes", "Size of a database with its write-ahead log: inventory or journal.", false, []string{"database"}, false}
	ServiceUp          = &Metric{"lunboot_service_up", "Whether a part of the appliance runs: 1 or 0.", false, []string{"service"}, false}
	ServiceRestarts    = &Metric{"lunboot_service_restarts_total", "How often a part of the appliance was started again after it failed.", true, []string{"service"}, false}
	CapturePackets     = &Metric{"lunboot_capture_packets_total", "Packets of boots that were recorded.", true, nil, false}
	CaptureDropped     = &Metric{"lunboot_capture_dropped_packets_total", "Packets of boots that came faster than they were recorded.", true, nil, false}
	CaptureBytes       = &Metric{"lunboot_capture_memory_bytes", "Memory that recorded packets take.", false, nil, false}
	Notifications      = &Metric{"lunboot_webhook_notifications_total", "Ends of boots that the webhook took, or never will: delivered or lost.", true, []string{"result"}, false}
	NotificationsQueue = &Metric{"lunboot_webhook_notifications_waiting", "Ends of boots that the webhook is still to be told of.", false, nil, false}
)

// Those that only the exporter counts.
var (
	bootAttempts = &Metric{"lunboot_boot_attempts_total", "Boots that ended, by outcome (up, up-unconfirmed, failed, not-enrolled), the furthest stage and the code of the first diagnosis, or none. A boot that failed and came up after all counts twice.", true, []string{"outcome", "stage", "code"}, false}
	bootSeconds  = &Metric{"lunboot_boot_duration_seconds", "Time from a machine's first packet to its operating system, of boots that came up, by firmware.", true, []string{"firmware"}, false}
)

// All lists every metric of the appliance's own.
func All() []*Metric { return append(Table(), bootAttempts, bootSeconds) }

// Table lists every metric that Config.Read may return.
func Table() []*Metric {
	return []*Metric{
		BuildInfo, Machines, Volumes, VolumeBytes, FreeBytes, DiskBytes, UsedBytes, LowBytes, FillRate, Leases, DHCPDropped, DHCPUntold, TFTPMalformed, TFTPRefused, HTTPRefused, Sessions, ReadBytes, WrittenBytes,
		Events, EventsDropped, EventsWaiting, FileBytes, ServiceUp, ServiceRestarts, CapturePackets, CaptureDropped, CaptureBytes, Notifications, NotificationsQueue,
	}
}

// Config is what the metrics stand on.
type Config struct {
	// Read returns the values now. What cannot be read is left out.
	Read func(context.Context) []Value
	Log  *slog.Logger
}

// Exporter keeps what only it counts, and answers scrapes.
type Exporter struct {
	scrape   http.Handler // one for all, so that its bound is one
	cfg      Config
	registry *prometheus.Registry
	descs    map[*Metric]*prometheus.Desc
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	mu     sync.Mutex
	codes  map[string]bool
	counts map[*Metric]float64 // the largest value of each that is joined
}

// New makes an Exporter.
func New(cfg Config) (*Exporter, error) {
	x := &Exporter{
		cfg: cfg, registry: prometheus.NewPedanticRegistry(), descs: map[*Metric]*prometheus.Desc{}, codes: map[string]bool{}, counts: map[*Metric]float64{},
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: bootAttempts.Name, Help: bootAttempts.Help,
		}, bootAttempts.Labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: bootSeconds.Name, Help: bootSeconds.Help,
			Buckets: []float64{5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600},
		}, bootSeconds.Labels),
	}
	for _, m := range Table() {
		x.descs[m] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
	}
	for _, c := range []prometheus.Collector{
		x.attempts, x.seconds, x, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := x.registry.Register(c); err != nil {
			return nil, err
		}
	}
	x.scrape = promhttp.HandlerFor(x.registry, promhttp.HandlerOpts{
		ErrorLog: logger{cfg.Log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxInFlight,
	})
	return x, nil
}

// Ended counts the end of a boot. It does not block.
func (x *Exporter) Ended(a store.Attempt) {
	x.attempts.WithLabelValues(string(a.Outcome), string(a.Stage), x.code(a)).Inc()
	if a.Outcome != store.OutcomeUp {
		return
	}
	for _, s := range a.Stages {
		if took := s.At.Sub(a.Started); s.Name == store.StageUp && !s.At.IsZero() && took > 0 {
			firmware := a.Firmware
			if firmware != "BIOS" && firmware != "UEFI" {
				firmware = "unknown"
			}
			x.seconds.WithLabelValues(firmware).Observe(took.Seconds())
		}
	}
}

func (x *Exporter) code(a store.Attempt) string {
	if len(a.Diagnoses) == 0 {
		return "none"
	}
	code := a.Diagnoses[0].Code
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.codes[code] && len(x.codes) >= maxCodes {
		return "other"
	}
	x.codes[code] = true
	return code
}

// Describe names every metric of the table.
func (x *Exporter) Describe(out chan<- *prometheus.Desc) {
	for _, m := range Table() {
		out <- x.descs[m]
	}
}

// Collect reads the values.
func (x *Exporter) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	for _, v := range x.cfg.Read(ctx) {
		kind, value := prometheus.GaugeValue, v.Value
		if v.Metric.Counter {
			kind = prometheus.CounterValue
		}
		if v.Metric.Joined {
			value = x.rising(v)
		}
		m, err := prometheus.NewConstMetric(x.descs[v.Metric], kind, value, v.Labels...)
		if err != nil {
			x.cfg.Log.Error("a metric cannot be shown", "metric", v.Metric.Name, "error", err)
			continue
		}
		out <- m
	}
}

// rising returns the largest value so far.
func (x *Exporter) rising(v Value) float64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.counts[v.Metric] = max(x.counts[v.Metric], v.Value)
	return x.counts[v.Metric]
}

// ServeHTTP answers a scrape of who may read.
func (x *Exporter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch who := auth.From(r.Context()); {
	case who.Limit != "" && who.Scope == "":
		http.Error(w, "This token is good for nothing: "+who.Limit+".", http.StatusUnauthorized)
		return
	case who.Scope == "":
		w.Header().Set("WWW-Authenticate", `Bearer realm="lunboot"`)
		http.Error(w, "Log in, or send a token: Authorization: Bearer lb_…; make one with: lunboot token create prometheus --scope read", http.StatusUnauthorized)
		return
	case !who.May(store.ScopeRead):
		http.Error(w, "This needs the scope read.", http.StatusForbidden)
		return
	}
	x.scrape.ServeHTTP(w, r)
}

// logger is the appliance's log as the library wants it.
type logger struct{ log *slog.Logger }

// Println logs an error of a scrape.
func (l logger) Println(v ...any) { l.log.Error("a scrape met an error", "error", v) }
