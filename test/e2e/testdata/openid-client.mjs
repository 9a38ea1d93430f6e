// The relying party of npm openid-client, as its documentation says to use it. It prints where a browser has to go, and reads on
// standard input where that came to.
import * as readline from "node:readline/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, issuer, id, secret, redirect] = process.argv.slice(2);
const require = createRequire(modules + "/");
const client = await import(pathToFileURL(require.resolve("openid-client")).href);
const input = readline.createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();
const visit = async (url) => {
  console.log("VISIT " + url);
  return new URL((await lines.next()).value);
};

const config = await client.discovery(new URL(issuer), id, secret, undefined, { execute: [client.allowInsecureRequests] });
const verifier = client.randomPKCECodeVerifier();
const state = client.randomState();
const nonce = client.randomNonce();
const callback = await visit(client.buildAuthorizationUrl(config, {
  redirect_uri: redirect, scope: "openid profile email", state, nonce, max_age: "3600",
  code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
}));
const tokens = await client.authorizationCodeGrant(config, callback, {
  pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, maxAge: 3600, idTokenExpected: true,
});
const subject = tokens.claims().sub;
const info = await client.fetchUserInfo(config, tokens.access_token, subject);
const next = await client.refreshTokenGrant(config, tokens.refresh_token);
const before = await client.tokenIntrospection(config, next.access_token);
await client.tokenRevocation(config, next.refresh_token);
const after = await client.tokenIntrospection(config, next.access_token);
let refused = "";
try {
  await client.refreshTokenGrant(config, next.refresh_token);
} catch (error) {
  refused = error.error;
}
const left = await visit(client.buildEndSessionUrl(config, {
  post_logout_redirect_uri: redirect + "/bye", id_token_hint: next.id_token, state: "left",
}));
console.log("RESULT " + JSON.stringify({
  email: info.email, name: info.name, same: next.claims().sub === subject, before: before.active, after: after.active, refused,
  left: left.searchParams.get("state"),
}));
input.close();
