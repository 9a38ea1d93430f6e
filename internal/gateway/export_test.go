package gateway

import "net/url"

// Canonical is canonical, which tests ask directly.
func Canonical(u *url.URL) (decoded, escaped string, err error) { return canonical(u) }
