package auth

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxReplays is how many proofs a process remembers at once: more than its processors can verify in that time.
	maxReplays = 1 << 20
	replaySlot = 15 * time.Second
)

var errReplaysFull = errors.New("more proofs were used than this process can remember")

// memoryReplays remembers proofs in slots by when they may be forgotten, so that forgetting costs nothing. When it is full it
// says so, rather than to forget what could come again.
type memoryReplays struct {
	clock func() time.Time
	room  int

	mu    sync.Mutex
	slots map[int64]map[replayID]struct{}
	count int
}

// replayID is the beginning of an id, which is a hash: 132 bits of it.
type replayID [22]byte

func newMemoryReplays(clock func() time.Time) *memoryReplays {
	return &memoryReplays{clock: clock, room: maxReplays, slots: map[int64]map[replayID]struct{}{}}
}

// Once implements Replays.
func (m *memoryReplays) Once(_ context.Context, id string, keep time.Duration) (bool, error) {
	var short replayID
	copy(short[:], id)
	now := m.clock()
	last := now.Add(keep).UnixNano() / int64(replaySlot)
	m.mu.Lock()
	defer m.mu.Unlock()
	for slot, ids := range m.slots {
		if slot < now.UnixNano()/int64(replaySlot) {
			m.count -= len(ids)
			delete(m.slots, slot)
			continue
		}
		if _, used := ids[short]; used {
			return false, nil
		}
	}
	if m.count >= m.room {
		return false, errReplaysFull
	}
	ids := m.slots[last]
	if ids == nil {
		ids = map[replayID]struct{}{}
		m.slots[last] = ids
	}
	ids[short] = struct{}{}
	m.count++
	return true, nil
}
