package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
)

// upstream is a service that answers requests.
type upstream interface {
	// Forward passes r on and its answer back. An error means that nothing has been written to w.
	Forward(w http.ResponseWriter, r *http.Request, o Options) error
}

// Options say what Forward cannot know from the request.
type Options struct {
	// Path is the exact request target, path and query.
	Path string
	// OnAnswer, where set, is called before the answer's header is written, and may change it.
	OnAnswer func(status int, header http.Header)
}

// proxy is an upstream over net/http's own client.
type proxy struct {
	urls []*url.URL
	next atomic.Uint64
	http *http.Transport
}

func newProxy(u Upstream) (*proxy, error) {
	p := &proxy{http: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
	for _, text := range u.URLs {
		parsed, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		p.urls = append(p.urls, parsed)
	}
	return p, nil
}

// Forward implements upstream.
func (p *proxy) Forward(w http.ResponseWriter, r *http.Request, o Options) error {
	base := p.urls[p.next.Add(1)%uint64(len(p.urls))]
	var failed error
	reverse := httputil.ReverseProxy{
		Transport: p.http,
		Rewrite: func(pr *httputil.ProxyRequest) {
			path, query, _ := strings.Cut(o.Path, "?")
			decoded, _ := url.PathUnescape(path)
			pr.Out.URL = &url.URL{Scheme: base.Scheme, Host: base.Host, Path: decoded, RawPath: path, RawQuery: query}
			pr.Out.Host = r.Host
			for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"} {
				pr.Out.Header[name] = pr.In.Header[name]
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			answer.Header.Del("X-Request-Id")
			if o.OnAnswer != nil {
				o.OnAnswer(answer.StatusCode, answer.Header)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	reverse.ServeHTTP(w, r)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](failed); failed == nil || tooLarge || errors.Is(failed, context.Canceled) {
		return failed
	}
	return ErrUnreachable.Wrap(failed)
}
