//go:build !race

package e2e_test

// raceEnabled says that the tests, and therefore the program, are built with the race detector.
const raceEnabled = false
