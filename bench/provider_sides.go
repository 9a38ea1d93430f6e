package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The providers, by the names that reports use.
const (
	sumun        = "Sumun"
	oidcProvider = "oidc-provider"
	zitadel      = "zitadel/oidc"
)

const (
	apiResource = "https://api.example.com"
	// opaqueResource is where oidc-provider gives tokens that it can be asked about; of its JWTs it knows nothing.
	opaqueResource = "https://opaque.example.com"
	apiScope       = "api:read"
	callback       = "https://client.example.com/callback"

	// nodePackages are what is compared with.
	nodePackages = "oidc-provider@9.13.3 ioredis@6.0.0"
)

//go:embed provider
var peerFiles embed.FS

// startSumun starts the program, with sessions in Redis and a client of the installation's own.
func (b *bench) startSumun(ctx context.Context) (*provider, error) {
	in, err := b.install(ctx, cheapMemory, cheapTime, "SUMUN_HTTP_LOG_EVERY=0") // the others write no log either
	if err != nil {
		return nil, err
	}
	server, err := in.serve(ctx)
	if err != nil {
		return nil, errors.Join(err, in.remove())
	}
	p := &provider{
		name: sumun, server: server,
		paths: endpoints{"/oauth/token", "/oauth/introspect", "/.well-known/openid-configuration", "/.well-known/jwks.json"},
	}
	p.stop = func() error {
		server.stop()
		return in.remove()
	}
	p.id, p.secret, err = in.addClient("--name", "Bench", "--trusted", "--redirect-uri", callback, "--resource", apiResource,
		"--grant", "authorization_code,refresh_token,client_credentials", "--scope", apiScope, "--scope", "offline_access")
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.seed = func(ctx context.Context, n int) ([]string, error) { return p.agree(ctx, in, n) }
	return p, nil
}

// addClient registers a client.
func (in *installation) addClient(args ...string) (id, secret string, err error) {
	out, err := in.command(append([]string{"client", "add", "--json"}, args...)...).Output()
	if err != nil {
		return "", "", fmt.Errorf("sumun client add: %w", err)
	}
	var client struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	err = json.Unmarshal(out, &client)
	return client.ID, client.Secret, err
}

// agree signs people in at the pages of Sumun, and has the client get refresh tokens for sessions of its own by authorization codes.
func (p *provider) agree(ctx context.Context, in *installation, n int) (chains []string, err error) {
	var cookies string
	for i := range n {
		if i%sessionsEach == 0 {
			in.accounts++
			email := fmt.Sprintf("user%d@example.com", in.accounts)
			if err := in.addAccount(email); err != nil {
				return nil, err
			}
			if cookies, err = p.visit(ctx, "/sign-in", "", url.Values{"identifier": {email}, "password": {password}}, nil); err != nil {
				return nil, err
			}
		}
		var to *url.URL
		ask := url.Values{"response_type": {"code"}, "client_id": {p.id}, "redirect_uri": {callback}, "scope": {apiScope + " offline_access"}}
		if _, err := p.visit(ctx, "/oauth/authorize?"+ask.Encode(), cookies, nil, &to); err != nil {
			return nil, err
		}
		form := url.Values{"grant_type": {"authorization_code"}, "code": {to.Query().Get("code")}, "redirect_uri": {callback}}
		answer, err := p.post(p.workers[0].client, p.paths.token, form.Encode())
		if err != nil {
			return nil, err
		}
		token, err := member(answer, "refresh_token")
		if err != nil {
			return nil, err
		}
		chains = append(chains, token)
	}
	return chains, nil
}

// visit asks for a page, or sends a form where there is one, as a browser does, and returns the cookies that came. The answer must send
// the browser on; where to, is left in to.
func (p *provider) visit(ctx context.Context, path, cookies string, form url.Values, to **url.URL) (string, error) {
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.server.public+path, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("Cookie", cookies)
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	at, err := answer.Location()
	if err != nil {
		text, _ := io.ReadAll(answer.Body)
		return "", fmt.Errorf("%s %s: %s, %w: %.300s", method, path, answer.Status, err, text)
	}
	if to != nil {
		*to = at
	}
	var all []string
	for _, c := range answer.Cookies() {
		all = append(all, c.Name+"="+c.Value)
	}
	return strings.Join(all, "; "), nil
}

// startOIDCProvider starts npm oidc-provider with a Redis of its own.
func (b *bench) startOIDCProvider(ctx context.Context) (*provider, error) {
	packages, err := b.nodeModules(ctx)
	if err != nil {
		return nil, err
	}
	script, err := b.unpack("oidc-provider.mjs", "oidc-provider.mjs")
	if err != nil {
		return nil, err
	}
	redis, err := b.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, errors.Join(err, redis.stop())
	}
	p := &provider{
		name: oidcProvider, id: "bench", secret: "a secret of no importance", resource: opaqueResource, server: &server{public: ports[0], ops: ports[0], redis: redis},
		paths: endpoints{"/token", "/token/introspection", "/.well-known/openid-configuration", "/jwks"},
	}
	c := exec.Command("node", script, packages, ports[0], redis.url, p.id, p.secret, apiResource, opaqueResource)
	c.Env = append(os.Environ(), "NODE_ENV=production")
	if err := p.server.launch(ctx, c, filepath.Join(b.folder, "oidc-provider.log")); err != nil {
		return nil, errors.Join(err, redis.stop())
	}
	p.stop = func() error {
		p.server.stop()
		return redis.stop()
	}
	p.seed = func(ctx context.Context, n int) (chains []string, err error) {
		var text bytes.Buffer
		if err := p.server.get(ctx, fmt.Sprintf("/seed?chains=%d", n), &text); err != nil {
			return nil, err
		}
		return chains, json.Unmarshal(text.Bytes(), &chains)
	}
	return p, nil
}

// nodeModules is the folder of --node-modules, or one that npm installs the packages in.
func (b *bench) nodeModules(ctx context.Context) (string, error) {
	if b.modules != "" {
		return filepath.Abs(b.modules)
	}
	folder := filepath.Join(b.folder, "npm")
	args := append([]string{"install", "--silent", "--no-audit", "--no-fund", "--prefix", folder}, strings.Fields(nodePackages)...)
	if out, err := exec.CommandContext(ctx, "npm", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install %s: %w: %s", nodePackages, err, out)
	}
	return folder, nil
}

// startZitadel builds and starts the example server of zitadel/oidc.
func (b *bench) startZitadel(ctx context.Context) (*provider, error) {
	binary, err := b.buildZitadel(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w; --zitadel= leaves %s out", err, zitadel)
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	p := &provider{
		name: zitadel, id: "sid1", secret: "verysecret", server: &server{public: ports[0], ops: ports[0]},
		paths: endpoints{"/oauth/token", "/oauth/introspect", "/.well-known/openid-configuration", "/keys"},
	}
	if err := p.server.launch(ctx, exec.Command(binary, ports[0]), filepath.Join(b.folder, "zitadel.log")); err != nil {
		return nil, err
	}
	p.stop = func() error { p.server.stop(); return nil }
	return p, nil
}

// buildZitadel builds it in a module of its own: this one has no use for it.
func (b *bench) buildZitadel(ctx context.Context) (string, error) {
	main, err := b.unpack("zitadel.go.txt", filepath.Join("zitadel", "main.go"))
	if err != nil {
		return "", err
	}
	folder := filepath.Dir(main)
	module := fmt.Appendf(nil, "module example\n\ngo 1.26\n\nrequire github.com/zitadel/oidc/v3 %s\n", b.zitadel)
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), module, 0o600); err != nil {
		return "", err
	}
	for _, args := range [][]string{{"mod", "tidy"}, {"build", "-o", "zitadel", "."}} {
		c := exec.CommandContext(ctx, "go", args...)
		c.Dir = folder
		if out, err := c.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return filepath.Join(folder, "zitadel"), nil
}

// unpack writes an embedded file into the folder of this run.
func (b *bench) unpack(name, as string) (string, error) {
	text, err := peerFiles.ReadFile("provider/" + name)
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.folder, as)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, text, 0o600)
}
