// npm oidc-provider as `go run ./bench provider` measures it: static clients, JWT access tokens (ES256), rotating refresh tokens,
// state in Redis. Besides the protocol it answers what the benchmark asks: /readyz, /metrics, and /seed?chains=N, which gives N
// chains of refresh tokens as a sign-in would have.
//
// Arguments: folder with the packages, address, URL of Redis, client id, client secret, resource of JWT tokens, resource of opaque
// tokens.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, address, redisURL, id, secret, jwtResource, opaqueResource] = process.argv.slice(2);
const installed = createRequire(folder + "/");
const load = async (name) => (await import(pathToFileURL(installed.resolve(name)))).default;
const Redis = await load("ioredis");
const Provider = await load("oidc-provider");

const lifetime = 900;
const refreshLifetime = 7 * 24 * 3600;
const scope = "api:read";
const issuer = `http://${address}`;

const redis = new Redis(redisURL, { enableAutoPipelining: true });

// consumable tokens are hashes, so that using one up does not write all of it again.
const consumable = new Set(["AuthorizationCode", "RefreshToken", "DeviceCode", "BackchannelAuthenticationRequest"]);
const grantable = new Set([...consumable, "AccessToken"]);

class RedisAdapter {
  constructor(model) {
    this.model = model;
  }

  key(token) {
    return `${this.model}:${token}`;
  }

  async upsert(token, payload, expiresIn) {
    const key = this.key(token);
    const text = JSON.stringify(payload);
    const multi = redis.multi();
    if (consumable.has(this.model)) {
      multi.hset(key, "payload", text).expire(key, expiresIn);
    } else {
      multi.set(key, text, "EX", expiresIn);
    }
    if (payload.grantId && grantable.has(this.model)) {
      const members = `grant:${payload.grantId}`;
      multi.sadd(members, key).expire(members, refreshLifetime);
    }
    await multi.exec();
  }

  async find(token) {
    if (!consumable.has(this.model)) {
      const text = await redis.get(this.key(token));
      return text ? JSON.parse(text) : undefined;
    }
    const { payload, consumed } = await redis.hgetall(this.key(token));
    if (!payload) return undefined;
    return { ...JSON.parse(payload), ...(consumed ? { consumed: Number(consumed) } : undefined) };
  }

  async consume(token) {
    await redis.hset(this.key(token), "consumed", Math.floor(Date.now() / 1000));
  }

  async destroy(token) {
    await redis.del(this.key(token));
  }

  async revokeByGrantId(grantId) {
    const members = `grant:${grantId}`;
    await redis.del(members, ...(await redis.smembers(members)));
  }
}

const provider = new Provider(issuer, {
  adapter: RedisAdapter,
  jwks: { keys: [{ ...generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" }), alg: "ES256", use: "sig" }] },
  clients: [{
    client_id: id,
    client_secret: secret,
    token_endpoint_auth_method: "client_secret_basic",
    id_token_signed_response_alg: "ES256",
    grant_types: ["authorization_code", "refresh_token", "client_credentials"],
    redirect_uris: ["https://client.example.com/callback"],
    scope,
  }],
  scopes: [scope, "offline_access"],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => jwtResource,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        audience: resource,
        scope,
        accessTokenTTL: lifetime,
        accessTokenFormat: resource === opaqueResource ? "opaque" : "jwt",
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
  rotateRefreshToken: true,
  ttl: { AccessToken: lifetime, ClientCredentials: lifetime, RefreshToken: refreshLifetime, Grant: refreshLifetime },
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
});

async function seed(chains) {
  const client = await provider.Client.find(id);
  return Promise.all(Array.from({ length: chains }, async (_, n) => {
    const accountId = `person-${n}`;
    const grant = new provider.Grant({ accountId, clientId: id });
    grant.addResourceScope(jwtResource, scope);
    const token = new provider.RefreshToken({
      accountId, client, scope, grantId: await grant.save(refreshLifetime), resource: jwtResource, gty: "authorization_code",
      authTime: Math.floor(Date.now() / 1000), acr: "aal1", amr: ["pwd"],
    });
    return token.save();
  }));
}

const protocol = provider.callback();
const server = createServer(async (request, response) => {
  const url = new URL(request.url, issuer);
  switch (url.pathname) {
    case "/readyz":
      response.end();
      break;
    case "/metrics": {
      const { user, system } = process.cpuUsage();
      response.end(`process_cpu_seconds_total ${(user + system) / 1e6}\n`);
      break;
    }
    case "/seed":
      response.end(JSON.stringify(await seed(Number(url.searchParams.get("chains")))));
      break;
    default:
      protocol(request, response);
  }
});
server.keepAliveTimeout = 0; // the benchmark lets connections rest while others have their turn
const [host, port] = address.split(":");
server.listen(Number(port), host, 1024);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit());
