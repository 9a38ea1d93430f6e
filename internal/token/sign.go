package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// signatureRoom is what the longest signature, of RSA, and the dots take in a token.
	signatureRoom = rsaBits/6 + 3
	// coordinate is the size of either half of an ES256 signature in bytes (RFC 7518 section 3.4).
	coordinate = 32
)

// header is that of a token (RFC 7515 section 4.1).
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// sign returns the compact serialisation (RFC 7515 section 7.1) of claims, as a token of that type. Every refresh signs: it is put together
// here, without the maps and copies of jwt.Token.
func (k *signingKey) sign(kind string, claims any) (string, error) {
	head, err := json.Marshal(header{k.algorithm, k.id, kind})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding
	text := make([]byte, 0, b64.EncodedLen(len(head))+b64.EncodedLen(len(payload))+signatureRoom)
	text = append(b64.AppendEncode(text, head), '.')
	text = b64.AppendEncode(text, payload)
	signature, err := k.signature(text)
	if err != nil {
		return "", err
	}
	return string(b64.AppendEncode(append(text, '.'), signature)), nil
}

// signature signs ES256 deterministically (RFC 6979), as RFC 8725 section 3.2 asks: a weak source of random numbers then gives no key
// away, and it takes a fifth less time.
func (k *signingKey) signature(text []byte) ([]byte, error) {
	private, ok := k.private.(*ecdsa.PrivateKey)
	if !ok {
		return jwt.GetSigningMethod(k.algorithm).Sign(string(text), k.private)
	}
	digest := sha256.Sum256(text)
	der, err := private.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return fixedSize(der)
}

// fixedSize turns the ASN.1 form of an ES256 signature into that of RFC 7518 section 3.4: R and S, each of 32 bytes.
func fixedSize(der []byte) ([]byte, error) {
	var r, s []byte
	var pair cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1Integer(&r) || !pair.ReadASN1Integer(&s) ||
		len(r) > coordinate || len(s) > coordinate {
		return nil, errors.New("the signature has an unknown form")
	}
	signature := make([]byte, 2*coordinate)
	copy(signature[coordinate-len(r):], r)
	copy(signature[2*coordinate-len(s):], s)
	return signature, nil
}
