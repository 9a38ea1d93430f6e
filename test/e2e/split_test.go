package e2e_test

import (
	"net"
	"slices"
	"testing"
)

// eachTopology runs fn on every engine with everything in one process, and with identity and gateway as two: nobody outside may be
// able to tell the difference.
func eachTopology(t *testing.T, fn func(t *testing.T, st store)) {
	t.Helper()
	eachStore(t, fn)
	t.Run("two processes", func(t *testing.T) {
		t.Parallel()
		st := sqliteStore(t)
		st.split = true
		fn(t, st)
	})
}

// serveSplit starts an identity module and a gateway in front of it, which follows its feed. The result is reached through the gateway;
// the operators' listener is that of the identity module.
func (st store) serveSplit(t testing.TB, args ...string) *server {
	t.Helper()
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	issuer := "http://localhost:" + port
	args = slices.Concat(st.args, args, []string{"--issuer", issuer})
	identity := serve(t, slices.Concat(args, []string{"identity", "SUMUN_HTTP_TRUSTED_PROXIES=127.0.0.1/32"})...)
	client := st.addClient(t, gatewayClient(issuer)...)
	s := serve(t, slices.Concat(args, []string{"gateway", "--listen", address, "SUMUN_GATEWAY_IDENTITY_URL=" + identity.public,
		"SUMUN_GATEWAY_FEED_CLIENT_ID=" + client.ID, "SUMUN_GATEWAY_FEED_CLIENT_SECRET=" + client.Secret})...)
	s.gatewayOps, s.identity = s.ops, identity
	s.ops, s.mailboxToken, s.setupLink = identity.ops, identity.mailboxToken, identity.setupLink
	return s
}

// gatewayClient is the client that a gateway is: it follows the feed, asks about tokens, and gets some for https://shop.example.
func gatewayClient(issuer string) []string {
	return []string{"--name", "Gateway", "--grant", "client_credentials", "--grant", "urn:ietf:params:oauth:grant-type:token-exchange",
		"--scope", "revocations:read", "--scope", "introspect", "--scope", "apikeys:exchange", "--resource", issuer, "--resource", "https://shop.example"}
}

// freeAddress is one that nobody listens on at the moment.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
