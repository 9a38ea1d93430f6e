package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	snapshotMagic        = "sumun-auth-snapshot-1\n"
	minSnapshotKey       = 32
	maxSnapshotSize      = 512 << 20
	defaultSnapshotAge   = 24 * time.Hour
	defaultSnapshotEvery = time.Minute
	// snapshotSkew is how far in the future a snapshot may have been written, by clocks that were set right since.
	snapshotSkew = 5 * time.Minute
)

// SnapshotConfig says where a [Verifier] keeps what it knows: the issuer's keys, what has been revoked, and how old that is.
// The file is written by [Verifier.Run] and read by [Verifier.Load].
type SnapshotConfig struct {
	// Path of the file. Its folder is this service's own. Empty: no snapshot.
	Path string
	// Key authenticates the file: whoever can write it and knows the key chooses whose tokens are good. At least 32 random bytes,
	// the same after a restart, and kept where the service keeps its other secrets: not beside the file. Required.
	Key []byte
	// MaxAge is how old a snapshot may be to be used. Zero: 24 hours.
	MaxAge time.Duration
	// Every is how often it is written where nothing is revoked. Zero: once a minute. A revocation is in it a moment later.
	Every time.Duration
}

// The reasons for which a snapshot is not used.
var (
	// ErrSnapshotForged: the file is damaged, or was written with another key.
	ErrSnapshotForged = errors.New("the snapshot is damaged, or was written with another key")
	// ErrSnapshotForeign: the file is about another issuer.
	ErrSnapshotForeign = errors.New("the snapshot is about another issuer")
	// ErrSnapshotAge: the file is older than is allowed, or from the future.
	ErrSnapshotAge = errors.New("the snapshot is too old, or from the future")
)

func (c *SnapshotConfig) check() error {
	if c.Path == "" {
		return nil
	}
	var faults []error
	if len(c.Key) < minSnapshotKey {
		faults = append(faults, fmt.Errorf("auth.Config.Snapshot.Key has %d bytes: use at least %d random ones", len(c.Key), minSnapshotKey))
	}
	if c.MaxAge < 0 || c.Every < 0 {
		faults = append(faults, errors.New("auth.Config.Snapshot: MaxAge and Every cannot be negative: use 0 for the default"))
	}
	if c.MaxAge == 0 {
		c.MaxAge = defaultSnapshotAge
	}
	if c.Every == 0 {
		c.Every = defaultSnapshotEvery
	}
	c.Key = bytes.Clone(c.Key)
	return errors.Join(faults...)
}

// snapshot is the content of the file. Times are Unix milliseconds.
type snapshot struct {
	Issuer      string          `json:"issuer"`
	Written     int64           `json:"written"`
	Keys        json.RawMessage `json:"keys,omitempty"` // the JWK Set as it was published
	KeysFetched int64           `json:"keys_fetched,omitempty"`
	Position    string          `json:"position,omitempty"`
	Synced      int64           `json:"synced,omitempty"` // zero: the feed was never read
	Revocations []snapshotEntry `json:"revocations,omitempty"`
}

type snapshotEntry struct {
	ID    string `json:"id"`
	Epoch int64  `json:"epoch,omitempty"`
	Until int64  `json:"until"`
}

// snapshotFile is a line that names the format, 32 bytes of HMAC-SHA-256 over that line and all that follows, and JSON.
type snapshotFile struct {
	cfg    SnapshotConfig
	issuer string
	clock  func() time.Time
	mu     sync.Mutex // writers
}

// read returns the snapshot, nil where there is no file, or why it is not used.
func (s *snapshotFile) read() (*snapshot, error) {
	file, err := os.Open(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSnapshotSize))
	if err != nil {
		return nil, err
	}
	snap, err := s.parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.cfg.Path, err)
	}
	return snap, nil
}

// parse believes nothing before the HMAC is right.
func (s *snapshotFile) parse(content []byte) (*snapshot, error) {
	rest, ok := bytes.CutPrefix(content, []byte(snapshotMagic))
	if !ok || len(rest) < sha256.Size {
		return nil, ErrSnapshotForged
	}
	sum, body := rest[:sha256.Size], rest[sha256.Size:]
	if !hmac.Equal(sum, s.sum(body)) {
		return nil, ErrSnapshotForged
	}
	var snap snapshot
	if err := json.Unmarshal(body, &snap); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshotForged, err)
	}
	if snap.Issuer != s.issuer {
		return nil, fmt.Errorf("%w, %q", ErrSnapshotForeign, snap.Issuer)
	}
	if age := s.clock().Sub(time.UnixMilli(snap.Written)); age > s.cfg.MaxAge || age < -snapshotSkew {
		return nil, fmt.Errorf("%w: %v", ErrSnapshotAge, age.Round(time.Second))
	}
	return &snap, nil
}

func (s *snapshotFile) sum(body []byte) []byte {
	mac := hmac.New(sha256.New, s.cfg.Key)
	mac.Write([]byte(snapshotMagic))
	mac.Write(body)
	return mac.Sum(nil)
}

func (s *snapshotFile) format(snap *snapshot) ([]byte, error) {
	body, err := json.Marshal(snap)
	if err != nil {
		return nil, err
	}
	content := make([]byte, 0, len(snapshotMagic)+sha256.Size+len(body))
	content = append(content, snapshotMagic...)
	content = append(content, s.sum(body)...)
	return append(content, body...), nil
}

// write replaces the file as a whole: after a crash there is the old one or the new one.
func (s *snapshotFile) write(snap *snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, err := s.format(snap)
	if err != nil {
		return err
	}
	folder := filepath.Dir(s.cfg.Path)
	temp, err := os.CreateTemp(folder, filepath.Base(s.cfg.Path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), s.cfg.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return syncFolder(folder)
}

// syncFolder makes the renaming last. Not every system can sync a folder; the file itself is safe in any case.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return nil
	}
	_ = folder.Sync()
	return folder.Close()
}

// takeSnapshot collects what the verifier knows. The position is read before the entries: what comes in between is read again.
func (v *Verifier) takeSnapshot() *snapshot {
	now := v.cfg.Clock()
	snap := &snapshot{Issuer: v.cfg.Issuer, Written: now.UnixMilli()}
	if v.remote != nil {
		if set := v.remote.living(); set != nil {
			snap.Keys, snap.KeysFetched = set.document, set.fetched.UnixMilli()
		}
	}
	if v.feed == nil {
		return snap
	}
	position, synced := v.feed.place()
	if synced == nil {
		return snap
	}
	snap.Position, snap.Synced = position, synced.UnixMilli()
	v.cfg.Revocations.entries.Range(func(id, value any) bool {
		hash, entry := id.([32]byte), value.(revoked)
		if entry.until > now.UnixMicro() {
			snap.Revocations = append(snap.Revocations, snapshotEntry{
				ID: base64.RawURLEncoding.EncodeToString(hash[:]), Epoch: entry.epoch, Until: time.UnixMicro(entry.until).UnixMilli(),
			})
		}
		return true
	})
	return snap
}

// restore takes over what a snapshot says, with the age that it has by now.
func (v *Verifier) restore(snap *snapshot) error {
	if v.remote != nil && len(snap.Keys) > 0 {
		if err := v.remote.restore(snap.Keys, time.UnixMilli(snap.KeysFetched)); err != nil {
			return err
		}
	}
	if v.feed == nil || snap.Synced == 0 {
		return nil
	}
	revocations := make([]Revocation, len(snap.Revocations))
	for i, e := range snap.Revocations {
		id, err := decode(e.ID)
		if err != nil || len(id) != 32 {
			return ErrSnapshotForged
		}
		revocations[i] = Revocation{ID: [32]byte(id), Epoch: e.Epoch, Until: time.UnixMilli(e.Until)}
	}
	v.cfg.Revocations.Add(revocations...)
	v.feed.resume(snap.Position, time.UnixMilli(snap.Synced))
	return nil
}
