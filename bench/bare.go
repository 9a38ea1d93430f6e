package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/internal/redisdb"
)

// bareRole is the argument that makes this program the bare handler.
const bareRole = "bare"

// bare is the least that can refresh: net/http and encoding/json, the script that Sumun runs, with arguments of the same size,
// and one ES256 signature. It checks nothing, counts nothing, logs nothing and keeps no time. Against it Sumun's overhead is
// measured. It has to know the form of a refresh token and what the script takes.
type bare struct {
	redis  *redisdb.DB
	script redisdb.Script
	key    *ecdsa.PrivateKey
}

// startBare starts the bare handler as a process of its own.
func (b *bench) startBare(ctx context.Context, r *redisServer) (*server, error) {
	dir, err := scripts(ctx)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	s := &server{public: ports[0], ops: ports[0]}
	return s, s.launch(ctx, exec.Command(self, bareRole, ports[0], r.url, dir), filepath.Join(b.folder, "bare.log"))
}

// scripts is the folder of Sumun's Lua in the source tree, within which this program has to be run.
func scripts(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/sumunio/sumun/internal/session").Output()
	if err != nil {
		return "", fmt.Errorf("find the scripts: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "lua"), nil
}

func refreshScript(dir string) (redisdb.Script, error) {
	var text []byte
	for _, name := range []string{"common.lua", "refresh.lua"} {
		part, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return redisdb.Script{}, err
		}
		text = append(text, part...)
	}
	return redisdb.NewScript(string(text)), nil
}

// serveBare is the process.
func serveBare(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("bare: needs an address, the URL of Redis and the folder of the scripts")
	}
	h := &bare{}
	var err error
	if h.script, err = refreshScript(args[2]); err != nil {
		return err
	}
	if h.redis, err = redisdb.Open(ctx, args[1]); err != nil {
		return err
	}
	defer h.redis.Close()
	if h.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions/refresh", h.refresh)
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "process_cpu_seconds_total", ownCPU())
	})
	s := &http.Server{Addr: args[0], Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { <-ctx.Done(); _ = s.Close() }()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bareClaims are those of an access token of Sumun's.
type bareClaims struct {
	jwt.RegisteredClaims
	ClientID  string           `json:"client_id"`
	SessionID string           `json:"sid"`
	AuthTime  *jwt.NumericDate `json:"auth_time"`
	ACR       string           `json:"acr"`
	AMR       []string         `json:"amr"`
	Roles     []string         `json:"roles"`
	Epoch     int64            `json:"epoch"`
}

type bareAnswer struct {
	SessionID        string `json:"session_id"`
	AccessToken      string `json:"access_token"`
	TokenType        string `json:"token_type"`
	ExpiresIn        int64  `json:"expires_in"`
	RefreshToken     string `json:"refresh_token"`
	RefreshExpiresIn int64  `json:"refresh_expires_in"`
}

func (h *bare) refresh(w http.ResponseWriter, r *http.Request) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	token, err := parseBareToken(in.RefreshToken)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	next := token.successor()
	answer, err := h.script.Exec(r.Context(), h.redis, []string{token.key()}, token.arguments(token.hash(), next)).Strings()
	if err != nil || answer[0] != "rotated" {
		http.Error(w, fmt.Sprintf("%v %v", answer, err), http.StatusInternalServerError)
		return
	}
	session := hex.EncodeToString(token[tokenSession:tokenGrant])
	claims := bareClaims{
		RegisteredClaims: jwt.RegisteredClaims{Issuer: "http://localhost", Subject: hex.EncodeToString([]byte(answer[2][1:])),
			Audience: jwt.ClaimStrings{"http://localhost"}, ID: rand.Text(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(15 * time.Minute))},
		ClientID: "sumun", SessionID: session, AuthTime: jwt.NewNumericDate(now), ACR: "aal1", AMR: []string{"pwd"},
		Roles: []string{"member"},
	}
	access, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(h.key)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(bareAnswer{session, access, "Bearer", 900, next.encode(), 604800}) // the client may be gone
}

// bareToken is a refresh token of Sumun's, decoded: version 1, key 4, routing 8, session 16, grant 16, generation 8, secret 32,
// MAC 32.
type bareToken []byte

const (
	tokenPrefix     = "srt_"
	tokenRouting    = 5
	tokenSession    = tokenRouting + 8
	tokenGrant      = tokenSession + 16
	tokenGeneration = tokenGrant + 16
	tokenSecret     = tokenGeneration + 8
	tokenSize       = tokenSecret + 64
)

func parseBareToken(text string) (bareToken, error) {
	t, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, tokenPrefix))
	if err == nil && len(t) != tokenSize {
		err = errors.New("not a refresh token")
	}
	return t, err
}

func (t bareToken) generation() uint64 { return binary.BigEndian.Uint64(t[tokenGeneration:]) }

// successor has random bytes for a MAC: nobody is going to look.
func (t bareToken) successor() bareToken {
	next := append(bareToken{}, t...)
	binary.BigEndian.PutUint64(next[tokenGeneration:], t.generation()+1)
	rand.Read(next[tokenSecret:])
	return next
}

func (t bareToken) encode() string { return tokenPrefix + base64.RawURLEncoding.EncodeToString(t) }

func (t bareToken) hash() string {
	sum := sha256.Sum256(t)
	return string(sum[:12])
}

func (t bareToken) key() string {
	return "sumun:login:{" + hex.EncodeToString(t[tokenRouting:tokenSession]) + "}"
}

// arguments are those of refresh.lua, for a token of that hash.
func (t bareToken) arguments(hash string, next bareToken) []string {
	return []string{
		"", string(t[tokenSession:tokenGrant]), string(t[tokenGrant:tokenGeneration]),
		strconv.FormatUint(t.generation(), 10), hash, next.hash(), string(next[tokenSecret:]), // as long as a sealed one
		"10000000", "604800000000", "reissued", "rotated", "0", "\x04\x7f\x00\x00\x01sumun-bench",
	}
}
