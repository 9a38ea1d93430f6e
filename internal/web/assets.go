package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed assets templates messages
var content embed.FS

// contentTypes are stated rather than looked up: the answer must not depend on the machine's MIME tables.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
	".ico": "image/x-icon",
	".png": "image/png",
}

// asset is a file that pages refer to. Its public name holds a hash of its content, so it may be cached for ever.
type asset struct {
	path        string // "/assets/sumun-1a2b3c4d5e.css"
	contentType string
	body        []byte
}

type assets struct {
	byName map[string]asset // "sumun.css"
	byPath map[string]asset
}

func loadAssets() (*assets, error) {
	all := &assets{byName: map[string]asset{}, byPath: map[string]asset{}}
	entries, err := fs.ReadDir(content, "assets")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		body, err := fs.ReadFile(content, "assets/"+entry.Name())
		if err != nil {
			return nil, err
		}
		ext := path.Ext(entry.Name())
		contentType, ok := contentTypes[ext]
		if !ok {
			return nil, fmt.Errorf("%s: no content type for %q", entry.Name(), ext)
		}
		sum := sha256.Sum256(body)
		name := strings.TrimSuffix(entry.Name(), ext) + "-" + hex.EncodeToString(sum[:5]) + ext
		a := asset{path: "/assets/" + name, contentType: contentType, body: body}
		all.byName[entry.Name()], all.byPath[a.path] = a, a
	}
	return all, nil
}

// url returns where an asset is served; templates call it as asset.
func (a *assets) url(name string) (string, error) {
	found, ok := a.byName[name]
	if !ok {
		return "", fmt.Errorf("no asset %q", name)
	}
	return found.path, nil
}

func (a *assets) serve(w http.ResponseWriter, req *http.Request) {
	found, ok := a.byPath[req.URL.Path]
	if !ok {
		w.Header().Set("Cache-Control", "no-store")
		http.NotFound(w, req)
		return
	}
	found.write(w, req, "public, max-age=31536000, immutable")
}

// serveIcon answers browsers that ask for the icon by its customary name.
func (a *assets) serveIcon(w http.ResponseWriter, req *http.Request) {
	a.byName["favicon.ico"].write(w, req, "public, max-age=86400")
}

func (f asset) write(w http.ResponseWriter, req *http.Request, cacheControl string) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", cacheControl)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", fmt.Sprint(len(f.body)))
	if req.Method != http.MethodHead {
		_, _ = w.Write(f.body) // a visitor who has left is not an error
	}
}
