package cache

import "net/http"

// For fuzzing.
var (
	ParseControl = parseControl
	VaryNames    = varyNames
	ListsTag     = listsTag
	Codings      = codings
)

// Times are those of directives.
func (d directives) Times() []int64 {
	return []int64{int64(d.maxAge), int64(d.sMaxAge), int64(d.minFresh), int64(d.maxStale), int64(d.staleWhileRevalidate), int64(d.staleIfError)}
}

// NoStore says whether it is there.
func (d directives) NoStore() bool { return d.noStore }

// Has is what decides about 304.
func Has(request, answer http.Header) bool { return has(request, answer) }
