package httpd

import "errors"

// NewCertificates and its Get are tested with a clock of the test's own.
var NewCertificates = newCertificates

// Get is what a handshake calls.
var Get = (*certificates).get

// ChallengeAddr returns where the server answers ACME's HTTP-01 challenges.
func ChallengeAddr(s *Server) string { return s.endpoints[1].listener.Addr().String() }

// Unmarshal and ErrTwice are what a body is read with.
var (
	Unmarshal = unmarshal
	ErrTwice  = errTwice
)

// IsPublic is exposed to the tests of this package.
var IsPublic = isPublic

// ParseClientCert reads both headers.
func ParseClientCert(cert, chain []string) ([]byte, [][]byte, error) {
	der, err := parseClientCert(cert)
	rest, errRest := parseClientChain(chain)
	return der, rest, errors.Join(err, errRest)
}
