package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

// A service needs the issuer's address and its own name; the keys are fetched when the first token arrives.
func ExampleVerifier_Middleware() {
	verifier, err := auth.New(auth.Config{Issuer: "https://id.example", Audience: "https://api.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "hello", auth.FromContext(r.Context()).Subject)
	})
	handler := verifier.Middleware(hello)

	// A request without a token.
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="sumun"
}

// A key source of one's own, here with one fixed key, makes a verifier that needs no network.
func ExampleVerifier_Verify() {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	keys := source{"k1": {ID: "k1", Algorithm: auth.ES256, Public: private.Public()}}
	verifier, err := auth.New(auth.Config{Issuer: "https://id.example", Audience: "https://api.example", Keys: keys})
	if err != nil {
		fmt.Println(err)
		return
	}

	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "https://id.example", "aud": "https://api.example", "sub": "alice", "client_id": "sumun",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	token.Header["typ"], token.Header["kid"] = "at+jwt", "k1"
	raw, err := token.SignedString(private)
	if err != nil {
		fmt.Println(err)
		return
	}

	claims, err := verifier.Verify(context.Background(), raw)
	fmt.Println(claims.Subject, err)
	_, err = verifier.Verify(context.Background(), raw+"x")
	fmt.Println(errors.Is(err, auth.ErrSignature) || errors.Is(err, auth.ErrMalformed))
	// Output:
	// alice <nil>
	// true
}

// Changing a password wants a sign-in within the last five minutes. The challenge asks the client for one.
func ExampleRequireRecent() {
	now := time.Now()
	claims := &auth.Claims{Subject: "alice", AuthTime: now.Add(-time.Hour)}
	status, header, code := auth.Challenge(auth.RequireRecent(claims, 5*time.Minute, now))
	fmt.Println(status, code)
	fmt.Println(header)
	// Output:
	// 401 auth.step_up
	// Bearer realm="sumun", error="insufficient_user_authentication", error_description="A more recent sign-in is needed.", max_age="300"
}

// A role change raises the subject's epoch: tokens from before it are dead, tokens since then live.
func ExampleRevocationSet() {
	set := auth.NewRevocationSet(nil)
	set.Add(auth.Revocation{
		Kind:  auth.RevokeSubject,
		ID:    auth.RevocationHash(auth.RevokeSubject, "alice"),
		Epoch: 4,
		Until: time.Now().Add(15 * time.Minute),
	})
	fmt.Println(set.Revoked(&auth.Claims{Subject: "alice", Epoch: 3}))
	fmt.Println(set.Revoked(&auth.Claims{Subject: "alice", Epoch: 4}))
	// Output:
	// true
	// false
}
