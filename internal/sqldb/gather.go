package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"
)

const (
	// maxGathered bounds a transaction of Gather, and so for how long its rows are locked.
	maxGathered = 32
	// gatherTimeout bounds it in time, and by how much a caller who runs it for others can overstay. Callers may have less
	// time; they then wait no longer, and what they asked for may happen.
	gatherTimeout = 3 * time.Second
	// gatherLanes is how many such transactions are under way at once, while others gather. SQLite has one writer, for which
	// the second one waits.
	gatherLanes = 2
	// impatient is the first statement of one: a row that somebody has locked must not hold up the others for long.
	impatient = `SELECT set_config('lock_timeout', '50ms', true)`
)

// errApart says that a transaction of Gather was rolled back, because of one of its statements or of them all.
var errApart = errors.New("rolled back together")

// Gather runs one statement, which decides by itself and returns at most a row, for many callers at once: what comes while a
// transaction is under way is committed in the next one, in one round trip. Nobody waits for others to come. A commit costs
// more than such a statement, so that under load each costs a fraction; a single caller pays what One costs.
//
// Each statement sees what those before it have done, as if it had been committed by itself. The callers of one transaction
// succeed or fail together only where the database is gone: if it answers with an error, everyone goes on by themselves, and
// the mistake or the locked row of one concerns nobody else. It is safe for concurrent use.
type Gather[T any] struct {
	db    *DB
	query string
	scan  func(Row) (T, error)
	lanes chan struct{} // holds an element for each transaction under way

	mu      sync.Mutex
	waiting []*call[T]
}

// call is one caller's. Its outcome is there once done is closed.
type call[T any] struct {
	key   string
	args  []any
	done  chan struct{}
	value T
	err   error
}

// NewGather returns a Gather for a statement.
func NewGather[T any](db *DB, scan func(Row) (T, error), query string) *Gather[T] {
	return &Gather[T]{db: db, query: query, scan: scan, lanes: make(chan struct{}, gatherLanes)}
}

// One runs the statement like the function One. The key names the row that it locks: transactions lock in the order of keys, so
// that two of them cannot wait for each other.
func (g *Gather[T]) One(ctx context.Context, key string, args ...any) (T, error) {
	c := &call[T]{key: key, args: args, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	g.mu.Unlock()
	for lanes := g.lanes; ; {
		select {
		case lanes <- struct{}{}:
			g.run(ctx, g.take(c))
			<-lanes
			lanes = nil // ours is done, or about to be in another one
		case <-c.done:
			if errors.Is(c.err, errApart) {
				return One(ctx, g.db.Writer(), g.scan, g.query, args...)
			}
			return c.value, c.err
		case <-ctx.Done():
			g.leave(c)
			var zero T
			return zero, ctx.Err()
		}
	}
}

// take returns the calls of the next transaction, c among them; none if c is in another one already.
func (g *Gather[T]) take(c *call[T]) []*call[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, c)
	if i < 0 {
		return nil
	}
	g.waiting[0], g.waiting[i] = c, g.waiting[0]
	n := min(len(g.waiting), maxGathered)
	batch := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	slices.SortStableFunc(batch, func(a, b *call[T]) int { return cmp.Compare(a.key, b.key) })
	return batch
}

func (g *Gather[T]) leave(c *call[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, c); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
}

// run is one transaction. Who happens to run it for others may go away meanwhile.
func (g *Gather[T]) run(ctx context.Context, batch []*call[T]) {
	switch len(batch) {
	case 0:
		return
	case 1:
		batch[0].value, batch[0].err = One(ctx, g.db.Writer(), g.scan, g.query, batch[0].args...)
		close(batch[0].done)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gatherTimeout)
	defer cancel()
	together := g.inPipeline
	if g.db.Engine() == SQLite {
		together = g.inTransaction
	}
	err := together(ctx, batch)
	for _, c := range batch {
		if err != nil {
			c.err = err
		}
		close(c.done)
	}
}

func (g *Gather[T]) inTransaction(ctx context.Context, batch []*call[T]) error {
	return apart(ctx, run(ctx, g.db.writer, nil, func(tx Tx) error {
		for _, c := range batch {
			if err := g.decide(c, tx.QueryRowContext(ctx, g.query, c.args...)); err != nil {
				return err
			}
		}
		return nil
	}))
}

// inPipeline sends all statements before it reads an answer. Without BEGIN they are one transaction up to the end of the
// pipeline (PostgreSQL, section 55.2.3).
func (g *Gather[T]) inPipeline(ctx context.Context, batch []*call[T]) error {
	var b pgx.Batch
	b.Queue(impatient)
	for _, c := range batch {
		b.Queue(g.query, c.args...)
	}
	conn, err := g.db.writer.Conn(ctx)
	if err != nil {
		return explain(ctx, err)
	}
	defer conn.Close() // gives it back
	return apart(ctx, conn.Raw(func(raw any) error {
		answers := raw.(*stdlib.Conn).Conn().SendBatch(ctx, &b)
		_, err := answers.Exec()
		for _, c := range batch {
			if err == nil {
				err = g.decide(c, answers.QueryRow())
			}
		}
		return errors.Join(err, answers.Close())
	}))
}

// decide reads the outcome of one call. What it returns is wrong with them all; that a row is damaged is wrong with the call.
func (g *Gather[T]) decide(c *call[T], row Row) error {
	answer := &answer{Row: row}
	c.value, c.err = g.scan(answer)
	if errors.Is(answer.err, sql.ErrNoRows) {
		c.err = ErrNotFound
		return nil
	}
	return answer.err
}

// answer is a row that keeps why it could not be read.
type answer struct {
	Row
	err error
}

func (a *answer) Scan(dest ...any) error {
	a.err = a.Row.Scan(dest...)
	return a.err
}

// apart puts an error into its class, and is errApart where the database has said that nothing was committed.
func apart(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	explained := explain(ctx, err)
	_, bySQLite := errors.AsType[*sqlite.Error](err)
	_, byPostgreSQL := errors.AsType[*pgconn.PgError](err)
	if (bySQLite || byPostgreSQL) && ctx.Err() == nil && !errors.Is(explained, ErrUnreachable) && !errors.Is(explained, ErrUnconfirmed) {
		return errApart
	}
	return explained
}
