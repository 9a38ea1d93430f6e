package federation

import (
	"context"
	"fmt"

	"golang.org/x/oauth2"
)

// naver is Naver, which speaks OAuth 2 with a profile of its own (https://developers.naver.com/docs/login/api/api.md): no ID token,
// so no nonce, and PKCE is not documented. The code is bound to the browser by the state, and to us by the client's secret. Errors of
// the token endpoint come with status 200, those of the profile as a resultcode. Whether the address was verified is not told.
type naver struct {
	link
	oauth oauth2.Config
}

const naverProfile = "https://openapi.naver.com/v1/nid/me"

func newNaver(l link) provider {
	return naver{l, oauth2.Config{ClientID: l.cfg.ClientID, ClientSecret: l.cfg.ClientSecret.Reveal(), RedirectURL: l.redirect,
		Scopes: l.cfg.Scopes, Endpoint: oauth2.Endpoint{
			AuthURL: l.cfg.Issuer + "/oauth2.0/authorize", TokenURL: l.cfg.Issuer + "/oauth2.0/token", AuthStyle: oauth2.AuthStyleInParams,
		}}}
}

func (n naver) expects(context.Context) (string, bool, error) { return "", false, nil }

func (n naver) begin(_ context.Context, f flow) (string, error) {
	var options []oauth2.AuthCodeOption
	if f.Intent == intentReauthenticate {
		options = append(options, oauth2.SetAuthURLParam("auth_type", "reauthenticate"))
	}
	return n.oauth.AuthCodeURL(f.State, options...), nil
}

func (n naver) finish(ctx context.Context, f flow, a answer) (Identity, error) {
	token, err := n.redeem(ctx, n.oauth, a.Code, oauth2.SetAuthURLParam("state", f.State))
	if err != nil {
		return Identity{}, err
	}
	var me struct {
		Result   string `json:"resultcode"`
		Response struct {
			ID       string `json:"id"`
			Email    string `json:"email"`
			Name     string `json:"name"`
			Nickname string `json:"nickname"`
		} `json:"response"`
	}
	if err := n.get(ctx, naverProfile, token.AccessToken, &me); err != nil {
		return Identity{}, err
	}
	if me.Result != "00" {
		return Identity{}, ErrRefused.Wrap(fmt.Errorf("the profile has resultcode %.16q", me.Result))
	}
	id := n.identity(me.Response.ID)
	id.Email, id.Name = me.Response.Email, me.Response.Name
	if id.Name == "" {
		id.Name = me.Response.Nickname
	}
	return id, nil
}
