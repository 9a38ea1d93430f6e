package apikey_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/apikey"
)

// A key that leaks must be found by a scanner, and one that was copied with a letter missing must be refused before anybody is asked.
func TestKey(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile("^" + apikey.Pattern + "$")
	seen := map[string]bool{}
	for range 100 {
		key := apikey.New()
		text := key.Reveal()
		if !pattern.MatchString(text) || seen[text] || seen[key.ID()] {
			t.Fatalf("key %s", text)
		}
		seen[text], seen[key.ID()] = true, true
		same, err := apikey.Parse(text)
		hash := key.Hash()
		if err != nil || same != key || !same.Is(hash[:]) || apikey.New().Is(hash[:]) || same.Is(nil) {
			t.Fatalf("%s: %v, %v", text, same, err)
		}
		if shown := fmt.Sprintf("%v %+v %#v %s", key, key, key, key); strings.Contains(shown, text) {
			t.Fatalf("it shows itself: %s", shown)
		}
	}
	text := apikey.New().Reveal()
	for i := range text {
		other := text[:i] + "x" + text[i+1:]
		if _, err := apikey.Parse(other); err == nil && other != text {
			t.Errorf("accepted with another letter at %d: %s", i, other)
		}
		if _, err := apikey.Parse(text[:i]); err == nil {
			t.Errorf("accepted %d letters of it", i)
		}
	}
	for _, other := range []string{"", " " + text, text + "\n", strings.ToUpper(text), "Sumun_" + text[6:]} {
		if _, err := apikey.Parse(other); err == nil {
			t.Errorf("accepted %q", other)
		}
	}
}

// What anybody sends must never be taken for a key that it is not, nor stop the gateway.
func FuzzParse(f *testing.F) {
	f.Add(apikey.New().Reveal())
	f.Add("sumun_")
	f.Add("sumun_aaaaaaaaaaaaaaaa_")
	pattern := regexp.MustCompile("^" + apikey.Pattern + "$")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := apikey.Parse(text)
		if err != nil {
			return
		}
		if !pattern.MatchString(text) || key.Reveal() != text || !strings.Contains(text, key.ID()) || !apikey.IsID(key.ID()) {
			t.Errorf("%q is read as %q", text, key.Reveal())
		}
	})
}
