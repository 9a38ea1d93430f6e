package federation

import (
	"context"
	"strconv"

	"golang.org/x/oauth2"
)

// gitHub is GitHub, or an Enterprise Server of it, which speaks OAuth 2 with an API for the profile
// (https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps). Its profile shows the address that a
// person publishes; the primary verified one is asked for apart. Errors of the token endpoint come with status 200.
type gitHub struct {
	link
	oauth oauth2.Config
	api   string
}

func newGitHub(l link) provider {
	scopes := l.cfg.Scopes
	if len(scopes) == 0 {
		scopes = []string{"read:user", "user:email"}
	}
	api := "https://api.github.com"
	if l.cfg.Issuer != usual[KindGitHub].issuer {
		api = l.cfg.Issuer + "/api/v3"
	}
	return gitHub{l, oauth2.Config{ClientID: l.cfg.ClientID, ClientSecret: l.cfg.ClientSecret.Reveal(), RedirectURL: l.redirect,
		Scopes: scopes, Endpoint: oauth2.Endpoint{
			AuthURL: l.cfg.Issuer + "/login/oauth/authorize", TokenURL: l.cfg.Issuer + "/login/oauth/access_token",
			AuthStyle: oauth2.AuthStyleInParams,
		}}, api}
}

// expects is the issuer that GitHub's answers name since it has PKCE, where they name one.
func (g gitHub) expects(context.Context) (string, bool, error) {
	return g.cfg.Issuer + "/login/oauth", false, nil
}

func (g gitHub) begin(_ context.Context, f flow) (string, error) {
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(f.Verifier)}
	if f.Intent == intentReauthenticate {
		options = append(options, oauth2.SetAuthURLParam("prompt", "select_account"))
	}
	return g.oauth.AuthCodeURL(f.State, options...), nil
}

func (g gitHub) finish(ctx context.Context, f flow, a answer) (Identity, error) {
	token, err := g.redeem(ctx, g.oauth, a.Code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return Identity{}, err
	}
	var me struct {
		ID    int64  `json:"id"`
		Login string `json:"login"`
		Name  string `json:"name"`
	}
	if err := g.get(ctx, g.api+"/user", token.AccessToken, &me); err != nil {
		return Identity{}, err
	}
	if me.ID <= 0 {
		return Identity{}, ErrAnswer
	}
	var addresses []struct {
		Email             string
		Primary, Verified bool
	}
	if err := g.get(ctx, g.api+"/user/emails", token.AccessToken, &addresses); err != nil {
		return Identity{}, err
	}
	id := g.identity(strconv.FormatInt(me.ID, 10)) // the login can be given to somebody else
	if id.Name = me.Name; id.Name == "" {
		id.Name = me.Login
	}
	for _, one := range addresses {
		if one.Primary && one.Verified {
			id.Email, id.EmailVerified = one.Email, true
		}
	}
	return id, nil
}
