package idempotency

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// defaultLease is how long a claim outlives its holder.
const defaultLease = 10 * time.Second

// Deps are what the stage is given.
type Deps struct {
	Store Store
	// Lease is how long a claim outlives its holder. Zero: ten seconds.
	Lease time.Duration
	Log   *slog.Logger
}

// New returns the stage of a route, nil where cfg asks for nothing. It comes after authentication, and needs a caller with a name.
func New(cfg Config, deps Deps) stage.Stage {
	if !cfg.Enabled() {
		return nil
	}
	if deps.Lease == 0 {
		deps.Lease = defaultLease
	}
	s := &repeats{cfg: cfg, Deps: deps}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error { return s.serve(w, r, c, next) }
	}
}

// repeats is the stage of a route.
type repeats struct {
	cfg Config
	Deps
}

func (s *repeats) serve(w http.ResponseWriter, r *http.Request, c *stage.Call, next stage.Handler) error {
	if !changes(r.Method) || r.Header["Upgrade"] != nil {
		return next(w, r, c)
	}
	op := operation{repeats: s, claim: Claim{Lease: s.Lease, Keep: s.cfg.Keep, Repeat: s.cfg.Lost == RepeatLost}}
	key := ""
	if s.cfg.Mode == Optional || s.cfg.Mode == Required {
		var err error
		if key, err = ParseKey(r.Header["Idempotency-Key"]); err != nil {
			return err
		}
	}
	switch mustHave := s.cfg.Mode == Required && (r.Method == http.MethodPost || r.Method == http.MethodPatch); {
	case key == "" && mustHave:
		return ErrMissing
	case key == "" && (s.cfg.Implicit == 0 || strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")):
		return next(w, r, c)
	case key == "":
		op.claim.Keep = s.cfg.Implicit
	}
	caller := callerOf(c)
	if caller == nil {
		return errors.New("idempotency: the route lets in callers without a name")
	}
	body, err := io.ReadAll(r.Body) // bounded by the route
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return fault.ErrTooLarge.Wrap(err)
		}
		return ErrBody.Wrap(err)
	}
	print := digest(r.Method, c.Path, r.URL.RawQuery, r.Header.Get("Content-Type"), string(body))
	if key == "" {
		caller = append(caller, "implicit", string(print[:]))
	} else {
		caller = append(caller, "key", key)
	}
	op.name(print, append(caller, c.Route))
	return op.run(w, withBody(r, body), c, next)
}

// changes reports whether a method may have an effect (RFC 9110, section 9.2.1).
func changes(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

// callerOf is whose key it is: a person at a client, or an API key. Nil: nobody knows.
func callerOf(c *stage.Call) []string {
	switch {
	case c.APIKey != "":
		return []string{"api key", c.APIKey}
	case c.Claims != nil:
		return []string{"token", c.Claims.Subject, c.Claims.ClientID}
	}
	return nil
}

// withBody returns the request with the body that has been read, and with a life of its own: the client's leaving does not end it,
// unless it asks for events, which go on for as long as somebody listens.
func withBody(r *http.Request, body []byte) *http.Request {
	ctx := r.Context()
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		ctx = context.WithoutCancel(ctx)
	}
	r = r.WithContext(ctx)
	r.Body, r.ContentLength, r.TransferEncoding, r.Trailer = http.NoBody, int64(len(body)), nil, nil
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	delete(r.Header, "Expect")
	return r
}

// digest is SHA-256 of the parts, each with its length in front, so that no two lists of parts are the same.
func digest(parts ...string) [32]byte {
	h := sha256.New()
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		io.WriteString(h, part)
	}
	return [32]byte(h.Sum(nil))
}

// operation is one request with a key.
type operation struct {
	*repeats
	claim   Claim
	sealKey [32]byte
}

// name derives from whose key it is what the store sees. Neither the key nor what seals answers can be found out from that.
func (op *operation) name(print [32]byte, scope []string) {
	id := digest(append([]string{"id"}, scope...)...)
	op.sealKey = digest(append([]string{"seal"}, scope...)...)
	op.claim.ID = base64.RawURLEncoding.EncodeToString(id[:])
	op.claim.Fingerprint = base64.RawURLEncoding.EncodeToString(print[:])
	op.claim.Holder = rand.Text()
}

func (op *operation) run(w http.ResponseWriter, r *http.Request, c *stage.Call, next stage.Handler) error {
	outcome, kept, err := op.Store.Claim(r.Context(), op.claim)
	if err != nil {
		if op.cfg.Outage == Pass {
			op.Log.LogAttrs(r.Context(), slog.LevelWarn, "request passed on without knowing whether it is a repeat",
				slog.String("route", c.Route), slog.Any("error", err))
			return next(w, r, c)
		}
		return ErrUnavailable.Wrap(err)
	}
	switch outcome {
	case Claimed:
		return op.execute(w, r, c, next)
	case Differs:
		return ErrReused
	case InUse:
		return ErrInUse
	case Unknown:
		return ErrUnknownOutcome
	case Answered:
		if len(kept) == 0 {
			return ErrNotKept
		}
		a, err := unseal(op.sealKey, kept)
		if err != nil {
			return err
		}
		return a.replay(w)
	}
	return fmt.Errorf("idempotency: the store returned outcome %d", outcome)
}

// execute lets the request happen and tells the store how it ended, whichever way it does.
func (op *operation) execute(w http.ResponseWriter, r *http.Request, c *stage.Call, next stage.Handler) (err error) {
	ctx := context.WithoutCancel(r.Context())
	stop := op.stayAlive(ctx)
	settled := false
	defer func() {
		stop()
		if !settled { // an error after the request was sent, or a panic
			op.tell(ctx, "outcome unknown", op.Store.Renew(ctx, op.claim, false))
		}
	}()
	c.NoStatic = true // it would be taken for what the service said
	rec := newRecorder(w, op.cfg.MaxAnswer)
	if err := next(rec, r, c); err != nil {
		if !c.Sent {
			settled = true
			op.tell(ctx, "not sent", op.Store.Release(ctx, op.claim))
		}
		return err
	}
	settled = true
	op.settle(ctx, rec)
	rec.send()
	return nil
}

// settle keeps an answer before the client gets it. An answer that says to come back is not one.
func (op *operation) settle(ctx context.Context, rec *recorder) {
	a := rec.answer()
	switch {
	case rec.status == http.StatusTooEarly || rec.status == http.StatusTooManyRequests || rec.status == http.StatusServiceUnavailable:
		op.tell(ctx, "come back later", op.Store.Release(ctx, op.claim))
	case rec.through:
		op.tell(ctx, "answered", op.Store.Keep(ctx, op.claim, nil))
	default:
		sealed, err := a.seal(op.sealKey)
		if err == nil {
			err = op.Store.Keep(ctx, op.claim, sealed)
		}
		op.tell(ctx, "answered", err)
	}
}

// tell logs that the store could not be told. The claim then ends with its lease, and its outcome counts as unknown.
func (op *operation) tell(ctx context.Context, what string, err error) {
	if err != nil {
		op.Log.LogAttrs(ctx, slog.LevelWarn, "outcome of a request with a key not kept", slog.String("outcome", what), slog.Any("error", err))
	}
}

// stayAlive renews the claim until the function that it returns is called.
func (op *operation) stayAlive(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(op.claim.Lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := op.Store.Renew(ctx, op.claim, true); err != nil && ctx.Err() == nil {
					op.tell(ctx, "under way", err)
				}
			}
		}
	})
	return func() { cancel(); group.Wait() }
}
