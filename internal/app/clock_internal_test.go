package app

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

// Nodes whose clocks differ too much refuse each other's access tokens; an operator must hear of it first.
func TestClocksThatDisagreeAreReported(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, nil, func(t *testing.T, db *sqldb.DB) {
		for _, c := range []struct {
			off  time.Duration
			tell bool
		}{{0, false}, {time.Second, false}, {11 * time.Second, true}, {-11 * time.Second, true}} {
			var log bytes.Buffer
			f := &foundation{
				db: db, log: slog.New(slog.NewTextHandler(&log, nil)),
				clock: func() time.Time { return time.Now().Add(c.off) },
			}
			f.compareClocks(t.Context())
			if told := strings.Contains(log.String(), "clock differs"); told != c.tell {
				t.Errorf("a clock off by %v: told is %v", c.off, told)
			}
		}
	})
}

// Whoever may write into the data folder may put their own keys there.
func TestDataFolderOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for mode, refused := range map[os.FileMode]bool{0o777: true, 0o770: true, 0o755: false, 0o700: false} {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
		if err := ownFolder(folder); (err != nil) != refused || refused && !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("a folder of mode %o is answered %v", mode, err)
		}
	}
}
