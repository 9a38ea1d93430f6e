// Package reference keeps what is written about Sumun in step with what Sumun is.
//
// It owns the references under docs/reference, which are generated from the program, and the checks that what people wrote by
// hand still holds: that the tour of the README works as written, in both languages, that no link leads nowhere, and that no
// text names a flag, a variable, a configuration key or an error code that does not exist. "go test ./test/reference -update"
// writes the references; without the flag a reference that is not current is a failure.
//
// It refuses to judge style.
package reference
