package session_test

import (
	"context"
	"slices"
	"testing"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

func TestEndedSessionsAreNamed(t *testing.T) {
	onEach(t, []test{{"all at once", testEndedSessionsAreNamed}})
}

// Whoever tells others of the end of a session, as back-channel logout does, learns of each by its name, also where the access tokens of
// a password's old owner die all together.
func testEndedSessionsAreNamed(t *testing.T, p *place) {
	n, _ := alone(t, p, session.DefaultConfig())
	subject := newSubject()
	one, other := n.signIn(t, session.Start{Subject: subject}), n.signIn(t, session.Start{Subject: subject})
	n.write(t, func(ctx context.Context, tx sqldb.Tx) error {
		return n.EndAllTx(ctx, tx, subject, session.PasswordReset)
	})
	all := n.revocations(t)
	for _, ended := range []session.Started{one, other} {
		if !slices.ContainsFunc(all, func(r auth.Revocation) bool {
			return r.Kind == auth.RevokeSession && r.ID == session.OfSession(ended.Session.ID).ID
		}) {
			t.Errorf("%s is not among the %d that were revoked", ended.Session.ID, len(all))
		}
	}
}

// revocations are all that the node knows.
func (n *node) revocations(t testing.TB) (all []auth.Revocation) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	n.Follow(ctx, func(_ context.Context, some []auth.Revocation) {
		all = append(all, some...)
		stop()
	})
	return all
}
