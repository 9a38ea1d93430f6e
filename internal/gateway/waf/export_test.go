package waf

// Len is how many engines there are.
func (e *Engines) Len() int { return len(e.made) }
