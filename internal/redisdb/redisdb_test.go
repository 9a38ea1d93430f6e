package redisdb_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/redisdb"
	"github.com/sumunio/sumun/internal/redisdb/redisdbtest"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"redis://127.0.0.1",
		"redis://127.0.0.1:6379/3?timeout=500ms",
		"redis://user:p%40ss@[::1]:6379/0",
		"redis://:password@redis.internal",
		"rediss://redis.internal:6380",
		"redis-sentinel://10.0.0.1,10.0.0.2:26379,[fd00::1]/mymaster?db=2&sentinel_user=s&sentinel_password=p",
		"rediss-cluster://user:password@a:6379,b:6379,c:6379",
	} {
		if err := redisdb.Validate(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                                  "does not begin with redis://",
		"localhost:6379":                    "does not begin with redis://",
		"http://localhost":                  "does not begin with redis://",
		"redis://":                          "a host",
		"redis://user:secret@word@host":     "a host",
		"redis://user:sec/ret@host":         "a host",
		"redis://user:sec%zzret@host":       "cannot be read",
		"redis://host:port":                 "a host",
		"redis://host:99999":                "a host",
		"redis://a,b":                       "several hosts",
		"redis://host/secret":               "database is not a number",
		"redis://host/0#secret":             "cannot be read",
		"redis://host?timeout=secret":       "timeout",
		"redis://host?timeout=2h":           "timeout",
		"redis://host?secret=1":             "option that is not known",
		"redis://host?ca=/etc/ca.pem":       "begin it with rediss",
		"rediss://host?cert=/etc/cert.pem":  "only one of cert and key",
		"rediss://host?ca=/nowhere/ca.pem":  "readable PEM file",
		"redis-sentinel://a,b":              "names no master",
		"redis-cluster://a,b/2":             "which a Cluster does not",
		"redis-cluster://a:1,b:2,:3":        "a host",
		"redis-sentinel://a:b:c/mymaster":   "a host",
		"rediss-cluster://u:secret@a,b b,c": "a host",
	} {
		err := redisdb.Validate(bad)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", bad, err, want)
		} else if strings.Contains(err.Error(), "sec") {
			t.Errorf("%s: the error tells a password: %v", bad, err)
		}
	}
}

// ok is what a Redis 7 says to everything that opening a connection takes.
func ok(command []string) string {
	switch strings.ToUpper(command[0]) {
	case "HELLO":
		return "%1\r\n$5\r\nproto\r\n:3\r\n"
	case "INFO":
		return "$20\r\nredis_version:7.0.15\r\n"
	case "PING":
		return "+PONG\r\n"
	}
	return "+OK\r\n"
}

// serve answers like a Redis, as far as a test needs one that is not right, and returns its URL.
func serve(t *testing.T, listener net.Listener, answer func(command []string) string) string {
	t.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() })
			wg.Go(func() {
				for r := bufio.NewReader(conn); ; {
					command, err := readCommand(r)
					if err != nil {
						_ = conn.Close()
						return
					}
					_, _ = io.WriteString(conn, answer(command))
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		wg.Wait()
	})
	return "redis://user:hunter2@" + listener.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// readCommand reads an array of bulk strings.
func readCommand(r *bufio.Reader) ([]string, error) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil || n < 1 {
		return nil, errors.New("no command")
	}
	command := make([]string, n)
	for i := range command {
		var size int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		buf := make([]byte, size+2)
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, err
		}
		command[i] = string(buf[:size])
	}
	return command, nil
}

// TestOpenSaysWhatToDo: an operator reads one line that names the server, the trouble and the remedy, and never the password.
func TestOpenSaysWhatToDo(t *testing.T) {
	t.Parallel()
	closed := listen(t)
	_ = closed.Close()
	except := func(name, answer string) func([]string) string {
		return func(command []string) string {
			if strings.EqualFold(command[0], name) {
				return answer
			}
			return ok(command)
		}
	}
	for name, c := range map[string]struct {
		url         string
		unreachable bool
		want        string
	}{
		"nobody there":   {"redis://user:hunter2@" + closed.Addr().String(), true, "check that it runs"},
		"hangs":          {serve(t, listen(t), func([]string) string { return "" }) + "?timeout=100ms", true, "check that it runs"},
		"wrong password": {serve(t, listen(t), except("HELLO", "-WRONGPASS invalid username-password pair or user is disabled.\r\n")), true, "check user and password"},
		"not permitted":  {serve(t, listen(t), except("PING", "-NOPERM this user has no permissions to run the 'ping' command\r\n")), true, "ACL SETUSER"},
		"still loading":  {serve(t, listen(t), except("PING", "-LOADING Redis is loading the dataset in memory\r\n")), true, "wait"},
		"too old":        {serve(t, listen(t), except("INFO", "$19\r\nredis_version:6.0.9\r\n")), false, "update it to 6.2 or later"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := redisdb.Open(t.Context(), c.url)
			if err == nil {
				db.Close()
				t.Fatal("opened")
			}
			if errors.Is(err, redisdb.ErrUnreachable) != c.unreachable || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "redis://127.0.0.1:") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := serve(t, listen(t), func([]string) string { return "" })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if db, err := redisdb.Open(ctx, s+"?timeout=1s"); err == nil {
		db.Close()
		t.Error("opened")
	}
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestOpenWithoutPermissionToAskTheVersion(t *testing.T) {
	t.Parallel()
	s := serve(t, listen(t), func(command []string) string {
		if strings.EqualFold(command[0], "INFO") {
			return "-NOPERM this user has no permissions to run the 'info' command\r\n"
		}
		return ok(command)
	})
	db, err := redisdb.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if want := strings.Replace(s, "user:hunter2@", "", 1); db.Name() != want {
		t.Errorf("Name() = %q, want %q", db.Name(), want)
	}
}

// TestTLS connects to a server whose certificate only a file vouches for, and which asks for one in return.
func TestTLS(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate
	defer web.Close()
	pair := web.TLS.Certificates[0]
	folder := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return url.QueryEscape(path)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := file("cert.pem", "CERTIFICATE", pair.Certificate[0])
	options := "?ca=" + cert + "&cert=" + cert + "&key=" + file("key.pem", "PRIVATE KEY", key)
	s := serve(t, tls.NewListener(listen(t), &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12,
	}), ok)
	address := strings.Replace(s, "redis://", "rediss://", 1)
	db, err := redisdb.Open(t.Context(), address+options)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if db, err := redisdb.Open(t.Context(), address); err == nil {
		db.Close()
		t.Error("a certificate that nobody vouches for was accepted")
	}
}

// TestRedis lists what takes a real server.
func TestRedis(t *testing.T) {
	t.Parallel()
	if redisdbtest.Listed() {
		t.Run("scripts", testScripts)
		t.Run("a user with few permissions", testUser)
		t.Run("prefixes are cleaned up", testPrefix)
	}
}

func testScripts(t *testing.T) {
	t.Parallel()
	db := redisdbtest.Open(t)
	key := redisdbtest.Prefix(t, db) + "counter"
	// The text is new to the server, so the first call has to load it.
	script := redisdb.NewScript("-- " + rand.Text() + "\nreturn {redis.call('INCRBY', KEYS[1], ARGV[1]), 7}")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if n, err := script.Exec(t.Context(), db, []string{key}, []string{"2"}).Ints(); err != nil || len(n) != 2 || n[1] != 7 {
				t.Errorf("%v, %v", n, err)
			}
		})
	}
	wg.Wait()
	if n, err := script.Exec(t.Context(), db, []string{key}, []string{"0"}).Ints(); err != nil || n[0] != 100 {
		t.Errorf("after 50 calls: %v, %v; want 100", n, err)
	}
	texts := redisdb.NewScript("return {redis.call('GET', KEYS[1]), 'a'}")
	if s, err := texts.Exec(t.Context(), db, []string{key}, nil).Strings(); err != nil || strings.Join(s, " ") != "100 a" {
		t.Errorf("texts: %q, %v", s, err)
	}
	if err := redisdb.NewScript("return redis.call('NONSENSE')").Exec(t.Context(), db, nil, nil).Err(); err == nil ||
		errors.Is(err, redisdb.ErrUnreachable) {
		t.Errorf("a broken script: %v", err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// testUser signs in as a user who may do what Open says is needed, and nothing else.
func testUser(t *testing.T) {
	t.Parallel()
	admin := redisdbtest.Open(t)
	prefix := redisdbtest.Prefix(t, admin)
	do := func(args ...string) {
		t.Helper()
		if err := admin.Client().Do(context.Background(), admin.Client().B().Arbitrary(args...).Build()).Error(); err != nil {
			t.Error(err)
		}
	}
	name := "sumun-test-" + rand.Text()
	do("ACL", "SETUSER", name, "on", ">p@ss/word", "~"+prefix+"*", "+ping", "+select", "+@scripting", "+get", "+set")
	t.Cleanup(func() { do("ACL", "DELUSER", name) })
	u, err := url.Parse(os.Getenv(redisdbtest.Variable))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, "p@ss/word")
	db, err := redisdb.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	set := redisdb.NewScript("return redis.call('SET', KEYS[1], ARGV[1])")
	if err := set.Exec(t.Context(), db, []string{prefix + "a"}, []string{"1"}).Err(); err != nil {
		t.Error(err)
	}
	if err := set.Exec(t.Context(), db, []string{"sumun-test-elsewhere"}, []string{"1"}).Err(); err == nil {
		t.Error("a key that is not this user's was written")
	}
	u.User = url.UserPassword(name, "wrong")
	if _, err := redisdb.Open(t.Context(), u.String()); !errors.Is(err, redisdb.ErrUnreachable) || !strings.Contains(err.Error(), "password") {
		t.Errorf("with a wrong password: %v", err)
	}
}

func testPrefix(t *testing.T) {
	t.Parallel()
	db := redisdbtest.Open(t)
	var prefix string
	t.Run("a test", func(t *testing.T) {
		prefix = redisdbtest.Prefix(t, db)
		for i := range 100 {
			set := db.Client().B().Set().Key(prefix + strconv.Itoa(i)).Value("x").Build()
			if err := db.Client().Do(t.Context(), set).Error(); err != nil {
				t.Fatal(err)
			}
		}
	})
	left, err := db.Client().Do(t.Context(), db.Client().B().Keys().Pattern(prefix+"*").Build()).AsStrSlice()
	if err != nil || len(left) != 0 {
		t.Errorf("%d keys are left, %v", len(left), err)
	}
}

// FuzzURL: whatever is configured is accepted or refused, and a refusal holds no password.
func FuzzURL(f *testing.F) {
	f.Add("redis", "user", "p%40ss", "127.0.0.1:6379", "/0?timeout=1s")
	f.Add("rediss-sentinel", "", "", "a,b:1,[::1]:2", "/mymaster?db=1")
	f.Add("redis-cluster", "u", "p/w", "a,,b", "#x")
	f.Fuzz(func(t *testing.T, scheme, user, password, hosts, rest string) {
		const secret = "Zq7secretZq7"
		err := redisdb.Validate(scheme + "://" + user + ":" + password + secret + "@" + hosts + rest)
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells the password: %v", err)
		}
	})
}
