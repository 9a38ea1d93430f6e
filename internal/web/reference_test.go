package web_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/web"
)

// Developers paste the examples into a shell; they must be whole.
func TestAPIReference(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	reference, err := web.NewAPIReference(document)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	if err := setup(t).Page(rec, request(t, "en", "/docs", false), http.StatusOK, reference); err != nil {
		t.Fatal(err)
	}
	body := strings.NewReplacer("&#39;", "'", "&#34;", `"`).Replace(rec.Body.String())
	for _, want := range []string{
		"curl -X POST 'https://id.example.com/v1/sessions' \\\n  -H 'Content-Type: application/json' \\\n  -d '{\n" +
			"  \"identifier\": \"kim@example.com\",\n  \"password\": \"correct horse battery\",\n  \"transport\": \"body\"\n}'",
		"curl 'https://id.example.com/v1/sessions' \\\n  -H \"Authorization: Bearer $ACCESS_TOKEN\"</code>",
		`id="end-session"`, `id="schema-Session"`, `<a href="#schema-Tokens">`, "at least 1, at most 100, default 20",
		`"token_type": "Bearer"`, "deprecated",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the reference lacks %s", want)
		}
	}
	if strings.Contains(body, "$schema") {
		t.Error("the reference shows $schema")
	}
	if strings.Index(body, ">Sessions</h2>") > strings.Index(body, ">Users</h2>") {
		t.Error("groups are not in the order of the document")
	}
}

func TestAPIReferenceOfDamagedDocument(t *testing.T) {
	t.Parallel()
	for _, document := range []string{"", "[]", `{"paths":{"/a":{"get":[]}}}`, `{"paths":{"/a":{"parameters":1}}}`} {
		if _, err := web.NewAPIReference([]byte(document)); err == nil {
			t.Errorf("%q was read", document)
		}
	}
}

// The page must come out, and end, whatever refers to whatever.
func FuzzAPIReference(f *testing.F) {
	document, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(document)
	f.Add([]byte(`{"components":{"schemas":{"A":{"allOf":[{"$ref":"#/A"},{"$ref":"#/A"}],"properties":{"a":{"$ref":"#/A"},"b":{"$ref":"#/A"}}}}},` +
		`"paths":{"/a":{"post":{"requestBody":{"content":{"x":{"schema":{"$ref":"#/A"}}}}}}}}`))
	f.Add([]byte(`{"components":{"schemas":{"A":{"items":{"$ref":"#/B"}},"B":{"$ref":"#/A"},"C":null}},"paths":{"/a":{"get":{"parameters":[{"$ref":"x"}]}}}}`))
	r, err := web.New(web.DefaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		reference, err := web.NewAPIReference(document)
		if err != nil {
			return
		}
		if err := r.Page(httptest.NewRecorder(), request(t, "en", "/docs", false), http.StatusOK, reference); err != nil {
			t.Fatal(err)
		}
	})
}
