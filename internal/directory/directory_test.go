package directory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/directory"
	"github.com/sumunio/sumun/internal/identity"
)

const rightPW = "Correct Horse 1"

func kim() entry {
	return entry{dn: "cn=Kim,ou=people,dc=corp,dc=example", password: rightPW, attributes: map[string]string{
		"userPrincipalName": "kim@corp.example", "sAMAccountName": "kim", "mail": "ha.kim@corp.example", "displayName": "김하늘",
		"objectGUID": "\x00\x01\x02\xff456789abcdef", "userAccountControl": "512"}}
}

// adServer is how an Active Directory on this machine is configured.
func adServer(urls ...string) directory.Server {
	var s directory.Server
	s.SetDefaults()
	s.Name, s.Label, s.Kind, s.URLs, s.StartTLS = "corp", "Corp", directory.KindAD, urls, false
	s.BindDN, s.BindPassword, s.BaseDN, s.Domains, s.Prefix = serviceDN, servicePW, "dc=corp,dc=example", []string{"corp.example"}, "CORP"
	return s
}

func open(t *testing.T, c *clocktest.Clock, timeout time.Duration, s directory.Server) identity.Directory {
	t.Helper()
	all, err := directory.New(directory.Config{Timeout: timeout, Servers: []directory.Server{s}}, c.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestActiveDirectory(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	d := open(t, clocktest.At(time.Now()), 5*time.Second, adServer(there.url()))
	for _, typed := range []string{"kim@corp.example", " KIM@Corp.Example ", `CORP\kim`, `corp\kim`} {
		got, err := d.Authenticate(t.Context(), typed, rightPW)
		want := identity.DirectoryEntry{Subject: "000102ff343536373839616263646566", Email: "ha.kim@corp.example", Name: "김하늘"}
		if !d.Holds(typed) || err != nil || got != want {
			t.Errorf("%q: held %t, %+v, %v", typed, d.Holds(typed), got, err)
		}
	}
	for _, typed := range []string{"kim", "kim@elsewhere.example", `OTHER\kim`, "@corp.example", `CORP\`, "kim@corp.example@evil.example", ""} {
		if _, err := d.Authenticate(t.Context(), typed, rightPW); d.Holds(typed) || !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("%q is the directory's: %v", typed, err)
		}
	}
}

// What Active Directory says in its own codes is told in words to who has the right password, and to nobody else.
func TestReasonsOfActiveDirectory(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]error{"530": directory.ErrNotNow, "531": directory.ErrNotNow, "532": directory.ErrPasswordExpired,
		"773": directory.ErrPasswordExpired, "533": directory.ErrClosed, "701": directory.ErrClosed, "775": identity.ErrTooManyAttempts,
		"52e": identity.ErrCredentials, "525": identity.ErrCredentials, "fff": identity.ErrCredentials} {
		one := kim()
		one.refusal = strings.Replace(wrongPW, "52e", data, 1)
		d := open(t, clocktest.At(time.Now()), 5*time.Second, adServer(newStandIn(t, one).url()))
		if _, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, want) {
			t.Errorf("%s is told as %v", data, err)
		}
		if _, err := d.Authenticate(t.Context(), "kim@corp.example", "wrong"); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("%s, with a wrong password: %v", data, err)
		}
	}
	closed := kim()
	closed.attributes["userAccountControl"] = "514"
	d := open(t, clocktest.At(time.Now()), 5*time.Second, adServer(newStandIn(t, closed).url()))
	if _, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, directory.ErrClosed) {
		t.Errorf("a disabled entry: %v", err)
	}
}

// Nothing that is typed changes the question, empty passwords stay here, and several answers are none.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	d := open(t, clocktest.At(time.Now()), 5*time.Second, adServer(there.url()))
	for _, typed := range []string{"*@corp.example", "kim)(objectClass=*@corp.example", `k\im@corp.example`, "kim\x00@corp.example", "kim*", `CORP\*`,
		`CORP\kim)(|(cn=*`, strings.Repeat("k", 5000) + "@corp.example"} {
		if got, err := d.Authenticate(t.Context(), typed, rightPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("%.40q opens %+v, %v", typed, got, err)
		}
	}
	there.change(func() {
		for _, f := range there.searches {
			if strings.Count(f, "(") != 6 || strings.Contains(f, "=*)") {
				t.Errorf("the directory was asked %s", f)
			}
		}
		there.searches, there.binds = nil, nil
	})
	if _, err := d.Authenticate(t.Context(), "kim@corp.example", ""); !errors.Is(err, identity.ErrCredentials) {
		t.Errorf("an empty password: %v", err)
	}
	there.change(func() {
		if len(there.binds) > 0 {
			t.Errorf("an empty password reached the directory: %v", there.binds)
		}
	})
	if _, err := d.Authenticate(t.Context(), "nobody@corp.example", "some password"); !errors.Is(err, identity.ErrCredentials) {
		t.Errorf("nobody: %v", err)
	}
	there.change(func() {
		if len(there.binds) != 2 || !strings.HasSuffix(there.binds[1], " some password") {
			t.Errorf("for nobody the directory is asked less than for somebody: %v", there.binds)
		}
		double := kim()
		double.dn = "cn=Kim 2,ou=people,dc=corp,dc=example"
		there.people = append(there.people, double)
	})
	if _, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, identity.ErrCredentials) {
		t.Errorf("two entries: %v", err)
	}
}

// A directory that does not answer costs its own people its timeout, and after a few of them nobody anything; when it is back, so are they.
func TestSlowAndDown(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	c := clocktest.At(time.Now())
	d := open(t, c, 200*time.Millisecond, adServer(there.url()))
	ask := func() error {
		_, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	there.change(func() { there.silent = true; there.drop() })
	began := time.Now()
	var wg sync.WaitGroup
	for range 40 { // five times its connections
		wg.Go(func() {
			if err := ask(); !errors.Is(err, directory.ErrUnavailable) {
				t.Errorf("silent: %v", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("40 sign-ins at a silent directory took %v", took)
	}
	began = time.Now()
	for range 100 {
		if err := ask(); !errors.Is(err, directory.ErrUnavailable) {
			t.Fatalf("after the breaker has opened: %v", err)
		}
	}
	if took := time.Since(began); took > 150*time.Millisecond {
		t.Errorf("100 sign-ins past an open breaker took %v", took)
	}
	there.change(func() { there.silent = false })
	c.Advance(11 * time.Second)
	if err := ask(); err != nil {
		t.Errorf("after it is back: %v", err)
	}
	addr := there.addr
	there.stop()
	if err := ask(); !errors.Is(err, directory.ErrUnavailable) {
		t.Errorf("down: %v", err)
	}
	there.start(addr)
	if err := ask(); err != nil {
		t.Errorf("up again: %v", err)
	}
	there.change(there.drop)
	if err := ask(); err != nil {
		t.Errorf("after kept connections have died: %v", err)
	}
}

// Of several servers one that answers is enough.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	silent, good := newStandIn(t), newStandIn(t, kim())
	silent.change(func() { silent.silent = true })
	d := open(t, clocktest.At(time.Now()), 500*time.Millisecond, adServer("ldap://127.0.0.1:1", silent.url(), good.url()))
	var last error
	for range 3 {
		_, last = d.Authenticate(t.Context(), "kim@corp.example", rightPW)
	}
	if last != nil {
		t.Errorf("with one of three servers well: %v", last)
	}
}

// A service account that may not search is the operator's matter, and not a wrong password.
func TestServiceAccountRefused(t *testing.T) {
	t.Parallel()
	s := adServer(newStandIn(t, kim()).url())
	s.BindPassword = "other"
	d := open(t, clocktest.At(time.Now()), 5*time.Second, s)
	if _, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, directory.ErrRefused) || strings.Contains(fmt.Sprint(err), rightPW) {
		t.Errorf("answered with %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Authenticate(ctx, "kim@corp.example", rightPW); err == nil {
		t.Error("who has gone is let in")
	}
}

// Everything that is wrong with a configuration is told at once, and no secret with it.
func TestConfig(t *testing.T) {
	t.Parallel()
	bad := adServer("ldap://dc1.corp.example", "http://dc1", "ldaps://u:hunter2@dc")
	bad.Name, bad.BaseDN, bad.Filter, bad.Domains, bad.Connections, bad.PasswordURL = "Corp", "nonsense", "(cn=*)", []string{"Corp.example"}, 0, "http://x"
	again := adServer("ldaps://dc1.corp.example")
	err := directory.Config{Servers: []directory.Server{bad, again, again}}.Validate()
	for _, want := range []string{"timeout:", "servers[0].name", "servers[0].urls", "use ldaps", "servers[0].base_dn", "servers[0].filter", "servers[0].domains",
		"servers[0].connections", "servers[0].password_url", `"corp.example" belongs to servers[1]`, `"corp\\" belongs to servers[1]`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
	if err := (directory.Config{Timeout: time.Second, Servers: []directory.Server{again}}).Validate(); err != nil {
		t.Error(err)
	}
}

// Whatever is typed, the question stays one that the directory can read, with as many conditions as were configured.
func FuzzNames(f *testing.F) {
	f.Add("kim@corp.example")
	f.Add(`CORP\)(cn=*`)
	f.Add("a\xff\x00*()@corp.example")
	d := open2(adServer("ldaps://dc1.corp.example"))
	f.Fuzz(func(t *testing.T, typed string) {
		filter, held := directory.Question(d, typed)
		if held && strings.Count(filter, "(") != 6 {
			t.Errorf("%q asks %s", typed, filter)
		}
	})
}

func open2(s directory.Server) identity.Directory {
	all, err := directory.New(directory.Config{Timeout: time.Second, Servers: []directory.Server{s}}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	return all[0]
}

// An entry is kept while it is the one that the name means, and may be used; an outage says nothing.
func TestKeeps(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	c := clocktest.At(time.Now())
	d := open(t, c, time.Second, adServer(there.url()))
	got, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW)
	if err != nil {
		t.Fatal(err)
	}
	keeps := func(typed string) bool {
		t.Helper()
		kept, err := d.Keeps(t.Context(), typed, got.Subject)
		if err != nil {
			t.Error(err)
		}
		return kept
	}
	set := func(name, value string) { there.change(func() { there.people[0].attributes[name] = value }) }
	if !keeps("kim@corp.example") || !keeps(`CORP\kim`) || keeps("lee@corp.example") || keeps("kim@elsewhere.example") {
		t.Error("the wrong people are kept")
	}
	set("userAccountControl", "514")
	if keeps("kim@corp.example") {
		t.Error("a disabled entry is kept")
	}
	set("userAccountControl", "512")
	for value, want := range map[string]bool{"0": true, "9223372036854775807": true, "131000000000000000": false, "151000000000000000": true, "x": true} {
		if set("accountExpires", value); keeps("kim@corp.example") != want {
			t.Errorf("expires %s: kept %t", value, !want)
		}
	}
	set("objectGUID", "another one here")
	if keeps("kim@corp.example") {
		t.Error("another entry of the name is kept")
	}
	there.stop()
	if kept, err := d.Keeps(t.Context(), "kim@corp.example", got.Subject); kept || !errors.Is(err, directory.ErrUnavailable) {
		t.Errorf("an outage: %t, %v", kept, err)
	}
}

// Whoever stands between us and a directory, and talks us out of TLS, gets no password, not even the service account's.
func TestNothingInTheClear(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	s := adServer(there.url())
	s.StartTLS = true
	d := open(t, clocktest.At(time.Now()), time.Second, s)
	if _, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, directory.ErrUnavailable) {
		t.Errorf("answered with %v", err)
	}
	there.change(func() {
		if len(there.binds) > 0 || len(there.searches) > 0 {
			t.Errorf("%d binds and %d searches in the clear", len(there.binds), len(there.searches))
		}
	})
}

// However a name is written that the directory takes for the same, attempts at it are counted as one: what it would not tell apart from
// another spelling, and our count would, never gets there.
func TestOneSpellingOfAName(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	d := open(t, clocktest.At(time.Now()), 5*time.Second, adServer(there.url()))
	for _, typed := range []string{`CORP\ kim`, `CORP\kim  lee`, "CORP\\k\u00edm", "CORP\\\uff4bim", "kim @corp.example", "k\u00edm@corp.example", "kim\u00ad@corp.example"} {
		if _, err := d.Authenticate(t.Context(), typed, rightPW); !d.Holds(typed) || !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("%+q: held %t, %v", typed, d.Holds(typed), err)
		}
	}
	there.change(func() {
		if len(there.searches) > 0 {
			t.Errorf("the directory was asked %q", there.searches)
		}
	})
	if d.Holds("COR\u017f\\kim") {
		t.Error("a look-alike of the Windows domain is taken for it")
	}
}

// A domain beyond ASCII is the directory's in both of its forms, or the other one would open an account of ours past it.
func TestDomainsBeyondASCII(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"münchen.example", "xn--mnchen-3ya.example"} {
		s := adServer("ldaps://dc1.corp.example")
		s.Domains = []string{domain}
		d := open2(s)
		for _, typed := range []string{"kim@münchen.example", "kim@xn--mnchen-3ya.example", "kim@XN--MNCHEN-3YA.example"} {
			if !d.Holds(typed) {
				t.Errorf("%s does not hold %s", domain, typed)
			}
		}
	}
}

// Who hangs up while a connection is made says nothing about the directory: strangers cannot close it to its people in that way.
func TestHangingUpClosesNothing(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	d := open(t, clocktest.At(time.Now()), 5*time.Second, adServer(there.url()))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		_, _ = d.Authenticate(gone, "kim@corp.example", "wrong")
	}
	if _, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW); err != nil {
		t.Errorf("after strangers have hung up: %v", err)
	}
}

// A server that has lost its people, and a name that somebody else has taken as well, say nothing about who has left.
func TestKeepsWhoNobodyKnowsAbout(t *testing.T) {
	t.Parallel()
	there := newStandIn(t, kim())
	d := open(t, clocktest.At(time.Now()), time.Second, adServer(there.url()))
	got, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW)
	if err != nil {
		t.Fatal(err)
	}
	there.change(func() { there.empty = true })
	if _, err := d.Keeps(t.Context(), "kim@corp.example", got.Subject); !errors.Is(err, directory.ErrRefused) {
		t.Errorf("without the base entry: %v", err)
	}
	there.change(func() {
		there.empty = false
		double := kim()
		double.dn = "cn=Kim 2,ou=people,dc=corp,dc=example"
		there.people = append(there.people, double)
	})
	if _, err := d.Keeps(t.Context(), "kim@corp.example", got.Subject); err == nil {
		t.Error("who shares a name is shut out")
	}
}
