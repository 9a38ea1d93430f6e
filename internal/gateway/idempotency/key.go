package idempotency

import "strings"

// maxKey bounds keys, in characters.
const maxKey = 255

// ParseKey returns the key of the values of the header Idempotency-Key. It is a string of RFC 9651 (section 3.3.3) without
// parameters, "like this", and since most clients leave the quotes out, also the bare characters between them. Both spell one key.
// "" means that there is none; the error is ErrKey.
func ParseKey(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", ErrKey.With("There is more than one header Idempotency-Key.")
	}
	text := strings.Trim(values[0], " \t")
	key, err := text, error(nil)
	if strings.HasPrefix(text, `"`) {
		if key, err = unquote(text); err != nil {
			return "", err
		}
	} else if strings.ContainsAny(text, "\"\\,; ") {
		return "", ErrKey
	}
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", ErrKey
	}
	return key, nil
}

// unquote reads a quoted string, all of it.
func unquote(text string) (string, error) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' && i == len(text)-1:
			return b.String(), nil
		case c == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
			b.WriteByte(text[i])
		case c == '"' || c == '\\':
			return "", ErrKey
		default:
			b.WriteByte(c)
		}
	}
	return "", ErrKey
}
