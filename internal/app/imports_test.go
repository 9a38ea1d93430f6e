package app_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sumunio/sumun/"

// foundations know no domain. Every domain may import all of them.
var foundations = []string{
	"internal/fault", "internal/httpd", "internal/sqldb", "internal/redisdb", "internal/ratelimit", "internal/keyring",
	"internal/audit", "internal/mail", "internal/pubsub", "internal/replay", "internal/apikey",
}

// mayImport is the design: who imports whom (ARCHITECTURE.md, "Who may import whom"). A new edge is a design decision: it
// gets an ADR and a line here.
func mayImport() map[string][]string {
	domain := func(more ...string) []string { return slices.Concat(foundations, []string{"auth"}, more) }
	return map[string][]string{
		"auth":          nil,
		"auth/authgrpc": {"auth"},
		"auth/authws":   {"auth"},
		"cmd/sumun":     {"internal/app"},

		"internal/fault":        nil,
		"internal/httpd":        {"internal/fault", "internal/httpd/http1"},
		"internal/httpd/http1":  {"internal/httpd/socket", "internal/httpd/syntax"},
		"internal/httpd/socket": {},
		"internal/httpd/syntax": {},
		"internal/sqldb":        {"internal/fault"},
		"internal/redisdb":      {"internal/fault"},
		"internal/ratelimit":    {"internal/fault", "internal/redisdb"},
		"internal/keyring":      {"internal/fault", "internal/sqldb"},
		"internal/pubsub":       {"internal/fault", "internal/redisdb", "internal/keyring"}, // keyring for Secret only
		"internal/apikey":       nil,
		"internal/replay":       {"internal/fault", "internal/sqldb", "internal/redisdb"},
		"internal/audit":        {"internal/fault", "internal/sqldb"},
		"internal/mail":         {"internal/fault", "internal/sqldb", "internal/keyring"}, // keyring for Secret only

		"internal/token":   domain(),
		"internal/session": domain("internal/token"),
		"internal/web":     domain(),
		"internal/gateway": domain("internal/gateway/stage", "internal/gateway/upstream", "internal/gateway/idempotency", "internal/gateway/cache",
			"internal/gateway/compress", "internal/gateway/files", "internal/gateway/waf",
			"internal/gateway/assertion", "internal/gateway/apikeys", "internal/gateway/oauth", "internal/gateway/websession"),
		"internal/gateway/apikeys":     {"internal/apikey", "internal/fault", "internal/ratelimit"},
		"internal/gateway/cache":       {"internal/fault", "internal/httpd", "internal/gateway/stage"},
		"internal/gateway/compress":    {"internal/gateway/stage"},
		"internal/gateway/files":       {"internal/httpd", "internal/gateway/compress", "internal/gateway/stage"},
		"internal/gateway/idempotency": {"internal/fault", "internal/redisdb", "internal/gateway/stage"},
		"internal/gateway/assertion":   {"auth", "internal/keyring"}, // keyring for Secret only
		"internal/gateway/oauth":       {"auth", "internal/fault"},
		"internal/gateway/websession":  {"auth", "internal/fault", "internal/httpd", "internal/redisdb", "internal/gateway/stage"},
		"internal/gateway/stage":       domain(),
		"internal/gateway/waf":         {"internal/fault", "internal/gateway/stage"},
		"internal/gateway/upstream":    {"internal/fault", "internal/httpd/socket", "internal/httpd/syntax"},
		"internal/identity":            domain("internal/session", "internal/token", "internal/web", "internal/identity/password"),
		"internal/identity/password":   {"internal/fault", "internal/keyring"},
		"internal/federation":          domain("internal/identity", "internal/web"),
		"internal/directory":           domain("internal/identity"),
		"internal/oidc":                domain("internal/session", "internal/token", "internal/identity", "internal/web"),

		// The bare hash, handler and proxy, and a database of its own.
		"bench": {"internal/identity/password", "internal/redisdb", "internal/sqldb", "internal/gateway/upstream"},
	}
}

// confined lists the third-party imports that are somebody's alone, in tests as well.
var confined = []struct {
	prefix string
	why    string
	may    func(pkg, file string) bool
}{
	{"modernc.org/sqlite", "database drivers belong to sqldb", ofSQLDB},
	{"github.com/jackc/pgx", "database drivers belong to sqldb", ofSQLDB},
	{"github.com/pressly/goose", "migrations belong to sqldb", ofSQLDB},
	{"github.com/redis/rueidis", "the Redis client belongs to redisdb and to files that end in redis.go", func(pkg, file string) bool {
		return strings.HasPrefix(pkg, "internal/redisdb") || file == "redis.go" ||
			strings.HasSuffix(file, "_redis.go") || strings.HasSuffix(file, "redis_test.go")
	}},
	{"github.com/nats-io", "broker clients belong to pubsub and events", func(pkg, _ string) bool {
		return pkg == "internal/pubsub" || pkg == "internal/events"
	}},
	{"github.com/crewjam/saml", "SAML belongs to federation", ofFederation},
	{"github.com/russellhaering/goxmldsig", "SAML belongs to federation", ofFederation},
	{"github.com/go-ldap/ldap", "LDAP belongs to directory", func(pkg, _ string) bool { return pkg == "internal/directory" }},
	{"google.golang.org/grpc", "gRPC belongs to auth/authgrpc, so that nobody builds it unasked", func(pkg, _ string) bool {
		return pkg == "auth/authgrpc"
	}},
	{"github.com/alecthomas/kong", "the command line belongs to app", ofAppOrTest},
	{"github.com/goccy/go-yaml", "the configuration file belongs to app", ofAppOrTest},
}

func ofFederation(pkg, _ string) bool { return pkg == "internal/federation" }

func ofSQLDB(pkg, _ string) bool { return strings.HasPrefix(pkg, "internal/sqldb") }

func ofAppOrTest(pkg, file string) bool {
	return strings.HasPrefix(pkg, "internal/app") || strings.HasSuffix(file, "_test.go")
}

// fewDependencies lists packages with a closed list of third-party imports: what a consumer of auth must build with it.
var fewDependencies = map[string][]string{
	"auth":           {"github.com/golang-jwt/jwt/v5"},
	"auth/authws":    nil,
	"auth/authtest":  {"github.com/golang-jwt/jwt/v5"},
	"internal/fault": nil,
}

// A wrong import is cheap to take and dear to remove: it is what turns a house with rooms into one big room.
func TestImports(t *testing.T) {
	t.Parallel()
	table := mayImport()
	for _, p := range packages(t) {
		allowed, listed := table[p.name]
		switch {
		case p.isTestHelper():
			allowed = slices.Concat(table[path.Dir(p.name)], []string{path.Dir(p.name)})
		case strings.HasPrefix(p.name, "internal/app"):
			allowed = slices.Concat(foundations, []string{"auth", "internal/app/settings", "internal/token", "internal/session",
				"internal/web", "internal/gateway", "internal/gateway/idempotency", "internal/gateway/assertion", "internal/gateway/apikeys", "internal/gateway/oauth", "internal/gateway/websession",
				"internal/identity", "internal/identity/password", "internal/oidc", "internal/federation", "internal/directory"})
		case !listed && len(p.files(p.GoFiles)) > 0:
			t.Errorf("%s is not in the table of imports: it needs an ADR, a line in ARCHITECTURE.md and one here", p.name)
			continue
		}
		for _, use := range p.uses(t, p.GoFiles) {
			p.check(t, use, allowed)
		}
		for _, use := range p.uses(t, slices.Concat(p.TestGoFiles, p.XTestGoFiles)) {
			p.checkTest(t, use, allowed)
		}
	}
}

// use is one import of one file.
type use struct{ file, path string }

func (u use) ours() (name string, ours bool) { return strings.CutPrefix(u.path, module) }

// check judges an import of the program itself.
func (p pkg) check(t *testing.T, u use, allowed []string) {
	t.Helper()
	p.checkConfined(t, u)
	name, ours := u.ours()
	if !ours {
		third := strings.Contains(strings.Split(u.path, "/")[0], ".")
		few, closed := fewDependencies[p.name]
		if third && closed && !slices.Contains(few, u.path) {
			t.Errorf("%s/%s imports %s: this package has few dependencies on purpose", p.name, u.file, u.path)
		}
		return
	}
	if strings.HasSuffix(name, "test") && !p.isTestHelper() {
		t.Errorf("%s/%s imports %s, which is for tests", p.name, u.file, name)
		return
	}
	if !slices.Contains(allowed, name) {
		t.Errorf("%s/%s imports %s, which the table of imports does not allow", p.name, u.file, name)
	}
}

// checkTest judges an import of a test: it may also use the package itself, test helpers and foundations, but no domain
// that the package may not know. Tests of the program as a whole (test, bench, cmd) may use everything.
func (p pkg) checkTest(t *testing.T, u use, allowed []string) {
	t.Helper()
	p.checkConfined(t, u)
	name, ours := u.ours()
	if !ours || name == p.name || strings.HasPrefix(name, p.name+"/") || slices.Contains(allowed, name) {
		return
	}
	for _, whole := range []string{"test/", "bench", "cmd/", "docs", "internal/app"} {
		if strings.HasPrefix(p.name, whole) {
			return
		}
	}
	public := p.name == "auth" || strings.HasPrefix(p.name, "auth/")
	if !public && (strings.HasSuffix(name, "test") || slices.Contains(foundations, name)) || name == "auth/authtest" {
		return
	}
	t.Errorf("%s/%s imports %s, which tests of this package may not", p.name, u.file, name)
}

func (p pkg) checkConfined(t *testing.T, u use) {
	t.Helper()
	for _, c := range confined {
		if strings.HasPrefix(u.path, c.prefix) && !c.may(p.name, u.file) {
			t.Errorf("%s/%s imports %s: %s", p.name, u.file, u.path, c.why)
		}
	}
}

// leftOut lists packages that must not be in the program, and what they would cost everybody who runs it.
var leftOut = map[string]string{
	"github.com/ccojocar/zxcvbn-go/matching":  "it unpacks lists of words when a process starts, and keeps 8 MB of them (docs/adr/0045)",
	"github.com/ccojocar/zxcvbn-go/frequency": "it unpacks lists of words when a process starts",
}

// A server that nobody uses must stay small: what costs memory without being asked is not in the program.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"cmd/sumun").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		if why, out := leftOut[name]; out {
			t.Errorf("the program has %s: %s", name, why)
		}
	}
}

// pkg is a package as go list tells it.
type pkg struct {
	ImportPath, Dir                    string
	GoFiles, TestGoFiles, XTestGoFiles []string

	name string // within the module
}

func (p pkg) isTestHelper() bool {
	return strings.HasSuffix(p.name, "test") && strings.Contains(p.name, "/")
}

// files leaves out the documentation of a package that is otherwise only tests.
func (p pkg) files(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "doc.go" })
}

func (p pkg) uses(t *testing.T, files []string) []use {
	t.Helper()
	var all []use
	for _, file := range files {
		syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range syntax.Imports {
			importPath, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, use{file, importPath})
		}
	}
	return all
}

func packages(t *testing.T) []pkg {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles", module+"...")
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.name = strings.TrimPrefix(p.ImportPath, module)
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}
