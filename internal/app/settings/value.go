package settings

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sumunio/sumun/internal/keyring"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[keyring.Secret]()
	networkType  = reflect.TypeFor[netip.Prefix]()
	parserType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isSecret(t reflect.Type) bool { return t == secretType }

func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(parserType) }

func isList(t reflect.Type) bool { return t.Kind() == reflect.Slice && !isText(t) }

// typeWords says in words what may be written for a field of this type.
func typeWords(t reflect.Type) (string, error) {
	switch {
	case isSecret(t):
		return "secret", nil
	case t == durationType:
		return "duration", nil
	case isList(t):
		words, err := typeWords(t.Elem())
		return "list of " + words, err
	case isText(t) && t.Kind() == reflect.Bool:
		return "on or off", nil
	case t == networkType:
		return "networks", nil
	case isText(t):
		return strings.ToLower(spaced(t.Name())), nil
	}
	switch t.Kind() {
	case reflect.String:
		return "text", nil
	case reflect.Bool:
		return "true or false", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number", nil
	case reflect.Float64:
		return "number", nil
	default:
		return "", fmt.Errorf("a %s cannot be written in a file", t)
	}
}

// spaced turns a Go name into words: "LogFormat" into "Log Format".
func spaced(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// parse sets the field from what was written. A list takes every text, anything else exactly one.
func parse(field reflect.Value, texts []string) error {
	if isList(field.Type()) {
		list := reflect.MakeSlice(field.Type(), len(texts), len(texts))
		for i, text := range texts {
			if err := parseOne(list.Index(i), text); err != nil {
				return err
			}
		}
		field.Set(list)
		return nil
	}
	if len(texts) != 1 {
		return errors.New("takes a single value, not a list")
	}
	return parseOne(field, texts[0])
}

func parseOne(field reflect.Value, text string) error {
	if isSecret(field.Type()) {
		field.SetString(text)
		return nil
	}
	var err error
	switch p, ok := field.Addr().Interface().(encoding.TextUnmarshaler); {
	case ok:
		if err = p.UnmarshalText([]byte(text)); err != nil {
			err = fmt.Errorf("is not accepted: %w", err)
		}
	case field.Type() == durationType:
		err = setDuration(field, text)
	case field.Kind() == reflect.String:
		field.SetString(text)
	case field.Kind() == reflect.Bool:
		err = setBool(field, text)
	default:
		err = setNumber(field, text)
	}
	if err != nil {
		return fmt.Errorf("%q %w", text, err)
	}
	return nil
}

func setDuration(field reflect.Value, text string) error {
	d, err := ParseDuration(text)
	if err == nil {
		field.SetInt(int64(d))
	}
	return err
}

func setBool(field reflect.Value, text string) error {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		field.SetBool(true)
	case "false", "no", "off", "0":
		field.SetBool(false)
	default:
		return errors.New("is neither true nor false; write one of the two")
	}
	return nil
}

// setNumber takes every kind that typeWords calls a number.
func setNumber(field reflect.Value, text string) error {
	digits := strings.ReplaceAll(text, "_", "")
	switch {
	case field.CanInt():
		n, err := strconv.ParseInt(digits, 10, field.Type().Bits())
		if err != nil {
			return errors.New("is not a whole number in range; write digits only")
		}
		field.SetInt(n)
	case field.CanUint():
		n, err := strconv.ParseUint(digits, 10, field.Type().Bits())
		if err != nil {
			return errors.New("is not a whole number of 0 or more; write digits only")
		}
		field.SetUint(n)
	case field.CanFloat():
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return errors.New("is not a number; write it like 0.05")
		}
		field.SetFloat(f)
	}
	return nil
}

const day = 24 * time.Hour

// What is wrong with a duration. Both go on where "12x" ends.
var (
	errNoDuration = errors.New("is not a duration; write a number with its unit, such as 500ms, 10s, 15m, 12h or 30d")
	errTooLong    = errors.New("is too long; write at most 65535d")
)

// ParseDuration reads a duration as files, variables and flags write it: in Go's notation, and in days, "30d", "1d12h". Its error goes on
// where "12x" ends.
func ParseDuration(text string) (time.Duration, error) {
	before, rest, found := strings.Cut(text, "d")
	if !found {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, errNoDuration
		}
		return d, nil
	}
	days, err := strconv.ParseUint(before, 10, 16)
	if errors.Is(err, strconv.ErrRange) {
		return 0, errTooLong
	}
	var d time.Duration
	if err == nil && rest != "" {
		d, err = time.ParseDuration(rest)
	}
	if err != nil || d < 0 {
		return 0, errNoDuration
	}
	if d += time.Duration(days) * day; d < 0 {
		return 0, errTooLong
	}
	return d, nil
}

// formatDuration writes what ParseDuration reads, in the shortest form: "90d", "15m", "1m30s".
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	for _, zero := range []struct{ full, short string }{{"m0s", "m"}, {"h0m", "h"}} {
		if strings.HasSuffix(text, zero.full) {
			text = strings.TrimSuffix(text, zero.full) + zero.short
		}
	}
	return text
}

// format writes a value as it would be written in the environment: lists with commas, a secret not at all.
func format(value reflect.Value) string {
	if isSecret(value.Type()) {
		return ""
	}
	if isList(value.Type()) {
		parts := make([]string, value.Len())
		for i := range parts {
			parts[i] = format(value.Index(i))
		}
		return strings.Join(parts, ",")
	}
	if value.Type() == durationType {
		return formatDuration(time.Duration(value.Int()))
	}
	if m, ok := value.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(value.Interface())
}
