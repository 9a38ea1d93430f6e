package keyring

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed value is a version (1 byte), the id of the master key (4 bytes), a random nonce (24 bytes) and the ciphertext
// with its tag. It is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): its nonces are long enough to be drawn at random for
// as long as a master key lives, where AES-GCM allows 2^32 values (NIST SP 800-38D, section 8.3). What is authenticated
// besides the plaintext is version, id and purpose.
const (
	sealVersion = 1
	headerSize  = 1 + len(masterID{})

	masterKeySize = chacha20poly1305.KeySize
	// Overhead is by how many bytes a sealed value is longer than its plaintext.
	Overhead = headerSize + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
)

// ErrSealed says that a value cannot be opened: it is damaged, was sealed for another purpose, or under a master key that is
// not configured.
var ErrSealed = errors.New("sealed value cannot be opened")

// masterID tells master keys apart: the beginning of the key's SHA-256. It is no secret.
type masterID [4]byte

// String implements fmt.Stringer.
func (id masterID) String() string { return hex.EncodeToString(id[:]) }

type masterKey struct {
	id   masterID
	aead cipher.AEAD
}

func newMasterKey(text string) (masterKey, error) {
	key, err := parseKey(text)
	if err != nil {
		return masterKey{}, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return masterKey{}, err
	}
	sum := sha256.Sum256(key)
	return masterKey{id: masterID(sum[:4]), aead: aead}, nil
}

// Seal encrypts plain under the master key. Only Unseal with the same purpose opens it. The result is Overhead bytes longer.
func (k *Keyring) Seal(purpose string, plain []byte) ([]byte, error) {
	sealed := make([]byte, headerSize+chacha20poly1305.NonceSizeX, len(plain)+Overhead)
	sealed[0] = sealVersion
	copy(sealed[1:], k.master.id[:])
	nonce := sealed[headerSize:]
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return k.master.aead.Seal(sealed, nonce, plain, authenticated(sealed, purpose)), nil
}

// Unseal decrypts what Seal has made, under the current or a previous master key. Anything else is ErrSealed.
func (k *Keyring) Unseal(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != sealVersion {
		return nil, ErrSealed
	}
	master, ok := k.masters[sealedBy(sealed)]
	if !ok {
		return nil, fmt.Errorf("%w: master key %s is not configured", ErrSealed, sealedBy(sealed))
	}
	nonce, ciphertext := sealed[headerSize:headerSize+chacha20poly1305.NonceSizeX], sealed[headerSize+chacha20poly1305.NonceSizeX:]
	plain, err := master.aead.Open(nil, nonce, ciphertext, authenticated(sealed, purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// Stale reports whether a sealed value should be sealed anew, as the master key has been replaced since.
func (k *Keyring) Stale(sealed []byte) bool {
	return len(sealed) >= Overhead && sealedBy(sealed) != k.master.id
}

// sealedBy returns the id of the master key in a sealed value that is long enough, otherwise an id of zeros.
func sealedBy(sealed []byte) (id masterID) {
	if len(sealed) >= headerSize {
		id = masterID(sealed[1:headerSize])
	}
	return id
}

func authenticated(sealed []byte, purpose string) []byte {
	return append(append(make([]byte, 0, headerSize+len(purpose)), sealed[:headerSize]...), purpose...)
}
