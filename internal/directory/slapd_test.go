package directory_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/clocktest"
	"github.com/sumunio/sumun/internal/directory"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/identity/identitytest"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// slapdVariable names OpenLDAP's server. Where CI is set, it must.
const slapdVariable = "SUMUN_TEST_SLAPD"

// slapd is OpenLDAP with some people, started for one test.
type slapd struct {
	t      *testing.T
	url    string
	caFile string
	admin  *ldap.Conn
}

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %DIR/slapd.pid
TLSCertificateFile %DIR/cert.pem
TLSCertificateKeyFile %DIR/key.pem
security simple_bind=128
database mdb
maxsize 16777216
suffix "dc=corp,dc=example"
rootdn "cn=sumun,dc=corp,dc=example"
rootpw service
directory %DIR/db
`

func startSlapd(t *testing.T) *slapd {
	t.Helper()
	program := os.Getenv(slapdVariable)
	if program == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not set", slapdVariable)
		}
		t.Skipf("%s is not set: the path of OpenLDAP's slapd", slapdVariable)
	}
	dir := t.TempDir()
	s := &slapd{t: t, url: "ldap://" + freeAddress(t), caFile: filepath.Join(dir, "cert.pem")}
	s.must(os.Mkdir(filepath.Join(dir, "db"), 0o700))
	writeCertificate(t, dir)
	conf := filepath.Join(dir, "slapd.conf")
	s.must(os.WriteFile(conf, []byte(strings.ReplaceAll(slapdConf, "%DIR", dir)), 0o600))
	cmd := exec.Command(program, "-f", conf, "-h", s.url, "-d", "0")
	s.must(cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s.admin = s.connect()
	t.Cleanup(func() { s.admin.Close() })
	for _, e := range [][]string{
		{"dc=corp,dc=example", "dcObject,organization", "o", "Corp"},
		{"ou=people,dc=corp,dc=example", "organizationalUnit", "ou", "people"},
	} {
		s.add(e[0], e[1], e[2], e[3])
	}
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "slapd"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// trust is what vouches for the server.
func (s *slapd) trust() *tls.Config {
	text, err := os.ReadFile(s.caFile)
	s.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

// connect waits until slapd listens.
func (s *slapd) connect() *ldap.Conn {
	s.t.Helper()
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := ldap.DialURL(s.url)
		if err == nil {
			s.must(c.StartTLS(s.trust()))
			s.must(c.Bind(serviceDN, servicePW))
			return c
		}
		last = err
	}
	s.t.Fatalf("slapd does not listen: %v", last)
	return nil
}

func (s *slapd) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *slapd) add(dn, classes string, attributes ...string) {
	s.t.Helper()
	r := ldap.NewAddRequest(dn, nil)
	r.Attribute("objectClass", strings.Split(classes, ","))
	for i := 0; i < len(attributes); i += 2 {
		r.Attribute(attributes[i], []string{attributes[i+1]})
	}
	s.must(s.admin.Add(r))
}

func (s *slapd) person(uid, mail, name, password string) {
	s.t.Helper()
	s.add("uid="+uid+",ou=people,dc=corp,dc=example", "inetOrgPerson", "uid", uid, "sn", "x", "cn", name, "mail", mail)
	s.setPassword(uid, password)
}

func (s *slapd) setPassword(uid, password string) {
	s.t.Helper()
	_, err := s.admin.PasswordModify(ldap.NewPasswordModifyRequest("uid="+uid+",ou=people,dc=corp,dc=example", "", password))
	s.must(err)
}

// server is how this slapd is configured: TLS is asked for before anything is said.
func (s *slapd) server() directory.Server {
	var c directory.Server
	c.SetDefaults()
	c.Name, c.Label, c.URLs, c.CAFile = "corp", "Corp", []string{s.url}, s.caFile
	c.BindDN, c.BindPassword, c.BaseDN, c.Domains = serviceDN, servicePW, "ou=people,dc=corp,dc=example", []string{"corp.example"}
	return c
}

func TestOpenLDAP(t *testing.T) {
	t.Parallel()
	s := startSlapd(t)
	s.person("kim", "kim@corp.example", "김하늘", rightPW)
	d := open(t, clocktest.At(time.Now()), 5*time.Second, s.server())
	got, err := d.Authenticate(t.Context(), "kim@corp.example", rightPW)
	if err != nil || got.Subject == "" || got.Email != "kim@corp.example" || got.Name != "김하늘" {
		t.Fatalf("%+v, %v", got, err)
	}
	for typed, pw := range map[string]string{"kim@corp.example": "wrong", "lee@corp.example": rightPW, "*@corp.example": rightPW} {
		if _, err := d.Authenticate(t.Context(), typed, pw); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("%s with %q: %v", typed, pw, err)
		}
	}
	untrusted := s.server()
	untrusted.CAFile = ""
	if _, err := open(t, clocktest.At(time.Now()), 5*time.Second, untrusted).Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, directory.ErrUnavailable) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	plain := s.server()
	plain.StartTLS = false // this slapd lets nobody bind in the clear
	if _, err := open(t, clocktest.At(time.Now()), 5*time.Second, plain).Authenticate(t.Context(), "kim@corp.example", rightPW); !errors.Is(err, directory.ErrRefused) {
		t.Errorf("without TLS: %v", err)
	}
}

// The first sign-in makes the account, later ones find it whatever the person is called by then, and the directory has the last word.
func TestPeopleOfADirectory(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, identitytest.Migrations(), func(t *testing.T, db *sqldb.DB) {
		s := startSlapd(t)
		s.person("kim", "kim@corp.example", "김하늘", rightPW)
		d := open(t, clocktest.At(time.Now()), 5*time.Second, s.server())
		people := identitytest.New(t, db, "http://localhost", nil, time.Now, slog.New(slog.DiscardHandler), d).People
		signIn := func(typed, pw string) (identity.SignedIn, error) {
			return people.SignIn(t.Context(), identity.SignIn{Identifier: typed, Password: pw,
				Origin: audit.Origin{Address: netip.MustParseAddr("192.0.2.1"), UserAgent: "test"}})
		}
		first, err := signIn("kim@corp.example", rightPW)
		if err != nil || first.Account.Name != "김하늘" || !first.Account.EmailVerified || first.Account.HasPassword() || first.Account.Directory != "corp" {
			t.Fatalf("the first sign-in: %+v, %v", first.Account, err)
		}
		s.must(s.admin.Modify(&ldap.ModifyRequest{DN: "uid=kim,ou=people,dc=corp,dc=example", Changes: []ldap.Change{
			{Operation: ldap.ReplaceAttribute, Modification: ldap.PartialAttribute{Type: "mail", Vals: []string{"haneul@corp.example"}}}}}))
		s.setPassword("kim", "Another Horse 2")
		if _, err := signIn("haneul@corp.example", rightPW); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("the old password: %v", err)
		}
		again, err := signIn("haneul@corp.example", "Another Horse 2")
		if err != nil || again.Account.ID != first.Account.ID {
			t.Errorf("under a new address: %+v, %v", again.Account, err)
		}
		s.must(s.admin.Del(ldap.NewDelRequest("uid=kim,ou=people,dc=corp,dc=example", nil)))
		if _, err := signIn("haneul@corp.example", "Another Horse 2"); !errors.Is(err, identity.ErrCredentials) {
			t.Errorf("after the entry has gone: %v", err)
		}
		s.person("kim", "kim@corp.example", "Another Kim", rightPW)
		if got, err := signIn("kim@corp.example", rightPW); !errors.Is(err, identity.ErrDirectoryAddress) {
			t.Errorf("a new entry of an old address opens %+v, %v", got.Account, err)
		}
	})
}
