package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"strings"
)

// A refresh token is paired with the access token that was issued with it by that one's jti, which is made from the refresh
// token under the key that authenticates it. So nothing has to be stored; a repeated answer makes the same pair; and who has
// stolen one half cannot make the other. The signature of the access token, which may well have expired, does not matter: a jti
// that nobody else can compute is proof.

// pairID is the jti of the access token that is issued with t.
func (t refreshToken) pairID(key []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("sumun access token of "))
	h.Write(t.signed())
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// paired returns the jti of the access token to be issued with t, or "" for any.
func (s *Service) paired(ctx context.Context, t refreshToken) (string, error) {
	if s.cfg.Pairing != PairingRequired {
		return "", nil
	}
	key, err := s.deps.Keyring.ByID(ctx, MACPurpose, t.keyID)
	if err != nil {
		return "", err
	}
	return t.pairID(key.Secret), nil
}

// checkPair refuses a refresh token that does not come with its access token, where that is asked for.
func (s *Service) checkPair(ctx context.Context, t refreshToken, access string) error {
	want, err := s.paired(ctx, t)
	if err != nil {
		return unavailable(err)
	}
	if want != "" && subtle.ConstantTimeCompare([]byte(claimedID(access)), []byte(want)) != 1 {
		return ErrUnpaired
	}
	return nil
}

// maxAccessToken bounds what is read of an access token, in bytes.
const maxAccessToken = 16 << 10

// claimedID reads the jti of a JWT without believing it; "" if there is none.
func claimedID(access string) string {
	parts := strings.Split(access, ".")
	if len(access) > maxAccessToken || len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.ID
}
