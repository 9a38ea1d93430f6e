package httpd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd"
)

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// Of two members with one name encoding/json takes the last, and a filter in front of us may have looked at the first.
func TestMembersThatAreThereTwiceAreRefused(t *testing.T) {
	t.Parallel()
	x, _ := api(nil)
	const more = `,"password":"long enough"}`
	for body, status := range map[string]int{
		`{"name":"Kim"` + more: 201,
		`{"name":"a: \"b\": \\","address":{"city":"name"}` + more:              201,
		`{"name":"Kim","address":{"city":"a"},"tags":[":",":,\":\""]` + more:   201,
		`{"name":"Kim","name":"Lee"` + more:                                    400,
		`{"name":"Kim","n\u0061me":"Lee"` + more:                               400,
		`{"name":"Kim","address":{"city":"a","city":"a"}` + more:               400,
		`{"name":"Kim","address":{"city":"a"},"address":{"city":"b"}` + more:   400,
		`{"name":"Kim","tags":[{"a":1,"a":2}]` + more:                          400,
		`{"password":"S3CRET and more","name":"Kim","password":"long enough"}`: 400,
	} {
		w := x.do(post("/v1/things", "application/json", body))
		if w.Code != status {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
			continue
		}
		if status == 400 {
			if p := problemOf(t, w); p.Code != "request.malformed" || !strings.Contains(p.Detail, "one name") || strings.Contains(w.Body.String(), "S3CRET") {
				t.Errorf("%s: %s", body, w.Body)
			}
		}
	}
}

// FuzzUnmarshal compares with the slow way: reading token by token.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":{"a":[{"a":2},{"a":":"}]}}`, `{"a":1,"\u0061":2}`, `[{"\\":"\"","\\":1}]`, `":"`, `{"\xff":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var v any
		err := httpd.Unmarshal(text, &v)
		if valid := json.Valid(text); valid != (err == nil || errors.Is(err, httpd.ErrTwice)) {
			t.Fatalf("%q: valid is %v, but %v", text, valid, err)
		} else if valid && twice(t, json.NewDecoder(bytes.NewReader(text))) != (err != nil) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// twice reports whether an object in the next value has two members of one name.
func twice(t *testing.T, d *json.Decoder) (found bool) {
	t.Helper()
	next := func() json.Token {
		token, err := d.Token()
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return token
	}
	switch next() {
	case json.Delim('['):
		for d.More() {
			found = twice(t, d) || found
		}
		next()
	case json.Delim('{'):
		names := map[json.Token]bool{}
		for d.More() {
			name := next()
			found = names[name] || found
			names[name] = true
			found = twice(t, d) || found
		}
		next()
	}
	return found
}

var body200 = []byte(`{"identifier":"kim.minji@example.com","password":"correct horse battery staple: 100%","device":{"label":"Chrome on Windows","model":"x"},"scope":["read","write"],"client_id":"shop","remember_me":true}`)

// BenchmarkUnmarshal is the price of the look for members that are there twice, beside the decoding that huma needs anyway.
func BenchmarkUnmarshal(b *testing.B) {
	for name, unmarshal := range map[string]func([]byte, any) error{"plain": json.Unmarshal, "checked": httpd.Unmarshal} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var v any
				if err := unmarshal(body200, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
