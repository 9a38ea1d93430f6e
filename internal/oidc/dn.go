package oidc

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

var errDN = errors.New("not a distinguished name")

// attributeTypes are the names of RFC 4514, section 3, and those that OpenSSL and other programs print besides.
var attributeTypes = map[string]string{
	"CN": "2.5.4.3", "SERIALNUMBER": "2.5.4.5", "C": "2.5.4.6", "L": "2.5.4.7", "ST": "2.5.4.8", "STREET": "2.5.4.9", "O": "2.5.4.10",
	"OU": "2.5.4.11", "POSTALCODE": "2.5.4.17", "DC": "0.9.2342.19200300.100.1.25", "UID": "0.9.2342.19200300.100.1.1",
	"E": "1.2.840.113549.1.9.1", "EMAILADDRESS": "1.2.840.113549.1.9.1",
}

// attribute is one type and value of a name.
type attribute struct{ oid, value string }

// parseDN reads a distinguished name (RFC 4514): its parts, the last one of the certificate first, each with one attribute or several.
func parseDN(text string) (parts [][]attribute, err error) {
	for rest, more := text, true; more; {
		var part []attribute
		for plus := true; plus; {
			var a attribute
			var end byte
			if a, rest, end, err = parseAttribute(rest); err != nil {
				return nil, err
			}
			part = append(part, a)
			plus, more = end == '+', end == ','
			if end == 0 {
				more = false
			}
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// parseAttribute reads one type and value, and by what it ends: a comma, a plus sign or, with 0, the text.
func parseAttribute(text string) (a attribute, rest string, end byte, err error) {
	name, text, found := strings.Cut(text, "=")
	name = strings.Trim(name, " ")
	if a.oid = attributeTypes[strings.ToUpper(name)]; a.oid == "" {
		oid, err := x509.ParseOID(name)
		if err != nil {
			return attribute{}, "", 0, errDN
		}
		a.oid = oid.String()
	}
	if !found {
		return attribute{}, "", 0, errDN
	}
	text = strings.TrimLeft(text, " ")
	if strings.HasPrefix(text, "#") {
		return parseHexValue(a, text[1:])
	}
	var value []byte
	kept := 0 // what is before it does not end in a space that is only there
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ',' || c == '+':
			a.value = string(value[:kept])
			return a, text[i+1:], c, nil
		case c == '\\':
			b, width, err := unescape(text[i+1:])
			if err != nil {
				return attribute{}, "", 0, err
			}
			value = append(value, b)
			kept = len(value)
			i += width
		case strings.IndexByte("\";<>\x00", c) >= 0:
			return attribute{}, "", 0, errDN
		default:
			value = append(value, c)
			if c != ' ' {
				kept = len(value)
			}
		}
	}
	a.value = string(value[:kept])
	return a, "", 0, nil
}

// unescape reads what follows a backslash: a character that means something else without it, or two hexadecimal digits.
func unescape(text string) (b byte, width int, err error) {
	if text != "" && strings.IndexByte(` "#+,;<=>\`, text[0]) >= 0 {
		return text[0], 1, nil
	}
	if len(text) < 2 {
		return 0, 0, errDN
	}
	pair, err := hex.DecodeString(text[:2])
	if err != nil {
		return 0, 0, errDN
	}
	return pair[0], 2, nil
}

// parseHexValue reads a value that is written as its DER, which must be that of a text.
func parseHexValue(a attribute, text string) (_ attribute, rest string, end byte, err error) {
	digits := text
	if i := strings.IndexAny(text, ",+"); i >= 0 {
		digits, rest, end = text[:i], text[i+1:], text[i]
	}
	der, err := hex.DecodeString(strings.TrimRight(digits, " "))
	if err != nil {
		return attribute{}, "", 0, errDN
	}
	var value any
	left, err := asn1.Unmarshal(der, &value)
	text, isText := value.(string)
	if err != nil || len(left) > 0 || !isText {
		return attribute{}, "", 0, errDN
	}
	a.value = text
	return a, rest, end, nil
}

// isSubject reports whether a name, as parseDN reads it, is the subject of a certificate, given in DER. Values are compared letter by
// letter, which is stricter than directories are.
func isSubject(parts [][]attribute, raw []byte) bool {
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &subject); err != nil || len(rest) > 0 || len(subject) != len(parts) {
		return false
	}
	slices.Reverse(subject)
	return slices.EqualFunc(parts, subject, func(part []attribute, set pkix.RelativeDistinguishedNameSET) bool {
		var there []attribute
		for _, one := range set {
			value, isText := one.Value.(string)
			if !isText {
				return false
			}
			there = append(there, attribute{one.Type.String(), value})
		}
		if len(there) != len(part) {
			return false
		}
		for _, a := range part {
			i := slices.Index(there, a)
			if i < 0 {
				return false
			}
			there = slices.Delete(there, i, i+1)
		}
		return true
	})
}
