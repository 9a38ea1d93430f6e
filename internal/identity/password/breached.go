package password

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // the published lists are SHA-1; nothing is protected with it
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"
	"unicode/utf8"
)

const (
	maxPlainList = 32 << 20 // bytes of a list that is kept in memory, which takes at most as much
	hashedKey    = 2 * sha1.Size
	maxHashed    = 64 // bytes of a line of a hashed list: 40 digits, a colon, a count, CR LF
	probes       = 64 // stretches of a hashed list that are looked into before it is trusted
)

// breachedList tells whether a normalised password is on a list.
type breachedList interface {
	contains(pw string) (bool, error)
	io.Closer
}

// checkBreached says what is wrong with the file, nil when nothing is or there is none to be used.
func checkBreached(path string) error {
	if path == "" {
		return nil
	}
	list, err := openBreached(path, 0)
	if err != nil {
		return err
	}
	return list.Close()
}

// openBreached opens a list of either kind; the first line tells which. Of a plain list, passwords with fewer than minLength
// characters are left out, since no policy accepts them anyway.
func openBreached(path string, minLength int) (_ breachedList, err error) {
	f, err := os.Open(path)
	if err != nil {
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, fmt.Errorf("%q cannot be read (%w); name a readable file, or leave the key empty", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			err = fmt.Errorf("%q %w", path, err)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a file; name a list of passwords, or leave the key empty")
	}
	hashed := &hashedList{file: f, size: info.Size(), closer: f}
	if line, _, err := hashed.lineFrom(0); err == nil && isHashed(line) {
		if err := hashed.verify(); err != nil {
			return nil, err
		}
		return hashed, nil
	}
	if info.Size() > maxPlainList {
		return nil, fmt.Errorf("has %d MiB, and a plain list is limited to %d; use a sorted list of SHA-1 hashes, "+
			"which is searched on disk", info.Size()>>20, maxPlainList>>20)
	}
	list, err := readPlain(f, minLength)
	if err != nil {
		return nil, err
	}
	return list, f.Close()
}

// plainList is the 64-bit hashes of the passwords, in order: eight bytes each, and a mistake less likely than one in 10^12
// for the largest list.
type plainList struct {
	seed maphash.Seed
	keys []uint64
}

func readPlain(r io.Reader, minLength int) (*plainList, error) {
	list := &plainList{seed: maphash.MakeSeed()}
	lines, any := bufio.NewScanner(r), false
	for lines.Scan() {
		line := lines.Bytes()
		if bytes.IndexByte(line, 0) >= 0 {
			return nil, errors.New("is not a text file; name a list of passwords, one a line")
		}
		any = any || len(line) > 0
		if utf8.RuneCount(line) >= max(1, minLength) {
			list.keys = append(list.keys, list.key(normalise(string(line))))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("is not a list of passwords, one a line: %w", err)
	}
	if !any {
		return nil, errors.New("is empty; name a list of passwords, or leave the key empty")
	}
	slices.Sort(list.keys)
	list.keys = slices.Clip(slices.Compact(list.keys))
	return list, nil
}

func (l *plainList) key(pw string) uint64 { return maphash.String(l.seed, pw) }

func (l *plainList) contains(pw string) (bool, error) {
	_, found := slices.BinarySearch(l.keys, l.key(pw))
	return found, nil
}

func (l *plainList) Close() error { return nil }

// hashedList is a file of SHA-1 hashes in order, one a line, each perhaps with ":" and a count. It stays on disk: a look-up
// is some thirty small reads.
type hashedList struct {
	file   io.ReaderAt
	size   int64
	closer io.Closer
}

func (l *hashedList) Close() error { return l.closer.Close() }

func (l *hashedList) contains(pw string) (bool, error) {
	sum := sha1.Sum([]byte(pw))
	want := bytes.ToUpper(hex.AppendEncode(nil, sum[:]))
	// Find the smallest offset whose first line from there on is not below want.
	low, high := int64(0), l.size
	for low < high {
		mid := low + (high-low)/2
		key, err := l.keyFrom(mid)
		if err != nil {
			return false, err
		}
		if key == nil || bytes.Compare(key, want) >= 0 {
			high = mid
		} else {
			low = mid + 1
		}
	}
	key, err := l.keyFrom(low)
	return bytes.Equal(key, want), err
}

// verify looks at lines spread over the file, and at the last ones, where a file that was cut off shows it.
func (l *hashedList) verify() error {
	var last []byte
	for at := int64(0); at < l.size; {
		line, start, err := l.lineFrom(at)
		if err == nil && line == nil {
			return nil
		}
		if err == nil && !isHashed(line) {
			err = fmt.Errorf("is damaged near byte %d", start)
		}
		if err != nil {
			return fmt.Errorf("%w; fetch it again", err)
		}
		key := bytes.ToUpper(line[:hashedKey])
		if bytes.Compare(key, last) < 0 {
			return errors.New("is not sorted by hash; sort it, as in LC_ALL=C sort -o FILE FILE")
		}
		last = key
		if at = start + int64(len(line)); l.size-at > 2*maxHashed {
			at = min(at+l.size/probes, l.size-2*maxHashed)
		}
		at++
	}
	return nil
}

// keyFrom returns the hash, in upper case, of the first line that begins at or after an offset; nil when there is none.
func (l *hashedList) keyFrom(offset int64) ([]byte, error) {
	line, at, err := l.lineFrom(offset)
	if err != nil || line == nil {
		return nil, err
	}
	if !isHashed(line) {
		return nil, fmt.Errorf("is damaged near byte %d", at)
	}
	return bytes.ToUpper(line[:hashedKey]), nil
}

// lineFrom returns the first line that begins at or after an offset, without its end, and where that is; nil when there is
// none. A line longer than any hashed one is cut.
func (l *hashedList) lineFrom(offset int64) (line []byte, at int64, err error) {
	// One byte earlier: a line begins at the offset if a line feed is right before it.
	start := max(0, offset-1)
	buf := make([]byte, 2*maxHashed+1)
	n, err := l.file.ReadAt(buf, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, start, fmt.Errorf("cannot be read: %w", err)
	}
	buf = buf[:n]
	if offset > 0 {
		end := bytes.IndexByte(buf, '\n')
		if end < 0 && n > maxHashed {
			return nil, start, fmt.Errorf("is damaged near byte %d", start)
		}
		if end < 0 || start+int64(end)+1 >= l.size {
			return nil, start, nil
		}
		start, buf = start+int64(end)+1, buf[end+1:]
	}
	line, _, _ = bytes.Cut(buf, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'}), start, nil
}

// isHashed reports whether a line is 40 hexadecimal digits, perhaps followed by a colon and a count.
func isHashed(line []byte) bool {
	if len(line) < hashedKey || len(line) > maxHashed {
		return false
	}
	if _, err := hex.Decode(make([]byte, sha1.Size), line[:hashedKey]); err != nil {
		return false
	}
	rest := line[hashedKey:]
	return len(rest) == 0 || rest[0] == ':' && len(rest) > 1 && len(bytes.Trim(rest[1:], "0123456789")) == 0
}
