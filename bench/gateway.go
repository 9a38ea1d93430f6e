package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	slowClients = 10_000
	revocations = 100
)

// gatewayRoutes are limited as routes are, at a rate that nobody reaches.
const gatewayRoutes = `http:
  log_every: %d
gateway:
  sign_in_rate: 1000000
  rate: 1000000
  upstreams:
    - name: origin
      endpoints:
        - url: %s
  routes:
    - name: api
      paths: [/api/]
      upstream: origin
      forward: none
      limits:
        - by: person
          rate: 1000000
          per: 1s
    - name: open
      paths: [/open/]
      upstream: origin
      authentication: public
      limits:
        - by: address
          rate: 1000000
          per: 1s
`

// gateway compares the gateway, a process of its own that follows the feed of an identity module, with other proxies in turns.
func (b *bench) gateway(ctx context.Context) (results []result, err error) {
	origin, err := b.startNginxOrigin(ctx)
	if err != nil {
		return nil, err
	}
	defer origin.stop()
	f, err := b.startFront(ctx, origin.url)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	peers, err := f.peers(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]*running, len(peers))
	for i, p := range peers {
		if all[i], err = p.start(b, ctx, origin.url); err != nil {
			return nil, fmt.Errorf("start %s: %w", p.name, err)
		}
		if all[i].command != f.quiet.command && all[i].command != f.talking.command {
			defer all[i].stop()
		}
	}
	if b.profile != "" {
		return nil, b.profileGateway(ctx, f, all[1], origin)
	}
	var most float64
	if _, err := b.inTurns(ctx, peers, all, origin, 50); err != nil { // to warm up
		return nil, err
	}
	for _, connections := range []int{50, 200} {
		rounds, err := b.inTurns(ctx, peers, all, origin, connections)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("gateway, %d connections", connections)
		results = append(results, compareProxies(name, peers, rounds)...)
		results = append(results, verificationShare(name, rounds[1], rounds[2]))
		for _, r := range rounds[1] {
			most = max(most, r.rate)
		}
	}
	one, err := f.refusals(ctx, most/2)
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	results = append(results, one...)
	one, err = b.amongSlow(ctx, f, all[1], origin)
	return append(results, one...), err
}

// profileGateway takes profiles of the gateway at 50 connections, instead of measuring anything.
func (b *bench) profileGateway(ctx context.Context, f *front, to, origin *running) error {
	profiled := b.profileTo(ctx, f.quiet)
	for range proxyRounds {
		if _, err := b.wrk(ctx, to, origin, 50); err != nil {
			return err
		}
	}
	return <-profiled
}

// verificationShare is what authentication takes of the gateway's processor time, and so of its throughput at most.
func verificationShare(name string, with, without []wrkRun) result {
	var shares []float64
	for i := range with {
		shares = append(shares, 100*(1-without[i].all/with[i].all))
	}
	return result{name, "verification takes of the throughput, by processor time of all", median(shares), "%", "below 5"}
}

// front is an identity module and gateways before it.
type front struct {
	*installation
	identity       *server
	quiet, talking *server // gateways that log failures only, and every request
	token          string  // of a person who is signed in
}

func (f *front) stop() error {
	for _, s := range []*server{f.talking, f.quiet, f.identity} {
		if s != nil {
			s.stop()
		}
	}
	return f.remove()
}

func (b *bench) startFront(ctx context.Context, origin string) (_ *front, err error) {
	in, err := b.install(ctx, cheapMemory, cheapTime)
	if err != nil {
		return nil, err
	}
	f := &front{installation: in}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
		}
	}()
	const issuer = "http://localhost"
	in.env = append(in.env, "SUMUN_HTTP_TRUSTED_PROXIES=127.0.0.0/8")
	if f.identity, err = in.serveWith(ctx, "log", "--limits", "off", "--issuer", issuer, "identity"); err != nil {
		return nil, err
	}
	id, secret, err := in.addClient("--name", "Gateway", "--grant", "client_credentials", "--scope", "revocations:read")
	if err != nil {
		return nil, err
	}
	in.env = append(in.env, "SUMUN_GATEWAY_IDENTITY_URL=http://"+f.identity.public,
		"SUMUN_GATEWAY_FEED_CLIENT_ID="+id, "SUMUN_GATEWAY_FEED_CLIENT_SECRET="+secret)
	for every, s := range []**server{&f.quiet, &f.talking} {
		name := fmt.Sprintf("gateway-%d", every)
		file := filepath.Join(in.data, name+".yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, gatewayRoutes, every, origin), 0o600); err != nil {
			return nil, err
		}
		if *s, err = in.serveWith(ctx, name+".log", "--issuer", issuer, "--config", file, "gateway"); err != nil {
			return nil, err
		}
	}
	f.token, err = f.signIn(ctx, "person@example.com")
	return f, err
}

// signIn signs a new person in through the gateway.
func (f *front) signIn(ctx context.Context, email string) (string, error) {
	if err := f.addAccount(email); err != nil {
		return "", err
	}
	c, err := f.quiet.dial(ctx)
	if err != nil {
		return "", err
	}
	t, err := c.signIn(&account{email: email})
	return t.Access, err
}

// peers are in the order that gateway counts on: nginx, the gateway with authentication, and without.
func (f *front) peers(ctx context.Context) ([]peer, error) {
	es256, err := f.publicKey(ctx)
	if err != nil {
		return nil, err
	}
	rs256, signed, err := f.signRS256()
	if err != nil {
		return nil, err
	}
	own := func(s *server, path, token string) func(*bench, context.Context, string) (*running, error) {
		return func(*bench, context.Context, string) (*running, error) {
			return &running{s.command, "http://" + s.public + path, token}, nil
		}
	}
	haproxy := func(algorithm, key, token string) func(*bench, context.Context, string) (*running, error) {
		return func(b *bench, ctx context.Context, to string) (*running, error) {
			return b.startHAProxy(ctx, to, algorithm, key, token)
		}
	}
	return []peer{
		{"nginx, plain", "", (*bench).startNginxProxy},
		{"Sumun, ES256", "0.60, better 0.70", own(f.quiet, "/api/", f.token)},
		{"Sumun, public route", "", own(f.quiet, "/open/", f.token)},
		{"Sumun, ES256, every request logged", "", own(f.talking, "/api/", f.token)},
		{"HAProxy, ES256", "", haproxy("ES256", es256, f.token)},
		{"HAProxy, RS256", "", haproxy("RS256", rs256, signed)},
		{"Caddy, plain", "", (*bench).startCaddy},
		{"ReverseProxy, plain", "", forwarding("reverse")},
	}, nil
}

// publicKey writes the key that tokens are signed with to a file.
func (f *front) publicKey(ctx context.Context) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.identity.public+"/.well-known/jwks.json", nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	token, _, err := jwt.NewParser().ParseUnverified(f.token, jwt.MapClaims{})
	if err != nil {
		return "", err
	}
	var set struct{ Keys []struct{ Kid, X, Y string } }
	if err := json.Unmarshal(text, &set); err != nil {
		return "", err
	}
	for _, k := range set.Keys {
		if k.Kid != token.Header["kid"] {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err := errors.Join(errX, errY, err); err != nil {
			return "", err
		}
		return f.writeKey("es256.pem", key)
	}
	return "", errors.New("the key of the token is not published")
}

// signRS256 signs the claims of the same token with RSA.
func (f *front) signRS256() (keyFile, token string, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", "", err
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(f.token, claims); err != nil {
		return "", "", err
	}
	if token, err = jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(key); err != nil {
		return "", "", err
	}
	keyFile, err = f.writeKey("rs256.pem", &key.PublicKey)
	return keyFile, token, err
}

func (f *front) writeKey(name string, key any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	file := filepath.Join(f.data, name)
	return file, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// refusals measures from the answer to the request that ends a session until the gateway refuses its token, while others come at a rate.
func (f *front) refusals(ctx context.Context, rate float64) ([]result, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	const workers = 50
	clients := make([]*client, workers)
	for i := range clients {
		var err error
		if clients[i], err = f.quiet.dial(ctx); err != nil {
			return nil, err
		}
	}
	loaded := make(chan error, 1)
	done := make(chan struct{})
	var others outcome
	go func() {
		var err error
		others, err = drive(ctx, load{workers, rate, time.Minute}, func(w int) error {
			select {
			case <-done:
				return errEnough
			default:
			}
			_, err := clients[w].exchange("GET /api/", f.token, nil, http.StatusOK)
			return err
		})
		loaded <- err
	}()
	if err := f.addAccount("leaving@example.com"); err != nil {
		return nil, err
	}
	who := account{email: "leaving@example.com"}
	var all []time.Duration
	for range revocations {
		took, err := f.leave(ctx, &who)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	close(done)
	if err := <-loaded; !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("the others: %w", err)
	}
	slices.Sort(all)
	const name = "from the answer to a sign-out to the refusal at the gateway"
	return []result{
		{name, "requests of others meanwhile", others.perSecond(), "requests/s", ""},
		{name, "p50", milliseconds(quantile(all, 0.5)), "ms", ""},
		{name, "p99", milliseconds(quantile(all, 0.99)), "ms", "below 50"},
	}, nil
}

var errEnough = errors.New("enough")

// leave signs somebody in and out and asks the gateway until it refuses.
func (f *front) leave(ctx context.Context, who *account) (time.Duration, error) {
	c, err := f.quiet.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	t, err := c.signIn(who)
	if err != nil {
		return 0, err
	}
	if _, err := c.exchange("GET /api/", t.Access, nil, http.StatusOK); err != nil {
		return 0, err
	}
	if err := c.signOut(t.Access); err != nil {
		return 0, err
	}
	for began := time.Now(); ; {
		_, err := c.exchange("GET /api/", t.Access, nil, http.StatusOK)
		if no, is := errors.AsType[*refused](err); is && no.status == http.StatusUnauthorized {
			return time.Since(began), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// amongSlow measures what thousands of clients that never finish their header cost the others.
func (b *bench) amongSlow(ctx context.Context, f *front, to, origin *running) ([]result, error) {
	before, err := b.wrk(ctx, to, origin, 50)
	if err != nil {
		return nil, err
	}
	memory, err := f.quiet.resident(ctx)
	if err != nil {
		return nil, err
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(to.url, "http://"), "/")
	var d net.Dialer
	for range slowClients {
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if _, err := io.Copy(c, bytes.NewReader([]byte("GET /api/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: "))); err != nil {
			return nil, err
		}
	}
	after, err := b.wrk(ctx, to, origin, 50)
	if err != nil {
		return nil, err
	}
	grown, err := f.quiet.resident(ctx)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("gateway among %d slow clients", slowClients)
	return []result{
		{name, "processor time of all, without them", before.all / after.all, "of what it is with them", ""},
		{name, "memory", (grown - memory) / slowClients / (1 << 10), "KiB each", ""},
	}, nil
}
