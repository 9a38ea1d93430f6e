package main

import (
	"context"
	"errors"
)

// rounds of a comparison: one after the other, so that both sides meet much the same machine.
const rounds = 5

// side is one of the two that are compared.
type side struct {
	name   string
	server *server
	users  []*user

	perSecond, cost []float64
}

// compareBare lets Sumun and the bare handler refresh in turns, in a closed loop, each the sessions of its own users.
func (b *bench) compareBare(ctx context.Context) (results []result, err error) {
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
	bare, err := b.startBare(ctx, in.redis)
	if err != nil {
		return nil, err
	}
	defer bare.stop()
	sides := []*side{{name: "Sumun", server: s}, {name: "bare handler", server: bare}}
	for _, one := range sides {
		if one.users, err = b.users(ctx, in, s, b.sessions); err != nil {
			return nil, err
		}
	}
	for _, u := range sides[1].users {
		if u.client, err = bare.dial(ctx); err != nil {
			return nil, err
		}
	}
	for round := range rounds + 1 { // the first to warm up
		for _, one := range sides {
			if err := one.run(ctx, load{workers: b.clients, duration: b.duration / rounds}, round > 0); err != nil {
				return nil, err
			}
		}
	}
	return compared(sides), nil
}

func (one *side) run(ctx context.Context, l load, counts bool) error {
	o, used, err := one.server.rotate(ctx, l, one.users)
	if err == nil && counts {
		one.perSecond = append(one.perSecond, o.perSecond())
		one.cost = append(one.cost, 1e6*used.server/float64(len(o.latencies)))
	}
	return err
}

func compared(sides []*side) []result {
	const name = "refresh, in turns, medians"
	var results []result
	var ratios, costs []float64
	for _, one := range sides {
		results = append(results, result{name, one.name, median(one.perSecond), "/s", ""},
			result{name, one.name + ", processor time", median(one.cost), "us/request", ""})
	}
	for i, perSecond := range sides[0].perSecond {
		ratios = append(ratios, perSecond/sides[1].perSecond[i])
		costs = append(costs, sides[0].cost[i]/sides[1].cost[i])
	}
	return append(results, result{name, "Sumun as a part of the bare handler", median(ratios), "", "0.5 and more"},
		result{name, "processor time as a multiple", median(costs), "", ""})
}
