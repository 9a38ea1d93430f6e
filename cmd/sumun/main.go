// Command sumun signs people in. See `sumun --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sumunio/sumun/internal/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(app.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
