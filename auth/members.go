package auth

import (
	"encoding/json"
	"errors"
	"fmt"
)

// members calls f for each member of a JSON object, in order. It refuses what two readers could read differently: two members of
// one name, and text after the object (RFC 7515 section 4, RFC 7519 section 4). Names are compared exactly.
func members(document []byte, f func(name string, value json.RawMessage) error) error {
	if !json.Valid(document) {
		return errors.New("not JSON")
	}
	at := space(document, 0) // from here on the syntax is known to be right, and so is every index
	if document[at] != '{' {
		return errors.New("not a JSON object")
	}
	seen := make(map[string]struct{}, 16)
	for at = space(document, at+1); document[at] != '}'; at = space(document, at) {
		if document[at] == ',' {
			at = space(document, at+1)
		}
		end := valueEnd(document, at)
		var name string
		if err := text(document[at:end], &name); err != nil {
			return err
		}
		if _, twice := seen[name]; twice {
			return fmt.Errorf("two members are called %q", name)
		}
		seen[name] = struct{}{}
		at = space(document, space(document, end)+1) // past the colon
		end = valueEnd(document, at)
		if err := f(name, document[at:end]); err != nil {
			return fmt.Errorf("member %q: %w", name, err)
		}
		at = end
	}
	return nil
}

// space returns the index of the first byte from at that is no white space.
func space(document []byte, at int) int {
	for document[at] == ' ' || document[at] == '\t' || document[at] == '\n' || document[at] == '\r' {
		at++
	}
	return at
}

// valueEnd returns the index after the value that begins at at.
func valueEnd(document []byte, at int) int {
	depth := 0
	for ; at < len(document); at++ {
		switch c := document[at]; {
		case c == '"':
			for at++; document[at] != '"'; at++ {
				if document[at] == '\\' {
					at++
				}
			}
			if depth == 0 {
				return at + 1
			}
		case c == '{' || c == '[':
			depth++
		case (c == '}' || c == ']') && depth == 0: // of the object around it
			return at
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return at + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ':'):
			return at
		}
	}
	return at
}

// text reads a JSON string. Null leaves s as it is. Strings without escapes, which are almost all, are not parsed again.
func text(value json.RawMessage, s *string) error {
	for i, c := range value {
		if c == '\\' || c >= 0x80 || (c == '"') != (i == 0 || i == len(value)-1) {
			return json.Unmarshal(value, s)
		}
	}
	if len(value) < 2 {
		return json.Unmarshal(value, s)
	}
	*s = string(value[1 : len(value)-1])
	return nil
}
