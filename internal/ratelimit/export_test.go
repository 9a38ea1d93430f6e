package ratelimit

// MaxKeys is the bound of a Memory.
const MaxKeys = maxKeys

// Len is how many keys are kept.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shards {
		m.shards[i].mu.Lock()
		n += len(m.shards[i].arrivals)
		m.shards[i].mu.Unlock()
	}
	return n
}
