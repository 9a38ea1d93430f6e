// npm openid-client registers itself, signs somebody in, and says what it knows of them. It prints where a browser has to go, and reads
// on standard input where that came to.
import * as readline from "node:readline/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, issuer, token, redirect] = process.argv.slice(2);
const require = createRequire(modules + "/");
const client = await import(pathToFileURL(require.resolve("openid-client")).href);
const input = readline.createInterface({ input: process.stdin });
const lines = input[Symbol.asyncIterator]();
const visit = async (url) => {
  console.log("VISIT " + url);
  return new URL((await lines.next()).value);
};

const config = await client.dynamicClientRegistration(new URL(issuer), {
  client_name: "Newcomer", redirect_uris: [redirect], post_logout_redirect_uris: [redirect + "/bye"], subject_type: "pairwise",
  grant_types: ["authorization_code", "refresh_token"], response_types: ["code"], scope: "openid email",
}, undefined, { initialAccessToken: token, execute: [client.allowInsecureRequests] });
const verifier = client.randomPKCECodeVerifier();
const nonce = client.randomNonce();
const callback = await visit(client.buildAuthorizationUrl(config, {
  redirect_uri: redirect, scope: "openid email", nonce, code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
}));
const tokens = await client.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier, expectedNonce: nonce, idTokenExpected: true });
const { sub, sid } = tokens.claims();
const info = await client.fetchUserInfo(config, tokens.access_token, sub);
const next = await client.refreshTokenGrant(config, tokens.refresh_token);
const known = await client.tokenIntrospection(config, next.access_token);
const left = await visit(client.buildEndSessionUrl(config, {
  post_logout_redirect_uri: redirect + "/bye", id_token_hint: next.id_token, state: "left",
}));
const after = await client.tokenIntrospection(config, next.access_token);
const { client_id: id, registration_client_uri: address, registration_access_token: own } = config.clientMetadata();
const removed = await fetch(address, { method: "DELETE", headers: { authorization: "Bearer " + own } });
console.log("RESULT " + JSON.stringify({
  id, email: info.email, sub, same: next.claims().sub === sub && known.sub === sub && next.claims().sid === sid, before: known.active, after: after.active,
  left: left.searchParams.get("state"), removed: removed.status,
}));
input.close();
