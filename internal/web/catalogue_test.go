package web_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/web"
)

func catalogue(t *testing.T, lang string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("messages/" + lang + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var messages map[string]string
	if err := json.Unmarshal(raw, &messages); err != nil {
		t.Fatal(err)
	}
	return messages
}

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

func placeholders(message string) []string {
	all := placeholder.FindAllString(message, -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// A sentence that exists in one language only, or lost a value in translation, is a hole in somebody's page. The only
// placeholder that a translation may drop is the number of a singular.
func TestCataloguesSayTheSame(t *testing.T) {
	t.Parallel()
	english, korean := catalogue(t, web.English), catalogue(t, web.Korean)
	for key, text := range english {
		other, ok := korean[key]
		switch {
		case !ok:
			t.Errorf("%s has no Korean", key)
		case !slices.Equal(placeholders(text), placeholders(other)):
			t.Errorf("%s: placeholders %v in English, %v in Korean", key, placeholders(text), placeholders(other))
		case strings.TrimSpace(text) == "" || strings.TrimSpace(other) == "":
			t.Errorf("%s is empty", key)
		}
	}
	for key := range korean {
		if _, ok := english[key]; !ok {
			t.Errorf("%s has no English", key)
		}
	}
}

// visible are the faults that a person, not a program, can run into, and what is said about single fields.
var visible = []string{
	"internal", "timeout", "request.too_large", "request.cross_origin", "request.malformed", "request.host",
	"database.unreachable", "database.busy", "database.full", "database.read_only", "database.damaged", "database.unconfirmed",
	"audit.cursor", "mail.address", "token.no_key",
	"session.cursor", "session.ended", "session.invalid_cookie", "session.limit_reached", "session.not_found",
	"session.overtaken", "session.unavailable", "oidc.request_refused", "oidc.request_over", "oidc.client_unknown", "oidc.user_code",
	"identity.invalid_credentials", "identity.too_many_attempts", "identity.too_many_requests", "identity.account_disabled",
	"identity.account_not_found", "identity.confirmation_invalid", "identity.password_refused", "identity.password_reused",
	"identity.current_password_wrong", "identity.user_name_taken", "identity.email_taken", "identity.invalid_field",
	"identity.version_changed", "identity.recent_sign_in_required", "identity.busy", "identity.form",
	"identity.sign_in_overtaken", "identity.password_elsewhere", "identity.directory_address", "replay.unavailable",
	"federation.provider_unknown", "federation.state", "federation.denied", "federation.expired", "federation.unavailable", "federation.refused",
	"federation.answer", "federation.connected_elsewhere", "federation.connected_already", "federation.not_connected", "federation.last_way",
	"federation.sign_up_closed", "federation.form", "federation.too_many_requests",
	"directory.unavailable", "directory.refused", "directory.password_expired", "directory.closed", "directory.not_now",
	"email.format", "email.unchanged", "name.required", "name.too_long", "name.characters", "user_name.format",
	"locale.unsupported", "confirm.required",
	"password.too_short", "password.too_long", "password.bad_characters", "password.guessable", "password.personal",
	"password.breached", "password.classes", "password.runs",
}

// An error that cannot be told leaves a person with nothing to do about it.
func TestVisibleFaultsAreTold(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, code := range visible {
		if !r.HasText("error." + code) {
			t.Errorf("%s is not in both catalogues", code)
		}
		if strings.HasPrefix(code, "password.") && !r.HasText("rule."+code) {
			t.Errorf("the rule behind %s cannot be told before somebody breaks it", code)
		}
	}
}

// composed are keys that are put together when a page is rendered; the rest appears literally somewhere.
var composed = regexp.MustCompile(`^(status|error|action|notice|mail|rule|duration|remedy|scope|field|device|password\.strength)\.|^api_reference\.in\.|\.title$`)

// Sentences nobody sees any more would be translated for ever.
func TestEveryMessageIsUsed(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !slices.Contains([]string{".html", ".txt", ".go"}, filepath.Ext(path)) || strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		sources.Write(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for key := range catalogue(t, web.English) {
		if !composed.MatchString(key) && !strings.Contains(sources.String(), `"`+key+`"`) {
			t.Errorf("%s is not used", key)
		}
	}
}

// Waiting times are read by people in a hurry.
func TestText(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, c := range []struct {
		lang string
		wait time.Duration
		want string
	}{
		{"en", 300 * time.Millisecond, "Try again in 1 second."},
		{"en", 90 * time.Second, "Try again in 90 seconds."},
		{"en", 121 * time.Second, "Try again in 3 minutes."},
		{"en", time.Hour, "Try again in 1 hour."},
		{"en", 24 * time.Hour, "Try again in 24 hours."},
		{"ko", 72 * time.Hour, "3일 후에 다시 시도해 주세요."},
		{"ko", 15 * time.Minute, "15분 후에 다시 시도해 주세요."},
		{"xx", time.Minute, "Try again in 1 minute."},
	} {
		if got := r.Text(c.lang, "error.retry_after", "after", c.wait); got != c.want {
			t.Errorf("%s %v: got %q, want %q", c.lang, c.wait, got, c.want)
		}
	}
	if got := r.Text("ko", "mail.link_until", "until", at); !strings.Contains(got, "2026년 3월 9일 05:30 (UTC)") {
		t.Errorf("a time reads %q", got)
	}
	if got := r.Text("en", "no.such.key"); got != "no.such.key" {
		t.Errorf("a missing key reads %q", got)
	}
}
