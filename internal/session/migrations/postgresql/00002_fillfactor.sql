-- +goose Up
-- Room on every page for the next version of a row, so that a refresh need not touch the indexes.
ALTER TABLE session_grants SET (fillfactor = 70);
