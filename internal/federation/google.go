package federation

import (
	"context"
	"strings"
)

// newGoogle is Google. It vouches for addresses that it gives out itself; another address of a Google account was verified once, when
// the account was made, and may belong to somebody else by now
// (https://developers.google.com/identity/gsi/web/guides/verify-google-id-token).
func newGoogle(l link) provider {
	o := newOpenID(l)
	o.profile = func(_ context.Context, _ *openID, s *seen) error {
		own := strings.HasSuffix(strings.ToLower(s.id.Email), "@gmail.com") || s.claims.HostedDomain != ""
		s.id.EmailVerified = s.id.EmailVerified && own
		return nil
	}
	return o
}
