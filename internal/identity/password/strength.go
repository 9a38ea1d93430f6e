package password

import (
	"encoding/json"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ccojocar/zxcvbn-go/adjacency"
	"github.com/ccojocar/zxcvbn-go/data"
	"github.com/ccojocar/zxcvbn-go/entropy"
	"github.com/ccojocar/zxcvbn-go/match"
	"github.com/ccojocar/zxcvbn-go/scoring"
)

// score is zxcvbn's, 0 to 4, of a password and the words that its owner would think of first. With leet, symbols that stand for letters are
// tried as them.
//
// What is expected of a password and how hard each part of it is to guess is the library's; what is found in it is looked for here, because
// the library's package that does it unpacks its lists whenever a process starts, and keeps 8 MB of them for good
// (docs/adr/0045). Both give the same score; a test compares them.
func score(text string, words []string, leet bool) int {
	own := map[string]int{}
	for i, word := range words {
		own[strings.ToLower(word)] = i + 1
	}
	found := inDictionary(nil, text, own)
	found = inDictionary(found, text, commonWords())
	found = onKeyboard(found, text)
	found = repeated(found, text)
	found = inSequence(found, text)
	found = dates(found, text)
	if leet {
		for _, plain := range withoutLeet(text) {
			found = inDictionary(found, plain, commonWords())
		}
	}
	return scoring.MinimumEntropyMatchSequence(text, found).Score
}

// inDictionary finds words, given with their ranks. Positions are of characters.
func inDictionary(found []match.Match, text string, ranks map[string]int) []match.Match {
	if len(ranks) == 0 {
		return found
	}
	as, lower := []rune(text), []rune(strings.ToLower(text))
	for i := range lower {
		for j := i; j < len(lower); j++ {
			if rank, known := ranks[string(lower[i:j+1])]; known {
				m := match.Match{Pattern: "dictionary", I: i, J: j, Token: string(as[i : j+1])}
				m.Entropy = entropy.DictionaryEntropy(m, float64(rank))
				found = append(found, m)
			}
		}
	}
	return found
}

// onKeyboard finds three keys or more of which each lies beside the one before.
func onKeyboard(found []match.Match, text string) []match.Match {
	for _, name := range []string{"qwerty", "dvorak", "keypad", "macKeypad"} {
		neighbours := adjacency.GraphMap[name].Graph
		for i, j := 0, 1; i < len(text)-1; i, j = j, j+1 {
			turns, shifted, last := 0, 0, -1
			for ; j < len(text); j++ {
				key := string(rune(text[j]))
				direction := slices.IndexFunc(neighbours[string(rune(text[j-1]))], func(keys string) bool { return strings.Contains(keys, key) })
				if direction < 0 {
					break
				}
				if strings.Index(neighbours[string(rune(text[j-1]))][direction], key) == 1 {
					shifted++
				}
				if direction != last {
					turns++
				}
				last = direction
			}
			if j-i > 2 {
				m := match.Match{Pattern: "spatial", I: i, J: j - 1, Token: text[i:j], DictionaryName: name}
				m.Entropy = entropy.SpatialEntropy(m, turns, shifted)
				found = append(found, m)
			}
		}
	}
	return found
}

// sequences are what people count in.
var sequences = []string{"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"}

// inSequence finds three characters or more that follow each other, up or down.
func inSequence(found []match.Match, text string) []match.Match {
	for i, j := 0, 1; i < len(text); i, j = j, j+1 {
		for _, all := range sequences {
			step := func(j int) int { // from the character before, 0 where there is none
				if j == len(text) {
					return 0
				}
				before, at := strings.IndexByte(all, text[j-1]), strings.IndexByte(all, text[j])
				if j == i+1 && (before < 0 || at < 0) {
					return 0
				}
				return at - before
			}
			direction := step(j)
			if direction != 1 && direction != -1 {
				continue
			}
			for step(j) == direction {
				j++
			}
			if j-i > 2 {
				m := match.Match{Pattern: "sequence", I: i, J: j - 1, Token: text[i:j]}
				m.Entropy = entropy.SequenceEntropy(m, len(all), direction == 1)
				found = append(found, m)
			}
			break
		}
	}
	return found
}

// repeated finds three times the same character or more.
func repeated(found []match.Match, text string) []match.Match {
	times, before, last := 0, "", 0
	until := func(j int) {
		if times > 2 {
			m := match.Match{Pattern: "repeat", I: j - times + 1, J: j, Token: text[j-times+1 : j+1]}
			m.Entropy = entropy.RepeatEntropy(m)
			found = append(found, m)
		}
	}
	for i, r := range text {
		if !strings.EqualFold(string(r), before) {
			until(i - 1)
			times = 0
		}
		times++
		before, last = string(r), i
	}
	until(last)
	return found
}

// dateForm finds dates, of which some groups are the parts.
type dateForm struct {
	form             *regexp.Regexp
	day, month, year int
}

const (
	yearGroup      = `(19\d{2}|200\d|201\d|\d{2})`
	separatorGroup = `(\s|-|/|\\|_|\.)`
)

var dateForms = sync.OnceValue(func() []dateForm {
	return []dateForm{
		{regexp.MustCompile(`(\d{1,2})` + separatorGroup + `(\d{1,2})` + separatorGroup + yearGroup), 3, 1, 5},
		{regexp.MustCompile(yearGroup + separatorGroup + `(\d{1,2})` + separatorGroup + `(\d{1,2})`), 3, 5, 1},
	}
})

var digits = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\d{4,8}`) })

// dates finds days, as two or three numbers in the usual orders or as one of six or eight digits.
func dates(found []match.Match, text string) []match.Match {
	date := func(token, day, month, year, separator string) {
		d, _ := strconv.Atoi(day)
		m, _ := strconv.Atoi(month)
		y, _ := strconv.Atoi(year)
		if !isDate(d, m, y) {
			return
		}
		i := strings.Index(text, token)
		found = append(found, match.Match{I: i, J: i + len(token), Token: token,
			Entropy: entropy.DateEntropy(match.DateMatch{Year: int64(y), Separator: separator})})
	}
	for _, f := range dateForms() {
		for _, part := range f.form.FindAllStringSubmatch(text, -1) {
			date(part[0], part[f.day], part[f.month], part[f.year], part[4])
		}
	}
	for _, n := range digits().FindAllString(text, -1) {
		switch len(n) {
		case 6:
			date(n, n[2:4], n[4:], n[:2], "")
		case 8:
			date(n, n[4:6], n[6:], n[:4], "")
			date(n, n[:2], n[2:4], n[4:], "")
		}
	}
	return found
}

func isDate(day, month, year int) bool {
	if 12 <= month && month <= 31 && day <= 12 {
		day, month = month, day
	}
	return day <= 31 && month <= 12 && (1900 <= year && year <= 2025 || year <= 99)
}

// withoutLeet returns what the text may be with letters instead of the symbols that stand for them. A symbol stands for one letter at a
// time, and a letter is written in one way.
func withoutLeet(text string) []string {
	spellings := []map[string][]string{{}} // symbols by letter
	for letters, symbol := range meanings(text) {
		var more []map[string][]string
		for _, spelling := range spellings {
			for _, letter := range letters {
				clone := maps.Clone(spelling)
				clone[letter] = append(slices.Clone(clone[letter]), symbol)
				more = append(more, clone)
			}
		}
		spellings = more
	}
	var all []string
	for _, spelling := range spellings {
		plain := []string{text}
		for letter, symbols := range spelling {
			var more []string
			for _, word := range plain {
				for _, symbol := range symbols {
					more = append(more, strings.ReplaceAll(word, symbol, letter))
				}
			}
			plain = more
		}
		all = append(all, plain...)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(plain string) bool { return plain == text })
}

// meanings yields the symbols in the text that stand for letters, each with the letters.
func meanings(text string) iter.Seq2[[]string, string] {
	return func(yield func([]string, string) bool) {
		for _, symbol := range replacing {
			var letters []string
			for letter, symbols := range adjacency.GraphMap["l33t"].Graph {
				if slices.Contains(symbols, string(symbol)) {
					letters = append(letters, letter)
				}
			}
			if strings.ContainsRune(text, symbol) && !yield(letters, string(symbol)) {
				return
			}
		}
	}
}

// commonWords are the words of the library's lists, each with its best rank in any. They are unpacked when somebody chooses a password for
// the first time, and kept.
var commonWords = sync.OnceValue(func() map[string]int {
	ranks := map[string]int{}
	for _, name := range []string{"MaleNames", "FemaleNames", "Surnames", "English", "Passwords"} {
		var file struct{ List []string }
		if err := json.Unmarshal(data.MustAsset("data/"+name+".json"), &file); err != nil {
			panic(err) // it is part of the program
		}
		own := make(map[string]int, len(file.List))
		for i, word := range file.List {
			own[strings.ToLower(word)] = i + 1
		}
		for word, rank := range own {
			if best, known := ranks[word]; !known || rank < best {
				ranks[word] = rank
			}
		}
	}
	return ranks
})
