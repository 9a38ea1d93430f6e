package e2e_test

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	apacheVariable = "SUMUN_TEST_APACHE"
	apacheModules  = "/usr/lib/apache2/modules" // of Debian's package, libapache2-mod-auth-openidc among them
)

// apache is a web server of somebody's, which has people sign in at Sumun, and a browser that goes there.
type apache struct {
	t      testing.TB
	url    string
	client *http.Client
	tab    *tab
}

// startApache starts the web server as a client of Sumun.
func startApache(t *testing.T, s *server, c program, address string) *apache {
	t.Helper()
	path, folder := demanded(t, apacheVariable), openFolder(t)
	text, err := os.ReadFile("testdata/apache/httpd.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"htdocs/app/index.html": "application", "htdocs/api/index.html": "service", "htdocs/bye.html": "bye",
		"httpd.conf": strings.NewReplacer("FOLDER", folder, "ADDRESS", address, "MODULES", apacheModules, "ISSUER", s.issuer, "CLIENT", c.ID,
			"SECRET", c.Secret).Replace(string(text)),
	} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "-D", "FOREGROUND", "-f", filepath.Join(folder, "httpd.conf"))
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = t.Output(), t.Output(), orphanless()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, gone := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); gone() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it ends its children
		<-ended
	})
	err = eventually(ctx, 20*time.Second, "the web server listens", func(ctx context.Context) (bool, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &apache{t, "http://" + address, client, s.newTab(t)}
}

// openFolder makes a folder that other users can read, as whom the web server goes on where root starts it.
func openFolder(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "sumun-apache-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// ask asks the web server, as the browser does, following nothing.
func (a *apache) ask(target string, options ...option) answer {
	a.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = a.url + target
	}
	r, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html,*/*") // programs that ask for something else are not sent to sign in
	for _, o := range options {
		o(r)
	}
	res, err := a.client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{status: res.StatusCode, header: res.Header, body: body}
}

// goThrough asks for a page and goes by Sumun, as often as it is sent there, until the web server shows something.
func (a *apache) goThrough(target string) answer {
	a.t.Helper()
	for range 10 {
		got := a.ask(target)
		if got.status != http.StatusFound {
			return got
		}
		target = a.tab.visit(got.header.Get("Location"), "kim@example.com")
	}
	a.t.Fatal("sent around in circles")
	return answer{}
}

// known is what the module knows of who is signed in.
type known struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	UserInfo     struct{ Sub, Email, Name string }
	IDToken      struct{ Sub, SID string } `json:"id_token"`
}

func (a *apache) knows() (k known) {
	a.t.Helper()
	got := a.ask("/app/redirect?info=json")
	if err := json.Unmarshal(got.body, &k); err != nil || got.status != http.StatusOK {
		a.t.Fatalf("info: %d %s", got.status, got.body)
	}
	return k
}

// serves returns whether the service behind the web server accepts an access token, which it asks Sumun about.
func (a *apache) serves(token string) bool {
	a.t.Helper()
	return a.ask("/api/", header("Authorization", "Bearer "+token)).status == http.StatusOK
}

var iframeSource = regexp.MustCompile(`<iframe src="([^"]+)"`)

// Web servers that exist must be able to sign people in without knowing Sumun: Debian's libapache2-mod-auth-openidc.
func TestApache(t *testing.T) {
	t.Parallel()
	demanded(t, apacheVariable)
	for name, leave := range map[string]func(a *apache){
		"signing out at the program": (*apache).leavesHere,
		"back channel":               (*apache).leavesByBackChannel,
		"front channel":              (*apache).leavesByFrontChannel,
		"deleting the account":       (*apache).leavesForGood,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, address := sqliteStore(t), freeAddress(t)
			at := "http://" + address
			args := []string{"--name", "Shop", "--redirect-uri", at + "/app/redirect", "--post-logout-redirect-uri", at + "/bye.html",
				"--scope", "openid", "--scope", "profile", "--scope", "email"}
			switch name {
			case "back channel":
				args = append(args, "--backchannel-logout-uri", at+"/app/redirect?logout=backchannel")
			case "front channel", "deleting the account":
				args = append(args, "--frontchannel-logout-uri", at+"/app/redirect?logout=get")
			}
			c := st.addClient(t, args...)
			st.addUser(t, "kim@example.com", "--name", "Kim")
			a := startApache(t, st.serve(t), c, address)
			if got := a.goThrough("/app/"); got.status != 200 || string(got.body) != "application" || got.header.Get("X-Told") == "" {
				t.Fatalf("signed in: %d %v %s", got.status, got.header, got.body)
			}
			leave(a)
			if got := a.ask("/app/"); got.status != http.StatusFound {
				t.Errorf("it still lets in: %d", got.status)
			}
		})
	}
}

// leavesHere uses what was got, renews it, and signs out at the web server, which ends the session at Sumun, too.
func (a *apache) leavesHere() {
	first := a.knows()
	if first.UserInfo.Email != "kim@example.com" || first.UserInfo.Name != "Kim" || first.UserInfo.Sub != first.IDToken.Sub || first.IDToken.SID == "" {
		a.t.Errorf("it knows %+v", first)
	}
	if !a.serves(first.AccessToken) || a.serves(first.RefreshToken) || a.serves("nonsense") {
		a.t.Error("introspection tells access tokens from others no more")
	}
	a.ask("/app/redirect?" + url.Values{"refresh": {a.url + "/app/"}, "access_token": {first.AccessToken}}.Encode())
	second := a.knows()
	if second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken || !a.serves(second.AccessToken) {
		a.t.Error("nothing was renewed")
	}
	if got := a.goThrough("/app/redirect?" + url.Values{"logout": {a.url + "/bye.html"}}.Encode()); string(got.body) != "bye" {
		a.t.Errorf("after signing out: %d %s", got.status, got.body)
	}
	if a.serves(second.AccessToken) {
		a.t.Error("the access token lives on")
	}
	if _, next := a.tab.ask("GET", "/account", nil); !strings.HasPrefix(next, "/sign-in") {
		a.t.Errorf("still signed in at Sumun, which sends to %q", next)
	}
}

// leavesByBackChannel signs out at Sumun, which tells the web server.
func (a *apache) leavesByBackChannel() {
	if got, _ := a.tab.ask("POST", "/sign-out", url.Values{}); got.status != 200 || iframeSource.Match(got.body) {
		a.t.Fatalf("signing out: %d %s", got.status, got.body)
	}
	err := eventually(a.t.Context(), 30*time.Second, "the web server is told", func(context.Context) (bool, error) {
		return a.ask("/app/").status == http.StatusFound, nil
	})
	if err != nil {
		a.t.Error(err)
	}
}

// leavesByFrontChannel signs out at Sumun, whose page has the browser tell the web server.
func (a *apache) leavesByFrontChannel() {
	got, _ := a.tab.ask("POST", "/sign-out", url.Values{})
	a.loadsFrame(got)
}

// leavesForGood deletes the account, after which nobody is left to sign out.
func (a *apache) leavesForGood() {
	got, _ := a.tab.ask("POST", "/account/delete", url.Values{"confirm": {"yes"}})
	a.loadsFrame(got)
}

// loadsFrame loads what a page of Sumun's has the browser load.
func (a *apache) loadsFrame(page answer) {
	a.t.Helper()
	frames := iframeSource.FindAllSubmatch(page.body, -1)
	if len(frames) != 1 || !strings.HasSuffix(page.header.Get("Content-Security-Policy"), "; frame-src "+a.url) {
		a.t.Fatalf("no frame: %d %v %s", page.status, page.header, page.body)
	}
	if told := a.ask(html.UnescapeString(string(frames[0][1]))); told.status != http.StatusOK {
		a.t.Errorf("the frame: %d %s", told.status, told.body)
	}
}
