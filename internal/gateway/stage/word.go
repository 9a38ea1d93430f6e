package stage

import (
	"errors"
	"strings"
)

// OneOf sets a setting to the word that text is. Where it is none of words, of which there are several, the error says what to write.
func OneOf[T ~string](to *T, text []byte, words ...T) error {
	names := make([]string, len(words))
	for i, word := range words {
		if string(word) == string(text) {
			*to = word
			return nil
		}
		names[i] = string(word)
	}
	last := len(names) - 1
	return errors.New("write " + strings.Join(names[:last], ", ") + " or " + names[last])
}
