package authtest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
)

// handler stands for the service under test.
func handler(v *auth.Verifier) http.Handler {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return v.Middleware(v.RequireFresh(hello))
}

func get(h http.Handler, token string) int {
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+token)
	h.ServeHTTP(w, r)
	return w.Code
}

// A service's own test: mint, revoke, go stale.
func Example() {
	t := new(testing.T) // the test's own
	issuer := authtest.New(t)
	service, token := handler(issuer.Verifier()), issuer.Token(authtest.WithSession("s1"))
	fmt.Println(get(service, token) == http.StatusNoContent)

	issuer.GoStale()
	fmt.Println(get(service, token) == http.StatusServiceUnavailable)

	issuer.GoFresh()
	issuer.RevokeSession("s1")
	fmt.Println(get(service, token) == http.StatusUnauthorized)
	// Output:
	// true
	// true
	// true
}
