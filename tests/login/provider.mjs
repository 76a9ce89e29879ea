// A real OpenID provider on loopback, for the tests of signing in.
//
//   node provider.mjs PORT CLIENT_ID CLIENT_SECRET REDIRECT_URI PEOPLE
//
// PEOPLE is a JSON file of user names to their claims; it is read at each question, so that a test
// can change it. The login page is the package's own, for development: it takes any password.
import { readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const [port, clientId, clientSecret, redirect, people] = process.argv.slice(2);

function find(name) {
  return JSON.parse(readFileSync(people, 'utf8'))[name];
}

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: clientId,
    client_secret: clientSecret,
    redirect_uris: [redirect],
    token_endpoint_auth_method: 'client_secret_post',
    grant_types: ['authorization_code', 'refresh_token'],
  }],
  claims: {
    openid: ['sub'],
    profile: ['preferred_username', 'groups'],
  },
  cookies: { keys: ['only for tests'] },
  findAccount(ctx, name) {
    const claims = find(name);
    return claims && {
      accountId: name,
      claims: () => ({ sub: name, preferred_username: name, ...claims }),
    };
  },
  // nobody is asked whether the Hub may know who they are
  async loadExistingGrant(ctx) {
    const grant = new provider.Grant({
      accountId: ctx.oidc.session.accountId,
      clientId: ctx.oidc.client.clientId,
    });
    grant.addOIDCScope('openid profile');
    await grant.save();
    return grant;
  },
});

provider.listen(Number(port), '127.0.0.1', () => console.log('listens'));
