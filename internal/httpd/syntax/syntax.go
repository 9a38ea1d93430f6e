// Package syntax knows what the parts of an HTTP/1.1 message are made of. It is asked several times about every byte of a header, so it
// looks at eight of them at once where it can.
package syntax

// Token reports whether s is a token (RFC 9110, section 5.6.2), as methods and the names of fields are.
func Token(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

var tokens = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// Visible reports whether s is made of visible ASCII characters, as a target and a host are. Nothing is not.
func Visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// Text reports whether s can be the value of a field (RFC 9110, section 5.5): no control characters but tabs.
func Text(s string) bool {
	if len(s) < 8 {
		return shortText(s)
	}
	for i := 0; i < len(s); i += 8 {
		at := min(i, len(s)-8) // the last look overlaps the one before
		if oddIn(s[at:at+8]) && !shortText(s[at:at+8]) {
			return false
		}
	}
	return true
}

// oddIn reports whether one of eight bytes is a control character, a tab, or follows such a one.
func oddIn(b string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	_ = b[7]
	v := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
	del := v ^ ones*0x7f
	return ((v-ones*' ')&^v|(del-ones)&^del)&tops != 0
}

func shortText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// Trim returns s without the optional white space around it (RFC 9110, section 5.6.3).
func Trim(s string) string {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }
