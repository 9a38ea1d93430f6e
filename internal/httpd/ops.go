package httpd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds the readiness check.
const readyTimeout = 5 * time.Second

// OpsConfig configures the operators' handler.
type OpsConfig struct {
	// Ready returns nil when the process can take traffic, and otherwise an error whose text names what is not ready. Operators
	// see that text.
	Ready func(context.Context) error
	// Notes are what operators should know although the process takes traffic; nil for none.
	Notes func() []string
	// Registry holds the metrics to expose.
	Registry *prometheus.Registry
	// Extra adds further routes; nil adds none.
	Extra func(*http.ServeMux)
	// Listen is the address of the operators' listener. A host name in it is accepted as Host.
	Listen string
	// Log receives failures of the handler; nil means slog.Default.
	Log *slog.Logger
}

// NewRegistry returns a registry with the metrics of the Go runtime and the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// OpsHandler returns the handler of the operators' listener: /livez, /readyz, /metrics, /debug/pprof/ and cfg.Extra.
//
// It passes the same chain as public requests, except that uneventful requests are logged at debug level and not counted.
// It answers only to a Host that is an IP address, localhost, or the host of cfg.Listen: a web page elsewhere that has its
// own name point at this machine (DNS rebinding) gets nothing.
func OpsHandler(cfg OpsConfig) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", readyz(cfg.Ready, cfg.Notes))
	mux.Handle("GET /metrics", notForPages(promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{})))
	for name, serve := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.Handle("GET /debug/pprof/"+name, notForPages(WithoutTimeout(serve))) // profiles are recorded for as long as one asks
	}
	if cfg.Extra != nil {
		cfg.Extra(mux)
	}
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	e := &edge{log: log, cfg: DefaultConfig(), quiet: true}
	name, _, _ := net.SplitHostPort(cfg.Listen)
	return e.wrap(Guard(e.cfg)(checkHost(name, Routes(mux, nil))))
}

// notForPages refuses what a page elsewhere made a browser ask for (Fetch Metadata): it could not read the answer, but profiles
// cost the process something. Nothing of it is kept by a browser.
func notForPages(next http.Handler) http.Handler {
	return Handler(func(w http.ResponseWriter, r *http.Request) error {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "cross-site", "same-site":
			return ErrCrossOrigin
		}
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
		return nil
	})
}

// readyz answers 200 when ready returns nil, with the notes after it, and 503 with the error's text otherwise.
func readyz(ready func(context.Context) error, notes func() []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := ready(ctx); err != nil {
			plain(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
		lines := []string{"ok"}
		if notes != nil {
			lines = append(lines, notes()...)
		}
		plain(w, http.StatusOK, strings.Join(lines, "\n"))
	}
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

func checkHost(listenHost string, next http.Handler) http.Handler {
	return Handler(func(w http.ResponseWriter, r *http.Request) error {
		if !isOwnHost(r.Host, listenHost) {
			return ErrHost
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// isOwnHost reports whether a Host header is an address, localhost or the name the listener was configured with.
func isOwnHost(host, listenHost string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return strings.EqualFold(host, "localhost") || listenHost != "" && strings.EqualFold(host, listenHost)
}
