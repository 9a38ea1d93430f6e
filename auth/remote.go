package auth

import (
	"context"
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
)

// RemoteConfig says where [RemoteKeys] come from.
type RemoteConfig struct {
	// URL of the JWK Set: https, or http to this very machine. Required.
	URL string
	// Client makes the requests. Nil: one that follows no redirects. Each fetch is given 5 seconds in any case.
	Client *http.Client
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
}

// RemoteKeys is the [KeySource] over HTTP. It keeps the issuer's keys in memory and lives through outages:
//
//   - the first use waits for the keys; from then on they are renewed behind the scenes when they are used after the
//     document's max-age, which is taken as one minute at least and one hour at most;
//   - an unknown key id asks the issuer at once, but at most every 10 seconds, and one request serves all who wait;
//   - while the issuer is down or answers nonsense the keys it last published stay.
//
// Between fetches there is no goroutine: each runs on one of its own, for 5 seconds at most.
type RemoteKeys struct {
	url    string
	client *http.Client
	clock  func() time.Time

	current atomic.Pointer[keySet]

	mu      sync.Mutex
	last    *flight   // the fetch under way or the latest one
	started time.Time // of last
}

type keySet struct {
	keys  map[string]Key
	stale time.Time
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
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("auth: key set address: %w", err)
	}
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("auth: key set address %q: use https, or http to this machine only", u.Redacted())
	}
	k := &RemoteKeys{url: cfg.URL, client: cfg.Client, clock: cfg.Clock}
	if k.client == nil {
		k.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
	}
	if k.clock == nil {
		k.clock = time.Now
	}
	return k, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.Unmap().IsLoopback()
}

// Key returns the key with this id. It waits, no longer than ctx allows, only while no keys are loaded or when kid is
// not among them.
func (k *RemoteKeys) Key(ctx context.Context, kid string) (Key, error) {
	if set := k.current.Load(); set != nil {
		if key, there := set.keys[kid]; there {
			if k.clock().After(set.stale) {
				k.fetch()
			}
			return key, nil
		}
	}
	if err := k.renew(ctx); err != nil {
		return Key{}, err
	}
	if key, there := k.current.Load().keys[kid]; there {
		return key, nil
	}
	return Key{}, ErrUnknownKey
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
	interval, now := retryInterval, k.clock()
	if k.current.Load() == nil {
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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch keys from %s: status %d", req.URL.Redacted(), res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeySetSize+1))
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	if len(body) > maxKeySetSize {
		return nil, fmt.Errorf("fetch keys from %s: more than %d bytes", req.URL.Redacted(), maxKeySetSize)
	}
	keys, err := parseKeys(body)
	if err != nil {
		return nil, err
	}
	return &keySet{keys: keys, stale: k.clock().Add(freshness(res.Header))}, nil
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
