package fault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

var errSoldOut = fault.New(fault.Conflict, "inventory.sold_out", "Not enough stock is left.")

func TestIdentitySurvivesWrappingAndDetail(t *testing.T) {
	t.Parallel()
	cause := errors.New("row 7")
	err := fmt.Errorf("reserve: %w", errSoldOut.Wrap(cause).With("Only 2 are left."))

	if !errors.Is(err, errSoldOut) {
		t.Error("a wrapped copy is no longer recognised as the declared fault")
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if errors.Is(err, fault.ErrInternal) {
		t.Error("faults with different codes are taken for each other")
	}
	f := fault.From(err)
	if f.Code() != "inventory.sold_out" || f.Kind() != fault.Conflict || f.Status() != http.StatusConflict {
		t.Errorf("From returned %v %v %d", f.Code(), f.Kind(), f.Status())
	}
	if f.Message() != "Only 2 are left." || errSoldOut.Message() != "Not enough stock is left." {
		t.Errorf("messages: copy %q, declared %q", f.Message(), errSoldOut.Message())
	}
	if !strings.Contains(err.Error(), "row 7") {
		t.Errorf("the log would not name the cause: %q", err)
	}
}

func TestFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  error
		code string
	}{
		{"fault", errSoldOut, "inventory.sold_out"},
		{"joined", errors.Join(errors.New("x"), errSoldOut), "inventory.sold_out"},
		{"a fault caused by a deadline stays itself", errSoldOut.Wrap(context.DeadlineExceeded), "inventory.sold_out"},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), "timeout"},
		{"body bound", fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 1}), "request.too_large"},
		{"cancelled", context.Canceled, "internal"},
		{"anything else", errors.New("disk on fire"), "internal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := fault.From(tc.err)
			if f.Code() != tc.code {
				t.Fatalf("code %q, want %q", f.Code(), tc.code)
			}
			if f.Code() == "internal" && strings.Contains(f.Message(), tc.err.Error()) {
				t.Errorf("an internal error is shown: %q", f.Message())
			}
		})
	}
	if fault.From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
}

func TestEveryKindHasItsStatus(t *testing.T) {
	t.Parallel()
	seen := map[int]fault.Kind{}
	for k := fault.Internal; k <= fault.Timeout; k++ {
		status := k.Status()
		if other, ok := seen[status]; ok {
			t.Errorf("%v and %v share status %d", other, k, status)
		}
		seen[status] = k
		if status < 400 || k.String() == "" || fault.KindOf(status) != k {
			t.Errorf("kind %d: status %d, name %q, back to %v", k, status, k, fault.KindOf(status))
		}
	}
	for status, want := range map[int]fault.Kind{418: fault.Malformed, 502: fault.BadGateway, 599: fault.Internal} {
		if got := fault.KindOf(status); got != want {
			t.Errorf("KindOf(%d) = %v, want %v", status, got, want)
		}
	}
	if unknown := fault.Kind(200); unknown.Status() != 500 || unknown.String() != "internal" {
		t.Errorf("unknown kind: %d %s", unknown.Status(), unknown)
	}
}

func TestNewRefusesWhatCouldNotBePermanent(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"", ".", "a.", "A.b", "a b", "a\r\nb", "a-b", strings.Repeat("a", 65)} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			defer func() {
				if recover() == nil {
					t.Errorf("code %q accepted", code)
				}
			}()
			fault.New(fault.Invalid, code, "Message.")
		})
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		-time.Second: time.Second, 0: time.Second, time.Nanosecond: time.Second, time.Second: time.Second,
		1001 * time.Millisecond: 2 * time.Second, time.Hour: time.Hour,
	} {
		if got := errSoldOut.After(d).RetryAfter(); got != want {
			t.Errorf("After(%v) = %v, want %v", d, got, want)
		}
	}
}

// A declared fault is shared by every request: building on it must never change it, nor a sibling.
func TestFaultsAreImmutable(t *testing.T) {
	t.Parallel()
	base := errSoldOut.WithFields(fault.Field{Name: "a"})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			name := fmt.Sprint(i)
			f := base.WithFields(fault.Field{Name: name}).With(name).After(time.Second).Challenge(name).Wrap(errors.New(name))
			if got := f.Fields(); len(got) != 2 || got[1].Name != name {
				t.Errorf("fields %v, want a and %s", got, name)
			}
			f.Fields()[0].Name = "changed"
		})
	}
	wg.Wait()
	if got := base.Fields(); len(got) != 1 || got[0].Name != "a" || base.Unwrap() != nil || base.RetryAfter() != 0 {
		t.Errorf("the shared fault has changed: %v", got)
	}
}
