package password_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"

	"github.com/sumunio/sumun/internal/identity/password"
	"github.com/sumunio/sumun/internal/keyring"
)

// peppers is a keyring in memory. Pepper 1 is the first; rotate adds another.
type peppers struct {
	mu   sync.Mutex
	keys []keyring.Key
	err  error
}

func newPeppers() *peppers {
	p := &peppers{}
	p.rotate()
	return p
}

func (p *peppers) rotate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := uint32(len(p.keys) + 1)
	p.keys = append(p.keys, keyring.Key{ID: id, Secret: fmt.Appendf(nil, "pepper %d, at least 32 bytes long", id)})
}

func (p *peppers) Current(context.Context, string) (keyring.Key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[len(p.keys)-1], p.err
}

func (p *peppers) ByID(_ context.Context, _ string, id uint32) (keyring.Key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return keyring.Key{}, p.err
	}
	if id < 1 || int(id) > len(p.keys) {
		return keyring.Key{}, fmt.Errorf("pepper: %w", keyring.ErrUnknownKey)
	}
	return p.keys[id-1], nil
}

// cheap is a configuration whose hashes take a millisecond and whose failures are not drawn out.
func cheap() password.Config {
	cfg := password.DefaultConfig()
	cfg.Argon2id.Memory, cfg.Argon2id.Time = 512, 1
	cfg.PBKDF2Iterations = 1000
	cfg.Gate.Wait = time.Minute
	cfg.FailureTime = 1 // nanosecond
	return cfg
}

func newHasher(t testing.TB, cfg password.Config, p password.Peppers) *password.Hasher {
	t.Helper()
	h, err := password.NewHasher(cfg, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func hash(t testing.TB, h *password.Hasher, pw string) string {
	t.Helper()
	stored, err := h.Hash(t.Context(), pw)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// verify asserts what Verify says, without an error.
func verify(t testing.TB, h *password.Hasher, stored, pw string, wantOK, wantUpgrade bool) {
	t.Helper()
	ok, upgrade, err := h.Verify(t.Context(), stored, pw, nil)
	if ok != wantOK || upgrade != wantUpgrade || err != nil {
		t.Errorf("Verify(%q, %q) = %t, %t, %v, want %t, %t", stored, pw, ok, upgrade, err, wantOK, wantUpgrade)
	}
}

func TestHashVerifies(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{password.Argon2id, password.PBKDF2SHA256, password.PBKDF2SHA512} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			cfg := cheap()
			cfg.Algorithm = algorithm
			h := newHasher(t, cfg, newPeppers())
			stored := hash(t, h, "river lamp 72")
			if !strings.HasPrefix(stored, "$"+algorithm+"$") || !strings.Contains(stored, ",keyid=AAAAAQ$") {
				t.Errorf("stored as %s, want PHC with a keyid", stored)
			}
			if again := hash(t, h, "river lamp 72"); again == stored {
				t.Error("two people with one password have one hash: the salt is missing")
			}
			verify(t, h, stored, "river lamp 72", true, false)
			verify(t, h, stored, "river lamp 73", false, false)
			verify(t, h, stored, "", false, false)
		})
	}
}

func TestDefaultFormIsPermanent(t *testing.T) {
	t.Parallel()
	// What this program stored once has to verify for ever: this string is in somebody's database.
	const stored = "$argon2id$v=19$m=19456,t=2,p=1,keyid=AAAAAQ$AAECAwQFBgcICQoLDA0ODw$bP7C8Eib4FbD71bEwGog9WpolsKzfMUIchtEU8I0KdY"
	h := newHasher(t, password.DefaultConfig(), newPeppers())
	verify(t, h, stored, "river lamp 72", true, false)
}

func TestPepper(t *testing.T) {
	t.Parallel()
	p := newPeppers()
	h := newHasher(t, cheap(), p)
	stored := hash(t, h, "river lamp 72")

	p.rotate()
	verify(t, h, stored, "river lamp 72", true, true)
	renewed := hash(t, h, "river lamp 72")
	verify(t, h, renewed, "river lamp 72", true, false)

	t.Run("a stolen table without the pepper is useless", func(t *testing.T) {
		_, rest, _ := strings.Cut(stored, ",keyid=AAAAAQ")
		bare := stored[:strings.Index(stored, ",keyid")] + rest
		verify(t, h, bare, "river lamp 72", false, false)
		other := strings.Replace(stored, "keyid=AAAAAQ", "keyid=AAAAAg", 1)
		verify(t, h, other, "river lamp 72", false, false)
	})
	t.Run("one that is gone is told to the operator", func(t *testing.T) {
		gone := strings.Replace(stored, "keyid=AAAAAQ", "keyid=AAAAZQ", 1)
		ok, _, err := h.Verify(t.Context(), gone, "river lamp 72", nil)
		if ok || !errors.Is(err, password.ErrUnsupported) || !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("got %t, %v", ok, err)
		}
	})
}

func TestPepperOutageLooksTheSameForEveryone(t *testing.T) {
	t.Parallel()
	p := newPeppers()
	h := newHasher(t, cheap(), p)
	stored := hash(t, h, "river lamp 72")
	p.err = errors.New("database is down")
	if _, _, err := h.Verify(t.Context(), stored, "x", nil); !errors.Is(err, p.err) {
		t.Errorf("Verify: %v", err)
	}
	if err := h.VerifyNothing(t.Context(), "x", nil); !errors.Is(err, p.err) {
		t.Errorf("VerifyNothing: %v", err)
	}
	if _, err := h.Hash(t.Context(), "x"); !errors.Is(err, p.err) {
		t.Errorf("Hash: %v", err)
	}
}

func TestCostUpgrades(t *testing.T) {
	t.Parallel()
	p := newPeppers()
	stored := hash(t, newHasher(t, cheap(), p), "river lamp 72")
	dearer := cheap()
	dearer.Argon2id.Time = 2
	verify(t, newHasher(t, dearer, p), stored, "river lamp 72", true, true)
	other := cheap()
	other.Algorithm = password.PBKDF2SHA512
	verify(t, newHasher(t, other, p), stored, "river lamp 72", true, true)
}

// phc builds a stored hash from a test vector's parts.
func phc(head, salt, sumHex string) string {
	sum, err := hex.DecodeString(sumHex)
	if err != nil {
		panic(err)
	}
	return head + "$" + base64.RawStdEncoding.EncodeToString([]byte(salt)) + "$" + base64.RawStdEncoding.EncodeToString(sum)
}

// foreign are published test vectors. RFC 9106's own use a secret and associated data, which the form that others store has
// no room for; argon2's reference implementation has vectors without.
var foreign = []struct{ from, stored, password string }{
	{"phc-winner-argon2, test.c", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"},
	{"phc-winner-argon2, test.c", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"},
	{"phc-winner-argon2, test.c", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", "password"},
	{"phc-winner-argon2, test.c", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA", "password"},
	{"the same as Django stores it", "argon2$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8", "password"},
	{"crypt_blowfish, wrapper.c", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	{"crypt_blowfish, wrapper.c", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "U*U*U"},
	{"crypt_blowfish, wrapper.c", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "\xff\xff\xa3"},
	{"crypt_blowfish, wrapper.c", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"},
	{"crypt_blowfish, wrapper.c", "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored"},
	{"the same as Django stores it", "bcrypt$$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	{"RFC 7914, section 12", phc("$scrypt$ln=10,r=8,p=16", "NaCl", "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"+
		"2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"), "password"},
	{"RFC 7914, section 12", phc("$scrypt$ln=14,r=8,p=1", "SodiumChloride", "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"+
		"d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"), "pleaseletmein"},
	{"RFC 7914, section 11", phc("$pbkdf2-sha256$i=1,l=32", "salt", "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"), "passwd"},
	{"RFC 7914, section 11", phc("$pbkdf2-sha256$i=80000", "NaCl", "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"+
		"a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"), "Password"},
	{"passlib's tests", "$pbkdf2-sha256$1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ", "password"},
	{"passlib's tests", "$pbkdf2-sha512$1212$RHY0Fr3IDMSVO/RSZyb5ow$eNLfBK.eVozomMr.1gYa17k9B7KIK25NOEshvhrSX.esqY3s.FvWZViXz4KoLlQI.BzY/YTNJOiKc5gBYFYGww", "password"},
	{"Django's tests", "pbkdf2_sha256$12000$seasalt$Ybw8zsFxqja97tY/o6G+Fy1ksY4U/Hw3DRrGED6Up4s=", "lètmein"},
}

func TestForeignHashesVerifyAndUpgrade(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap(), newPeppers())
	for _, f := range foreign {
		t.Run(f.from, func(t *testing.T) {
			t.Parallel()
			if err := h.Supports(f.stored); err != nil {
				t.Error(err)
			}
			verify(t, h, f.stored, f.password, true, true)
			verify(t, h, f.stored, "x"+f.password, false, false)
		})
	}
}

// TestHostileHashesAreRefused: whoever can write hashes into the database must not be able to stop the process with one.
func TestHostileHashesAreRefused(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap(), newPeppers())
	const tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, stored := range []string{
		"", "plain", "$", "$$$$", "$argon2id", "$md5$salt$hash",
		"$argon2id$v=19$m=1048577,t=1,p=1" + tail,
		"$argon2id$v=19$m=1048576,t=5,p=1" + tail,
		"$argon2id$v=19$m=65536,t=4294967295,p=1" + tail,
		"$argon2id$v=19$m=65536,t=1,p=65" + tail,
		"$argon2id$v=19$m=65536,t=0,p=1" + tail,
		"$argon2id$v=19$m=65536,t=1,p=0" + tail,
		"$argon2id$v=19$m=7,t=1,p=1" + tail,
		"$argon2id$v=19$m=-1,t=1,p=1" + tail,
		"$argon2id$v=19$m=256,t=2" + tail,
		"$argon2id$v=19$m=256,t=2,p=1,p=1" + tail,
		"$argon2id$v=19$m=256,t=2,p=1,data=AAAA" + tail,
		"$argon2id$v=19$m=256,t=2,p=1,keyid=AA" + tail,
		"$argon2id$v=16$m=256,t=2,p=1" + tail,
		"$argon2id$m=256,t=2,p=1" + tail,
		"$argon2d$v=19$m=256,t=2,p=1" + tail,
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65", // any password in a few thousand would match
		"$argon2id$v=19$m=256,t=2,p=1$$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4\n",
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 600),
		"$2b$17$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe!",
		"$2b$05$CCCC",
		"$scrypt$ln=21,r=8,p=1" + tail,
		"$scrypt$ln=20,r=9,p=1" + tail,
		"$scrypt$ln=20,r=8,p=5" + tail,
		"$scrypt$ln=63,r=8,p=1" + tail,
		"$scrypt$ln=10,r=4294967295,p=4294967295" + tail,
		"$scrypt$ln=0,r=8,p=1" + tail,
		"$pbkdf2-sha256$i=10000001" + tail,
		"$pbkdf2-sha256$0" + tail,
		"$pbkdf2-sha1$i=1000" + tail,
		"$pbkdf2-sha256$i=1000,l=31" + tail,
		"pbkdf2_sha1$1000$seasalt$Ybw8zsFxqja97tY/o6G+Fy1ksY4U/Hw3DRrGED6Up4s=",
		"pbkdf2_sha256$99999999$seasalt$Ybw8zsFxqja97tY/o6G+Fy1ksY4U/Hw3DRrGED6Up4s=",
		"pbkdf2_sha256$1000$seasalt",
	} {
		if err := h.Supports(stored); !errors.Is(err, password.ErrUnsupported) {
			t.Errorf("Supports(%q) = %v, want ErrUnsupported", stored, err)
		}
		ok, _, err := h.Verify(t.Context(), stored, "password", nil)
		if ok || !errors.Is(err, password.ErrUnsupported) {
			t.Errorf("Verify(%q) = %t, %v, want ErrUnsupported", stored, ok, err)
		}
	}
}

func TestDisabledAlgorithm(t *testing.T) {
	t.Parallel()
	cfg := cheap()
	cfg.Enabled = []string{password.Argon2id}
	h := newHasher(t, cfg, newPeppers())
	ok, _, err := h.Verify(t.Context(), "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", nil)
	if ok || !errors.Is(err, password.ErrUnsupported) {
		t.Errorf("bcrypt, which is not enabled: %t, %v", ok, err)
	}
}

// TestOneSecretManyKeyboards: a password chosen on a Mac has to work on a PC.
func TestOneSecretManyKeyboards(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap(), newPeppers())
	verify(t, h, hash(t, h, "\u1112\u1161\u11ab글 caf\u0065\u0301"), "한글 caf\u00e9", true, false)
	verify(t, h, hash(t, h, "wide\u3000space"), "wide space", true, false)
	verify(t, h, hash(t, h, "Case"), "case", false, false)
}

func TestTooLongNeverMatches(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap(), newPeppers())
	long := strings.Repeat("a", password.MaxBytes)
	verify(t, h, hash(t, h, long), long, true, false)
	if _, err := h.Hash(t.Context(), long+"a"); err == nil {
		t.Error("a password beyond the bound was hashed")
	}
	verify(t, h, hash(t, h, ""), long+"a", false, false)
}

func TestMatchesAny(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap(), newPeppers())
	earlier := []string{hash(t, h, "first"), "damaged", hash(t, h, "second")}
	for pw, want := range map[string]bool{"first": true, "second": true, "third": false} {
		if got, err := h.MatchesAny(t.Context(), earlier, pw); got != want || err != nil {
			t.Errorf("MatchesAny(%q) = %t, %v, want %t", pw, got, err, want)
		}
	}
}

// TestFailuresTakeTheSameTime runs on a fake clock, on which hashing takes no time at all: what is left is what was added.
func TestFailuresTakeTheSameTime(t *testing.T) {
	t.Parallel()
	cfg := cheap()
	cfg.FailureTime = 700 * time.Millisecond
	cfg.Enabled = slices.DeleteFunc(cfg.Enabled, func(s string) bool { return s == password.PBKDF2SHA512 })
	own := hash(t, newHasher(t, cfg, newPeppers()), "river lamp 72")
	cases := map[string]string{
		"ours":          own,
		"bcrypt":        "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"pbkdf2":        "$pbkdf2-sha256$1212$4vjV83LKPjQzk31VI4E0Vw$hsYF68OiOUPdDZ1Fg.fJPeq1h/gXXY7acBp9/6c.tmQ",
		"not enabled":   "$pbkdf2-sha512$1212$RHY0Fr3IDMSVO/RSZyb5ow$eNLfBK.eVozomMr.1gYa17k9B7KIK25NOEshvhrSX.esqY3s.FvWZViXz4KoLlQI.BzY/YTNJOiKc5gBYFYGww",
		"damaged":       "$argon2id$v=19$m=",
		"out of bounds": strings.Replace(own, "t=1", "t=9999999", 1),
		"pepper gone":   strings.Replace(own, "keyid=AAAAAQ", "keyid=AAAAZQ", 1),
		"no password":   "",
	}
	for name, stored := range cases {
		for _, pw := range []string{"wrong", strings.Repeat("x", 5000)} {
			synctest.Test(t, func(t *testing.T) {
				h := newHasher(t, cfg, newPeppers())
				began := time.Now()
				if ok, _, _ := h.Verify(t.Context(), stored, pw, nil); ok {
					t.Errorf("%s: verified", name)
				}
				if took := time.Since(began); took.Round(time.Microsecond) != 700*time.Millisecond {
					t.Errorf("%s, %d bytes: failed after %v, want 700ms", name, len(pw), took)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHasher(t, cfg, newPeppers())
		began := time.Now()
		if err := h.VerifyNothing(t.Context(), "wrong", nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took.Round(time.Microsecond) != 700*time.Millisecond {
			t.Errorf("no such account: failed after %v, want 700ms", took)
		}
		began = time.Now()
		verify(t, h, own, "river lamp 72", true, false)
		if took := time.Since(began); took != 0 {
			t.Errorf("a success was drawn out by %v", took)
		}
	})
}

func TestFailuresDoNotHoldSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := cheap()
		cfg.FailureTime = time.Second
		cfg.Gate.Concurrency, cfg.Gate.Queue = 1, 100
		h := newHasher(t, cfg, newPeppers())
		began := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := h.VerifyNothing(t.Context(), "wrong", nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("50 failures through one slot took %v: they were drawn out inside it", took)
		}
	})
}

// A guesser who hangs up before the answer must not get the guess for free.
func TestHangingUpKeepsAMismatchAMismatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := cheap()
		cfg.FailureTime = time.Hour
		h := newHasher(t, cfg, newPeppers())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		counted := 0
		if err := h.VerifyNothing(ctx, "wrong", func() { counted++ }); err != nil {
			t.Errorf("no account: %v", err)
		}
		if counted != 1 {
			t.Errorf("the mismatch was reported %d times", counted)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("returned after %v, want the deadline's 1s", took)
		}
	})
}

// An account whose hash is bcrypt's, next to one that does not exist: without the precautions one takes twenty times as long as
// the other. What was computed is measured; what is slept is added, so that a busy machine changes nothing.
func TestTimeTellsNothing(t *testing.T) {
	t.Parallel()
	cfg := cheap()
	cfg.FailureTime = 0
	cfg.Enabled = []string{password.Argon2id, password.Bcrypt}
	h, err := password.NewHasher(cfg, newPeppers(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var began time.Time
	var took, due time.Duration
	h.OnSleep(func(d, slowest time.Duration) { took, due = time.Since(began)+d, slowest })
	const slow = "$2b$08$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
	for name, fail := range map[string]func(){
		"exists": func() { verify(t, h, slow, "wrong", false, false) },
		"missing": func() {
			if err := h.VerifyNothing(t.Context(), "wrong", nil); err != nil {
				t.Error(err)
			}
		},
	} {
		fail() // the first one measures the machine
		took, due = 0, 0
		began = time.Now()
		fail()
		if due <= 0 || took < due || took > due+due/2 {
			t.Errorf("%s: the failure takes %v, all are to take %v", name, took, due)
		}
	}
}

func TestMetricsAreRegistered(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	h, err := password.NewHasher(cheap(), newPeppers(), reg)
	if err != nil {
		t.Fatal(err)
	}
	hash(t, h, "river lamp 72")
	families, err := reg.Gather()
	if err != nil || len(families) != 6 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
	if _, err := password.NewHasher(cheap(), newPeppers(), reg); err == nil {
		t.Error("metrics were registered twice without an error")
	}
}

func FuzzStoredHash(f *testing.F) {
	for _, v := range foreign {
		f.Add(v.stored)
	}
	f.Add("$argon2id$v=19$m=19456,t=2,p=1,keyid=AAAAAQ$AAECAwQFBgcICQoLDA0ODw$bP7C8Eib4FbD71bEwGog9WpolsKzfMUIchtEU8I0KdY")
	f.Fuzz(func(t *testing.T, stored string) {
		written, err := password.Reencode(stored)
		if err != nil {
			if !errors.Is(err, password.ErrUnsupported) {
				t.Errorf("%q: %v", stored, err)
			}
			return
		}
		if written == "" {
			return
		}
		if again, err := password.Reencode(written); again != written || err != nil {
			t.Errorf("%q was written as %q, and that as %q, %v", stored, written, again, err)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	h := newHasher(b, password.DefaultConfig(), newPeppers())
	b.ReportAllocs()
	for b.Loop() {
		hash(b, h, "river lamp 72")
	}
}

// BenchmarkVerify is to be compared with BenchmarkBare: the difference is what this package adds to a sign-in.
func BenchmarkVerify(b *testing.B) {
	h := newHasher(b, password.DefaultConfig(), newPeppers())
	stored := hash(b, h, "river lamp 72")
	b.ReportAllocs()
	for b.Loop() {
		verify(b, h, stored, "river lamp 72", true, false)
	}
}

func BenchmarkBare(b *testing.B) {
	salt := binary.BigEndian.AppendUint64(nil, 7)
	b.ReportAllocs()
	for b.Loop() {
		argon2.IDKey([]byte("river lamp 72"), salt, 2, 19456, 1, 32)
	}
}
