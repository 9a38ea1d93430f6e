// Package auth verifies Sumun's access tokens in any Go service, without asking Sumun about each request. Other issuers' tokens
// verify too.
//
// It owns what a consumer of tokens needs: [Verifier] with its net/http middleware, the [Claims] it returns, the issuer's public
// keys ([RemoteKeys]), the set of what has been revoked before its time ([RevocationSet]) and the feed that fills it, the cache of
// verified tokens ([Cache]), and a snapshot on disk of all that must survive a restart ([SnapshotConfig]).
//
// It promises that a token is accepted only when it is an access token (RFC 9068) of the configured issuer for the
// configured audience, signed with the algorithm that the key itself is for, within its lifetime, and not revoked as far as is
// known here; that a verifier says how old that knowledge is ([Verifier.Staleness]); and that once keys are loaded no verification
// waits for the issuer, so that services stand while the issuer is down.
//
// Tokens that are bound to a client's key (DPoP, RFC 9449) are accepted with a proof of that key only, made for this very
// request and used once: [Proofs] judges them, and [Prover] makes them for clients. Those that are bound to a client's TLS certificate
// (RFC 8705) are accepted over a connection with that certificate only.
//
// It refuses everything a token could use to choose its own judge: unsigned and symmetric algorithms, keys and key
// addresses in the header, critical extensions it does not know, members that appear twice, ID tokens and other kinds of JWT
// (RFC 8725).
//
// A verifier made by [New] works as it is. [Verifier.Load] makes it ready before the first request, and [Verifier.Run] keeps it up
// to date. Packages authws and authgrpc hold WebSockets and gRPC streams to their tokens, and authtest is an issuer for tests.
//
// Everything is safe for use by several goroutines at once. The package imports nothing else of Sumun.
package auth
