package files

// NameOf is nameOf, which tests ask directly.
func NameOf(path string) (string, bool) { return nameOf(path) }
