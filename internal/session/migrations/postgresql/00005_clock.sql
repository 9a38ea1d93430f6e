-- +goose Up

-- The store's clock, in microseconds: what nodes whose own clocks differ agree on.
CREATE VIEW session_clock (now) AS SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT);
