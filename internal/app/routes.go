package app

import (
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/session"
)

// newPublicRoutes puts the routes of all units together, behind the chain that every request passes.
func (n *node) newPublicRoutes() (http.Handler, error) {
	mux := http.NewServeMux()
	api := httpd.NewAPI(mux, httpd.APIConfig{Title: n.cfg.Service, Version: "1", ServerURL: n.cfg.Issuer})
	api.OpenAPI().Tags = []*huma.Tag{{Name: "Users"}, {Name: "Sessions"}} // in the order in which one needs them
	api.OpenAPI().Components.SecuritySchemes = map[string]*huma.SecurityScheme{bearer: {
		Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "The access_token of a sign-in or a refresh.",
	}}
	api.OpenAPI().Components.SecuritySchemes[dpop] = &huma.SecurityScheme{
		Type: "http", Scheme: "DPoP", Description: "The access_token of a sign-in that was bound to a key, together with a header DPoP " +
			"with a proof of that key for this request (RFC 9449).",
	}
	var own http.Handler // nil where no unit has routes
	var render func(http.ResponseWriter, *http.Request, *fault.Fault)
	var crossOrigin []string
	for _, u := range n.units {
		if u.mount == nil {
			continue
		}
		own = mux
		api.UseMiddleware(requireAccessToken(api, u.verifier))
		u.mount(mux, api)
		crossOrigin = append(crossOrigin, u.crossOrigin...)
	}
	offerDPoP(api.OpenAPI())
	for _, u := range n.units {
		if u.pages == nil || render != nil {
			continue
		}
		render = u.pages.Fault
		if err := mountReference(mux, api, u.pages); err != nil {
			return nil, err
		}
	}
	cfg := n.cfg.HTTP
	cfg.TrustedOrigins = append(slices.Clone(cfg.TrustedOrigins), n.cfg.issuerOrigin()) // a proxy may have rewritten Host
	if own != nil {
		own = httpd.Guard(cfg, crossOrigin...)(httpd.Routes(mux, render))
	}
	public, err := n.front(own)
	if err != nil {
		return nil, err
	}
	return httpd.Edge(n.log, n.metrics, cfg)(public), nil
}

// front puts the unit that stands before the others, if there is one, before their routes.
func (n *node) front(own http.Handler) (public http.Handler, err error) {
	public = own
	for _, u := range n.units {
		if u.front == nil {
			continue
		}
		if public, err = u.front(public); err != nil {
			return nil, err
		}
	}
	return public, nil
}

func (n *node) newOpsRoutes() http.Handler {
	return httpd.OpsHandler(httpd.OpsConfig{
		Ready: n.ready, Notes: n.notes, Registry: n.metrics, Listen: n.cfg.OpsListen, Log: n.log,
		Extra: func(mux *http.ServeMux) {
			for _, u := range n.units {
				if u.mountOps != nil {
					u.mountOps(mux)
				}
			}
		},
	})
}

// bearer is the name that operations give the one security scheme.
const bearer = "bearer"

// dpop is the name of its alternative, for tokens that are bound to a key.
const dpop = "dpop"

// offerDPoP describes that whatever takes bearer tokens takes bound ones, too.
func offerDPoP(document *huma.OpenAPI) {
	for _, path := range document.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Put, path.Post, path.Patch, path.Delete} {
			if op == nil {
				continue
			}
			if _, takes := first(op.Security)[bearer]; takes {
				op.Security = append(op.Security, map[string][]string{dpop: {}})
			}
		}
	}
}

func first[T any](list []T) (v T) {
	if len(list) > 0 {
		v = list[0]
	}
	return v
}

// requireAccessToken lets a request through to an operation that declares security only with a valid access token, whose
// claims the operation finds in its context. Operations without security are public: they get no claims, whatever was sent.
func requireAccessToken(api huma.API, verifier *auth.Verifier) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if len(ctx.Operation().Security) == 0 {
			next(ctx)
			return
		}
		r, _ := humago.Unwrap(ctx)
		if nonce := verifier.DPoPNonce(r); nonce != "" {
			ctx.SetHeader("DPoP-Nonce", nonce)
		}
		claims, err := verified(r, verifier)
		if err == nil && claims.ClientID != session.FirstParty {
			err = errOtherClient
		}
		if err != nil {
			httpd.Refuse(api, ctx, err)
			return
		}
		next(huma.WithContext(ctx, auth.NewContext(ctx.Context(), claims)))
	}
}

// errOtherClient keeps programs that people sign in to from doing in their names what is for Sumun's own pages and programs: to change
// the password, to end sessions.
var errOtherClient = fault.New(fault.Forbidden, "auth.other_client", "This token was given to another program, which may not do this.")

func verified(r *http.Request, verifier *auth.Verifier) (*auth.Claims, error) {
	claims, err := verifier.VerifyRequest(r)
	if err != nil {
		return nil, gateway.Refusal(err)
	}
	return claims, nil
}
