package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sumunio/sumun/internal/gateway/compress"
	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/httpd"
)

// Route is what files have to know of their route.
type Route struct {
	// Strip is the beginning of paths that is no part of the names.
	Strip string
	// Private says that answers are not for everybody, so that no shared cache may keep them.
	Private bool
}

// New returns what answers the requests of a route. It fails where root is no directory.
func New(cfg Config, rt Route) (stage.Handler, error) {
	if info, err := os.Stat(cfg.Root); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("files.root: %q is no directory; make it, or correct the name", cfg.Root)
	}
	s := &server{cfg: cfg, strip: rt.Strip, lasting: "max-age=31536000, immutable", usual: "no-cache"}
	if cfg.MaxAge > 0 {
		s.usual = "max-age=" + strconv.Itoa(int(cfg.MaxAge/time.Second))
	}
	if rt.Private {
		s.lasting, s.usual = "private, "+s.lasting, "private, "+s.usual
	}
	return s.serve, nil
}

type server struct {
	cfg            Config
	strip          string
	lasting, usual string // Cache-Control
}

// maxRanges is how many parts of a file one request may ask for; with more it gets the whole.
const maxRanges = 8

func (s *server) serve(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return httpd.ErrMethodNotAllowed
	}
	asked := strings.TrimPrefix(r.URL.Path, s.strip)
	if asked == "" {
		asked = "/"
	}
	root, err := os.OpenRoot(s.cfg.Root)
	if err != nil {
		return fmt.Errorf("open root of files: %w", err)
	}
	defer root.Close()
	f, err := s.find(root, asked)
	if errors.Is(err, errDirectory) {
		return s.redirect(w, r, c)
	}
	if err != nil && s.wantsPage(r, asked) {
		asked = s.cfg.Missing
		f, err = s.find(root, asked)
	}
	if err != nil {
		return refusal(err)
	}
	defer f.Close()
	s.give(w, r, root, f, asked)
	return nil
}

// errDirectory is for a directory that is asked for without the slash at its end, which relative links in its index need.
var errDirectory = errors.New("is a directory")

// file is a regular one, opened.
type file struct {
	*os.File
	name string
	info fs.FileInfo
}

// find opens the file that a path stands for.
func (s *server) find(root *os.Root, asked string) (*file, error) {
	name, ok := nameOf(asked)
	if !ok {
		return nil, fs.ErrNotExist
	}
	below := strings.HasSuffix(asked, "/")
	if below {
		name = filepath.Join(name, s.cfg.Index)
	}
	f, err := open(root, name)
	if errors.Is(err, errDirectory) && !below {
		index, err := open(root, filepath.Join(name, s.cfg.Index))
		if err != nil {
			return nil, fs.ErrNotExist
		}
		_ = index.Close()
		return nil, errDirectory
	}
	if errors.Is(err, errDirectory) {
		return nil, fs.ErrNotExist
	}
	return f, err
}

// open opens a regular file. It does not wait for the other end of a pipe.
func open(root *os.Root, name string) (*file, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err == nil && info.IsDir():
		err = errDirectory
	case err == nil && !info.Mode().IsRegular():
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &file{f, name, info}, nil
}

// redirect adds the slash of a directory. The path is canonical, so what it begins with is no host.
func (s *server) redirect(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
	to := c.Path + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header()["Location"] = []string{to}
	w.Header().Set("Cache-Control", s.usual)
	w.WriteHeader(http.StatusMovedPermanently)
	return nil
}

// wantsPage reports whether a browser asks for a page, rather than a script or a picture that is missing.
func (s *server) wantsPage(r *http.Request, asked string) bool {
	name, ok := nameOf(asked)
	return s.cfg.Missing != "" && ok && filepath.Ext(name) == "" && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// refusal is what a caller is told. Links that lead out, names that are too long and files that may not be read are as good as not there.
func refusal(err error) error {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EIO) {
		return fmt.Errorf("open file: %w", err)
	}
	return httpd.ErrNotFound.Wrap(err)
}

// give answers with a file, or with what it is compressed to.
func (s *server) give(w http.ResponseWriter, r *http.Request, root *os.Root, f *file, asked string) {
	h := w.Header()
	h["Content-Type"] = []string{contentType(f.name)}
	h.Set("Cache-Control", s.usual)
	if slices.ContainsFunc(s.cfg.Immutable, func(dir string) bool { return strings.HasPrefix(asked, dir) }) {
		h.Set("Cache-Control", s.lasting)
	}
	if asked := r.Header.Get("Range"); !strings.HasPrefix(asked, "bytes=") || strings.Count(asked, ",") >= maxRanges {
		delete(r.Header, "Range") // a unit that is not known is no mistake (RFC 9110, section 14.2)
	}
	written := f.info.ModTime()
	tag := fmt.Sprintf("%x-%x", written.UnixNano(), f.info.Size())
	if s.cfg.Precompressed {
		h["Vary"] = append(h["Vary"][:len(h["Vary"]):len(h["Vary"])], "Accept-Encoding")
		if smaller, coding := variant(root, f, r.Header["Accept-Encoding"]); smaller != nil {
			defer smaller.Close()
			h["Content-Encoding"] = []string{coding}
			w, f, tag = &sized{w, smaller.info.Size()}, smaller, fmt.Sprintf("%s-%x-%s", tag, smaller.info.ModTime().UnixNano(), coding)
		}
	}
	h["Etag"] = []string{`"` + tag + `"`}
	http.ServeContent(w, r, "", written, f)
}

// endings are those of files that were compressed beforehand, by coding.
var endings = map[string]string{"zstd": ".zst", "br": ".br", "gzip": ".gz"}

// variant opens the smaller twin of a file that the client likes best, nil where there is none. One that is older is that of another
// version of the file.
func variant(root *os.Root, f *file, accepted []string) (*file, string) {
	offers := []string{"zstd", "br", "gzip"}
	for {
		coding := compress.Choose(accepted, offers...)
		if coding == "" {
			return nil, ""
		}
		if twin, err := open(root, f.name+endings[coding]); err == nil {
			if !twin.info.ModTime().Before(f.info.ModTime()) {
				return twin, coding
			}
			_ = twin.Close()
		}
		offers = slices.DeleteFunc(offers, func(offer string) bool { return offer == coding })
	}
}

// sized says how long a compressed file is, which http.ServeContent does not, so that one that breaks off does not look whole.
type sized struct {
	http.ResponseWriter
	size int64
}

// WriteHeader implements http.ResponseWriter.
func (w *sized) WriteHeader(status int) {
	if status == http.StatusOK {
		w.Header().Set("Content-Length", strconv.FormatInt(w.size, 10))
	}
	w.ResponseWriter.WriteHeader(status)
}

// ReadFrom implements io.ReaderFrom, by which the kernel can send the file.
func (w *sized) ReadFrom(from io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, from) }

// Unwrap lets http.ResponseController reach the connection.
func (w *sized) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// contentType is what a file is by its name, the same on every machine where it matters; nobody looks inside.
func contentType(name string) string {
	end := strings.ToLower(path.Ext(name))
	if known := types[end]; known != "" {
		return known
	}
	if known := mime.TypeByExtension(end); known != "" {
		return known
	}
	return "application/octet-stream"
}

var types = map[string]string{
	".css": "text/css; charset=utf-8", ".csv": "text/csv; charset=utf-8", ".htm": "text/html; charset=utf-8", ".html": "text/html; charset=utf-8",
	".ico": "image/x-icon", ".js": "text/javascript; charset=utf-8", ".json": "application/json", ".map": "application/json",
	".md": "text/markdown; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".mp4": "video/mp4", ".otf": "font/otf", ".svg": "image/svg+xml",
	".ttf": "font/ttf", ".txt": "text/plain; charset=utf-8", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json",
	".woff": "font/woff", ".woff2": "font/woff2", ".xml": "text/xml; charset=utf-8",
}
