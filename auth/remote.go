package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxKeySetSize = 256 << 10
	fetchTimeout  = 5 * time.Second
	retryInterval = 10 * time.Second // between fetches that nothing but failure or an unknown kid asks for
	firstInterval = time.Second      // the same while no keys are loaded at all
	minFreshness  = time.Minute
	maxFreshness  = time.Hour
	someFreshness = 5 * time.Minute // where the answer does not say

	defaultKeysStale = 7 * 24 * time.Hour
)

// RemoteConfig says where [RemoteKeys] come from.
type RemoteConfig struct {
	// Issuer publishes the keys: at the address that its metadata name (OpenID Connect Discovery, RFC 8414), or at
	// /.well-known/jwks.json below it where it has no metadata. https, or http to this very machine.
	Issuer string
	// URL of the JWK Set, instead of Issuer. One of the two is required.
	URL string
	// Client makes the requests. Nil: one that follows no redirects. Each fetch is given 5 seconds in any case.
	Client *http.Client
	// MaxStale is how long keys are used after they were last fetched, while the issuer cannot be reached. Zero: 7 days.
	MaxStale time.Duration
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
}

// RemoteKeys is the [KeySource] over HTTP. It keeps the issuer's keys in memory and lives through outages:
//
//   - the first use waits for the keys; from then on they are renewed behind the scenes when they are used after the
//     document's max-age, which is taken as one minute at least and one hour at most;
//   - an unknown key id asks the issuer at once, but at most every 10 seconds, and one request serves all who wait;
//   - while the issuer is down or answers nonsense the keys it last published stay, for [RemoteConfig.MaxStale].
//
// Between fetches there is no goroutine: each runs on one of its own, for 5 seconds at most.
type RemoteKeys struct {
	cfg     RemoteConfig
	current atomic.Pointer[keySet]

	mu      sync.Mutex
	last    *flight   // the fetch under way or the latest one
	started time.Time // of last
	found   string    // URL that the issuer's metadata named; empty: not asked yet. Only the fetch under way uses it
}

// keySet is what one answer said.
type keySet struct {
	keys     map[string]Key
	document []byte
	fetched  time.Time
	stale    time.Time // to be renewed
	dead     time.Time // not to be used any more
}

// flight is a fetch; err may be read once done is closed.
type flight struct {
	done chan struct{}
	err  error
}

func (f *flight) over() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// NewRemoteKeys returns a source that has fetched nothing yet.
func NewRemoteKeys(cfg RemoteConfig) (*RemoteKeys, error) {
	address := cfg.URL
	if address == "" {
		address = cfg.Issuer
	}
	if err := safeAddress(address); err != nil {
		return nil, fmt.Errorf("address of the keys: %w", err)
	}
	if cfg.MaxStale < 0 {
		return nil, fmt.Errorf("auth.RemoteConfig.MaxStale is %v: use 0 for %v", cfg.MaxStale, defaultKeysStale)
	}
	if cfg.MaxStale == 0 {
		cfg.MaxStale = defaultKeysStale
	}
	if cfg.Client == nil {
		cfg.Client = newClient()
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &RemoteKeys{cfg: cfg}, nil
}

// newClient follows no redirects: an open one at the issuer would choose the keys, or be given the credentials.
func newClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// safeAddress accepts https, and http to this very machine.
func safeAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("%q: %w", address, err)
	}
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return fmt.Errorf("%q must begin with https://, or with http:// and name this machine", address)
	}
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.Unmap().IsLoopback()
}

// Key returns the key with this id. It waits, no longer than ctx allows, only while no keys are loaded or when kid is
// not among them.
func (k *RemoteKeys) Key(ctx context.Context, kid string) (Key, error) {
	if set := k.living(); set != nil {
		if key, there := set.keys[kid]; there {
			if k.cfg.Clock().After(set.stale) {
				k.fetch()
			}
			return key, nil
		}
	}
	if err := k.renew(ctx); err != nil {
		return Key{}, err
	}
	if set := k.living(); set != nil {
		if key, there := set.keys[kid]; there {
			return key, nil
		}
	}
	return Key{}, ErrUnknownKey
}

// Fetched returns when the keys in use were fetched from the issuer; the zero time while there are none.
func (k *RemoteKeys) Fetched() time.Time {
	if set := k.living(); set != nil {
		return set.fetched
	}
	return time.Time{}
}

// living returns the keys that may be used, or nil.
func (k *RemoteKeys) living() *keySet {
	set := k.current.Load()
	if set == nil || k.cfg.Clock().After(set.dead) {
		return nil
	}
	return set
}

// refresh starts a fetch if the keys are due. It does not wait.
func (k *RemoteKeys) refresh() {
	if set := k.living(); set == nil || k.cfg.Clock().After(set.stale) {
		k.fetch()
	}
}

// restore takes keys from a snapshot, to be renewed at once. Keys that are there already are newer.
func (k *RemoteKeys) restore(document []byte, fetched time.Time) error {
	keys, err := parseKeys(document)
	if err != nil {
		return err
	}
	k.current.CompareAndSwap(nil, &keySet{
		keys: keys, document: document, fetched: fetched, stale: fetched, dead: fetched.Add(k.cfg.MaxStale),
	})
	return nil
}

// renew waits for a fetch, unless the last one is too recent to ask again. It returns why the keys could not be
// fetched: then nobody can say whether the issuer has a new one.
func (k *RemoteKeys) renew(ctx context.Context) error {
	f := k.fetch()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("wait for keys: %w", ctx.Err())
	}
}

// fetch returns the fetch under way, or starts one, or returns the last one when that is too recent.
func (k *RemoteKeys) fetch() *flight {
	k.mu.Lock()
	defer k.mu.Unlock()
	interval, now := retryInterval, k.cfg.Clock()
	if k.living() == nil {
		interval = firstInterval
	}
	if k.last != nil && (!k.last.over() || now.Sub(k.started) < interval) {
		return k.last
	}
	k.last, k.started = &flight{done: make(chan struct{})}, now
	go k.run(k.last)
	return k.last
}

// run is not tied to the request that asked first: others wait for the same answer.
func (k *RemoteKeys) run(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	set, err := k.get(ctx)
	if err == nil {
		k.current.Store(set)
	}
	f.err = err
	close(f.done)
}

func (k *RemoteKeys) get(ctx context.Context) (*keySet, error) {
	address, err := k.address(ctx)
	if err != nil {
		return nil, err
	}
	body, header, err := k.read(ctx, address, "application/jwk-set+json, application/json")
	if err != nil {
		k.found = "" // it may have moved
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	keys, err := parseKeys(body)
	if err != nil {
		return nil, err
	}
	now := k.cfg.Clock()
	return &keySet{
		keys: keys, document: body, fetched: now, stale: now.Add(freshness(header)), dead: now.Add(k.cfg.MaxStale),
	}, nil
}

// address returns where the keys are.
func (k *RemoteKeys) address(ctx context.Context) (string, error) {
	if k.cfg.URL != "" {
		return k.cfg.URL, nil
	}
	if k.found != "" {
		return k.found, nil
	}
	for _, candidate := range metadataAddresses(k.cfg.Issuer) {
		body, _, err := k.read(ctx, candidate, "application/json")
		if absent(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("fetch the issuer's metadata: %w", err)
		}
		if k.found, err = k.keysOf(body); err != nil {
			return "", fmt.Errorf("metadata at %s: %w", candidate, err)
		}
		return k.found, nil
	}
	k.found = strings.TrimSuffix(k.cfg.Issuer, "/") + "/.well-known/jwks.json"
	return k.found, nil
}

// keysOf reads the metadata. They must be of the very issuer that was asked (RFC 8414 section 3.3).
func (k *RemoteKeys) keysOf(metadata []byte) (string, error) {
	var m struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(metadata, &m); err != nil {
		return "", err
	}
	if m.Issuer != k.cfg.Issuer {
		return "", fmt.Errorf("they are of the issuer %q, not of %q", m.Issuer, k.cfg.Issuer)
	}
	if err := safeAddress(m.Keys); err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	return m.Keys, nil
}

// metadataAddresses of an issuer: OpenID Connect Discovery 1.0 section 4 appends, RFC 8414 section 3.1 inserts.
func metadataAddresses(issuer string) []string {
	addresses := []string{strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"}
	if u, err := url.Parse(issuer); err == nil {
		u.Path, u.RawPath = "/.well-known/oauth-authorization-server"+strings.TrimSuffix(u.Path, "/"), ""
		addresses = append(addresses, u.String())
	}
	return addresses
}

// statusError is an answer other than 200.
type statusError struct {
	address string
	status  int
	after   time.Duration // Retry-After
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answers %d", e.address, e.status) }

// absent reports whether err says that there is no such thing at the issuer.
func absent(err error) bool {
	var e *statusError
	if !errors.As(err, &e) {
		return false
	}
	switch e.status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusNotImplemented:
		return true
	}
	return false
}

func (k *RemoteKeys) read(ctx context.Context, address, accept string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", accept)
	res, err := k.cfg.Client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, &statusError{address: req.URL.Redacted(), status: res.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeySetSize+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > maxKeySetSize {
		return nil, nil, fmt.Errorf("%s: more than %d bytes", req.URL.Redacted(), maxKeySetSize)
	}
	return body, res.Header, nil
}

// freshness returns for how long an answer may be used: its max-age within the bounds (RFC 9111 section 5.2.2.1).
func freshness(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
		if err == nil {
			return min(max(time.Duration(seconds)*time.Second, minFreshness), maxFreshness)
		}
	}
	return someFreshness
}
