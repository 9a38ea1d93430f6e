package oidc

// Exposed to the tests of this package.
var (
	CheckRedirect  = checkRedirect
	AllowsRedirect = Metadata.allowsRedirect
)
