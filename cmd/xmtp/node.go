package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/go-xmtp/go-xmtp/node"
)

// nodeSettings are the flags of xmtp node.
type nodeSettings struct {
	listen        address
	webListen     optionalAddress
	historyListen optionalAddress
	historyFile   size
	historyTotal  size
	historyKeep   time.Duration
	tls           node.TLS
	reflection    bool
	data          string
	ephemeral     bool
	logLevel      choice
	logFormat     choice
	shutdownGrace time.Duration
	limits        limitFlags
	retention     retentionFlags
	chains        chainFlag
	readOnly      bool
	noSubscribe   bool
	metricsListen optionalAddress
	traces        collectorURL

	level *slog.LevelVar // set by options
}

func newNodeSettings() *nodeSettings {
	return &nodeSettings{
		listen:        node.DefaultListen,
		webListen:     node.DefaultWebListen,
		historyListen: node.DefaultHistoryListen,
		historyFile:   node.DefaultHistoryMaxFile,
		historyTotal:  node.DefaultHistoryTotal,
		logLevel:      choice{"info", []string{"debug", "info", "warn", "error"}},
		logFormat:     choice{"text", []string{"text", "json"}},
	}
}

func newNode() *cobra.Command {
	s := newNodeSettings()
	var config *string
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node that official XMTP apps and SDKs can use",
		Long: `Run a node: it takes encrypted messages from XMTP apps, keeps them in order on
disk and delivers them. It never sees what they say. Official SDKs find it when
they are set to the environment "local".

Every flag but --config can also be set in the environment, as XMTP_NODE_ and
its name in capitals with _ for -, or in a TOML file given by --config, under
its name. A flag wins over the environment, the environment over the file.

Ctrl-C or SIGTERM stops the node once the calls under way are done; a second
one stops it at once. Nothing that was accepted is lost either way. SIGHUP makes
it read its settings again, of which limits and the log level take effect.`,
		Example: `  xmtp node                              on ports 5556 to 5558, data in your home folder
  xmtp node --ephemeral                  everything in memory, gone at the end
  xmtp node --listen 0.0.0.0:5556        reachable from other machines
  XMTP_NODE_DATA=/srv/xmtp xmtp node     data in /srv/xmtp
  xmtp node --tls-cert c.pem --tls-key k.pem --listen 0.0.0.0:5556
                                         the same, encrypted
  xmtp node --config node.toml           with lines such as  data = "/srv/xmtp"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := complete(cmd.Flags(), *config, os.LookupEnv); err != nil {
				return usageError{err}
			}
			options, err := s.options(cmd.Flags().Changed)
			if err != nil {
				return usageError{err}
			}
			return s.run(cmd.Context(), options, newReloader(cmd.Flags(), s.level, options.Logger))
		},
	}
	cmd.Flags().SortFlags = false
	config = s.flags(cmd.Flags())
	cmd.AddCommand(newBackup(), newVerify(), newStats(), newExport())
	return cmd
}

// flags adds the flags of all settings, and the one for the file with settings.
func (s *nodeSettings) flags(flags *pflag.FlagSet) (config *string) {
	config = new(string)
	flags.StringVar(config, configFlag, "", "TOML `file` with settings")
	flags.Var(&s.listen, "listen", "`host:port` for all clients; port 0 takes a free one")
	flags.Var(&s.webListen, "web-listen", "second `host:port`, where SDKs in browsers look; off for none")
	flags.Var(&s.historyListen, "history-listen", "`host:port` where devices leave encrypted history for each other; off for none")
	flags.Var(&s.historyFile, "history-max-file", "most `bytes` of one such file, such as 64MiB")
	flags.Var(&s.historyTotal, "history-total", "most `bytes` of all such files; 256MiB by default if --ephemeral")
	flags.DurationVar(&s.historyKeep, "history-keep", node.DefaultHistoryKeep, "how long such files are kept")
	flags.StringVar(&s.tls.CertFile, "tls-cert", "", "PEM `file` with a certificate chain: speak TLS; read again when it changes")
	flags.StringVar(&s.tls.KeyFile, "tls-key", "", "PEM `file` with the key of --tls-cert")
	flags.StringSliceVar(&s.tls.Domains, "acme-domain", nil, "`name,...` to get certificates for from Let's Encrypt, whose terms you agree to")
	flags.StringVar(&s.tls.Cache, "acme-cache", defaultFolder("acme"), "`directory` that these certificates are kept in")
	flags.StringVar(&s.tls.Email, "acme-email", "", "`address` where the certificate authority can reach you")
	flags.StringVar(&s.tls.Directory, "acme-directory", "", "`URL` of another authority than Let's Encrypt")
	flags.BoolVar(&s.reflection, "reflection", false, "tell tools such as grpcurl which services there are")
	flags.StringVar(&s.data, "data", defaultFolder("node"), "`directory` that everything is kept in; made if it isn't there")
	flags.BoolVar(&s.ephemeral, "ephemeral", false, "keep everything in memory only")
	s.limits.add(flags)
	s.retention.add(flags)
	s.chains.add(flags)
	flags.BoolVar(&s.readOnly, "read-only", false, "refuse everything new, serve what is there")
	flags.BoolVar(&s.noSubscribe, "no-subscribe", false, "don't offer streams whose topics can change; clients use others instead")
	flags.DurationVar(&s.shutdownGrace, "shutdown-grace", 5*time.Second, "how long to wait for calls under way when stopping, such as 5s or 1m")
	flags.Var(&s.metricsListen, "metrics-listen", "`host:port` for whoever runs the node: /metrics, /healthz, /readyz; off for none")
	flags.Var(&s.traces, "traces", "`URL` of an OpenTelemetry collector (OTLP over gRPC) to send traces to; off for none")
	flags.Var(&s.logLevel, "log-level", "`level` from which on is logged: debug, info, warn or error")
	flags.Var(&s.logFormat, "log-format", "`format` of the log on standard error: text or json")
	return config
}

// defaultFolder is where programs of this system keep a user's data; "" if the
// user has no home.
func defaultFolder(name string) string {
	base := ""
	switch runtime.GOOS {
	case "windows":
		base = os.Getenv("LocalAppData")
	case "darwin":
		if home, err := os.UserHomeDir(); err == nil {
			base = filepath.Join(home, "Library", "Application Support")
		}
	default:
		base = os.Getenv("XDG_DATA_HOME")
		if home, err := os.UserHomeDir(); err == nil && !filepath.IsAbs(base) {
			base = filepath.Join(home, ".local", "share")
		}
	}
	if !filepath.IsAbs(base) {
		return ""
	}
	return filepath.Join(base, "xmtp", name)
}

// options checks what flags can't check one by one.
func (s *nodeSettings) options(given func(flag string) bool) (node.Options, error) {
	o := node.Options{
		Listen:        s.listen.String(),
		WebListen:     string(s.webListen),
		HistoryListen: string(s.historyListen),
		History:       node.History{MaxFile: int64(s.historyFile), Total: int64(s.historyTotal), Keep: s.historyKeep},
		TLS:           s.tls,
		Reflection:    s.reflection,
		Data:          s.data,
		Ephemeral:     s.ephemeral,
		Limits:        s.limits.limits(),
		Retention:     s.retention.retention(),
		ReadOnly:      s.readOnly,
		NoSubscribe:   s.noSubscribe,
		MetricsListen: string(s.metricsListen),
		ShutdownGrace: s.shutdownGrace,
	}
	if s.ephemeral && !given("history-total") {
		o.History.Total = 0
	}
	if len(s.tls.Domains) == 0 {
		o.TLS.Cache = ""
	}
	switch files := s.tls.CertFile != "" || s.tls.KeyFile != ""; {
	case files && (s.tls.CertFile == "" || s.tls.KeyFile == ""):
		return o, errors.New("--tls-cert and --tls-key belong together: one has the certificate, the other its key")
	case files && len(s.tls.Domains) > 0:
		return o, errors.New("--tls-cert has a certificate, --acme-domain gets one; leave out one of them")
	case len(s.tls.Domains) > 0 && s.tls.Cache == "":
		return o, errors.New("there is no home folder to keep certificates in; say where with --acme-cache DIRECTORY")
	case s.ephemeral && given("data"):
		return o, fmt.Errorf("--ephemeral keeps nothing, so it can't go with --data %s; leave out one of them", s.data)
	case s.ephemeral:
		o.Data = ""
	case s.data == "":
		return o, errors.New("there is no home folder to keep data in; say where with --data DIRECTORY, or use --ephemeral")
	}
	if s.shutdownGrace <= 0 {
		return o, fmt.Errorf("--shutdown-grace must be more than 0, but is %v", s.shutdownGrace)
	}
	if s.historyKeep <= 0 {
		return o, fmt.Errorf("--history-keep must be more than 0, but is %v", s.historyKeep)
	}
	s.level = new(slog.LevelVar)
	if err := s.level.UnmarshalText([]byte(s.logLevel.value)); err != nil {
		return o, err
	}
	handler := slog.HandlerOptions{Level: s.level}
	if s.logFormat.value == "json" {
		o.Logger = slog.New(slog.NewJSONHandler(os.Stderr, &handler))
	} else {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &handler))
	}
	verifier, err := s.chains.verifier(o.Logger)
	if err != nil {
		return o, err
	}
	if verifier != nil {
		o.ContractVerifier = verifier
	}
	return o, nil
}

// threadsPerProcessor is how many threads run Go code for each processor. With one,
// whoever comes back from a sync of the disk waits until somebody else gives up his,
// which takes up to 10 ms beside a compaction; with more the system decides, and
// prefers who has slept.
const threadsPerProcessor = 2

// run serves until a signal or a failure ends it.
func (s *nodeSettings) run(ctx context.Context, o node.Options, settings *reloader) error {
	if s.traces != "" {
		provider, stop, err := startTraces(string(s.traces), o.Logger)
		if err != nil {
			return err
		}
		defer stop()
		o.TracerProvider = provider
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(threadsPerProcessor * runtime.GOMAXPROCS(0))
	}
	n, err := node.Start(ctx, o)
	if err != nil {
		return explain(err, o)
	}
	for running := true; running; {
		select {
		case <-n.Done():
			return n.Err()
		case <-again:
			settings.reload(n)
		case <-signals:
			running = false
		}
	}
	o.Logger.Info("stopping; once more stops at once", "grace", o.ShutdownGrace)
	atOnce, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-signals:
			o.Logger.Warn("stopping at once")
			cancel()
		case <-n.Done():
		}
	}()
	return n.Shutdown(atOnce)
}

// explain says what to do about a node that did not start.
func explain(err error, o node.Options) error {
	advice := ""
	switch {
	case errors.Is(err, node.ErrAddressInUse):
		flag, addr := "--listen", o.Listen
		if l, ok := errors.AsType[*node.ListenError](err); ok {
			switch addr = l.Addr; l.Option {
			case "WebListen":
				flag = "--web-listen"
			case "HistoryListen":
				flag = "--history-listen"
			case "MetricsListen":
				flag = "--metrics-listen"
			}
		}
		advice = "Another program, perhaps another node, listens there. Stop it, or choose another port:\n  xmtp node " + flag + " " + nextPort(addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = "This machine doesn't have that address. Use 127.0.0.1 for this machine only, or 0.0.0.0 for all its addresses."
	case errors.Is(err, node.ErrInUse):
		advice = "Another node uses this directory. Stop it, or give this one a directory of its own with --data."
	case errors.Is(err, node.ErrForeignDirectory):
		advice = "It was left as it is. Choose an empty or a new directory with --data."
	case errors.Is(err, node.ErrNewerFormat):
		advice = "It was left as it is. Run the version of xmtp that wrote it, or a newer one."
	case errors.Is(err, fs.ErrPermission):
		advice = "Run the node as a user who may, or choose something else with --listen or --data."
	case errors.Is(err, node.ErrDamaged):
		advice = "It was left as it is. Restore it from a backup; or, to start empty, move it away:\n  mv " + o.Data + " " + o.Data + ".damaged"
	default:
		return err
	}
	return fmt.Errorf("%w\n%s", err, advice)
}

func nextPort(listen string) string {
	host, port, _ := net.SplitHostPort(listen)
	number, err := strconv.Atoi(port)
	if err != nil || number >= 65535 {
		number = 0
	} else {
		number++
	}
	return net.JoinHostPort(host, strconv.Itoa(number))
}
