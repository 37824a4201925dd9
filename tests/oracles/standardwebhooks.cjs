// The JavaScript library of Standard Webhooks, asked by tests: a list of cases as JSON on stdin, a
// list of answers on stdout. It knows no v1a, so that is checked and made by Node's own Ed25519.
const { createPrivateKey, createPublicKey, sign, verify } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { Webhook } = require("standardwebhooks");

const url = (text) => Buffer.from(text, "base64").toString("base64url");
const content = ({ headers, body }) =>
  Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);

const ways = {
  verify: ({ secret, headers, body }) => {
    new Webhook(secret).verify(body, headers);
    return "good";
  },
  sign: ({ secret, id, timestamp, body }) =>
    new Webhook(secret).sign(id, new Date(timestamp * 1000), body),
  verify_v1a: ({ key, ...given }) => {
    const jwk = { kty: "OKP", crv: "Ed25519", x: url(key) };
    const held = createPublicKey({ key: jwk, format: "jwk" });
    const made = given.headers["webhook-signature"].split(" ").filter((one) => one.startsWith("v1a,"));
    const good = made.some((one) => verify(null, content(given), held, Buffer.from(one.slice(4), "base64")));
    return good ? "good" : "No matching signature found";
  },
  sign_v1a: ({ key, public_key, ...given }) => {
    const jwk = { kty: "OKP", crv: "Ed25519", d: url(key), x: url(public_key) };
    const held = createPrivateKey({ key: jwk, format: "jwk" });
    return `v1a,${sign(null, content(given), held).toString("base64")}`;
  },
};

const answer = ({ way, ...given }) => {
  try {
    return ways[way](given);
  } catch (error) {
    return String(error.message);
  }
};
process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(answer)));
