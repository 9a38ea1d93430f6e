package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	stormRuns   = 5
	stormPeople = 200
	stormRate   = 500 // refreshes a second meanwhile
	stormNames  = 20  // accounts that they share, which saves making 200
	stormRises  = time.Second
)

// storm measures how refreshes fare while people sign in whose passwords take all that the gate gives.
func (b *bench) storm(ctx context.Context) (results []result, err error) {
	in, err := b.install(ctx, "SUMUN_PASSWORDS_GATE_CONCURRENCY=1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	s, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	users, err := b.users(ctx, in, s, b.clients)
	if err != nil {
		return nil, err
	}
	people := make([]*account, stormNames)
	for i := range people {
		people[i] = &account{email: fmt.Sprintf("person%d@example.com", i)}
		if err := in.addAccount(people[i].email); err != nil {
			return nil, err
		}
		if _, err := users[0].client.signIn(people[i]); err != nil { // for a device that the account knows
			return nil, err
		}
	}
	l := load{workers: b.clients, rate: stormRate, duration: b.duration}
	var calm, rough, signedIn, turnedAway []float64
	for range stormRuns {
		o, _, err := s.rotate(ctx, l, users)
		if err != nil {
			return nil, err
		}
		calm = append(calm, milliseconds(o.quantile(0.99)))
		w := s.startStorm(ctx, people, b.impatient)
		err = pause(ctx, stormRises)
		if err == nil {
			o, _, err = s.rotate(ctx, l, users)
		}
		if err = errors.Join(err, w.stop()); err != nil {
			return nil, err
		}
		rough = append(rough, milliseconds(o.quantile(0.99)))
		seconds := (stormRises + o.elapsed).Seconds()
		signedIn = append(signedIn, float64(w.signedIn.Load())/seconds)
		turnedAway = append(turnedAway, float64(w.turnedAway.Load())/seconds)
	}
	name := fmt.Sprintf("refresh, %d/s offered, medians of %d", stormRate, stormRuns)
	before := median(calm)
	return []result{
		{name, "p99, calm", before, "ms", ""},
		{name, fmt.Sprintf("p99, while %d people sign in", stormPeople), median(rough), "ms",
			fmt.Sprintf("below %.3g", max(2*before, before+10))},
		{name, "sign-ins meanwhile", median(signedIn), "/s", ""},
		{name, "sign-ins turned away", median(turnedAway), "/s", ""},
	}, nil
}

// weather is a storm of sign-ins.
type weather struct {
	signedIn, turnedAway atomic.Int64

	cancel context.CancelFunc
	people sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

// startStorm lets people sign in again and again. Who is turned away comes back when the answer says, or, if impatient, at once.
func (s *server) startStorm(ctx context.Context, accounts []*account, impatient bool) *weather {
	ctx, cancel := context.WithCancel(ctx)
	w := &weather{cancel: cancel}
	for i := range stormPeople {
		who := *accounts[i%len(accounts)]
		c, err := s.dial(ctx)
		if err != nil {
			w.errs = append(w.errs, err)
			break
		}
		w.people.Go(func() {
			if err := w.person(ctx, c, &who, impatient); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.errs = append(w.errs, err)
			}
		})
	}
	return w
}

func (w *weather) person(ctx context.Context, c *client, who *account, impatient bool) error {
	defer c.conn.Close()
	for ctx.Err() == nil {
		_, err := c.signIn(who)
		busy, refused := errors.AsType[*refused](err)
		switch {
		case err == nil:
			w.signedIn.Add(1)
		case !refused || busy.status != http.StatusServiceUnavailable:
			return err
		default:
			w.turnedAway.Add(1)
			if !impatient && pause(ctx, c.retryAfter) != nil {
				return nil
			}
		}
	}
	return nil
}

// stop waits until everybody has their answer.
func (w *weather) stop() error {
	w.cancel()
	w.people.Wait()
	return errors.Join(w.errs...)
}
