// Package authgrpc verifies access tokens of gRPC calls.
//
// It owns the way between gRPC and package auth: the token is in the metadata "authorization", the claims are in the handler's
// context ([auth.FromContext]), and a refusal is a status with an ErrorInfo that carries the permanent code.
//
// It promises that no handler runs without a valid token, unless its method is public, and that a stream ends when its token
// expires or is revoked. It is a package of its own so that services without gRPC do not build it.
package authgrpc

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sumunio/sumun/auth"
)

// Domain is that of the ErrorInfo of a refusal. Its reason is the code in capitals, AUTH_EXPIRED for auth.expired; its metadata
// hold the code itself and, under "www_authenticate", the challenge.
const Domain = "auth.sumun"

// Config says what calls need.
type Config struct {
	// Verifier judges the tokens. Required.
	Verifier *auth.Verifier
	// Public names the methods, such as "/grpc.health.v1.Health/Check", that need no token; their handlers find no claims. Nil: none.
	Public func(method string) bool
	// Check may refuse a call whose token is valid, with [auth.CheckScope], [auth.CheckRole] or [auth.Verifier.Fresh]. Nil: none is.
	Check func(ctx context.Context, method string, c *auth.Claims) error
}

// Unary is the interceptor for calls with one request and one answer.
func Unary(cfg Config) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, _, err := cfg.admit(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// Stream is the interceptor for streams. When the token stops being good, the stream's context is cancelled, receiving and
// sending fail, and the client gets the reason as the status of the stream.
func Stream(cfg Config) grpc.StreamServerInterceptor {
	return func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, claims, err := cfg.admit(s.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		if claims == nil {
			return handler(srv, s)
		}
		ctx, cancel := cfg.Verifier.WithWatch(ctx, claims)
		defer cancel()
		err = handler(srv, &stream{ServerStream: s, ctx: ctx})
		if gone := over(ctx); gone != nil {
			return gone
		}
		return err
	}
}

// admit returns the context for the handler, and the claims unless the method is public.
func (cfg Config) admit(ctx context.Context, method string) (context.Context, *auth.Claims, error) {
	if cfg.Public != nil && cfg.Public(method) {
		return ctx, nil, nil
	}
	claims, err := cfg.Verifier.VerifyRequest(request(ctx, method))
	if err == nil && cfg.Check != nil {
		err = cfg.Check(ctx, method, claims)
	}
	if err != nil {
		return nil, nil, refusal(err)
	}
	return auth.NewContext(ctx, claims), claims, nil
}

// request is the call as HTTP/2 carries it, so that one place judges the tokens of all requests.
func request(ctx context.Context, method string) *http.Request {
	md, _ := metadata.FromIncomingContext(ctx)
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: method}, Header: http.Header{}}
	for _, name := range []string{"authorization", "dpop"} {
		for _, value := range md.Get(name) {
			r.Header.Add(name, value)
		}
	}
	if authority := md.Get(":authority"); len(authority) == 1 {
		r.Host = authority[0]
	}
	if p, found := peer.FromContext(ctx); found {
		if info, over := p.AuthInfo.(credentials.TLSInfo); over {
			r.TLS = &info.State // for tokens that are bound to the client's certificate
		}
	}
	return r.WithContext(ctx)
}

// refusal translates an error of package auth into a status. Any other error keeps its own.
func refusal(err error) error {
	var e *auth.Error
	if !errors.As(err, &e) {
		return err
	}
	httpStatus, challenge, code := auth.Challenge(e)
	s := status.New(statusCode(httpStatus), e.Description())
	info := &errdetails.ErrorInfo{
		Reason: strings.ToUpper(strings.ReplaceAll(code, ".", "_")), Domain: Domain,
		Metadata: map[string]string{"code": code, "www_authenticate": challenge},
	}
	if detailed, err := s.WithDetails(info); err == nil {
		s = detailed
	}
	return s.Err()
}

func statusCode(httpStatus int) codes.Code {
	switch httpStatus {
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unauthenticated
}

// over returns why the token of a stream is not good any more, or nil.
func over(ctx context.Context) error {
	var e *auth.Error
	if errors.As(context.Cause(ctx), &e) {
		return refusal(e)
	}
	return nil
}

// stream ends with its token.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(m any) error {
	if err := over(s.ctx); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg does not wait for a client that stays silent after its token has ended. What still waits for the message then ends
// with the stream, as soon as the handler returns; the message is not looked at any more.
func (s *stream) RecvMsg(m any) error {
	if err := over(s.ctx); err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(m) }()
	select {
	case err := <-received:
		return err
	case <-s.ctx.Done():
		if err := over(s.ctx); err != nil {
			return err
		}
		return <-received
	}
}
