// Package e2e proves what people and operators are promised, against the real program: built once, started as a process,
// spoken to over its ports, told to stop with signals, and killed.
//
// It owns the promises that no single package can keep: that the main job works from sign-up to the death of a token family,
// on every database; that nodes agree; that what was answered survives kill -9; that a sign-in storm leaves everybody else
// alone; that what goes wrong at the start is one clear line; and that the pages work in a browser, in two languages, with and
// without scripts, for everybody.
//
// It refuses to look inside: what it knows, it learned from the program's output, its ports and its mail.
//
// SQLite is always tested. These variables add to it; what one names must be there:
//
//	SUMUN_TEST_POSTGRES     URL of a PostgreSQL server whose user may create databases
//	SUMUN_TEST_REDIS        URL of a Redis server
//	SUMUN_TEST_CHROMIUM     Chromium's executable, for the pages; needs SUMUN_TEST_AXE as well
//	SUMUN_TEST_AXE          path of axe.min.js (axe-core)
//	SUMUN_TEST_NGINX        nginx's executable, and
//	SUMUN_TEST_CADDY        Caddy's, for proxies that ask Sumun about requests
//	SUMUN_E2E_SCREENSHOTS   folder for a picture of every page; optional
//
// Where CI is set, a full disk must be testable too: as root on Linux, where a small tmpfs can be mounted.
package e2e
