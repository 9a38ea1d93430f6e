package identity

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// PostalAddress is where a person gets letters and parcels (OpenID Connect Core 1.0, section 5.1.1). The zero value is none.
type PostalAddress struct {
	Street     string `json:"street_address,omitempty"`
	Locality   string `json:"locality,omitempty"` // city
	Region     string `json:"region,omitempty"`   // province, state
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"`
}

// maxAddressRunes bounds each part of an address, in characters.
const maxAddressRunes = 200

// parsePhone checks an optional telephone number and returns it in E.164: a plus sign, the country's code and up to 15 digits in all.
// People may put spaces, hyphens, dots and brackets in between.
func parsePhone(s string) (string, error) {
	s = strings.TrimSpace(norm.NFKC.String(s))
	if s == "" {
		return "", nil
	}
	digits, international := strings.CutPrefix(s, "+")
	digits = strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -.()", r) {
			return -1
		}
		return r
	}, strings.ReplaceAll(digits, "(0)", "")) // which is dialled within the country only
	if !international || len(digits) < 7 || len(digits) > 15 || digits[0] == '0' || strings.Trim(digits, "0123456789") != "" {
		return "", invalid("phone_number", "phone_number.format",
			"A telephone number begins with + and the country's code, and has 15 digits at most: +82 10 1234 5678.")
	}
	return "+" + digits, nil
}

// parseAddress normalises an optional address (NFC, trimmed): each part may have 200 characters, none of them control characters.
func parseAddress(a PostalAddress) (PostalAddress, error) {
	var errs []error
	for name, part := range map[string]*string{
		"street_address": &a.Street, "locality": &a.Locality, "region": &a.Region, "postal_code": &a.PostalCode, "country": &a.Country,
	} {
		*part = strings.TrimSpace(norm.NFC.String(*part))
		switch {
		case utf8.RuneCountInString(*part) > maxAddressRunes:
			errs = append(errs, invalid(name, "postal_address.too_long", "Each part of an address may have 200 characters at most."))
		case !utf8.ValidString(*part) || strings.ContainsFunc(*part, hidden):
			errs = append(errs, invalid(name, "postal_address.characters", "The address holds characters that cannot be shown."))
		}
	}
	return a, joinFaults(errs...)
}

// addressText is an address as it is stored: JSON, "" for none.
func addressText(a PostalAddress) (string, error) {
	if a == (PostalAddress{}) {
		return "", nil
	}
	text, err := json.Marshal(a)
	return string(text), err
}

func readAddress(text string) (a PostalAddress, err error) {
	if text == "" {
		return a, nil
	}
	if err = json.Unmarshal([]byte(text), &a); err != nil {
		err = fmt.Errorf("the address of an account is damaged: %w", err)
	}
	return a, err
}
