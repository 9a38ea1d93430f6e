//go:build unix

package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// cpuTime reports the processor time of each operation besides the time on the clock, which on a busy machine says little. Call
// what it returns after the loop.
func cpuTime(b *testing.B) (report func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportAllocs()
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// full is a set as it is in a busy hour.
func full() *auth.RevocationSet {
	set := auth.NewRevocationSet(nil)
	fill(set, 100_000, time.Now().Add(time.Hour))
	return set
}

func benchVerifier(b *testing.B, set *auth.RevocationSet, cache auth.Cache) *auth.Verifier {
	b.Helper()
	return newVerifier(b, func(c *auth.Config) {
		c.Revocations, c.Cache = set, cache
		c.Clock = time.Now
	})
}

func fresh() map[string]any {
	return map[string]any{"iat": time.Now().Unix() - 1, "exp": time.Now().Unix() + 3600}
}

// The first verification of a token: what a signature costs.
func BenchmarkVerifyFirst(b *testing.B) {
	set := full()
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			v := benchVerifier(b, set, auth.NoCache{})
			raw := token{algorithm: algorithm, claims: fresh()}.sign(b)
			defer cpuTime(b)()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Every later one, with 100,000 revocations: "quiet" while nothing new is revoked, "news" when something was revoked since the
// last verification of every single token, which is the worst case, and "request" with the header around it.
func BenchmarkVerifyCached(b *testing.B) {
	set := full()
	v := benchVerifier(b, set, nil)
	raw := token{claims: fresh()}.sign(b)
	verify := func(b *testing.B) {
		if _, err := v.Verify(b.Context(), raw); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("quiet", func(b *testing.B) {
		defer cpuTime(b)()
		for b.Loop() {
			verify(b)
		}
	})
	b.Run("news", func(b *testing.B) {
		defer cpuTime(b)()
		for b.Loop() {
			auth.CountAddition(set)
			verify(b)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		defer cpuTime(b)()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				verify(b)
			}
		})
	})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+raw)
	b.Run("request", func(b *testing.B) {
		defer cpuTime(b)()
		for b.Loop() {
			if _, err := v.VerifyRequest(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	many := make([]string, 10_000)
	for i := range many {
		claims := fresh()
		claims["sid"], claims["jti"] = "s"+strconv.Itoa(i), strconv.Itoa(i)
		many[i] = token{claims: claims}.sign(b)
		if _, err := v.Verify(b.Context(), many[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("10000 tokens", func(b *testing.B) {
		defer cpuTime(b)()
		for i := 0; b.Loop(); i++ {
			if _, err := v.Verify(b.Context(), many[i%len(many)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// One revocation reaches the one connection among 100,000 that it concerns.
func BenchmarkWatch(b *testing.B) {
	set := full()
	for i := range 100_000 {
		set.Watch(&auth.Claims{Subject: strconv.Itoa(i), ClientID: "app", SessionID: "s" + strconv.Itoa(i), KeyID: "k"}, func() {})
	}
	b.ReportAllocs()
	told := make(chan struct{})
	for i := 0; b.Loop(); i++ {
		id := "bench-" + strconv.Itoa(i)
		set.Watch(&auth.Claims{Subject: id, ClientID: "app", SessionID: id, KeyID: "k"}, func() { told <- struct{}{} })
		set.Add(revocation(auth.RevokeSession, id, 0, time.Now().Add(time.Hour)))
		<-told
	}
}

// A request with a token that is bound to a key, and its proof: the token's signature is remembered, the proof's is new.
func BenchmarkVerifyBoundRequest(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			prover := newProver(b, algorithm)
			prover.Clock = time.Now
			claims := fresh()
			claims["cnf"] = map[string]any{"jkt": prover.Thumbprint()}
			raw := token{claims: claims}.sign(b)
			v := newVerifier(b, func(c *auth.Config) {
				c.Clock = time.Now
				c.Proofs = newProofs(b, func(p *auth.ProofConfig) { p.Replays, p.Clock = anew{}, time.Now })
			})
			r := request("GET", "/x", "DPoP "+raw, prove(b, prover, "GET", "https://api.example/x", raw, ""))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.VerifyRequest(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// anew takes every proof for new.
type anew struct{}

func (anew) Once(context.Context, string, time.Duration) (bool, error) { return true, nil }
