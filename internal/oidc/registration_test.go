package oidc_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/oidc"
)

// letIn opens registration, and the network of this machine for what programs register.
func letIn(c *oidc.Config) { c.Registration, c.Registrations, c.PrivateAddresses = true, 10_000, true }

// initial makes an initial access token.
func (n *node) initial(t testing.TB, with oidc.NewInitialToken) string {
	t.Helper()
	with.Uses, with.Life = max(with.Uses, 1), time.Hour
	_, token, err := n.AddInitialToken(t.Context(), with)
	must(t, err)
	return token
}

// said is what a program is told of itself.
type said struct {
	ID       string `json:"client_id"`
	Secret   string `json:"client_secret"`
	Expires  *int64 `json:"client_secret_expires_at"`
	IssuedAt int64  `json:"client_id_issued_at"`
	Token    string `json:"registration_access_token"`
	Address  string `json:"registration_client_uri"`
	oidc.Metadata
}

// register sends a registration, or a request about one.
func (n *node) register(t testing.TB, method, path, token, body string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return n.send(t, r)
}

func (a answer) said(t testing.TB, status int) (s said) {
	t.Helper()
	if a.status != status || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("answer %d %v %s", a.status, a.header, a.body)
	}
	must(t, json.Unmarshal([]byte(a.body), &s))
	return s
}

// A program registers itself, signs people in, changes itself and goes; they are told that nobody knows it.
func TestRegistration(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		if a := n.send(t, httptest.NewRequest("GET", "/.well-known/openid-configuration", nil)); !strings.Contains(a.body, `"registration_endpoint":"`+issuer+`/oauth/register"`) {
			t.Errorf("discovery: %s", a.body)
		}
		token := n.initial(t, oidc.NewInitialToken{})
		got := n.register(t, "POST", "/oauth/register", token, `{"client_name":"Shop","redirect_uris":["https://shop.example/cb"],"scope":"openid email admin",
			"client_name#ko":"가게","contacts":["a@shop.example"],"logo_uri":"https://shop.example/logo.png","client_uri":"https://shop.example","policy_uri":"https://shop.example/p",
			"tos_uri":"https://shop.example/t","response_types":["code"],"application_type":"web","from_the_future":{"a":1}}`).said(t, 201)
		if got.Secret == "" || got.Expires == nil || *got.Expires != 0 || got.IssuedAt != n.clock.Now().Unix() || got.Address != issuer+"/oauth/register/"+got.ID ||
			got.Scope != "openid email" || got.AuthMethod != oidc.AuthBasic || !slices.Equal(got.GrantTypes, []string{"authorization_code"}) ||
			got.LogoURI != "https://shop.example/logo.png" || got.PolicyURI == "" || got.TOSURI == "" || got.ClientURI == "" || len(got.Contacts) != 1 {
			t.Errorf("registered %+v", got)
		}
		n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["https://shop.example/cb"]}`).refused(t, 401, "invalid_token")
		c, err := n.Client(t.Context(), got.ID)
		must(t, err)
		if !c.SelfRegistered() || c.Trusted {
			t.Errorf("client %+v", c)
		}

		p := n.person(t, "kim@example.com")
		w := wish("client_id", got.ID)
		page := p.get(t, "/oauth/authorize?"+w.Encode())
		if !strings.Contains(page.body, "nobody here has checked it") {
			t.Error("people are not told that nobody knows it")
		}
		code := p.allow(t, page, "allow").landed(t, callback).Get("code")
		tokens := n.post(t, "/oauth/token", exchange(code), basic(got.ID, got.Secret)).token(t)
		if tokens.RefreshToken != "" || tokens.IDToken == "" {
			t.Errorf("tokens %+v", tokens)
		}

		path := strings.TrimPrefix(got.Address, issuer)
		read := n.register(t, "GET", path, got.Token, "").said(t, 200)
		if read.ID != got.ID || read.Token != got.Token || read.Secret != "" || read.Name != "Shop" || read.Address != got.Address {
			t.Errorf("read %+v", read)
		}
		n.clock.Advance(2 * time.Second)
		if a := p.get(t, "/oauth/authorize?"+w.Encode()); a.landed(t, callback).Get("code") == "" {
			t.Errorf("asked twice: %d", a.status)
		}
		body := `{"client_id":"` + got.ID + `","client_secret":"` + got.Secret + `","redirect_uris":["https://shop.example/cb","https://elsewhere.example/cb"],"scope":"openid email"}`
		put := n.register(t, "PUT", path, got.Token, body).said(t, 200)
		if put.Name != "shop.example" || put.LogoURI != "" || len(put.Contacts) > 0 || len(put.RedirectURIs) != 2 || put.Secret != "" || put.Token != got.Token {
			t.Errorf("replaced by %+v", put)
		}
		// Who has the token could have put in an address of their own: nobody is sent there because of what they allowed before.
		moved := p.get(t, "/oauth/authorize?"+wish("client_id", got.ID, "redirect_uri", "https://elsewhere.example/cb").Encode())
		if moved.status != 200 || !strings.Contains(moved.body, "elsewhere.example") {
			t.Errorf("not asked again: %d %v", moved.status, moved.header)
		}
		n.post(t, "/oauth/token", exchange("x"), basic(got.ID, got.Secret)).refused(t, 400, "invalid_grant")

		public := n.register(t, "PUT", path, got.Token, `{"client_id":"`+got.ID+`","redirect_uris":["https://shop.example/cb"],"token_endpoint_auth_method":"none"}`).said(t, 200)
		n.clock.Advance(2 * time.Second)
		n.post(t, "/oauth/token", exchange("x"), basic(got.ID, got.Secret)).refused(t, 401, "invalid_client")
		if public.Secret != "" {
			t.Error("a public client with a secret")
		}
		again := n.register(t, "PUT", path, got.Token, `{"client_id":"`+got.ID+`","redirect_uris":["https://shop.example/cb"],"token_endpoint_auth_method":"client_secret_post"}`).said(t, 200)
		n.clock.Advance(2 * time.Second)
		if again.Secret == "" || again.Secret == got.Secret {
			t.Error("no new secret")
		}
		n.post(t, "/oauth/token", exchange("x", "client_id", got.ID, "client_secret", again.Secret)).refused(t, 400, "invalid_grant")

		if a := n.register(t, "DELETE", path, got.Token, ""); a.status != 204 || a.body != "" {
			t.Errorf("removed with %d %s", a.status, a.body)
		}
		for _, method := range []string{"GET", "DELETE"} {
			n.register(t, method, path, got.Token, "").refused(t, 401, "invalid_token")
		}
		n.post(t, "/oauth/token", exchange("x", "client_id", got.ID, "client_secret", again.Secret)).refused(t, 401, "invalid_client")
		if _, err := n.verifier.Verify(t.Context(), tokens.AccessToken); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("a token of a client that has gone: %v", err)
		}
	})
}

// Where nobody has opened it there is no door.
func TestRegistrationIsOff(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		token := n.initial(t, oidc.NewInitialToken{})
		if a := n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["https://shop.example/cb"]}`); a.status != 404 {
			t.Errorf("answer %d", a.status)
		}
		if a := n.send(t, httptest.NewRequest("GET", "/.well-known/openid-configuration", nil)); strings.Contains(a.body, "registration_endpoint") {
			t.Error("it is announced")
		}
	})
}

// What a stranger says of a program is refused in the standard's words where it cannot be, and never makes it more than a stranger's.
func TestRegistrationRefusals(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		token := n.initial(t, oidc.NewInitialToken{Uses: 100})
		private := `{"keys":[{"kty":"EC","crv":"P-256","x":"` + strings.Repeat("A", 43) + `","y":"` + strings.Repeat("A", 43) + `","d":"` + strings.Repeat("A", 43) + `"}]}`
		const uri = `"redirect_uris":["https://shop.example/cb"]`
		for name, one := range map[string]struct{ body, want string }{
			"no JSON":              {`x`, "invalid_client_metadata"},
			"an array":             {`[]`, "invalid_client_metadata"},
			"null":                 {`null`, "invalid_client_metadata"},
			"another type":         {`{"redirect_uris":"https://shop.example/cb"}`, "invalid_client_metadata"},
			"no address":           {`{"client_name":"x"}`, "invalid_redirect_uri"},
			"http":                 {`{"redirect_uris":["http://shop.example/cb"]}`, "invalid_redirect_uri"},
			"fragment":             {`{"redirect_uris":["https://shop.example/cb#x"]}`, "invalid_redirect_uri"},
			"script":               {`{"redirect_uris":["javascript:alert(1)"]}`, "invalid_redirect_uri"},
			"statement":            {`{` + uri + `,"software_statement":"eyJ"}`, "unapproved_software_statement"},
			"trusted":              {`{` + uri + `,"sumun_trusted":true}`, "invalid_client_metadata"},
			"resources":            {`{` + uri + `,"sumun_resources":["https://a.example"]}`, "invalid_client_metadata"},
			"grant of machines":    {`{` + uri + `,"grant_types":["client_credentials"]}`, "invalid_client_metadata"},
			"unknown grant":        {`{` + uri + `,"grant_types":["password"]}`, "invalid_client_metadata"},
			"implicit":             {`{` + uri + `,"response_types":["token"]}`, "invalid_client_metadata"},
			"proof":                {`{` + uri + `,"token_endpoint_auth_method":"client_secret_jwt"}`, "invalid_client_metadata"},
			"keys twice":           {`{` + uri + `,"jwks":{"keys":[]},"jwks_uri":"https://shop.example/jwks"}`, "invalid_client_metadata"},
			"private key":          {`{` + uri + `,"jwks":` + private + `}`, "invalid_client_metadata"},
			"keys over http":       {`{` + uri + `,"jwks_uri":"http://shop.example/jwks"}`, "invalid_client_metadata"},
			"logo":                 {`{` + uri + `,"logo_uri":"data:image/png;base64,x"}`, "invalid_client_metadata"},
			"name":                 {`{` + uri + `,"client_name":"a\nb"}`, "invalid_client_metadata"},
			"contacts":             {`{` + uri + `,"contacts":["a\u0000b"]}`, "invalid_client_metadata"},
			"subject type":         {`{` + uri + `,"subject_type":"secret"}`, "invalid_client_metadata"},
			"two sectors":          {`{"subject_type":"pairwise","redirect_uris":["https://a.example/cb","https://b.example/cb"]}`, "invalid_client_metadata"},
			"signed with none":     {`{` + uri + `,"id_token_signed_response_alg":"none"}`, "invalid_client_metadata"},
			"signed otherwise":     {`{` + uri + `,"userinfo_signed_response_alg":"HS256"}`, "invalid_client_metadata"},
			"back-channel, script": {`{` + uri + `,"backchannel_logout_uri":"javascript:alert(1)"}`, "invalid_client_metadata"},
		} {
			t.Run(name, func(t *testing.T) {
				n.register(t, "POST", "/oauth/register", token, one.body).refused(t, 400, one.want)
			})
		}
		for name, wrong := range map[string]string{"none": "", "made up": "sit_x", "a secret": "scs_x", "text": "\xff\x00"} {
			a := n.register(t, "POST", "/oauth/register", wrong, `{`+uri+`}`)
			if a.refused(t, 401, "invalid_token"); !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: %v", name, a.header)
			}
		}
		form := httptest.NewRequestWithContext(t.Context(), "POST", "/oauth/register", strings.NewReader("a=b"))
		form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		form.Header.Set("Authorization", "Bearer "+token)
		n.send(t, form).refused(t, 400, "invalid_client_metadata")
		n.register(t, "POST", "/oauth/register", token, `{"client_name":"`+strings.Repeat("x", 70<<10)+`"}`).refused(t, 413, "invalid_request")

		// In other letters it is unknown, and ignored like everything unknown.
		got := n.register(t, "POST", "/oauth/register", token, `{`+uri+`,"Sumun_Trusted":true,"SUMUN_RESOURCES":["https://a.example"],"scope":null}`).said(t, 201)
		c, err := n.Client(t.Context(), got.ID)
		must(t, err)
		if c.Trusted || len(c.Resources) > 0 || c.Scope != "openid profile email offline_access" {
			t.Errorf("client %+v", c)
		}
		// Nor does it help to get into the database.
		c.Trusted = true
		text, err := json.Marshal(c.Metadata)
		must(t, err)
		_, err = n.db.Writer().ExecContext(t.Context(), `UPDATE oauth_clients SET metadata = $1 WHERE id = $2`, string(text), c.ID)
		must(t, err)
		if c, err = n.Client(t.Context(), got.ID); err != nil || c.Trusted {
			t.Errorf("trusted, %v", err)
		}

		path := strings.TrimPrefix(got.Address, issuer)
		other := n.register(t, "POST", "/oauth/register", token, `{`+uri+`}`).said(t, 201)
		for name, one := range map[string]struct {
			token, body string
			status      int
			want        string
		}{
			"another's token":  {other.Token, `{"client_id":"` + got.ID + `",` + uri + `}`, 401, "invalid_token"},
			"the initial one":  {token, `{"client_id":"` + got.ID + `",` + uri + `}`, 401, "invalid_token"},
			"no id":            {got.Token, `{` + uri + `}`, 400, "invalid_client_metadata"},
			"another's id":     {got.Token, `{"client_id":"` + other.ID + `",` + uri + `}`, 400, "invalid_client_metadata"},
			"another secret":   {got.Token, `{"client_id":"` + got.ID + `","client_secret":"scs_x",` + uri + `}`, 400, "invalid_client_metadata"},
			"more grants":      {got.Token, `{"client_id":"` + got.ID + `",` + uri + `,"grant_types":["client_credentials"]}`, 400, "invalid_client_metadata"},
			"other names":      {got.Token, `{"client_id":"` + got.ID + `",` + uri + `,"subject_type":"pairwise"}`, 400, "invalid_client_metadata"},
			"trusted by now":   {got.Token, `{"client_id":"` + got.ID + `",` + uri + `,"sumun_trusted":true}`, 400, "invalid_client_metadata"},
			"nothing at all":   {got.Token, ``, 400, "invalid_client_metadata"},
			"a bad redirect":   {got.Token, `{"client_id":"` + got.ID + `","redirect_uris":["ftp://x"]}`, 400, "invalid_redirect_uri"},
			"a statement, too": {got.Token, `{"client_id":"` + got.ID + `",` + uri + `,"software_statement":"x"}`, 400, "unapproved_software_statement"},
		} {
			t.Run("change: "+name, func(t *testing.T) { n.register(t, "PUT", path, one.token, one.body).refused(t, one.status, one.want) })
		}
		must(t, n.Disable(t.Context(), got.ID))
		n.register(t, "GET", path, got.Token, "").refused(t, 403, "client_disabled")
		n.register(t, "PUT", path, got.Token, `{"client_id":"`+got.ID+`",`+uri+`}`).refused(t, 403, "client_disabled")
		n.clock.Advance(2 * time.Hour)
		n.register(t, "POST", "/oauth/register", token, `{`+uri+`}`).refused(t, 401, "invalid_token")
	})
}

// A token that was given for three programs lets three in, however many ask at once.
func TestInitialTokenIsUsedUp(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		token := n.initial(t, oidc.NewInitialToken{Uses: 3})
		n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["ftp://x"]}`).refused(t, 400, "invalid_redirect_uri") // costs no use
		var in atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				switch a := n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["https://shop.example/cb"]}`); a.status {
				case 201:
					in.Add(1)
				case 401:
				default:
					t.Errorf("answer %d %s", a.status, a.body)
				}
			})
		}
		wg.Wait()
		clients, err := n.Clients(t.Context(), "", 100)
		must(t, err)
		if in.Load() != 3 || len(clients) != 3 {
			t.Errorf("%d are in, there are %d", in.Load(), len(clients))
		}
	})
}

// A token for strangers gives nothing that only an operator may give, and goes when it is taken back.
func TestInitialTokens(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		for name, with := range map[string]oidc.NewInitialToken{
			"introspection": {Scope: "openid introspect", Uses: 1, Life: time.Hour},
			"the feed":      {Scope: "revocations:read", Uses: 1, Life: time.Hour},
			"API keys":      {Scope: "apikeys:exchange", Uses: 1, Life: time.Hour},
			"no scope":      {Scope: `a"b`, Uses: 1, Life: time.Hour},
			"no grant":      {Grants: []string{"password"}, Uses: 1, Life: time.Hour},
			"no uses":       {Life: time.Hour},
			"for ever":      {Uses: 1, Life: 500 * 24 * time.Hour},
		} {
			if _, _, err := n.AddInitialToken(t.Context(), with); !errors.Is(err, oidc.ErrInitialTokenRefused) || len(fault.From(err).Fields()) != 1 {
				t.Errorf("%s: %v", name, err)
			}
		}
		token := n.initial(t, oidc.NewInitialToken{Uses: 9, Scope: "orders", Grants: []string{"client_credentials"}})
		got := n.register(t, "POST", "/oauth/register", token, `{"grant_types":["client_credentials"],"client_name":"Robot"}`).said(t, 201)
		if tokens := n.post(t, "/oauth/token", credentialsForm, basic(got.ID, got.Secret)).token(t); tokens.Scope != "orders" {
			t.Errorf("tokens %+v", tokens)
		}
		all, err := n.InitialTokens(t.Context(), "", 10)
		must(t, err)
		if len(all) != 1 || all[0].Uses != 8 || all[0].Scope != "orders" {
			t.Errorf("listed %+v", all)
		}
		must(t, n.RemoveInitialToken(t.Context(), all[0].ID))
		if err := n.RemoveInitialToken(t.Context(), all[0].ID); !errors.Is(err, oidc.ErrInitialTokenUnknown) {
			t.Errorf("removed twice: %v", err)
		}
		n.register(t, "POST", "/oauth/register", token, `{"grant_types":["client_credentials"],"client_name":"Robot"}`).refused(t, 401, "invalid_token")
	})
}

// Who registers in a loop is slowed down, and so is who guesses tokens.
func TestRegistrationLimits(t *testing.T) {
	onEachWith(t, func(c *oidc.Config) { c.Registration, c.Registrations = true, 8 }, func(t *testing.T, n *node) {
		token := n.initial(t, oidc.NewInitialToken{Uses: 100})
		for range 4 {
			n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["https://shop.example/cb"]}`).said(t, 201)
		}
		a := n.register(t, "POST", "/oauth/register", token, `{"redirect_uris":["https://shop.example/cb"]}`)
		if a.refused(t, 429, "temporarily_unavailable"); a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	})
}

// A program that claims to be of a company's shows that the company says so; nothing inside our network is asked for it.
func TestSectorIdentifier(t *testing.T) {
	onEachWith(t, letIn, func(t *testing.T, n *node) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/good":
				_, _ = w.Write([]byte(`["https://a.example/cb","https://b.example/cb","https://c.example/cb"]`))
			case "/object":
				_, _ = w.Write([]byte(`{"keys":[]}`))
			case "/elsewhere":
				http.Redirect(w, r, "/good", http.StatusFound)
			case "/large":
				_, _ = w.Write([]byte(`["` + strings.Repeat("x", 70<<10) + `"]`))
			default:
				http.NotFound(w, r)
			}
		}))
		defer s.Close()
		token := n.initial(t, oidc.NewInitialToken{Uses: 100})
		with := func(path, extra string) string {
			return `{"subject_type":"pairwise","sector_identifier_uri":"` + s.URL + path + `","redirect_uris":["https://a.example/cb","https://b.example/cb"` + extra + `]}`
		}
		got := n.register(t, "POST", "/oauth/register", token, with("/good", "")).said(t, 201)
		n.register(t, "POST", "/oauth/register", token, with("/good", `,"https://d.example/cb"`)).refused(t, 400, "invalid_client_metadata")
		for _, path := range []string{"/object", "/elsewhere", "/large", "/missing"} {
			n.register(t, "POST", "/oauth/register", token, with(path, "")).refused(t, 400, "invalid_client_metadata")
		}
		path := strings.TrimPrefix(got.Address, issuer)
		same := strings.Replace(with("/good", `,"https://c.example/cb"`), "{", `{"client_id":"`+got.ID+`",`, 1)
		n.register(t, "PUT", path, got.Token, same).said(t, 200)
		n.register(t, "PUT", path, got.Token, `{"client_id":"`+got.ID+`","subject_type":"pairwise","redirect_uris":["https://a.example/cb"]}`).refused(t, 400, "invalid_client_metadata")
		if _, _, err := n.AddClient(t.Context(), "", oidc.Metadata{Name: "x", SubjectType: "pairwise", SectorIdentifierURI: s.URL + "/object", RedirectURIs: []string{"https://a.example/cb"}}); !errors.Is(err, oidc.ErrClientRefused) {
			t.Errorf("by an operator: %v", err)
		}
	})
}
