package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/sumunio/sumun/internal/app/settings"
	"github.com/sumunio/sumun/internal/fault"
)

// Exit codes of Main.
const (
	exitOK    = 0
	exitFault = 1 // it was understood, and did not work
	exitUsage = 2 // it was not understood
)

// program is what a command may touch of the world outside.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string // "NAME=value"
}

// commands is the grammar of the command line. Every command has a Run method that kong calls.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Start Sumun and serve until it is told to stop."`
	Migrate migrateCommand `cmd:"" help:"Bring the tables of the database up to date."`
	Config  configCommands `cmd:"" help:"Print or check the configuration."`
	User    userCommands   `cmd:"" help:"Add, list, disable, enable or release accounts."`
	Client  clientCommands `cmd:"" help:"Add, list or remove programs that ask for tokens, and replace their secrets."`
	APIKey  apiKeyCommands `cmd:"" name:"apikey" help:"Add, list or revoke API keys, with which programs call services without asking for tokens."`
	Keys    keysCommands   `cmd:"" help:"Rotate keys, or seal them with a new master key."`

	Sessions sessionsCommands `cmd:"" help:"Move sessions between the database and Redis, or tell where they are."`

	Version versionCommand `cmd:"" help:"Print which Sumun this is."`
}

const description = `Sumun signs people in and keeps a service standing when everyone comes at once.

Every setting can be given in a YAML file (--config, or the variable SUMUN_CONFIG), as an environment variable and, for
the usual ones, as a flag; the later wins. "sumun config default" prints all of them.`

// Main runs the command line and returns the exit code: 0, 1 for what did not work, 2 for what was not understood. What
// went wrong is one line each on stderr. It returns once everything that it started has ended; the end of ctx asks for that.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	var grammar commands
	answered := false // --help answers by itself
	parser, err := kong.New(&grammar,
		kong.Name("sumun"), kong.Description(description), kong.Writers(stdout, stderr),
		kong.Exit(func(int) { answered = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&program{stdin: stdin, stdout: stdout, stderr: stderr, env: env}),
	)
	if err != nil {
		complain(stderr, fmt.Errorf("command line: %w", err))
		return exitFault
	}
	command, err := parser.Parse(args)
	if answered {
		return exitOK
	}
	if err != nil {
		complain(stderr, fmt.Errorf("%w; see `%s`", err, helpFor(err)))
		return exitUsage
	}
	err = command.Run()
	if err == nil {
		return exitOK
	}
	complain(stderr, err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFault
}

// decodeDuration reads a flag as the configuration is read, with days.
func decodeDuration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := settings.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q %w", text, err)
	}
	target.SetInt(int64(d))
	return nil
}

// usageError is about arguments that the grammar alone cannot refuse.
type usageError struct{ error }

// helpFor names the help of the command that was meant.
func helpFor(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil && parse.Context.Command() != "" {
		command, _, _ := strings.Cut(parse.Context.Command(), " <")
		command, _, _ = strings.Cut(command, " [")
		return "sumun " + command + " --help"
	}
	return "sumun --help"
}

// complain writes each fault as one line.
func complain(w io.Writer, err error) {
	for _, one := range settings.Flatten(err) {
		text := one.Error()
		if f, ok := errors.AsType[*fault.Fault](one); ok {
			text = strings.Replace(text, f.Error(), inWords(f), 1)
		}
		fmt.Fprintf(w, "sumun: %s\n", oneLine(text))
	}
}

// inWords returns what a fault says to people: what is wrong with each value, if it names any, and for operators the cause.
// Its code is for programs.
func inWords(f *fault.Fault) string {
	words := []string{f.Message()}
	if fields := f.Fields(); len(fields) > 0 {
		words = words[:0]
		for _, field := range fields {
			words = append(words, field.Name+": "+field.Message)
		}
	}
	text := strings.Join(words, " ")
	if cause := f.Unwrap(); cause != nil {
		text += ": " + cause.Error()
	}
	return text
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// storeFlags are the flags of every command that looks at the configuration.
type storeFlags struct {
	Config   string `help:"YAML file with the configuration (SUMUN_CONFIG)." placeholder:"FILE"`
	Data     string `help:"Folder for what Sumun keeps on disk (SUMUN_DATA)." placeholder:"DIR"`
	Database string `help:"sqlite:PATH or postgres://user:password@host/name (SUMUN_DATABASE)." placeholder:"URL"`
	LogLevel string `help:"debug, info, warn or error (SUMUN_LOG_LEVEL)." placeholder:"LEVEL"`
}

// flags returns what was given, by the name of the key.
func (f storeFlags) flags() map[string]string {
	return given(map[string]string{"data": f.Data, "database": f.Database, "log.level": f.LogLevel})
}

// load reads the configuration for a command that is not a server.
func (f storeFlags) load(p *program) (Config, error) { return f.loadWith(p, f.flags()) }

// loadWith is load for a command that has more flags.
func (f storeFlags) loadWith(p *program, flags map[string]string) (Config, error) {
	cfg, err := newSource(f.Config, p.env, flags, modules()).load()
	if err != nil {
		return cfg, err
	}
	cfg.deriveIssuer(cfg.Listen)
	if f.LogLevel == "" {
		cfg.Log.Level = "warn" // what is routine for a server is noise to who waits for a command
	}
	return cfg, nil
}

// with opens the foundation outside of a server and hands it to do.
func (f storeFlags) with(ctx context.Context, p *program, open opener, do func(*foundation) error) (err error) {
	cfg, err := f.load(p)
	if err != nil {
		return err
	}
	return onFoundation(ctx, p, cfg, open, do)
}

func onFoundation(ctx context.Context, p *program, cfg Config, open opener, do func(*foundation) error) (err error) {
	base, err := open(ctx, cfg, cfg.Log.logger(p.stderr), tables(modules()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.close()) }()
	return do(base)
}

// serverFlags are the flags of the commands that serve, or check whether that would work.
type serverFlags struct {
	storeFlags
	Listen    string `help:"Address and port for the public (SUMUN_LISTEN)." placeholder:"ADDR"`
	OpsListen string `help:"Address and port for operators (SUMUN_OPS_LISTEN)." placeholder:"ADDR"`
	Issuer    string `help:"Public address of this installation, as browsers see it (SUMUN_ISSUER)." placeholder:"URL"`
	Redis     string `help:"redis://user:password@host:6379, for sessions and limits that nodes share (SUMUN_REDIS)." placeholder:"URL"`
	Limits    string `help:"on, or off to switch every rate limit off for a load test (SUMUN_LIMITS)." placeholder:"on|off"`
	LogFormat string `help:"text or json (SUMUN_LOG_FORMAT)." placeholder:"FORMAT"`
}

func (f serverFlags) flags() map[string]string {
	all := f.storeFlags.flags()
	for name, value := range given(map[string]string{
		"listen": f.Listen, "ops_listen": f.OpsListen, "issuer": f.Issuer, "redis": f.Redis,
		"limits": f.Limits, "log.format": f.LogFormat,
	}) {
		all[name] = value
	}
	return all
}

// given leaves out the flags that were not.
func given(flags map[string]string) map[string]string {
	for name, value := range flags {
		if value == "" {
			delete(flags, name)
		}
	}
	return flags
}
