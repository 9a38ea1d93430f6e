package password

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sumunio/sumun/internal/fault"
)

// The sets of rules, as in Config.
const (
	RulesNIST = "nist"
	RulesKISA = "kisa"
)

// Person is what is known about whose password it is.
type Person struct {
	Email, UserName, Name string // each may be empty
}

// Rule is something a password has to be. Codes are permanent; a page translates them, and Message is the English text.
type Rule struct {
	// Code is one of the constants below.
	Code string
	// Args are pairs of a placeholder's name and its value, as in "min", 8.
	Args []any
}

// Violation is a rule that a password breaks.
type Violation = Rule

// The rules' codes with their arguments.
const (
	TooShort      = "password.too_short"      // min
	TooLong       = "password.too_long"       // max
	BadCharacters = "password.bad_characters" // no arguments
	Guessable     = "password.guessable"      // no arguments
	Personal      = "password.personal"       // no arguments
	Breached      = "password.breached"       // no arguments
	Classes       = "password.classes"        // min_two, min_three: the least characters of two and of three classes
	Runs          = "password.runs"           // length: of the shortest run that is refused
)

var messages = map[string]string{
	TooShort:      "Use at least {min} characters.",
	TooLong:       "Use at most {max} characters.",
	BadCharacters: "Use only characters that can be seen, and spaces.",
	Guessable:     "Use something that is hard to guess, such as a few unrelated words.",
	Personal:      "Do not use your name, user name or e-mail address.",
	Breached:      "Do not use a password that is known from a data breach.",
	Classes: "Mix upper case, lower case, digits and symbols: three of these with at least {min_three} characters, or two with at " +
		"least {min_two}.",
	Runs: "Do not use {length} or more characters that are the same or follow each other, such as aaa, 123 or qwe.",
}

// Message returns the rule in English.
func (r Rule) Message() string {
	text := messages[r.Code]
	for i := 0; i+1 < len(r.Args); i += 2 {
		text = strings.ReplaceAll(text, fmt.Sprintf("{%v}", r.Args[i]), fmt.Sprint(r.Args[i+1]))
	}
	return text
}

// Field returns the violation for a problem document.
func (r Rule) Field(name string) fault.Field {
	return fault.Field{Name: name, Code: r.Code, Message: r.Message()}
}

// candidate is a password to be judged.
type candidate struct {
	valid  bool   // UTF-8
	text   string // normalised
	length int    // characters
	lower  string
	person Person
}

// check is a rule and whether a candidate keeps it.
type check struct {
	Rule
	keeps func(candidate) bool
}

// Policy judges new passwords. It is safe for concurrent use.
type Policy struct {
	checks   []check
	breached breachedList
}

// OpenPolicy makes a policy and opens its list of breached passwords, if it has one. Trouble with that list later on is
// logged, once a minute at most, and the rule then passes: a damaged file must not keep everyone from choosing a password.
func OpenPolicy(cfg PolicyConfig, log *slog.Logger) (*Policy, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	p := &Policy{checks: []check{
		{Rule{Code: TooShort, Args: []any{"min", cfg.MinLength}}, func(c candidate) bool { return c.length >= cfg.MinLength }},
		{Rule{Code: TooLong, Args: []any{"max", cfg.MaxLength}}, func(c candidate) bool {
			return c.length <= cfg.MaxLength && len(c.text) <= MaxBytes
		}},
		{Rule{Code: BadCharacters}, goodCharacters},
	}}
	if cfg.Rules == RulesKISA {
		p.checks = append(p.checks, kisaChecks(cfg)...)
	} else {
		p.checks = append(p.checks, nistChecks(cfg)...)
	}
	if cfg.BreachedFile == "" {
		return p, nil
	}
	list, err := openBreached(cfg.BreachedFile, cfg.MinLength)
	if err != nil {
		return nil, fmt.Errorf("password: open the list of breached passwords: %w", err)
	}
	p.breached = list
	var trouble trouble
	p.checks = append(p.checks, check{Rule{Code: Breached}, func(c candidate) bool {
		found, err := list.contains(c.text)
		if err != nil && trouble.tell() {
			log.Error("breached passwords cannot be looked up", "error", err)
		}
		return !found
	}})
	return p, nil
}

// trouble is told once a minute, however many passwords meet it.
type trouble struct {
	mu   sync.Mutex
	told time.Time
}

func (t *trouble) tell() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.told) < time.Minute {
		return false
	}
	t.told = time.Now()
	return true
}

// Close closes the list of breached passwords.
func (p *Policy) Close() error {
	if p.breached == nil {
		return nil
	}
	return p.breached.Close()
}

// Check returns every rule that the password breaks, none when it is good. It takes up to some milliseconds.
func (p *Policy) Check(pw string, person Person) []Violation {
	// Nothing that long is looked at: normalising and lower-casing it would be work for nothing.
	if len(pw) > 4*MaxBytes {
		return []Violation{p.checks[1].Rule}
	}
	c := candidate{valid: utf8.ValidString(pw), text: normalise(pw), person: person}
	c.length = utf8.RuneCountInString(c.text)
	c.lower = strings.ToLower(c.text)
	var broken []Violation
	for _, check := range p.checks {
		if !check.keeps(c) {
			broken = append(broken, check.Rule)
		}
	}
	return broken
}

// Rules returns the rules in the order in which to show them, before a password is chosen.
func (p *Policy) Rules() []Rule {
	rules := make([]Rule, len(p.checks))
	for i, c := range p.checks {
		rules[i] = c.Rule
	}
	return rules
}

// goodCharacters refuses what cannot be typed again on purpose: control characters and broken UTF-8.
func goodCharacters(c candidate) bool {
	return c.valid && !strings.ContainsFunc(c.text, unicode.IsControl)
}

func isSpace(r rune) bool { return r != ' ' && unicode.Is(unicode.Zs, r) }

// words returns what identifies a person, in lower case: user name, address and its local part, the name and its words.
// Those of fewer than least bytes are left out, and single characters always: they are in too many passwords by chance. (A
// Hangul syllable has three bytes, and says as much as several letters.)
func (p Person) words(least int) []string {
	name, email := fold(p.Name), fold(p.Email)
	local, _, _ := strings.Cut(email, "@")
	parts := strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	all := append([]string{fold(p.UserName), email, local, strings.Join(parts, "")}, parts...)
	var words []string
	for _, w := range all {
		if len(w) >= least && utf8.RuneCountInString(w) > 1 {
			words = append(words, w)
		}
	}
	return words
}

// fold makes texts comparable. What is longer than a password can be is cut.
func fold(s string) string { return strings.ToLower(normalise(s[:min(len(s), MaxBytes)])) }
