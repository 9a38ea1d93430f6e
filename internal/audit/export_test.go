package audit

// Recursor parses a cursor and writes it again.
func Recursor(s string) (string, error) {
	p, err := parseCursor(s)
	if err != nil {
		return "", err
	}
	return p.cursor(), nil
}
