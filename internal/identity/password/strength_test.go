package password_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	zxcvbn "github.com/ccojocar/zxcvbn-go"
	"github.com/ccojocar/zxcvbn-go/matching"

	"github.com/sumunio/sumun/internal/identity/password"
)

// A password is as strong as zxcvbn says: whoever was refused one stays refused, and nobody is refused a good one.
func TestStrengthIsTheLibrarys(t *testing.T) {
	t.Parallel()
	words := []string{"suminn", "Sumin.Kim@example.com", "김수민"}
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{
		"password", "Passw0rd", "P@$$w0rd", "monkey", "dragon", "river", "lamp", "Smith", "kim", "suminn", "SUMINN", "김수민", "비밀", "é", "ß", "İ",
		"qwerty", "QwErTy", "asdfgh", "zaq12wsx", "aoeu", "7894561230", "!@#$%", "1q2w3e", "abc", "cba", "cba!", "xyz", "ZYX", "0123", "9876", "aaa", "aAa",
		"한한한", "1111", "13/05/1990", "1990-05-13", "5.13.90", "32/13/1990", "31 12 2019", "12_31_2026", "900513", "19900513", "13051990", "05131990",
		"99999999", "1234567", "4@8(", "|1!7", "l33t", "+%2", " ", "-", "_", "x", "7", "\\", "/",
	}
	for range 800 {
		var b strings.Builder
		for range 1 + random.IntN(5) {
			if random.IntN(3) == 0 {
				fmt.Fprintf(&b, "%c", rune(' '+random.IntN(95)))
			} else {
				b.WriteString(parts[random.IntN(len(parts))])
			}
		}
		text := b.String()
		if got, want := password.Score(text, words, false), zxcvbn.PasswordStrength(text, words, matching.FilterL33tMatcher).Score; got != want {
			t.Errorf("%q has score %d, want %d", text, got, want)
		}
		if password.Replaced(text) > 5 {
			continue // nobody waits for the library
		}
		if got, want := password.Score(text, words, true), zxcvbn.PasswordStrength(text, words).Score; got != want {
			t.Errorf("%q has score %d with leet, want %d", text, got, want)
		}
	}
}
