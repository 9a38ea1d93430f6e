package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// maxClaims bounds the parameter claims, in bytes: a code carries it.
const maxClaims = 4000

// scopeClaims are the claims that a scope stands for (OpenID Connect Core 1.0, section 5.4), as far as an account has them.
var scopeClaims = map[string][]string{
	"profile": {"name", "preferred_username", "locale", "updated_at"},
	"email":   {"email", "email_verified"},
	"phone":   {"phone_number", "phone_number_verified"},
	"address": {"address"},
}

// signInClaims are about the sign-in and not about the person: they are in every ID token, and asked for by name only to say which
// values will do.
var signInClaims = []string{"sub", "acr", "auth_time"}

// scopeOf is the scope that a claim belongs to, "" for one that is not known or about the sign-in.
func scopeOf(claim string) string {
	for scope, names := range scopeClaims {
		if slices.Contains(names, claim) {
			return scope
		}
	}
	return ""
}

// claimNames are all claims that there can be, sorted.
func claimNames() []string {
	names := []string{"iss", "aud", "exp", "iat", "sid", "amr", "nonce"}
	names = append(names, signInClaims...)
	for _, more := range scopeClaims {
		names = append(names, more...)
	}
	slices.Sort(names)
	return names
}

// claimsRequest is the parameter claims (OpenID Connect Core 1.0, section 5.5), as far as it asks for what there is and for what the
// client may have.
type claimsRequest struct {
	UserInfo claimSet `json:"userinfo,omitempty"`
	IDToken  claimSet `json:"id_token,omitempty"`
}

// claimSet is the claims that are asked for, by name. nil asks for whatever value there is.
type claimSet map[string]*claimRequest

// claimRequest says more about a claim that is asked for (section 5.5.1).
type claimRequest struct {
	Essential bool              `json:"essential,omitempty"`
	Value     json.RawMessage   `json:"value,omitempty"`
	Values    []json.RawMessage `json:"values,omitempty"`
}

// wanted are the values that will do, nil for any.
func (r *claimRequest) wanted() []json.RawMessage {
	switch {
	case r == nil:
		return nil
	case r.Value != nil:
		return []json.RawMessage{r.Value}
	default:
		return r.Values
	}
}

// takes reports whether a value is one of those that will do. Values are the same when they are written the same in JSON.
func (r *claimRequest) takes(value any) bool {
	wanted := r.wanted()
	text, err := json.Marshal(value)
	return wanted == nil || err == nil && slices.ContainsFunc(wanted, func(one json.RawMessage) bool { return bytes.Equal(one, text) })
}

var errClaims = errors.New("the claims are not as section 5.5 of OpenID Connect Core 1.0 has them")

// parseClaims reads the parameter. Claims that are not known, and those of scopes that the client may not ask for, are ignored.
func parseClaims(text string, may func(scope string) bool) (claimsRequest, error) {
	var all struct {
		UserInfo map[string]json.RawMessage `json:"userinfo"`
		IDToken  map[string]json.RawMessage `json:"id_token"`
	}
	if len(text) > maxClaims {
		return claimsRequest{}, errClaims
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil || !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return claimsRequest{}, errors.Join(errClaims, err)
	}
	var (
		out claimsRequest
		err error
	)
	if out.UserInfo, err = readClaims(all.UserInfo, may); err == nil {
		out.IDToken, err = readClaims(all.IDToken, may)
	}
	return out, err
}

func readClaims(asked map[string]json.RawMessage, may func(scope string) bool) (claimSet, error) {
	var set claimSet
	for name, text := range asked {
		if scope := scopeOf(name); scope == "" && !slices.Contains(signInClaims, name) || scope != "" && !may(scope) {
			continue
		}
		var one *claimRequest
		if err := json.Unmarshal(text, &one); err != nil {
			return nil, errors.Join(errClaims, err)
		}
		if set == nil {
			set = claimSet{}
		}
		set[name] = one.compact()
	}
	return set, nil
}

// compact writes the values as this program does, so that they can be compared.
func (r *claimRequest) compact() *claimRequest {
	if r == nil {
		return nil
	}
	out := claimRequest{Essential: r.Essential, Value: compactJSON(r.Value)}
	if string(out.Value) == "null" {
		out.Value = nil
	}
	for _, one := range r.Values {
		out.Values = append(out.Values, compactJSON(one))
	}
	return &out
}

// compactJSON returns a value as Marshal writes it; it has been read, so it is JSON.
func compactJSON(text json.RawMessage) json.RawMessage {
	if text == nil {
		return nil
	}
	var value any
	if json.Unmarshal(text, &value) != nil {
		return nil
	}
	out, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return out
}

// subject is the only person that will do, as the client knows them, "" for anyone (section 5.5.1).
func (r claimsRequest) subject() (string, error) {
	var found string
	for _, set := range []claimSet{r.UserInfo, r.IDToken} {
		wanted := set["sub"].wanted()
		if wanted == nil {
			continue
		}
		var text string
		if len(wanted) != 1 || json.Unmarshal(wanted[0], &text) != nil || text == "" || found != "" && found != text {
			return "", errClaims
		}
		found = text
	}
	return found, nil
}

// takesACR reports whether a sign-in of that context will do. Only what is essential decides (section 5.5.1.1).
func (r claimsRequest) takesACR(acr string) bool {
	wish := r.IDToken["acr"]
	return wish == nil || !wish.Essential || wish.takes(acr)
}

// scopes are those that the claims belong to: what the person is asked about.
func (r claimsRequest) scopes() []string {
	var out []string
	for _, set := range []claimSet{r.UserInfo, r.IDToken} {
		for name := range set {
			if scope := scopeOf(name); scope != "" && !slices.Contains(out, scope) {
				out = append(out, scope)
			}
		}
	}
	slices.Sort(out)
	return out
}

// keep writes what is kept of the claims with a grant: those about the person; "" for none.
func (s claimSet) keep() (string, error) {
	kept := claimSet{}
	for name, wish := range s {
		if scopeOf(name) != "" {
			kept[name] = wish
		}
	}
	if len(kept) == 0 {
		return "", nil
	}
	text, err := json.Marshal(kept)
	return string(text), err
}

// pick returns those of the claims that the set asks for and that have a value which will do.
func (s claimSet) pick(all map[string]any) map[string]any {
	out := map[string]any{}
	for name, wish := range s {
		if value, there := all[name]; there && wish.takes(value) {
			out[name] = value
		}
	}
	return out
}
