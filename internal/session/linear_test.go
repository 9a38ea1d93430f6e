package session_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/session"
)

// presented is what a client asks: a refresh with the token, or the end of the session.
type presented struct {
	number     int // of the operation
	token      string
	generation int
	end        bool
}

// answered is what it learns.
type answered struct {
	successor string // of a refresh that succeeded
	ended     bool
	lost      bool // there was no answer: what was asked may have happened, may still happen, or never
}

// chain is the state of a session with one grant, as the table in the documentation of Refresh has it. A successor that nobody has
// received has a name of its own until a retry tells it.
type chain struct {
	ended             bool
	generation        int
	current, previous string
}

// rules say what the predecessor is worth. The store looks at its own clock here, so the window is always open, never, or, while it
// is closing, either.
type rules struct {
	opens, closes bool
	lost          session.LostAnswer
}

// step returns the states that a chain may be in after an operation with such an answer; none if that answer is wrong.
func (r rules) step(c chain, in presented, out answered) []chain {
	if out.lost {
		after := []chain{c}
		for _, answer := range []answered{{successor: fmt.Sprint(unseenBy, in.number)}, {ended: true}} {
			after = append(after, r.step(c, in, answer)...)
		}
		return after
	}
	dead := c
	dead.ended = true
	next := chain{generation: in.generation + 1, current: out.successor, previous: in.token}
	fresh := out.successor != "" && out.successor != c.current && out.successor != c.previous
	switch {
	case c.ended || in.end:
		return when(out.ended, dead)
	case in.token == c.current || in.generation > c.generation:
		return when(fresh, next)
	case in.token != c.previous:
		return when(out.ended, dead)
	}
	var states []chain
	if r.opens && out.successor != "" && (out.successor == c.current || unseen(c.current)) {
		repeated := c
		repeated.current = out.successor
		states = append(states, repeated)
	}
	if r.closes && r.lost == session.Reissue && fresh {
		states = append(states, next)
	}
	return append(states, when(r.closes && r.lost == session.Revoke && out.ended, dead)...)
}

func when(right bool, state chain) []chain {
	if right {
		return []chain{state}
	}
	return nil
}

const unseenBy = "successor of operation "

func unseen(token string) bool { return strings.HasPrefix(token, unseenBy) }

// linearizable reports whether there is an order of the operations, each somewhere between its call and its answer, in which the
// rules give every answer.
func (r rules) linearizable(first string, history []porcupine.Operation) porcupine.CheckResult {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{chain{current: first}} },
		Step: func(state, in, out any) []any {
			var states []any
			for _, s := range r.step(state.(chain), in.(presented), out.(answered)) {
				if !slices.Contains(states, any(s)) {
					states = append(states, s)
				}
			}
			return states
		},
	}
	return porcupine.CheckOperationsTimeout(model.ToModel(), history, time.Minute)
}

// historian lets clients share the tokens of one session and writes down what they ask and learn.
type historian struct {
	began time.Time

	mu      sync.Mutex
	tokens  []presented // that somebody has, the newest last
	history []porcupine.Operation
}

// pick chooses a token as clients with each other's copies, late retries and now and then a thief would.
func (r *historian) pick(thieves bool) presented {
	r.mu.Lock()
	defer r.mu.Unlock()
	back := 0
	switch n := rand.IntN(100); {
	case n < 35:
		back = 1
	case n < 37 && thieves:
		back = 2 + rand.IntN(2)
	}
	return r.tokens[max(0, len(r.tokens)-1-back)]
}

// do asks, and writes down. Some clients lose patience after a moment.
func (r *historian) do(t *testing.T, n *node, client int, started session.Session, in presented, impatient bool) {
	ctx := t.Context()
	if impatient {
		timed, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(1500))*time.Microsecond)
		defer cancel()
		ctx = timed
	}
	call := time.Since(r.began)
	var out answered
	var tokens session.Tokens
	var err error
	if in.end {
		err = n.End(ctx, started.Subject, started.ID, session.SignedOut)
		out.ended = err == nil || errors.Is(err, session.ErrNotFound)
	} else {
		tokens, err = n.Refresh(ctx, in.token, laptop)
		out.successor, out.ended = tokens.Refresh, errors.Is(err, session.ErrEnded)
	}
	returned := int64(time.Since(r.began))
	if err != nil && !out.ended {
		// Whose patience ends while Redis has not answered costs the others their connection, too.
		if !impatient && !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("an answer that should not be: %v", err)
		}
		out, returned = answered{lost: true}, math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	in.number = len(r.history)
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: returned})
	if out.successor != "" && !slices.ContainsFunc(r.tokens, func(p presented) bool { return p.token == out.successor }) {
		r.tokens = append(r.tokens, presented{token: out.successor, generation: in.generation + 1})
		slices.SortStableFunc(r.tokens, func(a, b presented) int { return a.generation - b.generation })
	}
}

// Whatever clients do at once, with shared, repeated, lost and stolen tokens on two nodes, looks as if they had done it one after
// another by the table: if not, somebody has two lineages or was signed out for nothing.
func TestRotationIsLinearizable(t *testing.T) {
	check := func(name string, r rules, window time.Duration) test {
		cfg := session.DefaultConfig()
		cfg.Window, cfg.LostAnswer = window, r.lost
		return test{name, func(t *testing.T, p *place) {
			clock := clocktest.Noon()
			nodes := []*node{newNode(t, p, cfg, clock.Now, storeAt(nil)), newNode(t, p.again(t), cfg, clock.Now, storeAt(nil))}
			lost, ended := 0, 0
			for i := range 12 {
				got := record(t, nodes, i%3 == 2)
				for _, o := range got.history {
					if o.Output.(answered).lost {
						lost++
					} else if o.Output.(answered).ended {
						ended++
					}
				}
				if result := r.linearizable(got.tokens[0].token, got.history); result != porcupine.Ok {
					t.Errorf("history %d: %s", i, result)
					for _, o := range got.history {
						t.Logf("%d %d-%d %+v %+v", o.ClientId, o.Call, o.Return, o.Input, o.Output)
					}
				}
			}
			t.Logf("%d answers were lost, %d said that the session has ended", lost, ended)
		}}
	}
	onEach(t, []test{
		check("window open", rules{opens: true, lost: session.Reissue}, time.Minute),
		check("window closed", rules{closes: true, lost: session.Reissue}, 0),
		check("window closing", rules{opens: true, closes: true, lost: session.Reissue}, 3*time.Millisecond),
		check("lost answers are theft", rules{closes: true, lost: session.Revoke}, 0),
	})
}

// record lets six clients share a session, until each has asked ten times; the session may be ended by theft or by its owner.
func record(t *testing.T, nodes []*node, mayEnd bool) *historian {
	t.Helper()
	const clients, turns = 6, 10
	started := nodes[0].signIn(t, session.Start{})
	r := &historian{began: time.Now(), tokens: []presented{{token: started.Tokens.Refresh}}}
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for turn := range turns {
				in := r.pick(mayEnd)
				in.end = mayEnd && client == 0 && turn == turns/2
				r.do(t, nodes[client%len(nodes)], client, started.Session, in, rand.IntN(8) == 0)
			}
		})
	}
	wg.Wait()
	return r
}

// The check must find what it is for.
func TestLinearizabilityCheckFindsForks(t *testing.T) {
	t.Parallel()
	op := func(at int64, in presented, out answered) porcupine.Operation {
		o := porcupine.Operation{Input: in, Output: out, Call: at, Return: at + 15}
		if out.lost {
			o.Return = math.MaxInt64
		}
		return o
	}
	p, a, b := presented{token: "P"}, presented{token: "A", generation: 1}, presented{token: "B", generation: 2}
	for name, row := range map[string]struct {
		history []porcupine.Operation
		want    porcupine.CheckResult
	}{
		"repeated": {[]porcupine.Operation{op(0, p, answered{successor: "A"}), op(10, p, answered{successor: "A"})}, porcupine.Ok},
		"forked":   {[]porcupine.Operation{op(0, p, answered{successor: "A"}), op(10, p, answered{successor: "B"})}, porcupine.Illegal},
		"a lost answer is repeated": {[]porcupine.Operation{
			op(0, p, answered{lost: true}), op(20, p, answered{successor: "A"}), op(40, a, answered{successor: "B"})}, porcupine.Ok},
		"a lost answer forks": {[]porcupine.Operation{
			op(0, p, answered{lost: true}), op(20, p, answered{successor: "A"}), op(40, p, answered{successor: "B"})}, porcupine.Illegal},
		"theft unnoticed": {[]porcupine.Operation{
			op(0, p, answered{successor: "A"}), op(20, a, answered{successor: "B"}), op(40, p, answered{successor: "C"})}, porcupine.Illegal},
		"theft": {[]porcupine.Operation{op(0, p, answered{successor: "A"}), op(20, a, answered{successor: "B"}),
			op(40, p, answered{ended: true}), op(60, b, answered{ended: true})}, porcupine.Ok},
		"signed out for nothing": {[]porcupine.Operation{op(0, p, answered{successor: "A"}), op(20, a, answered{ended: true})}, porcupine.Illegal},
		"alive after the end":    {[]porcupine.Operation{op(0, presented{end: true}, answered{ended: true}), op(20, p, answered{successor: "A"})}, porcupine.Illegal},
	} {
		for i := range row.history {
			in := row.history[i].Input.(presented)
			in.number = i
			row.history[i].Input = in
		}
		if got := (rules{opens: true, lost: session.Reissue}).linearizable("P", row.history); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}
