package federation

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"time"

	"golang.org/x/oauth2"
)

// intent is what a person goes to a provider for.
type intent string

const (
	intentSignIn         intent = "sign_in"
	intentConnect        intent = "connect"
	intentReauthenticate intent = "reauthenticate"
)

// flow is a sign-in that was begun in a browser, which keeps it, sealed, in a cookie: beginning one costs us nothing to remember. Its
// state is what the provider sends back.
type flow struct {
	State    string    `json:"state"`
	Provider string    `json:"provider"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"` // RFC 7636
	Intent   intent    `json:"intent"`
	Account  string    `json:"account,omitempty"` // whose session asked, unless it is to sign in
	Session  string    `json:"session,omitempty"`
	ReturnTo string    `json:"return_to,omitempty"`
	Began    time.Time `json:"began"`
}

// flowLifetime is how long a person may take at the provider.
const flowLifetime = 10 * time.Minute

func newFlow(provider string, i intent, returnTo string, now time.Time) flow {
	return flow{State: rand.Text(), Provider: provider, Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(),
		Intent: i, ReturnTo: returnTo, Began: now}
}

// answeredBy reports whether an answer that came to a provider's address is to this flow.
func (f flow) answeredBy(provider, state string, now time.Time) bool {
	return f.State != "" && subtle.ConstantTimeCompare([]byte(f.State), []byte(state)) == 1 && f.Provider == provider &&
		now.Sub(f.Began) <= flowLifetime
}

// proved is an identity that opens no account yet, kept by the browser until its owner has decided what it is to open.
type proved struct {
	Identity Identity  `json:"identity"`
	ReturnTo string    `json:"return_to,omitempty"`
	At       time.Time `json:"at"`
}

// provedLifetime leaves time to wait for a mail.
const provedLifetime = time.Hour

// Sealer seals what browsers keep for us. *keyring.Keyring is one.
type Sealer interface {
	Seal(purpose string, plain []byte) ([]byte, error)
	Unseal(purpose string, sealed []byte) ([]byte, error)
}

// What is sealed for one purpose opens for no other.
const (
	sealFlow   = "federation:flow"
	sealProved = "federation:proved"
	sealAnswer = "federation:answer"
)

func seal(s Sealer, purpose string, v any) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sealed, err := s.Seal(purpose, plain)
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

// maxSealed bounds what is opened, in bytes: more than a cookie holds, and than a posted answer makes.
const maxSealed = 32 << 10

// unseal answers ErrState for what was not sealed here, for this purpose.
func unseal(s Sealer, purpose, text string, into any) error {
	if len(text) > maxSealed {
		return ErrState
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return ErrState
	}
	plain, err := s.Unseal(purpose, sealed)
	if err != nil {
		return ErrState.Wrap(err)
	}
	if err := json.Unmarshal(plain, into); err != nil {
		return ErrState.Wrap(err)
	}
	return nil
}
