-- +goose Up

-- What a person wants other programs to know, if those ask: a telephone number in E.164, a postal address as the members of the claim
-- address of OpenID Connect (JSON); '' for none.
ALTER TABLE accounts ADD COLUMN phone TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN address TEXT NOT NULL DEFAULT '';
