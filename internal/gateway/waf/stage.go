package waf

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway/stage"
)

// Why a request is refused.
var (
	ErrAttack     = fault.New(fault.Forbidden, "gateway.waf", "This request looks like an attack.")
	ErrUnreadable = fault.New(fault.Malformed, "gateway.waf_body", "The body of the request is not what its header says, or did not arrive.")
)

// Deps are what stages are given.
type Deps struct {
	// Engines are those of all routes.
	Engines *Engines
	// Count is told of each request that looks like an attack, and whether it was refused.
	Count func(refused bool)
	Log   *slog.Logger
}

// New returns the stage of a route, nil where cfg asks for nothing.
func New(cfg Config, deps Deps) (stage.Stage, error) {
	if !cfg.Enabled() {
		return nil, nil
	}
	engine, err := deps.Engines.engine(cfg)
	if err != nil {
		return nil, err
	}
	s := &inspector{cfg: cfg, deps: deps, engine: engine}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			if err := s.inspect(r, c); err != nil {
				return err
			}
			return next(w, r, c)
		}
	}, nil
}

// inspector is the stage of a route.
type inspector struct {
	cfg    Config
	deps   Deps
	engine coraza.WAF
}

// inspect returns why a request is refused. The body can be read again afterwards.
func (s *inspector) inspect(r *http.Request, c *stage.Call) error {
	body, err := s.body(r)
	if err != nil {
		return err
	}
	tx := s.engine.NewTransaction()
	defer tx.Close()
	stopped, err := feed(tx, r, c, body)
	blocking := s.cfg.Mode == Blocking
	switch {
	case err != nil && blocking:
		return ErrUnreadable.Wrap(err)
	case stopped == nil:
		return nil
	}
	s.report(r.Context(), tx, c, blocking)
	switch {
	case !blocking:
		return nil
	case stopped.Status == http.StatusBadRequest:
		return ErrUnreadable
	default:
		return ErrAttack
	}
}

// body reads as much of a body as is inspected. Larger ones are not, and their beginning alone would say little.
func (s *inspector) body(r *http.Request) ([]byte, error) {
	blocking := s.cfg.Mode == Blocking
	switch {
	case r.Body == nil || r.ContentLength == 0:
		return nil, nil
	case r.ContentLength > int64(s.cfg.MaxBody) && blocking:
		return nil, fault.ErrTooLarge
	case r.ContentLength > int64(s.cfg.MaxBody):
		return nil, nil
	}
	read, err := io.ReadAll(io.LimitReader(r.Body, int64(s.cfg.MaxBody)+1))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		return nil, ErrUnreadable.Wrap(err)
	}
	rest := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(read), rest), rest}
	switch {
	case len(read) <= s.cfg.MaxBody:
		return read, nil
	case blocking:
		return nil, fault.ErrTooLarge
	default:
		return nil, nil
	}
}

// feed tells the engine about a request, until it has seen enough.
func feed(tx types.Transaction, r *http.Request, c *stage.Call, body []byte) (*types.Interruption, error) {
	client := ""
	if c.Client.IsValid() {
		client = c.Client.String()
	}
	tx.ProcessConnection(client, 0, "", 0)
	tx.ProcessURI(r.URL.RequestURI(), r.Method, r.Proto)
	for name, values := range r.Header {
		for _, value := range values {
			tx.AddRequestHeader(name, value)
		}
	}
	tx.AddRequestHeader("Host", r.Host)
	tx.SetServerName(r.Host)
	if stopped := tx.ProcessRequestHeaders(); stopped != nil {
		return stopped, nil
	}
	if len(body) > 0 {
		if stopped, _, err := tx.WriteRequestBody(body); stopped != nil || err != nil {
			return stopped, err
		}
	}
	return tx.ProcessRequestBody()
}

// report says which rules matched. What they matched may be a secret.
func (s *inspector) report(ctx context.Context, tx types.Transaction, c *stage.Call, refused bool) {
	var rules []int
	for _, match := range tx.MatchedRules() {
		if id := match.Rule().ID(); match.Message() != "" && !slices.Contains(rules, id) {
			rules = append(rules, id)
		}
	}
	s.deps.Count(refused)
	s.deps.Log.WarnContext(ctx, "request looks like an attack", "route", c.Route, "rules", rules, "refused", refused)
}
