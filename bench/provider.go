package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// races are chains of refresh tokens that so many racers refresh at once.
	races, racers = 20, 8
	// asked is how many different tokens each worker introspects in turn.
	asked = 8
	// gentle is the part of the slowest's throughput at which latencies are compared.
	gentle = 0.5
)

// provider is an authorization server that is compared with others.
type provider struct {
	name       string
	server     *server
	id, secret string // of the client, by client_secret_basic
	// resource is what the tokens are for that it is asked about; "" where it knows none.
	resource string
	paths    endpoints
	// seed makes chains of refresh tokens; nil where no tokens are compared.
	seed func(ctx context.Context, n int) ([]string, error)
	stop func() error

	basic   string
	workers []*relying
}

type endpoints struct{ token, introspect, discovery, keys string }

// relying is a worker's connection, and the tokens that it has.
type relying struct {
	*client
	chains, access []string
	turn           int
}

// operation is what providers are asked in turns. The aims are of the rate, as a multiple of oidc-provider's and of zitadel's.
type operation struct {
	name       string
	aim        string
	aimZitadel string
	ask        func(*provider, *relying) error
	by         func(*provider) bool
	rests      bool // leaves out the gentle load
}

func everyone(*provider) bool { return true }

// signers give JWTs, whose signature is what tokens cost most.
func signers(p *provider) bool { return p.seed != nil }

var operations = []operation{
	{name: "refresh", aim: "4 and more", ask: (*provider).refresh, by: signers},
	{name: "client_credentials", aim: "2 and more", ask: (*provider).clientCredentials, by: signers},
	{name: "introspection", aim: "3 and more", aimZitadel: "above 1", ask: (*provider).introspect, by: everyone},
	{name: "discovery and key set", ask: (*provider).documents, by: everyone, rests: true},
}

func (p *provider) post(c *client, path, form string) ([]byte, error) {
	return c.send(message{"POST " + path, "Basic ", p.basic, "application/x-www-form-urlencoded", []byte(form)}, http.StatusOK)
}

func (p *provider) exchange(c *client, token string) (successor string, err error) {
	answer, err := p.post(c, p.paths.token, "grant_type=refresh_token&refresh_token="+token)
	if err != nil {
		return "", err
	}
	return member(answer, "refresh_token")
}

func (p *provider) refresh(r *relying) (err error) {
	i := r.turn % len(r.chains)
	r.turn++
	r.chains[i], err = p.exchange(r.client, r.chains[i])
	return err
}

func (p *provider) clientCredentials(r *relying) error {
	_, err := p.post(r.client, p.paths.token, "grant_type=client_credentials")
	return err
}

func (p *provider) introspect(r *relying) error {
	r.turn++
	answer, err := p.post(r.client, p.paths.introspect, "token="+r.access[r.turn%len(r.access)])
	if err == nil && !bytes.Contains(answer, []byte(`"active":true`)) {
		err = fmt.Errorf("a good token is not active: %s", answer)
	}
	return err
}

// documents asks for what clients read before anything else, in turn.
func (p *provider) documents(r *relying) error {
	r.turn++
	path := p.paths.discovery
	if r.turn%2 == 0 {
		path = p.paths.keys
	}
	_, err := r.exchange("GET "+path, "", nil, http.StatusOK)
	return err
}

// provider compares Sumun as an authorization server with npm oidc-provider, and where it answers from memory also with the example
// server of zitadel/oidc, in turns.
func (b *bench) provider(ctx context.Context) (results []result, err error) {
	all, err := b.startProviders(ctx)
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	if b.profile != "" {
		return nil, b.profileProvider(ctx, all[0])
	}
	for _, p := range all {
		if p.seed == nil {
			continue
		}
		one, err := p.race(ctx)
		if err != nil {
			return nil, fmt.Errorf("race at %s: %w", p.name, err)
		}
		results = append(results, one...)
	}
	for _, op := range operations {
		one, err := b.inTurnsAt(ctx, op, slices.DeleteFunc(slices.Clone(all), func(p *provider) bool { return !op.by(p) }))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		results = append(results, one...)
	}
	return results, nil
}

// startProviders starts all that are compared, Sumun first, and for a profile Sumun alone. With an error come those that have been started.
func (b *bench) startProviders(ctx context.Context) (all []*provider, err error) {
	starts := []func(context.Context) (*provider, error){b.startSumun, b.startOIDCProvider}
	if b.zitadel != "" {
		starts = append(starts, b.startZitadel)
	}
	if b.profile != "" {
		starts = starts[:1]
	}
	for _, start := range starts {
		p, err := start(ctx)
		if err != nil {
			return all, err
		}
		all = append(all, p)
		if err := p.prepare(ctx, b); err != nil {
			return all, fmt.Errorf("prepare %s: %w", p.name, err)
		}
	}
	return all, nil
}

// profileProvider takes profiles of Sumun at each operation, in files of --profile with its name behind, instead of measuring anything.
func (b *bench) profileProvider(ctx context.Context, p *provider) error {
	file := b.profile
	for _, op := range operations {
		b.profile = file + "." + strings.ReplaceAll(op.name, " ", "_")
		profiled := b.profileTo(ctx, p.server)
		l := load{workers: b.clients, duration: b.duration}
		if _, err := drive(ctx, l, func(w int) error { return op.ask(p, p.workers[w]) }); err != nil {
			return err
		}
		if err := <-profiled; err != nil {
			return err
		}
	}
	return nil
}

// prepare gives every worker a connection and tokens.
func (p *provider) prepare(ctx context.Context, b *bench) error {
	p.basic = base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(p.id) + ":" + url.QueryEscape(p.secret)))
	for range b.clients {
		c, err := p.server.dial(ctx)
		if err != nil {
			return err
		}
		r := &relying{client: c}
		for range asked {
			form := url.Values{"grant_type": {"client_credentials"}}
			if p.resource != "" {
				form.Set("resource", p.resource)
			}
			answer, err := p.post(c, p.paths.token, form.Encode())
			if err != nil {
				return err
			}
			access, err := member(answer, "access_token")
			if err != nil {
				return err
			}
			r.access = append(r.access, access)
		}
		p.workers = append(p.workers, r)
	}
	if p.seed == nil {
		return nil
	}
	chains, err := p.seed(ctx, b.sessions)
	for i, token := range chains {
		r := p.workers[i%len(p.workers)]
		r.chains = append(r.chains, token)
	}
	return err
}

// race refreshes chains of their own with several requests at once, and counts the different successors that were given out: more
// than one, and a thief's would be among them without anybody noticing.
func (p *provider) race(ctx context.Context) ([]result, error) {
	chains, err := p.seed(ctx, races)
	if err != nil {
		return nil, err
	}
	clients := make([]*client, racers)
	for i := range clients {
		if clients[i], err = p.server.dial(ctx); err != nil {
			return nil, err
		}
	}
	several, most := 0, 0
	for _, token := range chains {
		won := make([]string, racers)
		err := together(racers, func(i int) error {
			successor, err := p.exchange(clients[i], token)
			if _, lost := errors.AsType[*refused](err); lost {
				return nil
			}
			won[i] = successor
			return err
		})
		if err != nil {
			return nil, err
		}
		slices.Sort(won)
		n := len(slices.Compact(slices.DeleteFunc(won, func(s string) bool { return s == "" })))
		if most = max(most, n); n > 1 {
			several++
		}
	}
	name := fmt.Sprintf("%d refreshes at once, %d chains", racers, races)
	aim := func(text string) string {
		if p.name != sumun {
			return ""
		}
		return text
	}
	return []result{
		{name, p.name + ", chains with several successors", float64(several), "", aim("0")},
		{name, p.name + ", most successors of one", float64(most), "", aim("1")},
	}, nil
}

// share is what one provider did in one turn.
type share struct {
	rate, cost, whole float64 // requests a second; microseconds of the server, and of the server and its Redis, for each
	p50, p99          time.Duration
}

// inTurnsAt measures one operation: as fast as answers come, and then at a rate that all can bear.
func (b *bench) inTurnsAt(ctx context.Context, op operation, all []*provider) ([]result, error) {
	full, err := b.turns(ctx, op, all, 0)
	if err != nil {
		return nil, err
	}
	results := compareProviders(op, all, full)
	if op.rests {
		return results, nil
	}
	slowest := over(full[0], func(s share) float64 { return s.rate })
	for _, shares := range full[1:] {
		slowest = min(slowest, over(shares, func(s share) float64 { return s.rate }))
	}
	calm, err := b.turns(ctx, op, all, gentle*slowest)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s at %.0f/s", op.name, gentle*slowest)
	for i, p := range all {
		results = append(results, latencies(name, p, calm[i])...)
	}
	return results, nil
}

// turns lets providers answer one after the other, again and again.
func (b *bench) turns(ctx context.Context, op operation, all []*provider, rate float64) ([][]share, error) {
	shares := make([][]share, len(all))
	for round := range rounds + 1 {
		for i, p := range all {
			before, err := p.server.cpu(ctx)
			if err != nil {
				return nil, err
			}
			l := load{workers: b.clients, rate: rate, duration: b.duration / (2 * rounds)}
			o, err := drive(ctx, l, func(w int) error { return op.ask(p, p.workers[w]) })
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			after, err := p.server.cpu(ctx)
			if err != nil {
				return nil, err
			}
			used, each := after.minus(before), 1e6/float64(max(1, len(o.latencies)))
			if round > 0 { // the first was to warm up
				shares[i] = append(shares[i], share{o.perSecond(), each * used.server, each * (used.server + used.redis), o.quantile(0.5), o.quantile(0.99)})
			}
		}
	}
	return shares, nil
}

// over is the median over turns.
func over(shares []share, f func(share) float64) float64 {
	var values []float64
	for _, s := range shares {
		values = append(values, f(s))
	}
	return median(values)
}

func latencies(name string, p *provider, shares []share) []result {
	return []result{
		{name, p.name + ", p50", over(shares, func(s share) float64 { return milliseconds(s.p50) }), "ms", ""},
		{name, p.name + ", p99", over(shares, func(s share) float64 { return milliseconds(s.p99) }), "ms", ""},
	}
}

// compareProviders reports medians over turns, and the first one as a multiple of the others, turn by turn.
func compareProviders(op operation, all []*provider, shares [][]share) (results []result) {
	for i, p := range all {
		results = append(results,
			result{op.name, p.name, over(shares[i], func(s share) float64 { return s.rate }), "/s", ""},
			result{op.name, p.name + ", processor time", over(shares[i], func(s share) float64 { return s.cost }), "us/request", ""},
			result{op.name, p.name + ", processor time with Redis", over(shares[i], func(s share) float64 { return s.whole }), "us/request", ""})
		results = append(results, latencies(op.name, p, shares[i])...)
	}
	for i, p := range all[1:] {
		var rates, costs []float64
		for turn, other := range shares[i+1] {
			rates = append(rates, shares[0][turn].rate/other.rate)
			costs = append(costs, other.whole/shares[0][turn].whole)
		}
		aim := op.aim
		if p.name == zitadel {
			aim = op.aimZitadel
		}
		results = append(results,
			result{op.name, "rate as a multiple of " + p.name, median(rates), "", aim},
			result{op.name, "processor time of " + p.name + " as a multiple", median(costs), "", ""})
	}
	return results
}
