package fault

import "net/http"

// Kind says what sort of failure a fault is, and through that which HTTP status it has. The zero Kind is Internal, so that
// a fault nobody classified is treated as a mistake of ours.
type Kind uint8

// The kinds, each with the one status it is answered with.
const (
	Internal             Kind = iota // 500: a bug or a broken dependency; logged whole, shown as an id
	Malformed                        // 400: the request cannot be parsed
	Invalid                          // 422: the request is understood, its values are refused
	Unauthenticated                  // 401: no proof of identity, or one that no longer holds
	Forbidden                        // 403: identity is known and not enough
	NotFound                         // 404
	MethodNotAllowed                 // 405
	NotAcceptable                    // 406
	Conflict                         // 409: the state of the resource forbids it
	Gone                             // 410: was here, will not come back
	PreconditionFailed               // 412: If-Match named another version
	TooLarge                         // 413
	UnsupportedMedia                 // 415
	PreconditionRequired             // 428: If-Match is missing
	RateLimited                      // 429
	Unavailable                      // 503: try again later
	Timeout                          // 504: a deadline passed
	BadGateway                       // 502: a service behind us gave no answer that can be passed on
	HeaderTooLarge                   // 431
)

var kinds = [...]struct {
	status int
	name   string
}{
	Internal:             {http.StatusInternalServerError, "internal"},
	Malformed:            {http.StatusBadRequest, "malformed"},
	Invalid:              {http.StatusUnprocessableEntity, "invalid"},
	Unauthenticated:      {http.StatusUnauthorized, "unauthenticated"},
	Forbidden:            {http.StatusForbidden, "forbidden"},
	NotFound:             {http.StatusNotFound, "not_found"},
	MethodNotAllowed:     {http.StatusMethodNotAllowed, "method_not_allowed"},
	NotAcceptable:        {http.StatusNotAcceptable, "not_acceptable"},
	Conflict:             {http.StatusConflict, "conflict"},
	Gone:                 {http.StatusGone, "gone"},
	PreconditionFailed:   {http.StatusPreconditionFailed, "precondition_failed"},
	TooLarge:             {http.StatusRequestEntityTooLarge, "too_large"},
	UnsupportedMedia:     {http.StatusUnsupportedMediaType, "unsupported_media"},
	PreconditionRequired: {http.StatusPreconditionRequired, "precondition_required"},
	RateLimited:          {http.StatusTooManyRequests, "rate_limited"},
	Unavailable:          {http.StatusServiceUnavailable, "unavailable"},
	Timeout:              {http.StatusGatewayTimeout, "timeout"},
	BadGateway:           {http.StatusBadGateway, "bad_gateway"},
	HeaderTooLarge:       {http.StatusRequestHeaderFieldsTooLarge, "header_too_large"},
}

// Status returns the HTTP status of the kind; an unknown kind is 500.
func (k Kind) Status() int {
	if int(k) >= len(kinds) {
		return http.StatusInternalServerError
	}
	return kinds[k].status
}

// String returns the kind's name in snake_case, for logs and metrics.
func (k Kind) String() string {
	if int(k) >= len(kinds) {
		return kinds[Internal].name
	}
	return kinds[k].name
}

// KindOf returns the kind answered with the given HTTP status. A status no kind has becomes the nearest one: Malformed
// for another 4xx, Internal for the rest.
func KindOf(status int) Kind {
	for k, entry := range kinds {
		if entry.status == status {
			return Kind(k)
		}
	}
	if status >= 400 && status < 500 {
		return Malformed
	}
	return Internal
}
