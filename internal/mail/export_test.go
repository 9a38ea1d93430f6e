package mail

import "context"

// Abandon claims letters and does nothing with them, as a node does that dies.
func (q *Queue) Abandon(ctx context.Context, limit int) (int, error) {
	claimed, err := q.claim(ctx, limit)
	return len(claimed), err
}

// Tidy does what Run does once a minute.
func (q *Queue) Tidy(ctx context.Context) { q.tidy(ctx) }

// Links returns the texts and the link targets that a text is split into.
func Links(text string) (texts, urls []string) {
	for _, s := range splitLinks(text) {
		texts, urls = append(texts, s.Text), append(urls, s.URL)
	}
	return texts, urls
}

// MaskText masks the addresses in a text.
func MaskText(s string) string { return maskText(s) }
