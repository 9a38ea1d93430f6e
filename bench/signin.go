package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	passwords "github.com/sumunio/sumun/internal/identity/password"
)

// atOnce are the numbers of people who sign in at the same moment. More than the gate's queue holds would be refused.
var atOnce = []int{1, 4, 8}

// signIn measures what a sign-in costs beyond the bare hash of its password. People and bare hashes take turns, so that
// whatever else the machine does meets both alike.
func (b *bench) signIn(ctx context.Context) (results []result, err error) {
	in, err := b.install(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	s, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	var people []*person
	for i := range atOnce[len(atOnce)-1] {
		p := &person{account: account{email: fmt.Sprintf("person%d@example.com", i)}}
		if err := in.addAccount(ctx, p.email); err != nil {
			return nil, err
		}
		if p.client, err = dial(ctx, s.public); err != nil {
			return nil, err
		}
		if err := p.signIn(); err != nil {
			return nil, err
		}
		people = append(people, p)
	}
	slots, err := s.metric(ctx, "sumun_password_hash_slots")
	if err != nil {
		return nil, err
	}
	for _, n := range atOnce {
		more, err := b.compare(ctx, people[:n], int(slots))
		if err != nil {
			return nil, err
		}
		results = append(results, more...)
	}
	return results, nil
}

type person struct {
	account
	client *client
}

func (p *person) signIn() error {
	_, err := p.client.signIn(&p.account)
	return err
}

// compare lets all people sign in at once, then makes as many bare hashes, as many at a time as the server does.
func (b *bench) compare(ctx context.Context, people []*person, slots int) ([]result, error) {
	var bare, whole, each []time.Duration
	for end := time.Now().Add(b.duration); time.Now().Before(end) && ctx.Err() == nil; {
		began := time.Now()
		together(min(slots, len(people)), func(worker int) error {
			for i := worker; i < len(people); i += slots {
				hash()
			}
			return nil
		})
		bare = append(bare, time.Since(began))

		took := make([]time.Duration, len(people))
		began = time.Now()
		if err := together(len(people), func(i int) error {
			defer func() { took[i] = time.Since(began) }()
			return people[i].signIn()
		}); err != nil {
			return nil, err
		}
		whole = append(whole, time.Since(began))
		each = append(each, took...)
	}
	name := fmt.Sprintf("sign-in, %d at once", len(people))
	overhead := 100 * (median(whole).Seconds()/median(bare).Seconds() - 1)
	return []result{
		{name, "sign-ins", float64(len(people)) / median(whole).Seconds(), "/s", ""},
		{name, "median latency", milliseconds(median(each)), "ms", ""},
		{name, "bare hashes", float64(len(people)) / median(bare).Seconds(), "/s", ""},
		{name, "overhead", overhead, "%", "below 10"},
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
