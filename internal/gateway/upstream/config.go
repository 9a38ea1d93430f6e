package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

// Protocol is what an upstream speaks.
type Protocol string

// The protocols. HTTP/2 on a plain connection is spoken without asking first (h2c with prior knowledge).
const (
	ProtocolHTTP1 Protocol = "http1"
	ProtocolHTTP2 Protocol = "http2"
)

// Balance is how requests are spread.
type Balance string

// The ways of spreading.
const (
	BalanceRoundRobin       Balance = "round_robin"
	BalanceLeastConnections Balance = "least_connections"
	BalanceHash             Balance = "hash"
)

// Config describes one upstream. Durations of zero switch off what they bound, unless it says otherwise.
type Config struct {
	Name        string      `yaml:"name" doc:"What routes, logs and metrics call it."`
	Endpoints   []Endpoint  `yaml:"endpoints" doc:"Where it listens; endpoints are as good as each other."`
	Protocol    Protocol    `yaml:"protocol" doc:"http1, or http2 for gRPC and whatever else needs it."`
	TLS         TLS         `yaml:"tls" doc:"What endpoints with https:// have to show, and are shown."`
	Balance     Balance     `yaml:"balance" doc:"round_robin, least_connections, or hash: the same key goes to the same endpoint unless that one is busier than the rest."`
	Connections Connections `yaml:"connections" doc:"How many connections are kept, and for how long."`
	Timeouts    Timeouts    `yaml:"timeouts" doc:"How long the upstream may take."`
	Retry       Retry       `yaml:"retry" doc:"When a request is sent again."`
	Hedge       Hedge       `yaml:"hedge" doc:"Asking a second endpoint when the first one is slow; GET and HEAD only."`
	Breaker     Breaker     `yaml:"breaker" doc:"When the upstream as a whole is left alone."`
	Health      Health      `yaml:"health" doc:"Which endpoints get requests."`
	Bulkhead    Bulkhead    `yaml:"bulkhead" doc:"How much of the gateway this upstream may take."`
	Static      Static      `yaml:"static" doc:"The answer when there is no other."`
	MaxHeader   int         `yaml:"max_header" doc:"The largest header of an answer, in bytes."`
	BufferBody  int64       `yaml:"buffer_body" doc:"Request bodies of up to so many bytes are read before an endpoint hears of them, so that they can be sent again and slow clients keep nobody waiting."`
}

// Endpoint is one address.
type Endpoint struct {
	URL    string `yaml:"url" doc:"http://host:port, https://host:port or unix:/path."`
	Weight int    `yaml:"weight" doc:"How much of the work it gets compared to the others, 1 to 100; 0 means 1."`
}

// TLS says whom to trust.
type TLS struct {
	CAFile     string `yaml:"ca_file" doc:"A PEM file of certificate authorities to trust instead of the system's."`
	CertFile   string `yaml:"cert_file" doc:"A PEM file with the certificate that the gateway shows."`
	KeyFile    string `yaml:"key_file" doc:"A PEM file with the key of that certificate."`
	ServerName string `yaml:"server_name" doc:"The name in the endpoints' certificates, where it is not that of their address."`
}

// Connections bounds what is kept open.
type Connections struct {
	MaxIdle     int           `yaml:"max_idle" doc:"Idle connections kept for each endpoint."`
	IdleTimeout time.Duration `yaml:"idle_timeout" doc:"How long a connection is kept without use. Below the endpoint's own limit, or it closes connections that are about to be used; a limit that it tells (Keep-Alive: timeout=5) is kept to."`
}

// Timeouts bounds how long things take. Bounds on silence may be exceeded by an eighth.
type Timeouts struct {
	Connect   time.Duration `yaml:"connect" doc:"For a connection, with its TLS handshake. Not zero."`
	FirstByte time.Duration `yaml:"first_byte" doc:"From the end of the request to the beginning of the answer."`
	Idle      time.Duration `yaml:"idle" doc:"Of silence within an answer, and of not reading within a request."`
	Total     time.Duration `yaml:"total" doc:"For everything together, retries and the whole answer included. Off by default, since downloads and event streams take their time."`
	Tunnel    time.Duration `yaml:"tunnel" doc:"Of silence in both directions after a change of protocol, such as to WebSocket."`
}

// Retry says when a request is sent again: one that is idempotent, or that no endpoint has seen.
type Retry struct {
	Attempts  int           `yaml:"attempts" doc:"How often a request is sent at most; 1 is never again."`
	Statuses  []int         `yaml:"statuses" doc:"Answers after which an idempotent request is sent again."`
	OnTimeout bool          `yaml:"on_timeout" doc:"Whether an idempotent request is sent again when its answer did not begin in time."`
	Base      time.Duration `yaml:"base" doc:"The wait before the second attempt is random up to this; it doubles with every further one."`
	Max       time.Duration `yaml:"max" doc:"The longest wait."`
	Budget    float64       `yaml:"budget" doc:"Retries and hedges together, as a fraction of all requests. In trouble, more would make it worse."`
	Burst     int           `yaml:"burst" doc:"Retries that may be saved up."`
}

// Hedge says when a second endpoint is asked.
type Hedge struct {
	After    time.Duration `yaml:"after" doc:"Ask another endpoint when the first has not answered for so long; whoever answers first counts. 0: never, unless quantile is set."`
	Quantile float64       `yaml:"quantile" doc:"Such as 0.95: instead of a fixed time, that of the slowest twentieth; after, if set, is then the least."`
}

// Breaker says when an upstream is left alone.
type Breaker struct {
	Failures int           `yaml:"failures" doc:"So many failures in a row open it. 0: failures in a row do not."`
	Ratio    float64       `yaml:"ratio" doc:"Open when so much of the requests in the window failed, 0 to 1. 0: the ratio does not."`
	Volume   int           `yaml:"volume" doc:"Requests that the window must have seen for the ratio to count."`
	Window   time.Duration `yaml:"window" doc:"The time that the ratio is of."`
	Open     time.Duration `yaml:"open" doc:"How long nothing is sent; then a few requests try."`
	Probes   int           `yaml:"probes" doc:"How many of them must succeed in a row to close it; as many may be in flight."`
}

// Health says which endpoints get requests.
type Health struct {
	Active  Active  `yaml:"active" doc:"Asking endpoints how they are."`
	Passive Passive `yaml:"passive" doc:"Watching how requests go."`
}

// Active asks. An endpoint is taken for healthy until it was asked.
type Active struct {
	Path      string        `yaml:"path" doc:"What is asked for with GET; healthy is 200 to 399. Empty: nobody asks."`
	Host      string        `yaml:"host" doc:"The Host header, where it is not the endpoint's address."`
	Interval  time.Duration `yaml:"interval" doc:"Between two questions, give or take a tenth."`
	Timeout   time.Duration `yaml:"timeout" doc:"For the answer."`
	Healthy   int           `yaml:"healthy" doc:"Good answers in a row that bring an endpoint back."`
	Unhealthy int           `yaml:"unhealthy" doc:"Bad ones in a row that take it out."`
}

// Passive takes out endpoints that do worse than they should, for a while, and longer each time.
type Passive struct {
	Failures int           `yaml:"failures" doc:"So many failures in a row take an endpoint out. 0: failures in a row do not."`
	Ratio    float64       `yaml:"ratio" doc:"Take it out when so much of its requests in the window failed, 0 to 1. 0: the ratio does not."`
	Volume   int           `yaml:"volume" doc:"Requests that the window must have seen for the ratio to count."`
	Window   time.Duration `yaml:"window" doc:"The time that the ratio is of."`
	Base     time.Duration `yaml:"base" doc:"For how long, times the number of times in a row."`
	Max      time.Duration `yaml:"max" doc:"The longest time."`
	Share    float64       `yaml:"share" doc:"At most so much of the endpoints, 0 to 1, and never all of them."`
}

// Bulkhead bounds requests in flight.
type Bulkhead struct {
	Max   int           `yaml:"max" doc:"Requests in flight at once; 0 for any number."`
	Queue int           `yaml:"queue" doc:"Requests that wait for their turn."`
	Wait  time.Duration `yaml:"wait" doc:"How long they wait."`
}

// Static is an answer of the gateway's own.
type Static struct {
	Status      int    `yaml:"status" doc:"Its status; 0 for no such answer."`
	ContentType string `yaml:"content_type" doc:"Of its body."`
	Body        string `yaml:"body" doc:"Its body."`
}

// DefaultConfig has no endpoints.
func DefaultConfig() Config {
	return Config{
		Protocol:    ProtocolHTTP1,
		Balance:     BalanceRoundRobin,
		Connections: Connections{MaxIdle: 256, IdleTimeout: 50 * time.Second},
		Timeouts: Timeouts{Connect: 3 * time.Second, FirstByte: 30 * time.Second, Idle: 60 * time.Second,
			Tunnel: 10 * time.Minute},
		Retry: Retry{Attempts: 3, Statuses: []int{http.StatusBadGateway, http.StatusServiceUnavailable}, Base: 25 * time.Millisecond,
			Max: time.Second, Budget: 0.2, Burst: 20},
		Breaker: Breaker{Failures: 20, Ratio: 0.8, Volume: 50, Window: 10 * time.Second, Open: 5 * time.Second, Probes: 3},
		Health: Health{
			Active: Active{Interval: 5 * time.Second, Timeout: 2 * time.Second, Healthy: 2, Unhealthy: 3},
			Passive: Passive{Failures: 5, Ratio: 0.5, Volume: 20, Window: 10 * time.Second, Base: 10 * time.Second,
				Max: 5 * time.Minute, Share: 0.5},
		},
		Bulkhead:   Bulkhead{Queue: 100, Wait: time.Second},
		MaxHeader:  32 << 10,
		BufferBody: 16 << 10,
	}
}

// Validate returns everything that is wrong with the configuration, each with its key, value and remedy.
func (c Config) Validate() error {
	var errs []error
	wrong := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(syntax.Token(c.Name), "name: %q is no name; use letters, digits and dashes", c.Name)
	wrong(c.Protocol == ProtocolHTTP1 || c.Protocol == ProtocolHTTP2, "protocol: %q is not known; use http1 or http2", c.Protocol)
	wrong(slices.Contains([]Balance{BalanceRoundRobin, BalanceLeastConnections, BalanceHash}, c.Balance),
		"balance: %q is not known; use round_robin, least_connections or hash", c.Balance)
	wrong(c.Connections.MaxIdle >= 0, "connections.max_idle: %d is negative; use 256", c.Connections.MaxIdle)
	wrong(c.Connections.IdleTimeout > 0, "connections.idle_timeout: %s would keep none; use 50s", c.Connections.IdleTimeout)
	wrong(c.Timeouts.Connect > 0, "timeouts.connect: %s would make no connection or wait for ever; use 3s", c.Timeouts.Connect)
	for key, d := range map[string]time.Duration{"first_byte": c.Timeouts.FirstByte, "idle": c.Timeouts.Idle,
		"total": c.Timeouts.Total, "tunnel": c.Timeouts.Tunnel} {
		wrong(d >= 0, "timeouts.%s: %s is negative; use 0 for no bound", key, d)
	}
	wrong(c.MaxHeader >= 1024 && c.MaxHeader <= 1<<20, "max_header: %d is not within 1024 and 1048576; use 32768", c.MaxHeader)
	wrong(c.BufferBody >= 0 && c.BufferBody <= 1<<20, "buffer_body: %d is not within 0 and 1048576; use 16384", c.BufferBody)
	wrong(c.Static.Status == 0 || c.Static.Status >= 200 && c.Static.Status <= 599, "static.status: %d is no status of an answer; use 503",
		c.Static.Status)
	_, err := c.TLS.load()
	errs = append(errs, err, validateEndpoints(c.Endpoints), c.Retry.validate(), c.Hedge.validate(), c.Breaker.validate(),
		c.Health.validate(), c.Bulkhead.validate())
	return errors.Join(errs...)
}

func validateEndpoints(list []Endpoint) error {
	var errs []error
	seen := map[string]bool{}
	for i, e := range list {
		if _, err := parseAddress(e.URL); err != nil {
			errs = append(errs, fmt.Errorf("endpoints[%d].url: %q: %w", i, e.URL, err))
		}
		if seen[e.URL] {
			errs = append(errs, fmt.Errorf("endpoints[%d].url: %q is there twice; give it a weight instead", i, e.URL))
		}
		seen[e.URL] = true
		if e.Weight < 0 || e.Weight > 100 {
			errs = append(errs, fmt.Errorf("endpoints[%d].weight: %d is not within 1 and 100; use 1", i, e.Weight))
		}
	}
	return errors.Join(errs...)
}

func (r Retry) validate() error {
	var errs []error
	if r.Attempts < 1 || r.Attempts > 10 {
		errs = append(errs, fmt.Errorf("retry.attempts: %d is not within 1 and 10; use 3", r.Attempts))
	}
	for _, status := range r.Statuses {
		if status < 500 || status > 599 {
			errs = append(errs, fmt.Errorf("retry.statuses: %d is not within 500 and 599; use 502 and 503", status))
		}
	}
	if r.Budget < 0 || r.Budget > 1 {
		errs = append(errs, fmt.Errorf("retry.budget: %g is not within 0 and 1; use 0.2", r.Budget))
	}
	if r.Base < 0 || r.Max < r.Base || r.Burst < 0 {
		errs = append(errs, fmt.Errorf("retry: base %s, max %s and burst %d do not go together; use 25ms, 1s and 20", r.Base, r.Max, r.Burst))
	}
	return errors.Join(errs...)
}

func (h Hedge) validate() error {
	if h.After < 0 || h.Quantile < 0 || h.Quantile >= 1 {
		return fmt.Errorf("hedge: after %s or quantile %s is out of range; use 0.95", h.After, strconv.FormatFloat(h.Quantile, 'g', -1, 64))
	}
	return nil
}

func (b Breaker) validate() error {
	var errs []error
	if b.Ratio < 0 || b.Ratio > 1 || b.Failures < 0 || b.Volume < 0 {
		errs = append(errs, fmt.Errorf("breaker: failures %d, ratio %g or volume %d is out of range; use 20, 0.8 and 50", b.Failures, b.Ratio, b.Volume))
	}
	if (b.Failures > 0 || b.Ratio > 0) && (b.Open <= 0 || b.Probes < 1 || b.Window < time.Second) {
		errs = append(errs, fmt.Errorf("breaker: open %s, probes %d or window %s is too small; use 5s, 3 and 10s", b.Open, b.Probes, b.Window))
	}
	return errors.Join(errs...)
}

func (h Health) validate() error {
	var errs []error
	if a := h.Active; a.Path != "" && (a.Path[0] != '/' || !syntax.Visible(a.Path)) {
		errs = append(errs, fmt.Errorf("health.active.path: %q is no path; write it like /healthz", a.Path))
	}
	if a := h.Active; a.Path != "" && (a.Interval < 10*time.Millisecond || a.Timeout <= 0 || a.Healthy < 1 || a.Unhealthy < 1) {
		errs = append(errs, fmt.Errorf("health.active: interval %s, timeout %s, healthy %d or unhealthy %d is too small; use 5s, 2s, 2 and 3",
			a.Interval, a.Timeout, a.Healthy, a.Unhealthy))
	}
	if p := h.Passive; p.Failures < 0 || p.Ratio < 0 || p.Ratio > 1 || p.Share < 0 || p.Share > 1 || p.Volume < 0 {
		errs = append(errs, fmt.Errorf("health.passive: failures %d, ratio %g, volume %d or share %g is out of range; use 5, 0.5, 20 and 0.5",
			p.Failures, p.Ratio, p.Volume, p.Share))
	}
	if p := h.Passive; (p.Failures > 0 || p.Ratio > 0) && (p.Base <= 0 || p.Max < p.Base || p.Window < time.Second) {
		errs = append(errs, fmt.Errorf("health.passive: base %s, max %s or window %s is too small; use 10s, 5m and 10s", p.Base, p.Max, p.Window))
	}
	return errors.Join(errs...)
}

func (b Bulkhead) validate() error {
	if b.Max < 0 || b.Queue < 0 || b.Wait < 0 {
		return fmt.Errorf("bulkhead: max %d, queue %d or wait %s is negative; use 0 for no bound", b.Max, b.Queue, b.Wait)
	}
	return nil
}

// failing reports whether an answer says that the service, and not the request, is at fault. A plain 500 may be either.
func (c *Config) failing(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

func (r *Retry) onStatus(status int) bool {
	return status >= 500 && r.Attempts > 1 && slices.Contains(r.Statuses, status)
}

// backoff is a random time up to a bound that doubles with each attempt: full jitter, so that those who failed together do not
// come back together.
func (r *Retry) backoff(attempt int) time.Duration {
	bound := min(r.Base<<min(attempt-1, 20), r.Max)
	if bound <= 0 {
		return 0
	}
	return rand.N(bound)
}
