package auth_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/sumunio/sumun/auth"
)

// FuzzMembers: what members finds in a document is what the standard library finds, or it is refused. A difference would be a token
// that says one thing to us and another to everybody else.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a" : [1,{"b":"}"}] , "c":"\\\""}`, `{"a":null,"a":1}`, `{"\u0061":1,"a":2}`, `{"a":"\ud800"}`,
		`[]`, `"a"`, `null`, `{"a":1}{}`, "{\"\xff\":1}", `{"a":-1.5e3,"b":true }`, `{"":{"":[[]]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		got := map[string]any{}
		err := auth.Members(document, func(name string, value json.RawMessage) error {
			var v any
			if err := json.Unmarshal(value, &v); err != nil {
				t.Fatalf("%q is no value: %v", value, err)
			}
			got[name] = v
			return nil
		})
		var want map[string]any
		if whole := json.Unmarshal(document, &want); err == nil && (whole != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("%q: got %v, want %v, %v", document, got, want, whole)
		} else if err != nil && whole == nil && want != nil && !strings.Contains(err.Error(), "two members") {
			t.Errorf("%q: refused: %v", document, err)
		}
	})
}
