// The certified OpenID provider of npm, for one client. `node oidc_provider.mjs PORT CLIENT SECRET CALLBACK AFTER`
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [port, clientId, secret, callback, after] = process.argv.slice(2);
const { resolve } = createRequire(`${process.env.OIDC_PROVIDER_HOME}/package.json`);
const { default: Provider } = await import(pathToFileURL(resolve('oidc-provider')));

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: clientId,
    client_secret: secret,
    redirect_uris: [callback],
    post_logout_redirect_uris: [after],
  }],
  claims: {
    openid: ['sub'], profile: ['preferred_username', 'groups'], email: ['email', 'email_verified'],
  },
  conformIdTokenClaims: true, // groups come from userinfo, as in most providers
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id, preferred_username: id, email: `${id}@example.org`, email_verified: true, groups: ['ml'],
    }),
  }),
});
provider.listen(Number(port), '127.0.0.1');
