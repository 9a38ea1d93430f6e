package cache

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// give answers with a kept answer, or with 304 where the client has it (RFC 9110, section 13.2.2). What the stages before have set for
// this exchange stays.
func (x *exchange) give(e *entry, status string) error {
	h := x.w.Header()
	notModified := e.status == http.StatusOK && has(x.request.header, e.header)
	merge(h, e.header)
	h["Age"] = []string{seconds(e.ageAt(x.deps.Clock()))}
	h["Cache-Status"] = append(slices.Clip(h["Cache-Status"]), "sumun; "+status)
	if notModified {
		for _, name := range [...]string{"Content-Type", "Content-Encoding", "Content-Length", "Content-Language"} {
			delete(h, name)
		}
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if e.status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.Itoa(len(e.body))}
	}
	if _, typed := h["Content-Type"]; !typed {
		h["Content-Type"] = nil // or net/http would guess
	}
	x.w.WriteHeader(e.status)
	if x.r.Method == http.MethodHead || len(e.body) == 0 {
		return nil
	}
	if _, err := x.w.Write(e.body); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return nil
}

// merge adds the header of an answer to what the stages before have set for this exchange, which stays. Values are shared, and not
// appended to in place.
func merge(h, answer http.Header) {
	for name, values := range answer {
		before, there := h[name]
		switch {
		case !there:
			h[name] = slices.Clip(values)
		case name == "Vary" || name == "Link" || name == "Set-Cookie" || name == "Cache-Status":
			h[name] = append(slices.Clip(before), values...)
		}
	}
}

// has reports whether the client has the answer already.
func has(request, answer http.Header) bool {
	if lists := request["If-None-Match"]; lists != nil {
		tag := answer.Get("Etag")
		return tag != "" && slices.ContainsFunc(lists, func(list string) bool { return listsTag(list, tag) })
	}
	since, err := http.ParseTime(request.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	modified, err := http.ParseTime(answer.Get("Last-Modified"))
	return err == nil && !modified.After(since)
}

// listsTag reports whether a list of entity tags has this one, by weak comparison (RFC 9110, section 8.8.3.2).
func listsTag(list, tag string) bool {
	tag = strings.TrimPrefix(tag, "W/")
	for list = strings.Trim(list, " \t,"); list != ""; list = strings.Trim(list, " \t,") {
		if list[0] == '*' {
			return true
		}
		list = strings.TrimPrefix(list, "W/")
		if list == "" || list[0] != '"' {
			return false
		}
		end := strings.IndexByte(list[1:], '"')
		if end < 0 {
			return false
		}
		if list[:end+2] == tag {
			return true
		}
		list = list[end+2:]
	}
	return false
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
