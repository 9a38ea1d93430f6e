package session

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// journal is the feed as this node has read it, in order, for those who follow it from here: however many they are, the
// database is asked once. An entry is in it for as long as it matters.
type journal struct {
	mu      sync.RWMutex
	entries []entry
	edition int64         // rises when the order that readers know is void
	grown   chan struct{} // closed when anything has changed, and replaced
}

func newJournal() *journal { return &journal{grown: make(chan struct{})} }

// add appends what was read after the last entry, or takes it for everything there is, and drops what is over.
func (j *journal) add(entries []entry, anew bool, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if anew {
		j.entries = nil
		j.edition++
	}
	j.entries = append(j.entries, entries...)
	over := 0
	for over < len(j.entries) && !j.entries[over].Until.After(now) {
		over++
	}
	j.entries = j.entries[over:]
	if anew || len(entries) > 0 {
		close(j.grown)
		j.grown = make(chan struct{})
	}
}

// bookmark is where a reader is: behind the entry that it has read last.
type bookmark struct {
	edition int64
	seq     int64 // 0: before all
	hash    uint32
}

// String writes the position as clients know it. The part of the hash tells apart two entries that had the same number, one of
// which a failover has lost.
func (b bookmark) String() string {
	if b.seq == 0 {
		return "0"
	}
	return strconv.FormatInt(b.seq, 10) + "." + hex.EncodeToString(binary.BigEndian.AppendUint32(nil, b.hash))
}

// parseBookmark reads what String writes, in that spelling only. The edition is still to be found.
func parseBookmark(text string) (b bookmark, ok bool) {
	if text == "0" {
		return bookmark{}, true
	}
	number, tail, _ := strings.Cut(text, ".")
	seq, err := strconv.ParseInt(number, 10, 64)
	hash, err2 := hex.DecodeString(tail)
	if err != nil || err2 != nil || len(hash) != 4 || seq < 1 {
		return bookmark{}, false
	}
	b = bookmark{seq: seq, hash: binary.BigEndian.Uint32(hash)}
	return b, b.String() == text
}

func (e entry) mark(edition int64) bookmark {
	return bookmark{edition: edition, seq: e.seq, hash: binary.BigEndian.Uint32(e.ID[:4])}
}

// find returns the bookmark for a position that a client remembers. One that is not there any more is before all, of an edition
// that never was, so that the client learns that it begins anew.
func (j *journal) find(position string) bookmark {
	nowhere := bookmark{edition: -1}
	b, ok := parseBookmark(position)
	if !ok {
		return nowhere
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	b.edition = j.edition
	if b.seq == 0 {
		return b
	}
	if i := j.after(b.seq - 1); i < len(j.entries) && j.entries[i].mark(j.edition) == b {
		return b
	}
	return nowhere
}

// after returns the index of the first entry with a number above seq.
func (j *journal) after(seq int64) int {
	i, _ := slices.BinarySearchFunc(j.entries, seq+1, func(e entry, seq int64) int { return int(min(1, max(-1, e.seq-seq))) })
	return i
}

// page is a part of the journal.
type page struct {
	entries []entry
	next    bookmark // behind them
	reset   bool     // what the reader knew of the order is void: these are the first of everything
	more    bool
	grown   <-chan struct{} // closed as soon as there is news
}

// read returns at most so many entries that follow the bookmark.
func (j *journal) read(b bookmark, most int) page {
	j.mu.RLock()
	defer j.mu.RUnlock()
	p := page{grown: j.grown, next: b}
	if b.edition != j.edition {
		p.reset, p.next = true, bookmark{edition: j.edition}
	}
	rest := j.entries[j.after(p.next.seq):]
	p.more = len(rest) > most
	p.entries = slices.Clone(rest[:min(most, len(rest))])
	if n := len(p.entries); n > 0 {
		p.next = p.entries[n-1].mark(j.edition)
	}
	return p
}
