package sqldb

import "github.com/jackc/pgx/v5"

// PostgreSQLConfig returns what a connection to a PostgreSQL server is made with.
func PostgreSQLConfig(raw string) (*pgx.ConnConfig, error) {
	t, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	return pgConfig(t)
}
