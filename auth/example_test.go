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
	"os"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
)

// A service that wants revocations at once, and to start while the issuer is down, says who it is and where it may keep a file.
func ExampleNew() {
	credentials, err := auth.NewClientCredentials(auth.ClientCredentialsConfig{
		Issuer: "https://id.example", ID: "orders", Secret: os.Getenv("ORDERS_CLIENT_SECRET") + "unset",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := auth.New(auth.Config{
		Issuer: "https://id.example", Audience: "https://orders.example", Credentials: credentials,
		Snapshot: auth.SnapshotConfig{Path: "/var/lib/orders/auth.snapshot", Key: []byte("32 random bytes of this service's")},
		OnStale:  func(stale bool, age time.Duration) { fmt.Println("revocation feed", stale, age) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// In main: if err := verifier.Load(ctx); err != nil { ... }, then go verifier.Run(ctx).
	fmt.Println(verifier.Staleness() == auth.Unknown, verifier.Fresh() != nil)
	// Output: true true
}

// Another issuer's tokens, here Keycloak's: a different header, and roles in a place of their own.
func ExampleNew_otherIssuer() {
	_, err := auth.New(auth.Config{
		Issuer: "https://keycloak.example/realms/shop", Audience: "orders", Lenient: true, RolesClaim: "realm_access.roles",
	})
	fmt.Println(err)
	// Output: <nil>
}

// Who may do what is said where the route is.
func ExampleRequireScope() {
	issuer := authtest.New(new(testing.T))
	verifier := issuer.Verifier()
	refund := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	handler := verifier.Middleware(auth.RequireScope("orders:refund")(auth.RequireRole("support")(refund)))

	for _, token := range []string{
		issuer.Token(authtest.WithScope("orders:refund"), authtest.WithRoles("support")),
		issuer.Token(authtest.WithScope("orders:read")),
	} {
		r, w := httptest.NewRequest(http.MethodPost, "/refunds", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+token)
		handler.ServeHTTP(w, r)
		fmt.Printf("%d %q\n", w.Code, w.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// 204 ""
	// 403 "Bearer realm=\"sumun\", error=\"insufficient_scope\", error_description=\"The access token has not the scope that is needed.\", scope=\"orders:refund\""
}

// Where a revoked session could do harm, not knowing the latest revocations is a reason to refuse.
func ExampleVerifier_RequireFresh() {
	issuer := authtest.New(new(testing.T))
	verifier := issuer.Verifier()
	pay := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	handler := verifier.Middleware(verifier.RequireFresh(pay))

	issuer.GoStale()
	r, w := httptest.NewRequest(http.MethodPost, "/payments", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+issuer.Token())
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("Retry-After"))
	// Output: 503 1
}

// What outlives a request, such as a stream of events, ends with its session.
func ExampleVerifier_WithWatch() {
	issuer := authtest.New(new(testing.T))
	verifier := issuer.Verifier()
	claims, err := verifier.Verify(context.Background(), issuer.Token())
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := verifier.WithWatch(context.Background(), claims)
	defer cancel()

	issuer.RevokeSession(claims.SessionID)
	<-ctx.Done()
	fmt.Println(context.Cause(ctx))
	// Output: The access token has been revoked.
}

// Few tokens, forgotten when they are not used.
func ExampleNewTokenCache() {
	cache := auth.NewTokenCache(auth.CacheConfig{Size: 1024, Idle: 5 * time.Minute, Evict: auth.EvictSoonest})
	_, err := auth.New(auth.Config{Issuer: "https://id.example", Audience: "https://orders.example", Cache: cache})
	fmt.Println(cache.Len(), err)
	// Output: 0 <nil>
}

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
