package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	passwords "github.com/sumunio/sumun/internal/identity/password"
)

// atOnce are the numbers of people who sign in at the same moment. More than the gate's queue holds would be refused.
var atOnce = [...]int{1, 4, 8}

// signIn measures what a sign-in costs beyond the bare hash of its password.
func (b *bench) signIn(ctx context.Context) (results []result, err error) {
	slots := max(1, runtime.NumCPU()-1) // the default, but the comparison must not depend on that
	in, err := b.install(ctx, fmt.Sprintf("SUMUN_PASSWORDS_GATE_CONCURRENCY=%d", slots))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	s, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	people, err := people(ctx, in, s)
	if err != nil {
		return nil, err
	}
	before, err := s.timeSpent(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range atOnce {
		more, err := b.compare(ctx, people[:n], slots)
		if err != nil {
			return nil, err
		}
		if n == 1 { // of more at once, most wait
			after, err := s.timeSpent(ctx)
			if err != nil {
				return nil, err
			}
			beside := 100 * ((after.signIns-before.signIns)/(after.hashes-before.hashes) - 1)
			more = append(more, result{more[0].Benchmark, "overhead, by the server's metrics", beside, "%", "below 10"})
		}
		results = append(results, more...)
	}
	return results, nil
}

// timeSpent is how many seconds the server has spent on sign-ins, and on the hashes in them.
type timeSpent struct{ signIns, hashes float64 }

func (s *server) timeSpent(ctx context.Context) (t timeSpent, err error) {
	if t.signIns, err = s.metric(ctx, `http_request_duration_seconds_sum{method="POST",route="/v1/sessions"}`); err != nil {
		return t, err
	}
	t.hashes, err = s.metric(ctx, `sumun_password_hash_seconds_sum{algorithm="argon2id"}`)
	return t, err
}

type person struct {
	account
	client *client
	access string
}

func (p *person) signIn() error {
	t, err := p.client.signIn(&p.account)
	p.access = t.Access
	return err
}

func (p *person) signOut() error { return p.client.signOut(p.access) }

// people have accounts, and devices that these know.
func people(ctx context.Context, in *installation, s *server) (all []*person, err error) {
	for i := range atOnce[len(atOnce)-1] {
		p := &person{account: account{email: fmt.Sprintf("person%d@example.com", i)}}
		if err := in.addAccount(p.email); err != nil {
			return nil, err
		}
		if p.client, err = s.dial(ctx); err != nil {
			return nil, err
		}
		if err := p.signIn(); err != nil {
			return nil, err
		}
		if err := p.signOut(); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// compare makes so many bare hashes, as many at a time as the server does, then lets as many people sign in at once, and so
// on. The overhead is taken from each such pair, whose halves met much the same machine. Everybody signs out in between.
func (b *bench) compare(ctx context.Context, people []*person, slots int) ([]result, error) {
	var bare, whole, each []time.Duration
	var overheads []float64
	for end := time.Now().Add(b.duration); time.Now().Before(end) && ctx.Err() == nil; {
		began := time.Now()
		_ = together(slots, func(worker int) error {
			for i := worker; i < len(people); i += slots {
				hash()
			}
			return nil
		})
		hashing := time.Since(began)

		took := make([]time.Duration, len(people))
		began = time.Now()
		if err := together(len(people), func(i int) error {
			defer func() { took[i] = time.Since(began) }()
			return people[i].signIn()
		}); err != nil {
			return nil, err
		}
		signing := time.Since(began)
		if err := together(len(people), func(i int) error { return people[i].signOut() }); err != nil {
			return nil, err
		}
		bare, whole, each = append(bare, hashing), append(whole, signing), append(each, took...)
		overheads = append(overheads, 100*(signing.Seconds()/hashing.Seconds()-1))
	}
	name := fmt.Sprintf("sign-in, %d at once", len(people))
	perSecond := func(all []time.Duration) float64 { return float64(len(people)) / median(all).Seconds() }
	return []result{
		{name, "sign-ins", perSecond(whole), "/s", ""},
		{name, "latency, median", milliseconds(median(each)), "ms", ""},
		{name, "bare hashes", perSecond(bare), "/s", ""},
		{name, "overhead, median of pairs", median(overheads), "%", "below 10"},
	}, ctx.Err()
}

// hash is one password hash as the server makes it by default.
func hash() {
	c := passwords.DefaultConfig().Argon2id
	argon2.IDKey([]byte(password), make([]byte, 16), uint32(c.Time), uint32(c.Memory), uint8(c.Parallelism), 32)
}

// together calls do n times at once and returns the errors.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
