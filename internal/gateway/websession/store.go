package websession

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrNotKept is returned by stores for a session that they do not have, or not any more.
var ErrNotKept = errors.New("session not kept")

// Store is where sealed pairs are kept. Its implementations are safe for concurrent use.
type Store interface {
	// Create keeps a session that is not there yet.
	Create(ctx context.Context, id string, sealed []byte, lifetime time.Duration) error
	// Get returns a session, or ErrNotKept.
	Get(ctx context.Context, id string) ([]byte, error)
	// Replace puts a later generation in the place of an earlier one. What is gone stays gone, and what is as late stays as it is.
	Replace(ctx context.Context, id string, generation int64, sealed []byte, lifetime time.Duration) error
	// Delete forgets a session.
	Delete(ctx context.Context, id string) error
}

// maxMemory bounds what a Memory keeps, in sessions of some two kilobytes.
const maxMemory = 100_000

// Memory is a store for one process. What it knows ends with it: people then sign in again.
type Memory struct {
	clock func() time.Time

	mu    sync.Mutex
	kept  map[string]kept
	sweep time.Time
}

type kept struct {
	sealed     []byte
	generation int64
	until      time.Time
}

// NewMemory returns an empty store.
func NewMemory(clock func() time.Time) *Memory {
	return &Memory{clock: clock, kept: map[string]kept{}}
}

// Create implements Store.
func (m *Memory) Create(_ context.Context, id string, sealed []byte, lifetime time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if now.After(m.sweep) || len(m.kept) >= maxMemory {
		for other, k := range m.kept {
			if !now.Before(k.until) {
				delete(m.kept, other)
			}
		}
		m.sweep = now.Add(time.Minute)
	}
	if len(m.kept) >= maxMemory {
		return errors.New("keep session: there are as many as fit; use Redis")
	}
	m.kept[id] = kept{sealed, 0, now.Add(lifetime)}
	return nil
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, id string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k, there := m.kept[id]; there && m.clock().Before(k.until) {
		return k.sealed, nil
	}
	return nil, ErrNotKept
}

// Replace implements Store.
func (m *Memory) Replace(_ context.Context, id string, generation int64, sealed []byte, lifetime time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if k, there := m.kept[id]; there && now.Before(k.until) && k.generation < generation {
		m.kept[id] = kept{sealed, generation, now.Add(lifetime)}
	}
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, id)
	return nil
}
