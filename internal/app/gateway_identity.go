package app

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/sumunio/sumun/internal/gateway/oauth"
	"github.com/sumunio/sumun/internal/gateway/websession"
	"github.com/sumunio/sumun/internal/httpd"
)

// askIdentity gives the gateway what it asks the identity module with: own, where that is part of this process.
func (e *entrance) askIdentity(own http.Handler) (err error) {
	way, address := http.RoundTripper(nil), e.identityAddress()
	if e.remote == nil {
		way, address = inProcess{httpd.Edge(e.log, e.metrics, e.cfg.HTTP)(own)}, e.cfg.Issuer
	}
	client := &http.Client{
		Transport:     way,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // secrets go nowhere else
	}
	if feed := e.cfg.Gateway.Feed; feed.ClientID != "" {
		e.deps.OAuth = oauth.New(oauth.Config{HTTP: client, URL: address, ID: feed.ClientID, Secret: feed.ClientSecret.Reveal(), Clock: e.clock})
		if e.deps.Opaque, err = e.opaqueVerifier(e.deps.OAuth); err != nil {
			return err
		}
	}
	var store websession.Store = websession.NewMemory(e.clock)
	if e.redis != nil {
		store = websession.NewRedis(e.redis, "")
	}
	if e.deps.Sessions, err = websession.New(websession.Deps{
		Store: store, Verify: e.deps.Verifier.VerifyRequest, Identity: client, URL: address, Cookies: e.cfg.cookies(),
		TrustedOrigins: e.cfg.HTTP.TrustedOrigins, Clock: e.clock, Log: e.log,
	}); err != nil {
		return fmt.Errorf("sessions of browsers: %w", err)
	}
	return nil
}

// inProcess takes requests to a handler of this process.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper. The client for whom the gateway asks is the peer.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.Host = r.URL.RequestURI(), r.URL.Host
	peer := r.Header.Get("X-Forwarded-For")
	if peer == "" {
		peer = "127.0.0.1"
	}
	in.RemoteAddr = net.JoinHostPort(peer, "0")
	in.Header.Del("X-Forwarded-For")
	out := &written{header: http.Header{}}
	p.handler.ServeHTTP(out, in)
	out.WriteHeader(http.StatusOK)
	return &http.Response{
		StatusCode: out.status, Status: http.StatusText(out.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.header, Body: io.NopCloser(&out.body), ContentLength: int64(out.body.Len()), Request: r,
	}, nil
}

// written is an answer in memory.
type written struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *written) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *written) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *written) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
