package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// maxCached bounds the statements that one connection keeps, and maxCachedSize (bytes) leaves migrations out.
	maxCached     = 128
	maxCachedSize = 8 << 10
)

// cachingConnector improves on the driver in two ways. It keeps prepared statements with each SQLite connection, as pgx does for PostgreSQL. Parsing takes longer
// than running most statements, and on SQLite it would happen while the one writer is held. And it waits for the locks of other
// processes in a way that a context can end.
type cachingConnector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c cachingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	sc, ok := conn.(sqliteConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("sqlite driver: %T lacks a method", conn)
	}
	return &cachingConn{sqliteConn: sc, idle: map[string]sqliteStmt{}}, nil
}

// sqliteConn and sqliteStmt are what database/sql may use of the driver.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// cachingConn is used by one goroutine at a time, which database/sql sees to. A statement that runs, or whose rows are still
// open, is not in idle, so the same text can be run again meanwhile.
type cachingConn struct {
	sqliteConn
	idle map[string]sqliteStmt
}

// ExecContext implements driver.ExecerContext.
func (c *cachingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if len(query) > maxCachedSize {
		return c.sqliteConn.ExecContext(ctx, query, args)
	}
	s, err := waitBusy(ctx, func() (sqliteStmt, error) { return c.take(ctx, query) })
	if err != nil {
		return nil, err
	}
	defer c.give(query, s)
	return waitBusy(ctx, func() (driver.Result, error) { return s.ExecContext(ctx, args) })
}

// QueryContext implements driver.QueryerContext.
func (c *cachingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if len(query) > maxCachedSize {
		return c.sqliteConn.QueryContext(ctx, query, args)
	}
	s, err := waitBusy(ctx, func() (sqliteStmt, error) { return c.take(ctx, query) })
	if err != nil {
		return nil, err
	}
	rows, err := waitBusy(ctx, func() (driver.Rows, error) { return s.QueryContext(ctx, args) })
	if err != nil {
		c.give(query, s)
		return nil, err
	}
	return &cachedRows{Rows: rows, done: func() { c.give(query, s) }}, nil
}

// BeginTx implements driver.ConnBeginTx.
func (c *cachingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return waitBusy(ctx, func() (driver.Tx, error) { return c.sqliteConn.BeginTx(ctx, opts) })
}

// waitBusy repeats what another process's lock has kept from happening, until busyFor has passed or ctx ends.
func waitBusy[T any](ctx context.Context, try func() (T, error)) (T, error) {
	start := time.Now()
	for {
		v, err := try()
		e, ok := errors.AsType[*sqlite.Error](err)
		if !ok || e.Code() != sqlite3.SQLITE_BUSY && e.Code() != sqlite3.SQLITE_BUSY_RECOVERY ||
			ctx.Err() != nil || time.Since(start) > busyFor {
			return v, err
		}
	}
}

// Close implements driver.Conn.
func (c *cachingConn) Close() error {
	for _, s := range c.idle {
		_ = s.Close() // what matters is that closing the connection succeeds
	}
	clear(c.idle)
	return c.sqliteConn.Close()
}

func (c *cachingConn) take(ctx context.Context, query string) (sqliteStmt, error) {
	if s, ok := c.idle[query]; ok {
		delete(c.idle, query)
		return s, nil
	}
	s, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	cs, ok := s.(sqliteStmt)
	if !ok {
		_ = s.Close()
		return nil, fmt.Errorf("sqlite driver: %T lacks a method", s)
	}
	return cs, nil
}

// give keeps a statement for the next time, in place of any other one where there are too many.
func (c *cachingConn) give(query string, s sqliteStmt) {
	if _, twice := c.idle[query]; twice {
		_ = s.Close()
		return
	}
	for other, o := range c.idle {
		if len(c.idle) < maxCached {
			break
		}
		_ = o.Close()
		delete(c.idle, other)
	}
	c.idle[query] = s
}

// cachedRows gives the statement back when it is closed.
type cachedRows struct {
	driver.Rows
	done func()
}

// Close implements driver.Rows.
func (r *cachedRows) Close() error {
	err := r.Rows.Close()
	if r.done != nil {
		r.done()
		r.done = nil
	}
	return err
}
