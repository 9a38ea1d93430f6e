package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
)

// revokeEvery is the pause between two endings.
const revokeEvery = 10 * time.Millisecond

// revoke measures from the request that ends a session until a node refuses its access token. With --database that is another
// node than the one that was asked, which hears of it through Redis where there is one; SQLite has only one node.
func (b *bench) revoke(ctx context.Context) (results []result, err error) {
	settings := []string{cheapMemory, cheapTime, "SUMUN_ISSUER=http://localhost"} // nodes have one in common
	if b.redis != "" {
		settings = append(settings, "SUMUN_PUBSUB_URL=redis")
	}
	in, err := b.install(ctx, settings...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.remove()) }()
	asked, err := in.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer asked.stop()
	name, refusing := "end of a session to refusal by the same node", asked
	if b.database != "" {
		name = "end of a session to refusal by another node"
		if refusing, err = in.serve(ctx); err != nil {
			return nil, err
		}
		defer refusing.stop()
	}
	who := account{email: "person@example.com"}
	if err := in.addAccount(who.email); err != nil {
		return nil, err
	}
	ends, err := asked.dial(ctx)
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for end := time.Now().Add(b.duration); time.Now().Before(end); {
		took, err := refusing.refusesAfter(ctx, ends, &who)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
		if err := pause(ctx, revokeEvery); err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return []result{
		{name, "p50", milliseconds(quantile(all, 0.5)), "ms", ""},
		{name, "p99", milliseconds(quantile(all, 0.99)), "ms", "below 50"},
	}, nil
}

// refusesAfter signs somebody in and out and returns when this server refuses what was signed in, which it is asked all the time.
func (s *server) refusesAfter(ctx context.Context, ends *client, who *account) (time.Duration, error) {
	t, err := ends.signIn(who)
	if err != nil {
		return 0, err
	}
	asks, err := s.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer asks.conn.Close()
	if err := asks.do(http.MethodGet, "/v1/sessions?limit=1", t.Access, nil, http.StatusOK, nil); err != nil {
		return 0, err
	}
	var took time.Duration
	err = together(2, func(i int) error {
		began := time.Now()
		if i == 0 {
			return ends.signOut(t.Access)
		}
		for {
			err := asks.do(http.MethodGet, "/v1/sessions?limit=1", t.Access, nil, http.StatusOK, nil)
			if no, is := errors.AsType[*refused](err); is && no.status == http.StatusUnauthorized {
				took = time.Since(began)
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	return took, err
}
