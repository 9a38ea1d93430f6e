package oidc

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// request is a client's wish to have a person sign in (RFC 6749, section 4.1.1; OpenID Connect Core 1.0, section 3.1.2.1). Its first
// members are known to be the client's when an answer may go there; the rest is as the client said.
type request struct {
	client      Client
	known       names // by which it calls people
	redirectURI string
	mode        string // of the answer
	state       string

	scope     []string
	nonce     string
	challenge string
	prompt    []string
	maxAge    time.Duration // -1: none
	since     time.Time     // the person must have proved who they are after that
	loginHint string
	lang      string // of our languages, or ""
	resources []string
	claims    claimsRequest
	subject   string // of the only person that will do, as the client knows them, "" for anyone

	params    url.Values // all of it, as it was asked
	reference string     // by which it was left here before, "" if it was not
	root      []byte     // what is answered once, of all that came in its place; nil if it was not left here
	signed    bool       // it came as a request object
	broken    error      // what was wrong with what had to be read first; check tells
}

const (
	modeQuery    = "query"
	modeFragment = "fragment"
	modeFormPost = "form_post"

	// sinceParam is ours: the time after which the person must have signed in. It takes the place of prompt=login and of max_age when
	// the person is sent to do that, so that they are not sent again.
	sinceParam = "sumun_since"

	// maxParam bounds the parameters that are handed back, in bytes.
	maxParam = 2000
)

// readRequest finds out who asks and where the answer goes. What is wrong here is told the person: an answer would go to whoever the
// address names. What is wrong beyond, check tells the client.
func (s *Service) readRequest(ctx context.Context, brought url.Values) (*request, error) {
	params, root, err := s.pulled(ctx, brought)
	if err != nil {
		return nil, err
	}
	r := &request{mode: modeQuery, maxAge: -1, root: root, signed: root == nil && params.Has("request")}
	if root != nil {
		r.reference = brought.Get("request_uri")
	}
	if len(params["client_id"]) != 1 || len(params["redirect_uri"]) != 1 && !r.signed {
		return nil, ErrRequestRefused.With("The application that sent you here did not say who it is, or where you came from.")
	}
	r.client, err = s.client(ctx, params.Get("client_id"))
	if errors.Is(err, ErrClientUnknown) {
		return nil, ErrRequestRefused.With("The application that sent you here is not known.")
	}
	if err != nil {
		return nil, err
	}
	if r.known, err = s.namesFor(ctx, r.client); err != nil {
		return nil, err
	}
	if r.signed {
		inner, err := s.unpack(ctx, r.client, params)
		switch {
		case err == nil:
			params = inner
		case errors.Is(err, ErrInvalidRequestObject), errors.Is(err, ErrRequestNotSupported):
			r.broken = err // told at the address beside it, if that is the client's: an error gives nothing away
		default:
			return nil, err
		}
	}
	r.params, r.redirectURI = params, params.Get("redirect_uri")
	if !r.client.allowsRedirect(r.redirectURI) || len(params["redirect_uri"]) != 1 {
		if r.broken != nil {
			return nil, r.broken
		}
		return nil, ErrRequestRefused.With("The application that sent you here wants the answer at an address that is not registered for it.")
	}
	if err := s.readIDHint(ctx, r); err != nil {
		r.broken = errors.Join(r.broken, err)
	}
	if len(params["state"]) == 1 && len(params.Get("state")) <= maxParam {
		r.state = params.Get("state")
	}
	if mode := params.Get("response_mode"); mode == modeFragment || mode == modeFormPost {
		r.mode = mode
	} else if r.implicit() && r.client.may(LegacyImplicit) {
		r.mode = modeFragment
	}
	return r, nil
}

// check reads the rest. What it refuses is answered to the client.
func (r *request) check() error {
	if r.broken != nil {
		return r.broken
	}
	p := r.params
	for name, values := range p {
		if len(values) > 1 && !slices.Contains(repeatable, name) {
			return ErrInvalidRequest.With("A parameter is there more than once.")
		}
	}
	for name, refusal := range map[string]error{"request_uri": ErrRequestURINotSupported, "registration": ErrRegistrationNotSupported} {
		if p.Has(name) {
			return refusal
		}
	}
	if r.client.RequireRequestObject && !r.signed && r.reference == "" { // what was left here was checked before
		return ErrInvalidRequest.With("This client must sign its requests (RFC 9101).")
	}
	if err := r.checkResponseType(); err != nil {
		return err
	}
	switch mode := p.Get("response_mode"); {
	case !slices.Contains([]string{"", modeQuery, modeFragment, modeFormPost}, mode):
		return ErrInvalidRequest.With("This response_mode is not supported.")
	case len(p.Get("state")) > maxParam || len(p.Get("nonce")) > maxParam:
		return ErrInvalidRequest.With("The parameters state and nonce may have 2000 bytes.")
	}
	if err := r.checkPKCE(); err != nil {
		return err
	}
	if err := r.checkScope(); err != nil {
		return err
	}
	r.nonce, r.loginHint, r.lang = p.Get("nonce"), p.Get("login_hint"), language(p.Get("ui_locales"))
	if err := r.checkImplicit(); err != nil {
		return err
	}
	if err := r.checkPrompt(); err != nil {
		return err
	}
	return r.checkClaims()
}

// readIDHint reads the person whom the client means (OpenID Connect Core 1.0, section 3.1.2.1, id_token_hint), by an ID token of its own,
// expired or not.
func (s *Service) readIDHint(ctx context.Context, r *request) error {
	raw := r.params.Get("id_token_hint")
	if raw == "" {
		return nil
	}
	hint := s.readHint(ctx, raw)
	if hint == nil || len(hint.Audience) != 1 || hint.Audience[0] != r.client.ID {
		return ErrInvalidRequest.With("The id_token_hint is no ID token of this client's.")
	}
	r.subject = hint.Subject
	return nil
}

// checkClaims reads what is asked for by name.
func (r *request) checkClaims() error {
	text := r.params.Get("claims")
	if text == "" {
		return nil
	}
	may := strings.Fields(r.client.Scope)
	var subject string
	var err error
	r.claims, err = parseClaims(text, func(scope string) bool { return slices.Contains(may, scope) })
	if err == nil {
		subject, err = r.claims.subject()
	}
	if err != nil {
		return ErrInvalidRequest.With("The parameter claims is malformed.").Wrap(err)
	}
	if subject != "" && r.subject != "" && subject != r.subject {
		return ErrInvalidRequest.With("The parameters claims and id_token_hint name two people.")
	}
	if subject != "" {
		r.subject = subject
	}
	return nil
}

// means reports whether the request may be answered with that person.
func (r *request) means(v *visitor) bool {
	return r.subject == "" || r.subject == r.known.subject(v.account.ID)
}

// asks is what the person is asked about: the scope, and the scopes of single claims that are asked for.
func (r *request) asks() []string {
	out := slices.Clone(r.scope)
	for _, word := range r.claims.scopes() {
		if !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	return out
}

// checkPKCE demands a challenge of clients that cannot keep a secret, and takes S256 only: with plain, who sees the request has the
// answer (RFC 7636, section 4.2; RFC 9700, section 2.1.1).
func (r *request) checkPKCE() error {
	challenge, method := r.params.Get("code_challenge"), r.params.Get("code_challenge_method")
	switch {
	case r.implicit(): // there is no code that it could protect
		return nil
	case challenge == "" && method != "":
		return ErrInvalidRequest.With("There is a code_challenge_method and no code_challenge.")
	case challenge == "" && (r.client.Public() || r.client.RequirePKCE):
		return ErrInvalidRequest.With("This client must send a code_challenge (PKCE).")
	case challenge == "":
		return nil
	case method != "S256":
		return ErrInvalidRequest.With("The code_challenge_method must be S256.")
	case !validChallenge(challenge):
		return ErrInvalidRequest.With("The code_challenge is malformed.")
	}
	r.challenge = challenge
	return nil
}

// validChallenge reports whether text is a SHA-256 hash in base64url.
func validChallenge(text string) bool {
	return len(text) == 43 && validVerifier(text)
}

// validVerifier reports whether text has the syntax of RFC 7636, section 4.1, but for the least length.
func validVerifier(text string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	return text != "" && len(text) <= 128 && strings.Trim(text, allowed) == ""
}

// checkScope leaves out what the client may not ask for where the standard says so (OpenID Connect Core 1.0, section 3.1.2.1: scopes
// that are not understood are ignored), and refuses a request of which nothing is left.
func (r *request) checkScope() error {
	asked := strings.Fields(r.params.Get("scope"))
	may := strings.Fields(r.client.Scope)
	for _, word := range asked {
		if !validScope(word) {
			return ErrInvalidScope
		}
		if slices.Contains(may, word) && !slices.Contains(r.scope, word) {
			r.scope = append(r.scope, word)
		}
	}
	if len(asked) > 0 && len(r.scope) == 0 {
		return ErrInvalidScope
	}
	if slices.Contains(r.scope, "offline_access") && !slices.Contains(r.client.GrantTypes, GrantRefreshToken) {
		r.scope = slices.DeleteFunc(r.scope, func(s string) bool { return s == "offline_access" })
	}
	r.resources = r.params["resource"]
	for _, resource := range r.resources {
		if !slices.Contains(r.client.Resources, resource) {
			return ErrInvalidTarget
		}
	}
	return nil
}

func (r *request) checkPrompt() error {
	r.prompt = strings.Fields(r.params.Get("prompt"))
	for _, word := range r.prompt {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, word) {
			return ErrInvalidRequest.With("This prompt is not supported.")
		}
	}
	if len(r.prompt) > 1 && slices.Contains(r.prompt, "none") {
		return ErrInvalidRequest.With("prompt=none goes with nothing else.")
	}
	if text := r.params.Get("max_age"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 32)
		if err != nil || seconds < 0 {
			return ErrInvalidRequest.With("The parameter max_age is no number of seconds.")
		}
		r.maxAge = time.Duration(seconds) * time.Second
	}
	if text := r.params.Get(sinceParam); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return ErrInvalidRequest
		}
		r.since = time.Unix(seconds, 0)
	}
	return nil
}

// language is the first of the languages in ui_locales that pages are written in, "" for none.
func language(locales string) string {
	for _, tag := range strings.Fields(locales) {
		base, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if base == "ko" || base == "en" {
			return base
		}
	}
	return ""
}

// prompts reports whether the client asks for something to be shown.
func (r *request) prompts(word string) bool { return slices.Contains(r.prompt, word) }

// fresh reports whether a sign-in is recent enough for the request.
func (r *request) fresh(authTime, now time.Time) bool {
	switch {
	case !r.since.IsZero():
		return !authTime.Before(r.since)
	case r.prompts("login"), r.prompts("select_account"):
		return false
	default:
		return r.maxAge < 0 || now.Sub(authTime) <= r.maxAge
	}
}

// again returns the request as it goes on after the person has signed in: what asks for that is replaced by the time since when it counts
// as done.
func (r *request) again(now time.Time) url.Values {
	params := maps.Clone(r.params)
	if r.prompts("login") || r.prompts("select_account") || r.maxAge >= 0 || r.subject != "" {
		params.Set(sinceParam, strconv.FormatInt(now.Unix(), 10))
	}
	rest := slices.DeleteFunc(slices.Clone(r.prompt), func(word string) bool { return word == "login" || word == "select_account" })
	params.Del("prompt")
	if len(rest) > 0 {
		params.Set("prompt", strings.Join(rest, " "))
	}
	return params
}

// answer is where the person goes with the answer: code or error, with the state, and the issuer, so that the client cannot take one
// provider's answer for another's (RFC 9207).
func (r *request) answer(issuer string, values url.Values) url.Values {
	if r.state != "" {
		values.Set("state", r.state)
	}
	values.Set("iss", issuer)
	return values
}

// refusal is the answer that says why not.
func (r *request) refusal(issuer string, name, description string) url.Values {
	return r.answer(issuer, url.Values{"error": {name}, "error_description": {description}})
}

// location is the address with the answer in it. What the registered address has in its query stays.
func (r *request) location(answer url.Values) string {
	if r.mode == modeFragment {
		return r.redirectURI + "#" + answer.Encode()
	}
	separator := "?"
	if strings.Contains(r.redirectURI, "?") {
		separator = "&"
	}
	return r.redirectURI + separator + answer.Encode()
}
