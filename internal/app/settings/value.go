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
	quoted := strconv.Quote(text)
	if isSecret(field.Type()) {
		field.SetString(text)
		return nil
	}
	if p, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := p.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%s is not accepted: %w", quoted, err)
		}
		return nil
	}
	if field.Type() == durationType {
		d, err := parseDuration(text)
		if err != nil {
			return fmt.Errorf("%s is not a duration; write a number with its unit, such as 500ms, 10s, 15m, 12h or 30d", quoted)
		}
		field.SetInt(int64(d))
		return nil
	}
	switch {
	case field.Kind() == reflect.String:
		field.SetString(text)
	case field.Kind() == reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			field.SetBool(true)
		case "false", "no", "off", "0":
			field.SetBool(false)
		default:
			return fmt.Errorf("%s is neither true nor false; write one of the two", quoted)
		}
	case field.CanInt():
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, field.Type().Bits())
		if err != nil {
			return fmt.Errorf("%s is not a whole number in range; write digits only", quoted)
		}
		field.SetInt(n)
	case field.CanUint():
		n, err := strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 10, field.Type().Bits())
		if err != nil {
			return fmt.Errorf("%s is not a whole number of 0 or more; write digits only", quoted)
		}
		field.SetUint(n)
	case field.CanFloat():
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%s is not a number; write it like 0.05", quoted)
		}
		field.SetFloat(f)
	}
	return nil
}

const day = 24 * time.Hour

// parseDuration reads Go's notation, and days: "30d", "1d12h".
func parseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("days: %w", err)
	}
	if rest == "" {
		return time.Duration(n) * day, nil
	}
	d, err := time.ParseDuration(rest)
	return time.Duration(n)*day + d, err
}

// formatDuration writes what parseDuration reads, in the shortest form: "90d", "15m", "1m30s".
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
