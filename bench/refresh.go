package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// sessionsEach keeps accounts below the limit of sessions per person.
const sessionsEach = 50

// The cheapest hash that the configuration allows, for benchmarks that sign in only to prepare.
const (
	cheapMemory = "SUMUN_PASSWORDS_ARGON2ID_MEMORY=7168"
	cheapTime   = "SUMUN_PASSWORDS_ARGON2ID_TIME=1"
)

// user is a virtual user, who refreshes sessions in turn over one connection.
type user struct {
	client *client
	tokens []string
	next   int
}

func (u *user) refresh() (err error) {
	i := u.next % len(u.tokens)
	u.next++
	u.tokens[i], err = u.client.refresh(u.tokens[i])
	return err
}

// users signs in so many sessions and shares them out.
func (b *bench) users(ctx context.Context, in *installation, s *server, sessions int) ([]*user, error) {
	users := make([]*user, b.clients)
	var who account
	for i := range sessions {
		if i%sessionsEach == 0 {
			in.accounts++
			who = account{email: fmt.Sprintf("user%d@example.com", in.accounts)}
			if err := in.addAccount(who.email); err != nil {
				return nil, err
			}
		}
		if i < len(users) {
			c, err := s.dial(ctx)
			if err != nil {
				return nil, err
			}
			users[i] = &user{client: c}
		}
		u := users[i%len(users)]
		t, err := u.client.signIn(&who)
		if err != nil {
			return nil, err
		}
		u.tokens = append(u.tokens, t.Refresh)
	}
	return users, nil
}

// refresh measures the rotation of refresh tokens over HTTP.
func (b *bench) refresh(ctx context.Context) (results []result, err error) {
	in, err := b.install(ctx, cheapMemory, cheapTime)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	s, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	users, err := b.users(ctx, in, s, b.sessions)
	if err != nil {
		return nil, err
	}
	l := load{workers: b.clients, rate: b.rate, duration: b.duration / 5}
	if _, _, err := s.rotate(ctx, l, users); err != nil { // to warm up
		return nil, err
	}
	l.duration = b.duration
	profiled := b.profileTo(ctx, s)
	o, used, err := s.rotate(ctx, l, users)
	if err != nil {
		return nil, err
	}
	return append(o.results(l), used.results(len(o.latencies))...), <-profiled
}

// rotate lets users refresh, and returns what came of it and what it cost.
func (s *server) rotate(ctx context.Context, l load, users []*user) (o outcome, used cpu, err error) {
	before, err := s.cpu(ctx)
	if err != nil {
		return o, used, err
	}
	if o, err = drive(ctx, l, func(worker int) error { return users[worker].refresh() }); err != nil {
		return o, used, err
	}
	after, err := s.cpu(ctx)
	return o, after.minus(before), err
}

func (o outcome) results(l load) []result {
	name := "refresh, closed loop"
	aim := "5,000 and more"
	if l.rate > 0 {
		name, aim = fmt.Sprintf("refresh, %g/s offered", l.rate), ""
	}
	return []result{
		{name, "refreshes", o.perSecond(), "/s", aim},
		{name, "p50", milliseconds(o.quantile(0.5)), "ms", ""},
		{name, "p95", milliseconds(o.quantile(0.95)), "ms", ""},
		{name, "p99", milliseconds(o.quantile(0.99)), "ms", ""},
	}
}

// profileTo writes a profile of the server from now on, for as long as a measurement takes, and then what it has allocated. Its
// outcome comes when that is done.
func (b *bench) profileTo(ctx context.Context, s *server) <-chan error {
	done := make(chan error, 1)
	if b.profile == "" {
		done <- nil
		return done
	}
	go func() {
		fetch := func(file, path string) error {
			return writeFile(file, func(w io.Writer) error { return s.get(ctx, "/debug/pprof/"+path, w) })
		}
		err := fetch(b.profile, fmt.Sprintf("profile?seconds=%d", max(1, int(b.duration.Seconds()))))
		done <- errors.Join(err, fetch(b.profile+".allocs", "allocs"))
	}()
	return done
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
