package identity

// IfMatch lets the fuzz target reach the parser of If-Match.
func IfMatch(header string) (int64, error) { return ifMatch(header) }

// ParsePerson lets the fuzz target reach the parsers of what people call themselves.
func ParsePerson(name, userName, locale string) (n, u, key, l string, err error) {
	n, nameErr := parseName(name)
	u, key, userErr := parseUserName(userName)
	l, localeErr := parseLocale(locale)
	return n, u, key, l, joinFaults(nameErr, userErr, localeErr)
}

// IdentifierKey lets the fuzz target reach the parser of what is typed to sign in.
func IdentifierKey(typed string) (key, arg string) {
	id := parseIdentifier(typed)
	return id.key, id.arg
}

// CookieValue lets the fuzz target reach the parser of the Cookie header.
func CookieValue(header, name string) string { return cookieValue(header, name) }

// ParseContact lets the fuzz target reach the parsers of where people are reached.
func ParseContact(phone string, address PostalAddress) (string, PostalAddress, error) {
	p, phoneErr := parsePhone(phone)
	a, addressErr := parseAddress(address)
	return p, a, joinFaults(phoneErr, addressErr)
}
