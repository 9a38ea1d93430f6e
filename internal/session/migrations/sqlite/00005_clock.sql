-- +goose Up

-- The store's clock, in microseconds: that of this machine, to the millisecond.
CREATE VIEW session_clock (now) AS SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER);
