package authgrpc_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authgrpc"
	"github.com/sumunio/sumun/auth/authtest"
)

// greeter is a service written out by hand: Hello answers with the caller's name, Chat repeats what it hears.
var greeter = grpc.ServiceDesc{
	ServiceName: "test.Greeter", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Hello", Handler: hello}, {MethodName: "Ping", Handler: hello}},
	Streams: []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true}},
}

func hello(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	in := new(emptypb.Empty)
	if err := decode(in); err != nil {
		return nil, err
	}
	method, _ := grpc.Method(ctx)
	return intercept(ctx, in, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		if c := auth.FromContext(ctx); c != nil {
			return wrapperspb.String(c.Subject), nil
		}
		return wrapperspb.String("nobody"), nil
	})
}

func chat(_ any, s grpc.ServerStream) error {
	for {
		m := new(wrapperspb.StringValue)
		if err := s.RecvMsg(m); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := s.SendMsg(wrapperspb.String(auth.FromContext(s.Context()).Subject + ": " + m.Value)); err != nil {
			return err
		}
	}
}

func dial(t *testing.T, cfg authgrpc.Config) *grpc.ClientConn {
	t.Helper()
	server := grpc.NewServer(grpc.UnaryInterceptor(authgrpc.Unary(cfg)), grpc.StreamInterceptor(authgrpc.Stream(cfg)))
	server.RegisterService(&greeter, struct{}{})
	listener := bufconn.Listen(1 << 16)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func with(ctx context.Context, tokens ...string) context.Context {
	for _, token := range tokens {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return ctx
}

// reason is what a program reads out of a refusal.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == authgrpc.Domain {
			return info.Metadata["code"]
		}
	}
	return ""
}

// A call is refused for what an HTTP request would be refused for, and the client can tell why.
func TestUnary(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	v := issuer.Verifier()
	conn := dial(t, authgrpc.Config{
		Verifier: v,
		Public:   func(method string) bool { return method == "/test.Greeter/Ping" },
		Check: func(_ context.Context, _ string, c *auth.Claims) error {
			if err := auth.CheckScope(c, "hello"); err != nil {
				return err
			}
			return v.Fresh()
		},
	})
	good := issuer.Token(authtest.WithScope("hello"))
	call := func(name, method string, ctx context.Context, code codes.Code, want string) {
		t.Helper()
		out := new(wrapperspb.StringValue)
		err := conn.Invoke(ctx, "/test.Greeter/"+method, new(emptypb.Empty), out)
		got := reason(err)
		if err == nil {
			got = out.Value
		}
		if status.Code(err) != code || got != want {
			t.Errorf("%s: %v %q (%v), want %v %q", name, status.Code(err), got, err, code, want)
		}
	}
	call("good", "Hello", with(t.Context(), good), codes.OK, "alice")
	call("public", "Ping", t.Context(), codes.OK, "nobody")
	call("none", "Hello", t.Context(), codes.Unauthenticated, "auth.missing")
	call("two", "Hello", with(t.Context(), good, good), codes.Unauthenticated, "auth.request")
	call("nonsense", "Hello", with(t.Context(), "x.y.z"), codes.Unauthenticated, "auth.malformed")
	call("no scope", "Hello", with(t.Context(), issuer.Token()), codes.PermissionDenied, "auth.scope")
	issuer.GoStale()
	call("stale", "Hello", with(t.Context(), good), codes.Unavailable, "auth.stale")
	issuer.GoFresh()
	issuer.RevokeSession("session-1")
	call("revoked", "Hello", with(t.Context(), good), codes.Unauthenticated, "auth.revoked")
}

func open(t *testing.T, conn *grpc.ClientConn, token string) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(with(t.Context(), token), 20*time.Second)
	t.Cleanup(cancel)
	s, err := conn.NewStream(ctx, &greeter.Streams[0], "/test.Greeter/Chat")
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, "hi", "alice: hi")
	return s
}

func say(t *testing.T, s grpc.ClientStream, text, want string) {
	t.Helper()
	if err := s.SendMsg(wrapperspb.String(text)); err != nil {
		t.Fatal(err)
	}
	m := new(wrapperspb.StringValue)
	if err := s.RecvMsg(m); err != nil || m.Value != want {
		t.Fatalf("got %q, %v", m.Value, err)
	}
}

// A stream that is open when its session ends must end too, even if the client says nothing more; others go on.
func TestStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	conn := dial(t, authgrpc.Config{Verifier: issuer.Verifier()})
	a := open(t, conn, issuer.Token(authtest.WithSession("a")))
	b := open(t, conn, issuer.Token(authtest.WithSession("b")))
	issuer.RevokeSession("a")
	err := a.RecvMsg(new(wrapperspb.StringValue))
	if status.Code(err) != codes.Unauthenticated || reason(err) != "auth.revoked" {
		t.Errorf("the stream ended with %v", err)
	}
	say(t, b, "still here", "alice: still here")
	if err := b.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := b.RecvMsg(new(wrapperspb.StringValue)); err != io.EOF {
		t.Errorf("the other stream ended with %v", err)
	}
}

// A stream without a token does not begin.
func TestStreamRefuses(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	conn := dial(t, authgrpc.Config{Verifier: issuer.Verifier()})
	s, err := conn.NewStream(t.Context(), &greeter.Streams[0], "/test.Greeter/Chat")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); reason(err) != "auth.missing" {
		t.Errorf("got %v", err)
	}
}

// Two interceptors, and every method needs a token.
func ExampleUnary() {
	verifier, err := auth.New(auth.Config{Issuer: "https://id.example", Audience: "https://orders.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg := authgrpc.Config{
		Verifier: verifier,
		Public:   func(method string) bool { return method == "/grpc.health.v1.Health/Check" },
		Check: func(_ context.Context, _ string, c *auth.Claims) error {
			return auth.CheckScope(c, "orders:write")
		},
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(authgrpc.Unary(cfg)), grpc.StreamInterceptor(authgrpc.Stream(cfg)))
	defer server.Stop()
	fmt.Println(len(server.GetServiceInfo()), "services")
	// Output: 0 services
}
