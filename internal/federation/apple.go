package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
)

// newApple is Apple (https://developer.apple.com/documentation/signinwithapplerestapi). The client's secret is a JWT that we sign,
// email_verified may be a string, the answer comes as a form from Apple's origin, and the person's name comes with the first answer
// only, outside of the ID token: a suggestion that nobody vouches for.
func newApple(l link) provider {
	if len(l.cfg.Scopes) == 0 {
		l.cfg.Scopes = []string{"openid", "name", "email"}
	}
	o := newOpenID(l)
	o.extra = []oauth2.AuthCodeOption{oauth2.SetAuthURLParam("response_mode", "form_post")}
	o.secret = func() (string, error) { return appleSecret(l) }
	o.profile = func(_ context.Context, _ *openID, s *seen) error {
		if s.id.Name == "" {
			s.id.Name = appleName(s.answer.User)
		}
		return nil
	}
	return o
}

// secretLifetime is far below the six months that Apple allows: a secret is made for each request.
const secretLifetime = 5 * time.Minute

func appleSecret(l link) (string, error) {
	key, err := parseKey(l.cfg.Key)
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", l.cfg.Name, err)
	}
	now := l.clock()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": l.cfg.TeamID, "sub": l.cfg.ClientID, "aud": l.cfg.Issuer, "iat": now.Unix(), "exp": now.Add(secretLifetime).Unix(),
	})
	t.Header["kid"] = l.cfg.KeyID
	return t.SignedString(key)
}

// appleName reads the form field "user", which can be anything.
func appleName(user string) string {
	var u struct {
		Name struct {
			First string `json:"firstName"`
			Last  string `json:"lastName"`
		} `json:"name"`
	}
	if json.Unmarshal([]byte(user), &u) != nil {
		return ""
	}
	return strings.TrimSpace(u.Name.First + " " + u.Name.Last)
}
