package auth

import (
	"context"
	"encoding/json"
)

// CountAddition makes every token look for itself in the set again, as after an addition.
func CountAddition(s *RevocationSet) { s.additions.Add(1) }

// Signature is the stage of Verify that opens a token and checks its signature. It returns the algorithm.
func Signature(ctx context.Context, v *Verifier, raw string) (algorithm string, err error) {
	s, err := open(raw)
	if err != nil {
		return "", err
	}
	key, err := v.authenticate(ctx, s)
	return key.Algorithm, err
}

// VerifyBytes checks a signature of any bytes with a published key, as that stage does.
func VerifyBytes(k Key, text, signature []byte) error { return k.verify(string(text), signature) }

// Watching returns how many names somebody waits for.
func Watching(s *RevocationSet) int {
	s.watchers.mu.Lock()
	defer s.watchers.mu.Unlock()
	return len(s.watchers.heads)
}

// ReadSnapshot reads the snapshot of a verifier and does nothing with it.
func ReadSnapshot(v *Verifier) error {
	_, err := v.snapshot.read()
	return err
}

// ParseSnapshot is what is made of a file's content.
func ParseSnapshot(v *Verifier, content []byte) error {
	_, err := v.snapshot.parse(content)
	return err
}

// RestoreSnapshot takes the body of a snapshot over, as if it were authentic.
func RestoreSnapshot(v *Verifier, body []byte) error {
	var snap snapshot
	if err := json.Unmarshal(body, &snap); err != nil {
		return err
	}
	return v.restore(&snap)
}

// HeaderAlgorithm is what a token says it is signed with.
func HeaderAlgorithm(raw string) (string, error) {
	s, err := open(raw)
	if err != nil {
		return "", err
	}
	return s.algorithm, nil
}

// Members is how headers and payloads are read.
func Members(document []byte, f func(name string, value json.RawMessage) error) error {
	return members(document, f)
}
