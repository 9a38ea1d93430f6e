package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 15 * time.Second
	absentRetry  = time.Minute // where the issuer has no feed, or does not let this service read it
	maxRetry     = time.Minute // of what the issuer may ask for with Retry-After
	// silence ends a connection: the server sends something once a second.
	silence           = 5 * time.Second
	maxPosition       = 128
	defaultMaxEntries = 1_000_000
)

// Unknown is the staleness of a [Verifier] that has never read a feed, or that has none.
const Unknown = time.Duration(math.MaxInt64)

// errFull: the feed has more entries than Config.MaxRevocations allows.
var errFull = errors.New("the feed has more entries than auth.Config.MaxRevocations")

// feed follows the issuer's revocation feed and fills the set with it. The position is opaque to us; only the issuer can tell
// whether it goes on from there.
type feed struct {
	url    string
	source TokenSource
	client *http.Client
	set    *RevocationSet
	max    int
	clock  func() time.Time
	log    *slog.Logger

	synced atomic.Pointer[time.Time] // up to when everything revoked is in the set
	absent atomic.Bool               // the issuer has no feed, or none for this service

	mu       sync.Mutex
	position string // up to where
	reading  sync.Mutex
}

func newFeed(cfg *Config) (*feed, error) {
	f := &feed{
		url: cfg.FeedURL, source: cfg.Credentials, client: cfg.Client, set: cfg.Revocations, max: cfg.MaxRevocations,
		clock: cfg.Clock, log: cfg.Log,
	}
	if f.url == "" {
		f.url = strings.TrimSuffix(cfg.Issuer, "/") + "/v1/revocations"
	}
	if f.max == 0 {
		f.max = defaultMaxEntries
	}
	if err := safeAddress(f.url); err != nil { // it is sent a token
		return nil, fmt.Errorf("address of the revocation feed: %w", err)
	}
	return f, nil
}

// staleness is how old what is known of the feed is.
func (f *feed) staleness() time.Duration {
	at := f.synced.Load()
	if at == nil {
		return Unknown
	}
	return max(0, f.clock().Sub(*at))
}

// resume goes on from a snapshot.
func (f *feed) resume(position string, synced time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.position = position
	f.synced.Store(&synced)
}

func (f *feed) place() (position string, synced *time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.position, f.synced.Load()
}

// run follows the feed until ctx ends. It comes back after each loss, with exponential backoff and full jitter, so that
// many services do not come back at once.
func (f *feed) run(ctx context.Context) {
	failures, told := 0, false
	for {
		current, err := f.follow(ctx, false)
		if ctx.Err() != nil {
			return
		}
		if current { // it worked for a while: servers end streams to drain, and when our token expires
			failures, told = 0, false
		}
		wait, grave := f.backoff(failures, err)
		failures++
		if (grave || failures == 3) && !told { // a short break is no news, a long one once
			told = true
			f.log.LogAttrs(ctx, slog.LevelWarn, "revocation_feed_unavailable", slog.Any("error", err), slog.Duration("retry_in", wait))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// backoff returns how long to wait, and whether this is for an operator to see at once.
func (f *feed) backoff(failures int, err error) (wait time.Duration, grave bool) {
	ceiling := min(maxBackoff, firstBackoff<<min(failures, 10))
	wait = rand.N(ceiling)
	var status *statusError
	if !errors.As(err, &status) {
		return wait, errors.Is(err, errFull)
	}
	refused := status.status == http.StatusUnauthorized && failures > 0 || status.status == http.StatusForbidden
	if refused || absent(err) && f.synced.Load() == nil { // an outage may look absent, but only where there was a feed before
		f.absent.Store(true)
		return absentRetry/2 + rand.N(absentRetry/2), true
	}
	if status.after > 0 {
		wait += min(status.after, maxRetry)
	}
	return wait, false
}

// follow reads the feed until the connection ends, or, if once, until all of it has been read once. It reports whether
// everything was read at any time.
func (f *feed) follow(ctx context.Context, once bool) (current bool, err error) {
	f.reading.Lock()
	defer f.reading.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(fmt.Errorf("the feed was silent for %v", silence)) })
	defer watchdog.Stop()

	res, err := f.connect(ctx)
	if err != nil {
		return false, cause(ctx, err)
	}
	defer res.Body.Close()
	events := newEventReader(res.Body)
	for {
		e, err := events.next()
		if errors.Is(err, io.EOF) {
			return current, io.ErrUnexpectedEOF
		}
		if err != nil {
			return current, cause(ctx, fmt.Errorf("read the feed: %w", err))
		}
		watchdog.Reset(silence)
		now, err := f.apply(e)
		if err != nil {
			return current, fmt.Errorf("revocation feed, event %.40q: %w", e.name, err)
		}
		current = current || now
		if now && once {
			return true, nil
		}
	}
}

// cause prefers why the context ended to that it did.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (f *feed) connect(ctx context.Context) (*http.Response, error) {
	token, err := f.source.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("token for the feed: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+token)
	if position, _ := f.place(); position != "" {
		req.Header.Set("Last-Event-ID", position)
	}
	res, err := f.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("open the feed: %w", err)
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case res.StatusCode == http.StatusOK && kind == "text/event-stream":
		f.absent.Store(false)
		return res, nil
	case res.StatusCode == http.StatusOK:
		err = fmt.Errorf("open the feed: it answers with %.60q", kind)
	default:
		err = &statusError{address: req.URL.Redacted(), status: res.StatusCode, after: retryAfter(res.Header)}
	}
	_ = res.Body.Close()
	if refuser, ok := f.source.(TokenRefuser); ok && res.StatusCode == http.StatusUnauthorized {
		refuser.Refused(token)
	}
	return nil, err
}

// retryAfter reads the number of seconds (RFC 9110 section 10.2.3). Dates are not used by the feed.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// apply takes an event in and reports whether everything up to now has been read with it. Position and time move after the
// entries are in the set, never before.
func (f *feed) apply(e event) (current bool, err error) {
	if len(e.id) > maxPosition {
		return false, fmt.Errorf("a position of %d bytes", len(e.id))
	}
	switch e.name {
	case "reset": // entries stay: what was revoked does not come back to life
		f.move("")
	case "revocations":
		if err := f.take(e.data); err != nil {
			return false, err
		}
		f.move(e.id)
	case "current":
		var body struct {
			Age int64 `json:"age_ms"`
		}
		if err := json.Unmarshal(e.data, &body); err != nil {
			return false, err
		}
		const year = 365 * 24 * time.Hour
		age := min(max(body.Age, 0), year.Milliseconds())
		at := f.clock().Add(-time.Duration(age) * time.Millisecond)
		f.move(e.id)
		f.synced.Store(&at)
		return true, nil
	}
	return false, nil
}

func (f *feed) move(position string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.position = position
}

// take adds the entries of one event.
func (f *feed) take(data []byte) error {
	var body struct {
		Entries []wireRevocation `json:"entries"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return err
	}
	revocations := make([]Revocation, len(body.Entries))
	for i, w := range body.Entries {
		r, err := w.revocation()
		if err != nil {
			return err
		}
		revocations[i] = r
	}
	if f.set.Len()+len(revocations) > f.max {
		return errFull
	}
	f.set.Add(revocations...)
	return nil
}

// wireRevocation is an entry as it travels.
type wireRevocation struct {
	Kind  RevocationKind `json:"kind"`
	ID    string         `json:"id"` // base64url, 32 bytes
	Epoch int64          `json:"epoch"`
	Until int64          `json:"until"` // Unix seconds
}

func (w wireRevocation) revocation() (Revocation, error) {
	id, err := decode(w.ID)
	if err != nil || len(id) != 32 {
		return Revocation{}, errors.New("an id is not 32 bytes in base64url")
	}
	return Revocation{Kind: w.Kind, ID: [32]byte(id), Epoch: w.Epoch, Until: time.Unix(w.Until, 0)}, nil
}
