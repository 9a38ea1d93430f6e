package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sumunio/sumun/internal/session"
)

type sessionsCommands struct {
	Move   sessionsMoveCommand   `cmd:"" help:"Move all sessions from one store to the other, while servers run."`
	Status sessionsStatusCommand `cmd:"" help:"Tell how many people and sessions are in which store."`
}

// sessionsFlags are the flags of commands that need both stores.
type sessionsFlags struct {
	storeFlags
	Redis string `help:"The Redis that the servers use (SUMUN_REDIS)." placeholder:"URL"`
}

func (f sessionsFlags) with(ctx context.Context, p *program, do func(*session.Service) error) error {
	flags := f.flags()
	if f.Redis != "" {
		flags["redis"] = f.Redis
	}
	cfg, err := f.loadWith(p, flags)
	if err != nil {
		return err
	}
	return onFoundation(ctx, p, cfg, openExisting, withIdentity(func(s *identityServices) error { return do(s.sessions) }))
}

type sessionsMoveCommand struct {
	sessionsFlags
	From  session.Store `required:"" enum:"sql,redis" help:"sql or redis: where the sessions are." placeholder:"STORE"`
	To    session.Store `required:"" enum:"sql,redis" help:"sql or redis: where they are to be." placeholder:"STORE"`
	Batch int           `default:"100" help:"People who move together; for so long as that takes, their refreshes wait." placeholder:"N"`
	Rate  int           `default:"0" help:"People per second at most; 0 for as fast as it goes." placeholder:"N"`
	Turn  bool          `help:"Turn round a move the other way that is under way."`
}

// Help implements kong.HelpProvider.
func (sessionsMoveCommand) Help() string {
	return `Works while servers run and people refresh, sign in and out; nobody is signed out by it. All servers must have the same
database and the same Redis configured (redis), and be of a version that knows this command: restart them first. Who signs
up from then on is in the new store.

It may be stopped at any time (Ctrl-C, or kill -9) and be run again: it goes on where it was. Sessions that were just being moved
are completed by whoever needs them first. Afterwards set sessions.store to the new store, or leave it at auto.

Examples:

  sumun sessions move --from sql --to redis --config /etc/sumun.yaml
  sumun sessions move --from redis --to sql --rate 500`
}

func (c *sessionsMoveCommand) Run(ctx context.Context, p *program) error {
	if c.From == c.To {
		return usageError{fmt.Errorf("--from and --to are both %s; name two stores", c.From)}
	}
	return c.with(ctx, p, func(s *session.Service) error {
		bar := newProgress(p.stdout)
		state, err := s.Move(ctx, session.Move{From: c.From, To: c.To, Batch: c.Batch, Rate: c.Rate, Turn: c.Turn}, bar.show)
		bar.end()
		switch {
		case err != nil && ctx.Err() != nil && state.Target == c.To:
			return fmt.Errorf("stopped: %d people have moved, %d have not; run the same command again to go on",
				state.People+state.Skipped, state.Remaining)
		case err != nil:
			return err
		}
		census, err := s.Census(ctx, false)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.stdout, "moved %d people with %d sessions from %s to %s in %v; %d more had no session\n"+
			"now %d people are in sql and %d in redis\n",
			state.People, state.Sessions, c.From, c.To, bar.took(), state.Skipped, census.SQL.People, census.Redis.People)
		return err
	})
}

// progress shows how far a move has come: as a bar on a terminal, else as a line now and then.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	told     time.Time
	first    int64 // who had moved before
}

// tellEvery is the least time between two lines, and redrawEvery between two bars.
const (
	tellEvery   = 10 * time.Second
	redrawEvery = 200 * time.Millisecond
	barWidth    = 30
)

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, began: time.Now(), first: -1}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) show(s session.MoveState) {
	done := s.People + s.Skipped
	if p.first < 0 {
		p.first = done
	}
	every := tellEvery
	if p.terminal {
		every = redrawEvery
	}
	if now := time.Now(); now.Sub(p.told) < every && s.Remaining > 0 {
		return
	} else {
		p.told = now
	}
	text := p.text(done, done+s.Remaining)
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
	} else {
		fmt.Fprintln(p.out, text)
	}
}

// text describes the move: 42 %, how many of how many, how fast, how long it will take.
func (p *progress) text(done, total int64) string {
	share := 1.0
	if total > 0 {
		share = float64(done) / float64(total)
	}
	text := fmt.Sprintf("%3.0f %%  %d of %d people", 100*share, done, total)
	if p.terminal {
		full := int(share * barWidth)
		text = "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "] " + text
	}
	if rate := float64(done-p.first) / time.Since(p.began).Seconds(); rate >= 1 {
		left := time.Duration(float64(total-done) / rate * float64(time.Second))
		text += fmt.Sprintf(", %.0f a second, %v left", rate, left.Round(time.Second))
	}
	return text
}

// end leaves the line of the bar.
func (p *progress) end() {
	if p.terminal && !p.told.IsZero() {
		fmt.Fprintln(p.out)
	}
}

func (p *progress) took() time.Duration { return time.Since(p.began).Round(time.Millisecond) }

type sessionsStatusCommand struct {
	sessionsFlags
	Check bool `help:"Also ask Redis about everybody: count the sessions there, and make sure that nobody is in two stores."`
}

// Help implements kong.HelpProvider.
func (sessionsStatusCommand) Help() string {
	return `Prints the people and live sessions in either store, and how far the latest move has come. People stay listed for some
months after their last session. With --check it takes about 20 seconds per million people, and ends with exit code 1 if
somebody has sessions where they do not belong; who is moving meanwhile may look like that.

Example:

  sumun sessions status --check`
}

func (c *sessionsStatusCommand) Run(ctx context.Context, p *program) error {
	return c.with(ctx, p, func(s *session.Service) error {
		census, err := s.Census(ctx, c.Check)
		if err != nil {
			return err
		}
		state, err := s.MoveState(ctx)
		if err != nil {
			return err
		}
		inRedis := "?"
		if c.Check || census.Redis.People == 0 {
			inRedis = fmt.Sprint(census.Redis.Sessions)
		}
		table := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintf(table, "STORE\tPEOPLE\tSESSIONS\nsql\t%d\t%d\nredis\t%d\t%s\n",
			census.SQL.People, census.SQL.Sessions, census.Redis.People, inRedis)
		err = table.Flush()
		fmt.Fprintln(p.stdout, describeMove(state, census.UnderWay))
		if len(census.Twice) > 0 {
			return errors.Join(err, fmt.Errorf("%d people have sessions in two stores, among them %s; run this again, and if it "+
				"stays so, end their sessions", len(census.Twice), census.Twice[0]))
		}
		return err
	})
}

func describeMove(s session.MoveState, underWay int64) string {
	if s.Target == "" {
		return "sessions have never been moved"
	}
	moved := fmt.Sprintf("%d people with %d sessions and %d without", s.People, s.Sessions, s.Skipped)
	if s.FinishedAt.IsZero() {
		return fmt.Sprintf("a move to %s is under way since %s: %s have moved, %d are between the stores, %d have not",
			s.Target, s.StartedAt.UTC().Format(time.DateTime), moved, underWay, s.Remaining)
	}
	return fmt.Sprintf("the latest move, to %s, ended %s: %s", s.Target, s.FinishedAt.UTC().Format(time.DateTime), moved)
}
