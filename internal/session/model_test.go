package session_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// model is the table in the documentation of Refresh, written down once more without a database.
type model struct {
	policy            session.LostAnswer
	idle              time.Duration
	ended             bool
	generation        int64
	current, previous int // into machine.tokens; -1 for none
	windowUntil       time.Time
	idleUntil, until  time.Time
}

// issued is a token that was given out.
type issued struct {
	text       string
	generation int64
}

// verdict is what the model expects of a refresh.
type verdict struct {
	refused   error
	successor int // the token to be repeated; -1 for a new one
}

// present decides on a token and changes the model; number is what a new token would be called.
func (m *model) present(at int, generation int64, number int, now time.Time) verdict {
	fresh := verdict{successor: -1}
	switch {
	case m.ended:
		return verdict{refused: session.ErrEnded}
	case !now.Before(m.idleUntil):
		return verdict{refused: session.ErrInvalidGrant}
	case at == m.current:
		m.generation++
	case at == m.previous && now.Before(m.windowUntil):
		return verdict{successor: m.current}
	case at == m.previous && m.policy == session.Reissue:
	case at != m.previous && generation > m.generation:
		m.generation = generation + 1
	default:
		m.ended = true
		return verdict{refused: session.ErrEnded}
	}
	m.previous, m.current = at, number
	m.windowUntil = now.Add(window)
	m.idleUntil = now.Add(m.idle)
	if m.until.Before(m.idleUntil) {
		m.idleUntil = m.until
	}
	return fresh
}

// machine drives the store and the model side by side.
type machine struct {
	t       *testing.T
	node    *node
	clock   *clocktest.Clock
	model   model
	tokens  []issued
	session session.Session
}

func newMachine(t *testing.T, n *node, c *clocktest.Clock, cfg session.Config) *machine {
	c.Set(clocktest.Noon().Now()) // signing keys live for 30 days, and nobody makes new ones here
	started := n.signIn(t, session.Start{})
	now := c.Now()
	return &machine{
		t: t, node: n, clock: c, session: started.Session, tokens: []issued{{text: started.Tokens.Refresh}},
		model: model{policy: cfg.LostAnswer, idle: cfg.Idle, previous: -1, idleUntil: now.Add(cfg.Idle), until: now.Add(cfg.Lifetime)},
	}
}

// refreshNewest is what clients do.
func (m *machine) refreshNewest(rt *rapid.T) { m.refresh(rt, len(m.tokens)-1) }

// refreshOlder is what retries, lost answers and thieves do.
func (m *machine) refreshOlder(rt *rapid.T) {
	m.refresh(rt, max(0, len(m.tokens)-1-rapid.IntRange(1, 4).Draw(rt, "back")))
}

func (m *machine) refresh(rt *rapid.T, at int) {
	want := m.model.present(at, m.tokens[at].generation, len(m.tokens), m.clock.Now())
	got, err := m.node.Refresh(m.t.Context(), m.tokens[at].text, laptop)
	switch {
	case want.refused != nil:
		if !errors.Is(err, want.refused) {
			rt.Fatalf("token %d: %v, want %v", at, err, want.refused)
		}
	case err != nil:
		rt.Fatalf("token %d: %v", at, err)
	case want.successor >= 0:
		if got.Refresh != m.tokens[want.successor].text {
			rt.Fatalf("token %d: not the same successor", at)
		}
	default:
		if slices.ContainsFunc(m.tokens, func(i issued) bool { return i.text == got.Refresh }) {
			rt.Fatalf("token %d: a successor that was given out before", at)
		}
		m.tokens = append(m.tokens, issued{text: got.Refresh, generation: m.model.generation})
	}
}

func (m *machine) wait(rt *rapid.T) {
	if m.clock.Now().After(m.model.until) {
		rt.Skip("it is all over")
	}
	m.clock.Advance(rapid.SampledFrom([]time.Duration{
		time.Microsecond, 3 * time.Second, window - time.Microsecond, window, 19 * time.Hour, 20 * time.Hour,
	}).Draw(rt, "for"))
}

// failover goes on with a replica that lacks the last few refreshes.
func (m *machine) failover(rt *rapid.T) {
	failOver, was := m.node.replica(m.t, m.session), m.model
	for range rapid.IntRange(1, 4).Draw(rt, "lost") {
		m.refreshNewest(rt)
	}
	if m.model.ended {
		return // which is more than one record
	}
	failOver()
	m.model = was
}

func (m *machine) end(rt *rapid.T) {
	if m.model.ended || !m.clock.Now().Before(m.model.idleUntil) || rapid.IntRange(0, 9).Draw(rt, "once in ten") > 0 {
		rt.Skip("not now")
	}
	m.node.write(m.t, func(ctx context.Context, tx sqldb.Tx) error {
		return m.node.EndAllTx(ctx, tx, m.session.Subject, session.PasswordReset)
	})
	m.model.ended = true
}

func TestRotationFollowsItsTable(t *testing.T) {
	check := func(policy session.LostAnswer) test {
		cfg := session.DefaultConfig()
		cfg.LostAnswer, cfg.Idle, cfg.Lifetime = policy, 20*time.Hour, 50*time.Hour
		return test{string(policy), func(t *testing.T, p *place) {
			n, c := alone(t, p, cfg)
			rapid.Check(t, func(rt *rapid.T) {
				m := newMachine(t, n, c, cfg)
				rt.Repeat(map[string]func(*rapid.T){
					"refresh newest": m.refreshNewest, "refresh older": m.refreshOlder, "wait": m.wait,
					"failover": m.failover, "end": m.end,
				})
			})
		}}
	}
	onEach(t, []test{check(session.Reissue), check(session.Revoke)})
}
