// Drives official XMTP clients for the Go tests of this module.
//
// It reads one JSON request a line from standard input and writes one JSON line for
// each answer and each stream event to standard output; nothing else is written there.
// The SDK is the package named by the first argument, so that one program serves every
// version that package.json installs side by side; the second is the URL of the node.
//
//   {"id":1,"op":"create","client":"alice","key":"0x…","options":{…}}   → client facts
//   {"id":2,"op":"call","on":"alice","path":"conversations.sync","args":[]}
//   {"id":3,"op":"stream","on":"alice","path":"conversations.streamAllMessages","options":{…}}
//   {"id":1,"result":…} | {"id":1,"error":{"name":…,"message":…}} | {"stream":1,"event":…,"value":…}
//
// Arguments are plain JSON, with {"$bytes":base64}, {"$signer":key} and {"$ref":name}
// for what JSON can't say. Answers hold bytes as base64 and bigints as
// decimal strings.

import { createInterface } from "node:readline";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { toBytes } from "viem";

const [sdkName, nodeURL] = process.argv.slice(2);
const sdk = await import(sdkName);
// Version 5 looks inboxes up where its local environment is, whatever apiUrl says.
sdk.ApiUrls.local = nodeURL;

// Everything that a request can name: clients, and results kept with "as".
const objects = new Map();
const streams = new Map();
let streamCount = 0;

const write = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function signerOf(key) {
  const account = privateKeyToAccount(key);
  return {
    type: "EOA",
    getIdentifier: () => ({
      identifier: account.address.toLowerCase(),
      identifierKind: 0,
    }),
    signMessage: async (message) => toBytes(await account.signMessage({ message })),
  };
}

function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return new Uint8Array(Buffer.from(value.$bytes, "base64"));
  if ("$signer" in value) return signerOf(value.$signer);
  if ("$ref" in value) return named(value.$ref);
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, decode(v)]));
}

// The getters of a class instance, which JSON.stringify does not see.
function getters(value) {
  const names = [];
  for (
    let proto = Object.getPrototypeOf(value);
    proto && proto !== Object.prototype;
    proto = Object.getPrototypeOf(proto)
  ) {
    for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(proto))) {
      if (property.get) names.push(name);
    }
  }
  return names;
}

function encode(value) {
  if (value === undefined || value === null) return null;
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object") return value;
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Map) return encode(Object.fromEntries(value));
  if (Array.isArray(value)) return value.map(encode);
  const fields = {};
  for (const name of new Set([...Object.keys(value), ...getters(value)])) {
    const field = value[name];
    if (typeof field !== "function" && field !== undefined) fields[name] = encode(field);
  }
  if (value instanceof sdk.Dm) fields.type = "dm";
  if (value instanceof sdk.Group) fields.type = "group";
  return fields;
}

function named(name) {
  const object = objects.get(name);
  if (object === undefined) throw new Error(`nothing is called ${name}`);
  return object;
}

// The object that a request is about: a conversation of a client, a named object, or
// the SDK module itself.
async function target({ on, conversation }) {
  if (on === undefined) return sdk;
  const object = named(on);
  if (conversation === undefined) return object;
  const found = await object.conversations.getConversationById(conversation);
  if (found === undefined) throw new Error(`${on} has no conversation ${conversation}`);
  return found;
}

async function resolve(request) {
  const names = request.path.split(".");
  let owner = await target(request);
  for (const name of names.slice(0, -1)) owner = owner[name];
  return [owner, owner[names.at(-1)]];
}

function facts(client) {
  return {
    inboxId: client.inboxId,
    installationId: client.installationId,
    isRegistered: client.isRegistered,
  };
}

const operations = {
  hello: () => ({ sdk: sdkName, node: process.version, pid: process.pid }),

  wallet: ({ key = generatePrivateKey() }) => ({
    key,
    address: privateKeyToAccount(key).address.toLowerCase(),
  }),

  async create({ client, key, options }) {
    const created = await sdk.Client.create(signerOf(key), decode(options));
    objects.set(client, created);
    return facts(created);
  },

  async build({ client, address, options }) {
    const built = await sdk.Client.build(
      { identifier: address, identifierKind: 0 },
      decode(options),
    );
    objects.set(client, built);
    return facts(built);
  },

  async call(request) {
    const [owner, member] = await resolve(request);
    const args = (request.args ?? []).map(decode);
    const result = typeof member === "function" ? await member.apply(owner, args) : member;
    if (request.as !== undefined) {
      objects.set(request.as, result);
      return null;
    }
    return encode(result);
  },

  // Queues texts and publishes them together, as an app that was offline does.
  async sendAll(request) {
    const conversation = await target(request);
    const ids = [];
    for (const text of request.texts) {
      ids.push(await conversation.send(sdk.encodeText(text), { shouldPush: true, optimistic: true }));
    }
    await conversation.publishMessages();
    return ids;
  },

  async stream(request) {
    const [owner, open] = await resolve(request);
    const id = ++streamCount;
    const tell = (event) => (value) => write({ stream: id, event, value: encode(value) });
    const stream = await open.call(owner, {
      ...decode(request.options ?? {}),
      onValue: tell("value"),
      onError: (error) => write({ stream: id, event: "error", value: error.message }),
      onFail: tell("fail"),
      onRetry: tell("retry"),
      onRestart: tell("restart"),
      onEnd: tell("end"),
    });
    streams.set(id, stream);
    return { stream: id };
  },

  async end({ stream }) {
    await streams.get(stream).end();
    streams.delete(stream);
    return null;
  },
};

async function answer(line) {
  const request = JSON.parse(line);
  try {
    const operation = operations[request.op];
    if (operation === undefined) throw new Error(`no operation ${request.op}`);
    write({ id: request.id, result: encode(await operation(request)) });
  } catch (error) {
    write({ id: request.id, error: { name: error.name, message: String(error.message ?? error) } });
  }
}

process.on("unhandledRejection", (reason) => console.error("unhandled rejection:", reason));

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void answer(line));
// The driver has gone: a client's native threads would keep the process alive.
lines.on("close", () => process.exit(0));
