package session

import (
	"context"
	"encoding/base64"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

// FeedScope is the scope that lets a service read the revocation feed.
const FeedScope = "revocations:read"

const (
	feedPath = "/v1/revocations"
	// feedBatch is how many entries an event of the stream holds at most, feedPage an answer that is no stream.
	feedBatch = 500
	feedPage  = 10_000
	// feedBeat is how often a stream on which nothing happens says so.
	feedBeat = time.Second

	maxFeedStreams = 100_000
)

// A verify returns the claims of a request's access token, or the fault to answer with.
type verify func(*http.Request) (*auth.Claims, error)

// MountFeed serves the revocation feed to services: as a stream of server-sent events, or page by page. It is described in the
// API's document, and no operation of it: it negotiates, and it lasts.
func (s *Service) MountFeed(mux *http.ServeMux, api huma.API, verify func(*http.Request) (*auth.Claims, error)) {
	h := &feedHandler{s, verify}
	mux.Handle("GET "+feedPath, httpd.WithoutTimeout(httpd.Handler(h.serve)))
	describeFeed(api.OpenAPI())
}

type feedHandler struct {
	sessions *Service
	verify   verify
}

func (h *feedHandler) serve(w http.ResponseWriter, r *http.Request) error {
	claims, err := h.verify(r)
	if err != nil {
		return err
	}
	// A person's token is refused whatever its scope: the feed tells when others sign out.
	if claims.SessionID != "" || claims.Subject != claims.ClientID || !slices.Contains(strings.Fields(claims.Scope), FeedScope) {
		return ErrFeedForbidden
	}
	position := r.Header.Get("Last-Event-ID")
	if position == "" {
		position = r.URL.Query().Get("after")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Vary", "Accept")
	at := h.sessions.feed.journal.find(position)
	if r.Method == http.MethodGet && wantsEvents(r.Header) {
		return h.stream(w, r, claims, at)
	}
	body := appendPage(nil, h.sessions.feed.journal.read(at, feedPage), h.sessions.feed.age())
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // who asked may have gone
	return nil
}

func wantsEvents(h http.Header) bool {
	for _, accept := range h.Values("Accept") {
		for one := range strings.SplitSeq(accept, ",") {
			media, _, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(media), "text/event-stream") {
				return true
			}
		}
	}
	return false
}

// stream sends what follows the bookmark, and then what happens, until the client leaves or reads too slowly, its token is over,
// or the server stops.
func (h *feedHandler) stream(w http.ResponseWriter, r *http.Request, claims *auth.Claims, at bookmark) error {
	s := h.sessions
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return ErrFeedFull
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep events until it has some kilobytes
	out := eventWriter{w, http.NewResponseController(w), s.cfg.FeedPatience}
	if err := out.control.SetReadDeadline(time.Time{}); err != nil {
		return fault.ErrInternal.Wrap(err)
	}
	beat := time.NewTicker(feedBeat)
	defer beat.Stop()
	for s.mayFollow(claims) {
		p := s.feed.journal.read(at, feedBatch)
		at = p.next
		if err := out.write(appendEvents(nil, p, s.feed.age())); err != nil {
			s.metrics.cut.Inc()
			return nil
		}
		if p.more {
			continue
		}
		if !wait(r.Context(), p.grown, beat.C) {
			break
		}
	}
	return nil
}

// mayFollow reports whether the token that opened a stream still holds.
func (s *Service) mayFollow(claims *auth.Claims) bool {
	return s.deps.Clock().Before(claims.ExpiresAt) && !s.feed.revoked.Revoked(claims)
}

// wait returns true at the next news or beat, and false when the stream is to end.
func wait(ctx context.Context, grown <-chan struct{}, beat <-chan time.Time) bool {
	select {
	case <-grown:
		return true
	case <-beat:
		return true
	case <-ctx.Done():
	case <-httpd.Draining(ctx):
	}
	return false
}

// eventWriter writes within a bounded time, so that who does not read is not waited for.
type eventWriter struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

func (w eventWriter) write(events []byte) error {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.patience)); err != nil {
		return err
	}
	if _, err := w.Write(events); err != nil {
		return err
	}
	return w.control.Flush()
}

// appendEvents writes a page as events. When it is the last one there is, the reader learns that it knows everything.
func appendEvents(b []byte, p page, age time.Duration) []byte {
	if p.reset {
		b = append(b, "event: reset\ndata: {}\n\n"...)
	}
	if len(p.entries) > 0 {
		b = append(append(b, "event: revocations\nid: "...), p.next.String()...)
		b = append(appendEntries(append(b, "\ndata: {"...), p.entries), "}\n\n"...)
	}
	if p.more {
		return b
	}
	b = append(append(b, "event: current\nid: "...), p.next.String()...)
	b = append(b, "\ndata: {"...)
	return append(appendAge(b, age), "}\n\n"...)
}

// appendPage writes a page as one JSON document.
func appendPage(b []byte, p page, age time.Duration) []byte {
	b = append(append(append(b, `{"position":"`...), p.next.String()...), `",`...)
	b = append(appendEntries(b, p.entries), ',')
	b = strconv.AppendBool(append(appendAge(b, age), `,"more":`...), p.more)
	b = strconv.AppendBool(append(b, `,"reset":`...), p.reset)
	return append(b, '}')
}

// appendAge writes how long ago this node knew the feed to be complete.
func appendAge(b []byte, age time.Duration) []byte {
	return strconv.AppendInt(append(b, `"age_ms":`...), max(0, age.Milliseconds()), 10)
}

// appendEntries writes the member of entries. Kinds and hashes need no escaping. A time is rounded up: too late is safe.
func appendEntries(b []byte, entries []entry) []byte {
	b = append(b, `"entries":[`...)
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"kind":"`...), e.Kind...), `","id":"`...)
		b = base64.RawURLEncoding.AppendEncode(b, e.ID[:])
		b = strconv.AppendInt(append(b, `","epoch":`...), e.Epoch, 10)
		b = strconv.AppendInt(append(b, `,"until":`...), int64(math.Ceil(float64(e.Until.UnixMilli())/1000)), 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

// feedDocument is appendPage for the OpenAPI document.
type feedDocument struct {
	Position string `json:"position" doc:"Send it as after to get what follows."`
	Entries  []struct {
		Kind  string `json:"kind" enum:"session,grant,token,subject,client,key"`
		ID    string `json:"id" doc:"SHA-256 of the kind, a zero byte and the id, in base64url without padding."`
		Epoch int64  `json:"epoch" doc:"subject and client: tokens with a lower epoch are dead."`
		Until int64  `json:"until" doc:"When the entry may be forgotten, in seconds since 1970."`
	} `json:"entries"`
	AgeMS int64 `json:"age_ms" doc:"How long ago this node knew that there is no more."`
	More  bool  `json:"more" doc:"Whether there is more to ask for already."`
	Reset bool  `json:"reset" doc:"The position was not known: these are the first of all entries there are."`
}

func describeFeed(document *huma.OpenAPI) {
	schema := document.Components.Schemas.Schema(reflect.TypeFor[feedDocument](), true, "RevocationPage")
	document.AddOperation(&huma.Operation{
		OperationID: "follow-revocations", Method: http.MethodGet, Path: feedPath, Tags: []string{"Sessions"},
		Summary: "Follow what is revoked",
		Description: "For services, with a token of client_credentials whose scope has `revocations:read`. With `Accept: text/event-stream` " +
			"a stream of the events `reset`, `revocations` and `current`, which is resumed with `Last-Event-ID`; otherwise one page.",
		Security: []map[string][]string{{"bearer": {}}},
		Parameters: []*huma.Param{
			{Name: "after", In: "query", Description: "The position that was reached.", Schema: &huma.Schema{Type: huma.TypeString}},
			{Name: "Last-Event-ID", In: "header", Description: "The same, as browsers' EventSource sends it.", Schema: &huma.Schema{Type: huma.TypeString}},
		},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json":  {Schema: schema},
			"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}, "default": {Description: "Error", Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}},
		}}},
	})
}
